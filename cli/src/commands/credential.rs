//! `ployzctl credential`.

use ployz_api::{CredentialId, CredentialRequest, Payload, Request};

use super::{context, date, unexpected};
use crate::arguments::{CredentialCommand, CredentialCreateArguments};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::table::Table;

pub(crate) fn run(connection: &Connection, command: CredentialCommand) -> Outcome {
    match command {
        CredentialCommand::Create(arguments) => create(connection, arguments),
        CredentialCommand::List => list(connection),
        CredentialCommand::Revoke { credential_id } => revoke(connection, credential_id),
    }
}

fn create(connection: &Connection, arguments: CredentialCreateArguments) -> Outcome {
    let output = arguments.output.map(context::new_file).transpose()?;
    let answer = connection.ask(&Request::CredentialCreate(CredentialRequest {
        role: arguments.role.into(),
        // Less than a second is a second: nothing that is asked for is for ever by mistake.
        ttl_secs: arguments.ttl.map(|ttl| ttl.as_secs().max(1)),
        name: arguments.name,
    }))?;
    let Some(Payload::Credential(credential)) = &answer.payload else {
        return Err(unexpected());
    };
    let Some(output) = output else {
        let text = context::handed_over(&credential.context, None)?.text;
        return Ok(Success::new(answer.message, text, answer.payload.as_ref()));
    };
    let id = credential.credential_id;
    let shown = output.path().display().to_string();
    let mut handed_over = context::handed_over(&credential.context, Some(output))
        .map_err(|failure| failure.hint(format!("ployzctl credential revoke {id}")))?;
    handed_over.text = format!(
        "credential  {id}\nexpires     {}\n\nThe holder of {} uses it with\n  {}",
        credential
            .expires_at
            .map_or_else(|| "never".to_owned(), date),
        shown,
        handed_over.text
    );
    let payload = &mut handed_over.payload;
    payload.insert("kind".to_owned(), "credential".into());
    payload.insert("credential_id".to_owned(), id.to_string().into());
    payload.insert("role".to_owned(), credential.role.name().into());
    payload.insert("expires_at".to_owned(), credential.expires_at.into());
    Ok(handed_over)
}

fn list(connection: &Connection) -> Outcome {
    let answer = connection.ask(&Request::CredentialList)?;
    let Some(Payload::CredentialList(list)) = &answer.payload else {
        return Err(unexpected());
    };
    let mut table = Table::new(&["CREDENTIAL", "NAME", "ROLE", "STATUS", "CREATED", "EXPIRES"]);
    for row in &list.credentials {
        table.row(vec![
            row.credential_id.to_string(),
            row.name
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            row.role.name().to_owned(),
            row.status.to_string(),
            date(row.created_at),
            row.expires_at.map(date).unwrap_or_default(),
        ]);
    }
    let text = if list.credentials.is_empty() {
        "no credentials".to_owned()
    } else {
        table.render()
    };
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn revoke(connection: &Connection, credential_id: CredentialId) -> Outcome {
    let answer = connection.ask(&Request::CredentialRevoke { credential_id })?;
    let text = answer.message.clone();
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}
