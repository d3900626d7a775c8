//! `ployzctl mesh`.

use ployz_api::{
    Code, Failure, MachineRecordShown, MeshInit, MeshInitRequest, MeshList, MeshReady, MeshRow,
    MeshStatus, Name, NetworkState, Payload, Request, Status,
};

use super::{import_on_next, machine, send, unexpected, word_from_stdin};
use crate::arguments::{MeshCommand, MeshInitArguments};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::table::Table;

/// Three listings of the store, which come every 20 s, have been missed by then.
const VIEW_AGE_SECS_MAX: u64 = 60;

pub(crate) fn run(connection: &Connection, command: MeshCommand) -> Outcome {
    match command {
        MeshCommand::Init(arguments) => begin(connection, &Request::MeshInit(drawn_up(arguments)?)),
        MeshCommand::Create(arguments) => {
            begin(connection, &Request::MeshCreate(drawn_up(arguments)?))
        }
        MeshCommand::Start => begin(connection, &Request::MeshStart),
        MeshCommand::Stop { force } => send(connection, &Request::MeshStop { force }),
        MeshCommand::Destroy { name, force } => {
            send(connection, &Request::MeshDestroy { name, force })
        }
        MeshCommand::Join(token) => machine::import(connection, token),
        MeshCommand::List => list(connection),
        MeshCommand::Status { name } => status(connection, name),
        MeshCommand::Ready => ready(connection),
        MeshCommand::SelfRecord => self_record(connection),
    }
}

fn drawn_up(arguments: MeshInitArguments) -> Result<MeshInitRequest, Failure> {
    let name = if arguments.name_stdin {
        let word = word_from_stdin()?;
        word.parse()
            .map_err(|error| Failure::new(Code::InvalidArgument, format!("{error}")))?
    } else {
        arguments.name
    };
    Ok(MeshInitRequest {
        name,
        cluster_cidr: arguments.cluster_cidr,
        subnet_prefix_len: arguments.subnet_prefix_len,
        wg_port: arguments.wg_port,
        endpoints: arguments.endpoint,
    })
}

fn begin(connection: &Connection, request: &Request) -> Outcome {
    let answer = connection.ask(request)?;
    let Some(Payload::MeshInit(mesh)) = &answer.payload else {
        return Err(unexpected());
    };
    let text = founded(&answer.message, mesh);
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn founded(message: &str, mesh: &MeshInit) -> String {
    let mut text = format!(
        "{message}\nmachine     {} ({})\noverlay     {}\n            {}\nsubnet      {}",
        mesh.name, mesh.id, mesh.overlay_ip, mesh.overlay_ip6, mesh.subnet
    );
    if let Some(invite) = &mesh.invite {
        text += &format!("\n\n{}", import_on_next(&invite.token));
    }
    text
}

fn list(connection: &Connection) -> Outcome {
    let status = daemon_status(connection)?;
    let rows: Vec<MeshRow> = row(&status).into_iter().collect();
    let mut table = Table::new(&["NAME", "STATE", "ID"]);
    for row in &rows {
        table.row(vec![
            row.name.to_string(),
            row.state.to_string(),
            row.id.to_string(),
        ]);
    }
    let text = if rows.is_empty() {
        "no networks".to_owned()
    } else {
        table.render()
    };
    let payload = Payload::MeshList(MeshList { rows });
    Ok(Success::new(String::new(), text, Some(&payload)))
}

fn row(status: &Status) -> Option<MeshRow> {
    Some(MeshRow {
        name: status.network.clone()?,
        id: status.network_id?,
        state: status.network_state?,
    })
}

/// The network that the daemon knows of.
fn known(status: &Status) -> Result<MeshRow, Failure> {
    row(status).ok_or_else(|| {
        Failure::new(Code::NetworkNotRunning, "this machine is not in a network")
            .hint("ployzctl mesh init <name>, or ployzctl machine invite import --token-stdin")
    })
}

fn status(connection: &Connection, name: Option<Name>) -> Outcome {
    let status = daemon_status(connection)?;
    let MeshRow {
        name: own,
        id,
        state,
    } = known(&status)?;
    if let Some(name) = name.filter(|name| *name != own) {
        let message = format!("this machine is in network {own}, not {name}");
        return Err(Failure::new(Code::NetworkMismatch, message).hint("ployzctl mesh list"));
    }
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "—".to_owned());
    let text = format!(
        "network     {own} ({id})\nstate       {state}\noverlay     {}\n            {}\nlifecycle   {}\nstore       {}\nview        {} machines, confirmed {} s ago",
        or_dash(status.overlay_ip.map(|it| it.to_string())),
        or_dash(status.overlay_ip6.map(|it| it.to_string())),
        or_dash(status.lifecycle.map(|it| it.to_string())),
        if status.control.connected {
            "connected"
        } else {
            "not connected"
        },
        status.control.machines,
        or_dash(status.control.view_age_secs.map(|age| age.to_string())),
    );
    let payload = Payload::MeshStatus(Box::new(MeshStatus {
        network: own,
        network_id: id,
        state,
        overlay_ip: status.overlay_ip,
        overlay_ip6: status.overlay_ip6,
        lifecycle: status.lifecycle,
        storage: status.storage,
        control: status.control,
    }));
    Ok(Success::new(String::new(), text, Some(&payload)))
}

/// The daemon answers with what its data plane says, so that one which hangs is not ready either.
fn ready(connection: &Connection) -> Outcome {
    let status = daemon_status(connection)?;
    let MeshRow { name, state, .. } = known(&status)?;
    if state != NetworkState::Running {
        let message = format!("network {name} is {state} here");
        return Err(Failure::new(Code::NetworkNotRunning, message).hint("ployzctl mesh start"));
    }
    let unavailable =
        |message: String| Failure::new(Code::StoreUnavailable, message).hint("ployzctl status");
    if !status.control.connected {
        return Err(unavailable("the store does not answer".to_owned()));
    }
    let view_age_secs = status.control.view_age_secs.unwrap_or(u64::MAX);
    if view_age_secs > VIEW_AGE_SECS_MAX {
        let message = format!("the store last confirmed the view {view_age_secs} s ago");
        return Err(unavailable(message));
    }
    let payload = Payload::MeshReady(MeshReady {
        ready: true,
        network: name,
        view_age_secs,
    });
    let text = "ready".to_owned();
    Ok(Success::new(text.clone(), text, Some(&payload)))
}

fn self_record(connection: &Connection) -> Outcome {
    let status = daemon_status(connection)?;
    let machine = status.id.to_string();
    let answer = connection.ask(&Request::MachineInspect { machine })?;
    let Some(Payload::MachineInspect(inspect)) = answer.payload else {
        return Err(unexpected());
    };
    let text = format!("{:#}", inspect.desired);
    let payload = Payload::MeshSelfRecord(MachineRecordShown {
        record: inspect.desired,
    });
    Ok(Success::new(answer.message, text, Some(&payload)))
}

fn daemon_status(connection: &Connection) -> Result<Status, Failure> {
    match connection.ask(&Request::Status)?.payload {
        Some(Payload::Status(status)) => Ok(*status),
        Some(_) | None => Err(unexpected()),
    }
}
