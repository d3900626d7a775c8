//! `ployzctl machine init` and `machine add`.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use ployz_api::{Code, Context, Failure, Payload, Request};
use serde_json::{Value, json};

use super::unexpected;
use crate::arguments::{AddArguments, InitArguments, ProvisionArguments, ServiceMode, Target};
use crate::connection::{Connection, block_on};
use crate::contexts::Contexts;
use crate::outcome::{Outcome, Success};
use crate::provision::{Joined, Ledger, Plan, Source, Stopped};

/// Turns one host into a machine, which founds the network if there is none.
pub(crate) fn init(connection: &Connection, arguments: &InitArguments) -> Outcome {
    let targets = [arguments.target.clone()];
    if has_network(connection)? {
        return add_all(connection, &targets, &arguments.provision);
    }
    let source = checked(&arguments.provision, &targets)?;
    let plan = Plan {
        arguments: &arguments.provision,
        source: &source,
        connection,
        ledger: &Ledger::private(connection.notes()),
        founds: true,
    };
    let mut made = block_on(plan.make(&arguments.target));
    let credential = made
        .as_mut()
        .ok()
        .and_then(|joined| joined.credential.take());
    let kept = credential.map(|credential| {
        let name = arguments.provision.network.clone();
        let credential = credential.context.credential;
        keep_context(connection, Context { name, credential })
    });
    let lost = kept.and_then(Result::err).map(|failure| {
        format!("no context was written: {failure}; to make one, run on the new machine: ployzctl credential create --role admin")
    });
    let made = vec![(arguments.target.clone(), made)];
    Ok(report(None, made, lost.into_iter().collect()))
}

/// Several, for a network that is there.
pub(crate) fn add(connection: &Connection, arguments: &AddArguments) -> Outcome {
    add_all(connection, &arguments.targets, &arguments.provision)
}

fn add_all(connection: &Connection, targets: &[Target], arguments: &ProvisionArguments) -> Outcome {
    let source = checked(arguments, targets)?;
    block_on(async {
        let (ledger, reporter) = Ledger::open(connection, &arguments.network, targets).await?;
        let operation = ledger.operation();
        let making = async {
            let plan = Plan {
                arguments,
                source: &source,
                connection,
                ledger: &ledger,
                founds: false,
            };
            let making = targets
                .iter()
                .map(async |target| (target.clone(), plan.make(target).await));
            let made = join_all(making).await;
            let failure = made.iter().find_map(|(_, made)| made.as_ref().err());
            let failure = failure.map(|stopped| stopped.failure.clone());
            let warnings = ledger.close(failure.as_ref()).await;
            (made, warnings)
        };
        let ((made, mut warnings), lost) = tokio::join!(making, reporter.run());
        warnings
            .extend(lost.map(|it| format!("progress could not be reported to the network: {it}")));
        Ok(report(operation, made, warnings))
    })
}

/// Tells whether the daemon is in a network; without a daemon there is none.
fn has_network(connection: &Connection) -> Result<bool, Failure> {
    if !connection.has_daemon() {
        return Ok(false);
    }
    match connection.ask(&Request::Status)?.payload {
        Some(Payload::Status(status)) => Ok(status.network.is_some()),
        Some(_) | None => Err(unexpected()),
    }
}

/// Everything that can be wrong before a host is touched.
fn checked(arguments: &ProvisionArguments, targets: &[Target]) -> Result<Source, Failure> {
    let refused = |message: String| Err(Failure::new(Code::InvalidArgument, message));
    let distinct: BTreeSet<&str> = targets.iter().map(Target::host).collect();
    if distinct.len() != targets.len() {
        return refused("the same host is given twice".to_owned());
    }
    if targets.len() > 1 && (arguments.terms.name.is_some() || !arguments.wg_endpoint.is_empty()) {
        return refused("--name and --wg-endpoint apply to a single host".to_owned());
    }
    if arguments.service_mode == ServiceMode::User {
        let message =
            "the daemon needs root to create its TUN device: --service-mode user is not supported";
        return Err(Failure::new(Code::Unsupported, message).hint("--service-mode system"));
    }
    if let Some(identity) = arguments.identity.as_deref().filter(|path| !path.is_file()) {
        return refused(format!("--identity: {} does not exist", identity.display()));
    }
    Source::chosen(arguments)
}

/// Keeps what is needed to ask the new network, under its name.
fn keep_context(connection: &Connection, context: Context) -> Result<(), Failure> {
    let path = connection.contexts_path()?;
    let mut contexts = Contexts::read(&path)?;
    contexts.add(context)?;
    contexts.write(&path)
}

fn report(
    operation: Option<ployz_api::OperationId>,
    made: Vec<(Target, Result<Joined, Stopped>)>,
    warnings: Vec<String>,
) -> Success {
    let (mut joined, mut failed, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for (target, made) in &made {
        match made {
            Ok(machine) => {
                joined.push(machine.row());
                lines.push(machine.line());
            }
            Err(stopped) => {
                failed.push(failed_row(target, stopped));
                lines.push(failed_line(target, stopped));
            }
        }
    }
    lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    let message = format!(
        "{} of {} hosts are machines of the network",
        joined.len(),
        made.len()
    );
    let stopped = made.iter().find_map(|(_, made)| made.as_ref().err());
    let payload = json!({
        "kind": "machine-add",
        "operation_id": operation,
        "joined": joined,
        "failed": failed,
        "warnings": warnings,
    });
    let Value::Object(payload) = payload else {
        unreachable!("it is written as an object")
    };
    Success {
        message,
        text: lines.join("\n"),
        payload,
        partial: stopped.map(|stopped| stopped.failure.code),
        ..Success::default()
    }
}

fn failed_row(target: &Target, stopped: &Stopped) -> Value {
    json!({
        "target": target.as_str(),
        "stage": stopped.stage.name(),
        "code": stopped.failure.code,
        "message": stopped.failure.message,
        "hint": stopped.failure.hint,
    })
}

fn failed_line(target: &Target, Stopped { stage, failure }: &Stopped) -> String {
    let hint = failure.hint.as_ref();
    let hint = hint
        .map(|hint| format!("\n  hint: {hint}"))
        .unwrap_or_default();
    format!(
        "{target}  failed in {stage} [{}]: {failure}{hint}",
        failure.code
    )
}
