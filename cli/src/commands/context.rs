//! `ployzctl context`: no daemon is asked.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use ployz_api::{Code, Context, Credential, Failure, Name};
use serde_json::{Map, Value, json};

use super::fields;
use crate::arguments::{ContextCommand, ImportArguments};
use crate::connection::Connection;
use crate::contexts::{Contexts, NewFile};
use crate::outcome::{Outcome, Success};
use crate::table::Table;

/// A context has three PEM texts of under 1 KiB each, and at most a handful of endpoints.
const FILE_LEN_MAX: u64 = 64 * 1024;

pub(crate) fn run(connection: &Connection, command: ContextCommand) -> Outcome {
    let path = connection.contexts_path()?;
    let mut contexts = Contexts::read(&path)?;
    match command {
        ContextCommand::Ls => return Ok(list(&contexts)),
        ContextCommand::Show { name } => return show(&contexts, name),
        ContextCommand::Export { name, output } => {
            return export(contexts, name, output);
        }
        ContextCommand::Add { name, credential } => {
            let import = ImportArguments {
                file: credential,
                name: Some(name),
            };
            add(connection, &mut contexts, import)?;
        }
        ContextCommand::Import(import) => add(connection, &mut contexts, import)?,
        ContextCommand::Use { name } => contexts.select(&name)?,
        ContextCommand::Rename { from, to } => contexts.rename(&from, to)?,
        ContextCommand::Rm { name } => contexts.remove(&name)?,
    }
    contexts.write(&path)?;
    Ok(list(&contexts))
}

fn add(
    connection: &Connection,
    contexts: &mut Contexts,
    import: ImportArguments,
) -> Result<(), Failure> {
    let mut context = read(import.file.as_deref())?;
    let endpoints = connection.endpoints()?;
    if !endpoints.is_empty() {
        context.credential.endpoints = endpoints;
    }
    context.name = import.name.unwrap_or(context.name);
    contexts.add(context)
}

/// From a file, or from stdin.
fn read(file: Option<&Path>) -> Result<Context, Failure> {
    let refused = |cause: String| {
        Failure::new(Code::InvalidArgument, format!("not a context: {cause}"))
            .hint("create one: ployzctl credential create --output <file>")
    };
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => std::fs::File::open(file)
            .and_then(|file| file.take(FILE_LEN_MAX).read_to_string(&mut text)),
        None => std::io::stdin()
            .take(FILE_LEN_MAX)
            .read_to_string(&mut text),
    };
    read.map_err(|error| refused(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| refused(error.to_string()))
}

fn list(contexts: &Contexts) -> Success {
    let mut table = Table::new(&["", "NAME", "NETWORK", "ENDPOINTS"]);
    let mut rows = Vec::new();
    for (name, credential) in &contexts.contexts {
        let is_current = contexts.current.as_ref() == Some(name);
        table.row(vec![
            if is_current { "*" } else { " " }.to_owned(),
            name.to_string(),
            credential.network.clone(),
            joined(credential, ", "),
        ]);
        rows.push(Value::Object(described(name, credential, is_current)));
    }
    let text = if rows.is_empty() {
        "no contexts: requests go to the local daemon".to_owned()
    } else {
        table.render()
    };
    Success {
        text,
        payload: fields(json!({"kind": "context-list", "contexts": rows})),
        ..Success::default()
    }
}

fn show(contexts: &Contexts, name: Option<Name>) -> Outcome {
    let name = named(contexts, name)?;
    let Some(credential) = contexts.contexts.get(&name) else {
        let message = format!("no context is named {name}");
        return Err(Failure::new(Code::InvalidArgument, message).hint("ployzctl context ls"));
    };
    let is_current = contexts.current.as_ref() == Some(&name);
    let mut payload = described(&name, credential, is_current);
    payload.insert("kind".to_owned(), "context".into());
    let text = format!(
        "context     {name}{}\nnetwork     {}\nendpoints   {}",
        if is_current {
            ", the current context"
        } else {
            ""
        },
        credential.network,
        joined(credential, "\n            "),
    );
    Ok(Success {
        text,
        payload,
        ..Success::default()
    })
}

fn export(contexts: Contexts, name: Option<Name>, output: Option<PathBuf>) -> Outcome {
    let name = named(&contexts, name)?;
    let credential = contexts.take(&name)?;
    let output = output.map(new_file).transpose()?;
    handed_over(&Context { name, credential }, output)
}

/// Creates the file for a context, before there is a context that would have nowhere to go.
pub(super) fn new_file(path: PathBuf) -> Result<NewFile, Failure> {
    let shown = path.display().to_string();
    NewFile::create(path).map_err(|error| {
        Failure::new(Code::InvalidArgument, format!("{shown}: {error}"))
            .hint("choose another --output")
    })
}

/// Hands a context to its holder: in a file, or on stdout.
pub(super) fn handed_over(context: &Context, output: Option<NewFile>) -> Outcome {
    let internal = |error: serde_json::Error| Failure::new(Code::Internal, error.to_string());
    let text = serde_json::to_string_pretty(context).map_err(internal)?;
    let Some(output) = output else {
        let mut payload = fields(serde_json::to_value(context).map_err(internal)?);
        payload.insert("kind".to_owned(), "context-export".into());
        return Ok(Success {
            text,
            payload,
            ..Success::default()
        });
    };
    let shown = output.path().display().to_string();
    output
        .write(zeroize::Zeroizing::new(text).as_bytes())
        .map_err(|error| Failure::new(Code::Internal, format!("{shown}: {error}")))?;
    Ok(Success {
        message: format!("the context was written to {shown}"),
        text: format!("ployzctl context import {shown}"),
        payload: fields(json!({"kind": "context-export", "file": shown})),
        ..Success::default()
    })
}

fn named(contexts: &Contexts, name: Option<Name>) -> Result<Name, Failure> {
    name.or_else(|| contexts.current.clone()).ok_or_else(|| {
        let message = "no context is current";
        Failure::new(Code::InvalidArgument, message).hint("ployzctl context ls")
    })
}

fn described(name: &Name, credential: &Credential, is_current: bool) -> Map<String, Value> {
    fields(json!({
        "name": name,
        "current": is_current,
        "network": credential.network,
        "endpoints": credential.endpoints,
    }))
}

fn joined(credential: &Credential, separator: &str) -> String {
    let endpoints: Vec<String> = credential
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect();
    endpoints.join(separator)
}
