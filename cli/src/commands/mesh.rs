//! `ployzctl mesh`.

use ployz_api::{Code, Failure, MeshInit, MeshInitRequest, Payload, Request};

use super::{machine, unexpected, word_from_stdin};
use crate::arguments::{MeshCommand, MeshInitArguments};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};

pub(crate) fn run(connection: &Connection, command: MeshCommand) -> Outcome {
    match command {
        MeshCommand::Init(arguments) => init(connection, arguments),
        MeshCommand::Join(token) => machine::import(connection, token),
        MeshCommand::Ready => ready(connection),
    }
}

fn init(connection: &Connection, arguments: MeshInitArguments) -> Outcome {
    let name = if arguments.name_stdin {
        let word = word_from_stdin()?;
        word.parse()
            .map_err(|error| Failure::new(Code::InvalidArgument, format!("{error}")))?
    } else {
        arguments.name
    };
    let answer = connection.ask(&Request::MeshInit(MeshInitRequest {
        name,
        cluster_cidr: arguments.cluster_cidr,
        subnet_prefix_len: arguments.subnet_prefix_len,
        endpoints: arguments.endpoint,
    }))?;
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
        text += &format!(
            "\n\nOn the next machine:\n  ployzctl machine invite import --token {}",
            invite.token.expose()
        );
    }
    text
}

fn ready(connection: &Connection) -> Outcome {
    let answer = connection.ask(&Request::Status)?;
    let Some(Payload::Status(status)) = &answer.payload else {
        return Err(unexpected());
    };
    if status.network.is_none() {
        return Err(
            Failure::new(Code::NetworkNotRunning, "this machine is in no network")
                .hint("ployzctl mesh init <name>, or ployzctl machine invite import --token-stdin"),
        );
    }
    if !status.control.connected {
        return Err(
            Failure::new(Code::StoreUnavailable, "the store does not answer")
                .hint("ployzctl status"),
        );
    }
    let text = "ready".to_owned();
    Ok(Success::new(text.clone(), text, answer.payload.as_ref()))
}
