//! `ployzctl machine`.

use std::time::Duration;

use ployz_api::{InviteRequest, MachineInspect, MachineList, MachineRow, Payload, Request, Secret};

use super::{
    date, import_on_next, lifecycle, provision, remove, rtt, send, storage, unexpected, update,
    word_from_stdin,
};
use crate::arguments::{
    InviteCommand, ListArguments, MachineCommand, TermsArguments, TokenArguments,
};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::printer::Printer;
use crate::table::Table;

/// How often a watched list is asked for: views change no faster than machines report, every 10 s.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

pub(crate) fn run(connection: &Connection, printer: &Printer, command: MachineCommand) -> Outcome {
    match command {
        MachineCommand::Ls(ListArguments { wide, watch: true }) => {
            watch(connection, printer, || list(connection, wide))
        }
        MachineCommand::Ls(ListArguments { wide, .. }) => list(connection, wide),
        MachineCommand::Inspect { machine } => inspect(connection, machine),
        MachineCommand::Rename { machine, name } => {
            send(connection, &Request::MachineRename { machine, name })
        }
        MachineCommand::Label { machine, labels } => {
            let labels = labels.into_iter().map(|it| (it.key, it.value)).collect();
            send(connection, &Request::MachineLabel { machine, labels })
        }
        MachineCommand::Rtt(arguments) if arguments.watch => {
            watch(connection, printer, || rtt::run(connection, &arguments))
        }
        MachineCommand::Rtt(arguments) => rtt::run(connection, &arguments),
        MachineCommand::Activate { machine } => lifecycle::activate(connection, machine),
        MachineCommand::Drain(arguments) => lifecycle::drain(connection, arguments),
        MachineCommand::Standby(arguments) => lifecycle::standby(connection, arguments),
        MachineCommand::Init(arguments) => provision::init(connection, &arguments),
        MachineCommand::Add(arguments) => provision::add(connection, &arguments),
        MachineCommand::Update(arguments) => update::run(connection, arguments),
        MachineCommand::Storage(command) => storage::run(connection, command),
        MachineCommand::Rm(arguments) => remove::run(connection, arguments),
        MachineCommand::Invite(InviteCommand::Create { ttl_secs, terms }) => {
            create(connection, ttl_secs, terms)
        }
        MachineCommand::Invite(InviteCommand::List { all }) => invites(connection, all),
        MachineCommand::Invite(InviteCommand::Revoke { invite_id }) => {
            send(connection, &Request::InviteRevoke { invite_id })
        }
        MachineCommand::Invite(InviteCommand::Import(token)) => import(connection, token),
    }
}

/// Joins a network; also `mesh join`.
pub(super) fn import(connection: &Connection, arguments: TokenArguments) -> Outcome {
    let token = Secret::new(match arguments.token {
        Some(token) => token,
        None => word_from_stdin()?,
    });
    let answer = connection.ask(&Request::InviteImport { token })?;
    let Some(Payload::MachineJoin(join)) = &answer.payload else {
        return Err(unexpected());
    };
    let text = format!(
        "{} ({}) in network {}: {}\noverlay     {}",
        join.name, join.id, join.network, join.status, join.overlay_ip
    );
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn list(connection: &Connection, wide: bool) -> Outcome {
    let answer = connection.ask(&Request::MachineList)?;
    let Some(Payload::MachineList(list)) = &answer.payload else {
        return Err(unexpected());
    };
    Ok(Success::new(
        answer.message,
        listed(list, wide),
        answer.payload.as_ref(),
    ))
}

/// Prints the table again and again, until an interrupt or the end of the daemon.
fn watch(connection: &Connection, printer: &Printer, list: impl Fn() -> Outcome) -> Outcome {
    printer.begin_stream();
    loop {
        let listed = list()?;
        printer.print_again(&Ok(listed));
        if !connection.pause(WATCH_INTERVAL) {
            return Ok(Success::default());
        }
    }
}

fn listed(list: &MachineList, wide: bool) -> String {
    if list.rows.is_empty() {
        return "no machines".to_owned();
    }
    let mut heading = vec![
        "NAME",
        "LIFECYCLE",
        "AUTHORITY",
        "REGION ROLE",
        "OVERLAY IP",
        "REACHABLE",
        "ID",
    ];
    if wide {
        heading.extend([
            "REGION",
            "AZ",
            "WORKLOADS",
            "SUBNET",
            "OVERLAY IP6",
            "VERSION",
            "HANDSHAKE",
            "CREATED",
        ]);
    }
    let mut table = Table::new(&heading);
    for row in &list.rows {
        table.row(cells(row, wide));
    }
    let mut text = table.render();
    if list.stale {
        text += &format!(
            "\nthe store does not answer: this view is {} s old",
            list.view_age_secs
        );
    }
    text
}

fn cells(row: &MachineRow, wide: bool) -> Vec<String> {
    let mut cells = vec![
        row.name.to_string(),
        row.lifecycle.to_string(),
        row.authority.to_string(),
        row.region_role.to_string(),
        row.overlay_ip.to_string(),
        if row.reachable { "yes" } else { "no" }.to_owned(),
        row.id.to_string(),
    ];
    if wide {
        let handshake = row.handshake_age_secs.map(|age| format!("{age} s ago"));
        cells.extend([
            row.region.clone(),
            row.availability_zone.clone().unwrap_or_default(),
            row.workloads.to_string(),
            row.subnet
                .map(|subnet| subnet.to_string())
                .unwrap_or_default(),
            row.overlay_ip6.to_string(),
            row.version.clone().unwrap_or_default(),
            handshake.unwrap_or_default(),
            date(row.created_at),
        ]);
    }
    cells
}

fn inspect(connection: &Connection, machine: String) -> Outcome {
    let answer = connection.ask(&Request::MachineInspect { machine })?;
    let Some(Payload::MachineInspect(inspect)) = &answer.payload else {
        return Err(unexpected());
    };
    Ok(Success::new(
        answer.message,
        inspected(inspect),
        answer.payload.as_ref(),
    ))
}

fn inspected(inspect: &MachineInspect) -> String {
    let row = &inspect.machine;
    let age =
        |secs: Option<u64>| secs.map_or_else(|| "never".to_owned(), |secs| format!("{secs} s ago"));
    let observed = inspect.observed.as_ref().map_or_else(
        || "not yet reported".to_owned(),
        |observed| format!("{observed:#}"),
    );
    format!(
        "{} ({})\n\ndesired\n{:#}\n\nobserved, {}\n{observed}\n\nfrom here\nendpoint    {}\nhandshake   {}\nreceived    {} B\nsent        {} B",
        row.name,
        row.id,
        inspect.desired,
        age(row.observed_age_secs),
        inspect
            .endpoint
            .map_or_else(|| "—".to_owned(), |it| it.to_string()),
        age(row.handshake_age_secs),
        inspect.rx_bytes.unwrap_or(0),
        inspect.tx_bytes.unwrap_or(0),
    )
}

fn create(connection: &Connection, ttl_secs: u64, terms: TermsArguments) -> Outcome {
    let answer = connection.ask(&Request::InviteCreate(InviteRequest {
        ttl_secs,
        name: terms.name,
        region: terms.region,
        labels: terms.labels.into_iter().collect(),
        standby: false,
    }))?;
    let Some(Payload::Invite(invite)) = &answer.payload else {
        return Err(unexpected());
    };
    let text = format!(
        "invite      {}\nexpires     {} UTC\n\n{}",
        invite.invite_id,
        date(invite.expires_at),
        import_on_next(&invite.token)
    );
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn invites(connection: &Connection, all: bool) -> Outcome {
    let answer = connection.ask(&Request::InviteList { all })?;
    let Some(Payload::InviteList(list)) = &answer.payload else {
        return Err(unexpected());
    };
    let mut table = Table::new(&["INVITE", "STATUS", "CREATED", "EXPIRES", "CONSUMED BY"]);
    for invite in &list.invites {
        table.row(vec![
            invite.invite_id.to_string(),
            invite.status.to_string(),
            date(invite.created_at),
            date(invite.expires_at),
            invite
                .consumed_by
                .map(|id| id.to_string())
                .unwrap_or_default(),
        ]);
    }
    let text = if list.invites.is_empty() {
        "no invites".to_owned()
    } else {
        table.render()
    };
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}
