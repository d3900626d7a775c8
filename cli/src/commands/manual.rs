//! `ployzctl completion` and `ployzctl man`: what a package installs beside the program.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_complete::env::Shells;
use ployz_api::{Code, Failure};
use serde_json::{Map, Value};

use crate::arguments::Arguments;
use crate::outcome::{Outcome, Success};

/// The variable by which a shell has this program complete a line.
pub(crate) const COMPLETE: &str = "PLOYZCTL_COMPLETE";

const PROGRAM: &str = "ployzctl";

/// A script that has the shell ask this program, so that what it offers is what there is.
pub(crate) fn completion(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    let shell = shell.to_string();
    let completer = Shells::builtins();
    let completer = completer.completer(&shell).ok_or_else(|| {
        let message = format!("no completion script exists for {shell}");
        Failure::new(Code::Unsupported, message)
    })?;
    completer
        .write_registration(COMPLETE, PROGRAM, PROGRAM, PROGRAM, &mut script)
        .map_err(failed)?;
    Ok(page("completion", &script))
}

/// The page of the whole program; or, into a directory, one for each of its commands.
pub(crate) fn man(output: Option<&Path>) -> Outcome {
    if let Some(directory) = output {
        let refused = |error: std::io::Error| {
            let message = format!("{}: {error}", directory.display());
            Failure::new(Code::InvalidArgument, message)
        };
        clap_mangen::generate_to(Arguments::command(), directory).map_err(refused)?;
        return Ok(page("man", b"written"));
    }
    let mut text = Vec::new();
    let manual = clap_mangen::Man::new(Arguments::command());
    manual.render(&mut text).map_err(failed)?;
    Ok(page("man", &text))
}

fn page(kind: &str, text: &[u8]) -> Success {
    let text = String::from_utf8_lossy(text).trim_end().to_owned();
    let mut payload = Map::new();
    payload.insert("kind".to_owned(), kind.into());
    payload.insert("text".to_owned(), Value::String(text.clone()));
    Success {
        text,
        payload,
        ..Success::default()
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new(Code::Internal, error.to_string())
}
