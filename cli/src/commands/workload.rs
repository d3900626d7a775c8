//! `ployzctl deploy` and `workload`.

use ployz_api::{
    DeployRequest, Destination, Failure, Payload, Program, Request, Secret, WorkloadInspect,
    WorkloadName, WorkloadRow, WorkloadSpec, text,
};

use super::{date, send, unexpected};
use crate::arguments::{DeployCommand, ServiceArguments, WorkloadCommand};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::table::Table;

/// A tab of a workload's output, which is one line whatever is in it.
const TAB: &str = "    ";

pub(crate) fn deploy(connection: &Connection, command: DeployCommand) -> Outcome {
    let DeployCommand::Service(arguments) = command;
    let ServiceArguments {
        name,
        namespace,
        program,
        machine,
        env,
        publish,
        volumes,
        privileged,
    } = arguments;
    let program = match (program.image, program.exec) {
        (Some(image), _) => Program::Image(image),
        (None, command) => Program::Exec(command.unwrap_or_default()),
    };
    let env = env
        .into_iter()
        .map(|(name, value)| (name, Secret::new(value)));
    let request = Request::WorkloadDeploy(DeployRequest {
        workload: WorkloadName { namespace, name },
        machine,
        privileged,
        spec: WorkloadSpec {
            program,
            env: env.collect(),
            volumes: volumes.into_iter().collect(),
            publish,
        },
    });
    send(connection, &request)
}

pub(crate) fn run(connection: &Connection, command: WorkloadCommand) -> Outcome {
    match command {
        WorkloadCommand::Ls { machine } => list(connection, machine.as_deref()),
        WorkloadCommand::Inspect { workload } => inspect(connection, workload),
        WorkloadCommand::Logs { workload, lines } => logs(connection, workload, lines),
        WorkloadCommand::Rm { workload } => send(connection, &Request::WorkloadRemove { workload }),
    }
}

fn list(connection: &Connection, machine: Option<&str>) -> Outcome {
    let mut rows = rows(connection)?;
    if let Some(wanted) = machine {
        let id = selected(connection, wanted)?;
        rows.retain(|row| row.machine_id.to_string() == id);
    }
    let mut table = Table::new(&["WORKLOAD", "MACHINE", "STATE", "ID"]);
    for row in &rows {
        table.row(vec![
            row.workload.to_string(),
            row.machine.to_string(),
            row.state.to_string(),
            row.id.to_string(),
        ]);
    }
    let text = if rows.is_empty() {
        "no workloads".to_owned()
    } else {
        table.render()
    };
    let payload = Payload::WorkloadList(ployz_api::WorkloadList { rows });
    Ok(Success::new(String::new(), text, Some(&payload)))
}

fn rows(connection: &Connection) -> Result<Vec<WorkloadRow>, Failure> {
    let answer = connection.ask(&Request::WorkloadList)?;
    let Some(Payload::WorkloadList(list)) = answer.payload else {
        return Err(unexpected());
    };
    Ok(list.rows)
}

fn selected(connection: &Connection, machine: &str) -> Result<String, Failure> {
    let machine = machine.to_owned();
    let answer = connection.ask(&Request::MachineInspect { machine })?;
    let Some(Payload::MachineInspect(inspect)) = answer.payload else {
        return Err(unexpected());
    };
    Ok(inspect.machine.id.to_string())
}

fn inspect(connection: &Connection, workload: WorkloadName) -> Outcome {
    let answer = connection.ask(&Request::WorkloadInspect { workload })?;
    let Some(Payload::WorkloadInspect(inspect)) = &answer.payload else {
        return Err(unexpected());
    };
    let text = inspected(inspect);
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn inspected(inspect: &WorkloadInspect) -> String {
    let row = &inspect.workload;
    let mut text = format!(
        "{} ({})\nmachine     {}\nstate       {}\nplaced      {} UTC\n{:<11} {}",
        row.workload,
        row.id,
        row.machine,
        row.state,
        date(inspect.created_at),
        if matches!(inspect.program, Program::Image(_)) {
            "image"
        } else {
            "command"
        },
        text::line(&inspect.program.to_string())
    );
    if inspect.privileged {
        text += "\nprivileged  root of the machine, without a sandbox";
    }
    for name in &inspect.env {
        text += &format!("\nenv         {name}");
    }
    for (name, path) in &inspect.volumes {
        text += &format!("\nvolume      {name} at {path}");
    }
    for port in &inspect.publish {
        text += &format!("\npublishes   {} as {}", port.workload, port.machine);
    }
    text
}

/// The machine that runs it has them.
fn logs(connection: &Connection, workload: WorkloadName, lines: u32) -> Outcome {
    let machine = machine_of(connection, &workload)?;
    let request = Request::WorkloadLogs { workload, lines };
    let answer = connection.ask_of(Destination::Machine(machine), &request)?;
    let Some(Payload::WorkloadLogs(logs)) = &answer.payload else {
        return Err(unexpected());
    };
    let shown = logs.lines.iter();
    let shown = shown.map(|line| text::line(&line.replace('\t', TAB)).into_owned());
    let text = shown.collect::<Vec<_>>().join("\n");
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn machine_of(connection: &Connection, workload: &WorkloadName) -> Result<String, Failure> {
    let rows = rows(connection)?;
    let found = rows.iter().find(|row| row.workload == *workload);
    found.map(|row| row.machine_id.to_string()).ok_or_else(|| {
        let message = format!("no machine runs a workload {workload}");
        Failure::new(ployz_api::Code::WorkloadNotFound, message).hint("ployzctl workload ls")
    })
}
