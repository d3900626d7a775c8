//! `ployzctl daemon`: the daemon as a service of this machine.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ployz_api::{Code, Failure};
use ployz_install::{Base, Installed, Layout, Programs, Settings, Version, Wanted, write_units};
use serde_json::json;

use super::fields;
use crate::arguments::{DaemonCommand, InstallArguments, ServiceMode};
use crate::outcome::{Outcome, Success};

pub(crate) fn run(command: DaemonCommand) -> Outcome {
    match command {
        DaemonCommand::Install(arguments) => install(*arguments),
        DaemonCommand::Uninstall { force } => uninstall(force),
        DaemonCommand::Units { output } => units(&output),
    }
}

fn install(arguments: InstallArguments) -> Outcome {
    if arguments.service_mode == ServiceMode::User {
        return Err(no_user_mode());
    }
    refuse_others_than_root()?;
    let runtime = arguments.runtime.name();
    let wanted = Wanted {
        version: Version::own(),
        programs: Programs::that_run()?,
        release_key: arguments.release_key.clone(),
        settings: settings(arguments)?,
    };
    let installed = Layout::system().install_service(&wanted)?;
    let text = described(&wanted.version, &installed);
    Ok(Success {
        message: text.clone(),
        text,
        payload: fields(json!({
            "kind": "daemon-install",
            "version": wanted.version.to_string(),
            "from": installed.from.map(|it| it.to_string()),
            "runtime": runtime,
            "service_mode": "system",
            "changed": installed.changed,
        })),
        ..Success::default()
    })
}

fn uninstall(force: bool) -> Outcome {
    refuse_others_than_root()?;
    Layout::system().uninstall_service(force)?;
    let text = "ployz was removed from this machine".to_owned();
    Ok(Success {
        message: text.clone(),
        text,
        payload: fields(json!({"kind": "daemon-uninstall", "force": force})),
        ..Success::default()
    })
}

fn units(output: &Path) -> Outcome {
    write_units(output)?;
    let text = format!(
        "the units of version {} were written to {}",
        Version::own(),
        output.display()
    );
    Ok(Success {
        message: text.clone(),
        text,
        payload: fields(json!({"kind": "daemon-units", "output": output})),
        ..Success::default()
    })
}

fn settings(arguments: InstallArguments) -> Result<Settings, Failure> {
    Ok(Settings {
        runtime: arguments.runtime.name().to_owned(),
        name: arguments.name,
        region: arguments.region,
        wg_port: arguments.wg_port,
        wg_endpoint: arguments.wg_endpoint,
        listen: arguments.listen,
        release_base: arguments.release_base.map(from_anywhere).transpose()?,
    })
}

/// The daemon is at home in another directory.
fn from_anywhere(base: Base) -> Result<String, Failure> {
    match base {
        Base::Url(url) => Ok(url),
        Base::Directory(directory) => std::path::absolute(&directory)
            .map(|path| path.display().to_string())
            .map_err(|error| {
                let message = format!("--release-base {}: {error}", directory.display());
                Failure::new(Code::InvalidArgument, message)
            }),
    }
}

fn described(version: &Version, installed: &Installed) -> String {
    match &installed.from {
        None => format!("ployzd {version} is running as a service"),
        Some(from) if from != version => {
            format!("ployzd was updated from {from} to {version} and is running")
        }
        Some(_) if installed.changed.is_empty() => {
            format!("ployzd {version} was already running as a service")
        }
        Some(_) => format!("ployzd {version} is running with new settings"),
    }
}

fn no_user_mode() -> Failure {
    let message = "service mode user is not supported: the overlay needs a TUN interface, and so CAP_NET_ADMIN";
    Failure::new(Code::Unsupported, message)
        .hint("as root: ployzctl daemon install --service-mode system")
}

fn refuse_others_than_root() -> Result<(), Failure> {
    let own = std::fs::metadata("/proc/self");
    if own.is_ok_and(|own| own.uid() == 0) {
        return Ok(());
    }
    Err(
        Failure::new(Code::Forbidden, "only root can change system services")
            .hint("run the same command with sudo"),
    )
}
