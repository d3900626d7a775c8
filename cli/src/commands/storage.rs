//! `ployzctl machine storage`.

use ployz_api::{
    Code, FailedPromotion, MachineId, Payload, Request, StorageList, StoragePromotion,
    StorageRequest, WorkState,
};

use super::unexpected;
use super::update::watch;
use crate::arguments::{StorageArguments, StorageCommand};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::table::Table;

pub(crate) fn run(connection: &Connection, command: StorageCommand) -> Outcome {
    match command {
        StorageCommand::Promote {
            arguments,
            replicas,
        } => {
            let request = request(arguments, Some(replicas));
            change(connection, &Request::StoragePromote(request))
        }
        StorageCommand::Demote {
            arguments,
            replicas,
        } => change(
            connection,
            &Request::StorageDemote(request(arguments, replicas)),
        ),
        StorageCommand::Ls => list(connection),
    }
}

fn request(arguments: StorageArguments, replicas: Option<u32>) -> StorageRequest {
    StorageRequest {
        machines: arguments.machines,
        replicas,
        dry_run: arguments.dry_run,
    }
}

/// Starts a change of the store, which the daemon carries out, watched or not.
fn change(connection: &Connection, request: &Request) -> Outcome {
    let answer = connection.ask(request)?;
    let Some(Payload::StoragePromotion(mut promotion)) = answer.payload else {
        return Err(unexpected());
    };
    let mut message = answer.message;
    if let Some(operation_id) = promotion.operation_id {
        let row = watch(connection, operation_id)?;
        message = "store change complete".to_owned();
        if row.state != WorkState::Done {
            let cause = row.code.unwrap_or(Code::Internal);
            promotion.failed = failed(&promotion, cause, &row.message);
            promotion.promoted.clear();
            promotion.demoted.clear();
            message = format!("{}; next: {}", row.message, row.next);
        }
    }
    let partial = promotion.failed.first().map(|it| it.cause);
    let text = format!("{message}\n{}", described(&promotion));
    let payload = Payload::StoragePromotion(promotion);
    Ok(Success {
        partial,
        ..Success::new(message, text, Some(&payload))
    })
}

/// A change is done to all of them or to none.
fn failed(promotion: &StoragePromotion, cause: Code, message: &str) -> Vec<FailedPromotion> {
    let concerned = promotion.promoted.iter().chain(&promotion.demoted);
    let failed = concerned.map(|machine_id| FailedPromotion {
        machine_id: *machine_id,
        cause,
        message: message.to_owned(),
    });
    failed.collect()
}

fn described(promotion: &StoragePromotion) -> String {
    let ids = |ids: &[MachineId]| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        ids.join(" ")
    };
    let mut lines = vec![format!("replicas    {}", promotion.replicas)];
    for (what, machines) in [
        ("promoted", &promotion.promoted),
        ("demoted", &promotion.demoted),
        ("unchanged", &promotion.unchanged),
    ] {
        if !machines.is_empty() {
            lines.push(format!("{what:<11} {}", ids(machines)));
        }
    }
    for failed in &promotion.failed {
        lines.push(format!(
            "failed      {} [{}]: {}",
            failed.machine_id, failed.cause, failed.message
        ));
    }
    if promotion.operation_id.is_none() {
        let steps = promotion.plan.iter().enumerate();
        lines.extend(steps.map(|(at, step)| format!("step {}      {step}", at + 1)));
    }
    lines.join("\n")
}

fn list(connection: &Connection) -> Outcome {
    let answer = connection.ask(&Request::StorageList)?;
    let Some(Payload::StorageList(list)) = &answer.payload else {
        return Err(unexpected());
    };
    let text = listed(list);
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn listed(list: &StorageList) -> String {
    let mut table = Table::new(&[
        "NAME", "ROLE", "LEADER", "CURRENT", "LAG", "DISK", "STREAMS", "ID",
    ]);
    let yes_or_no = |it: bool| if it { "yes" } else { "no" }.to_owned();
    for row in &list.rows {
        let number = |it: Option<u64>| it.map_or_else(|| "-".to_owned(), |it| it.to_string());
        table.row(vec![
            row.name.to_string(),
            row.role.to_string(),
            yes_or_no(row.leader),
            row.current.map_or_else(|| "-".to_owned(), yes_or_no),
            number(row.lag),
            number(row.disk),
            number(row.streams.map(u64::from)),
            row.id.to_string(),
        ]);
    }
    format!(
        "{}\nthe store has {} replicas",
        table.render(),
        list.replicas
    )
}
