//! The contenders: bare veth, the kernel's WireGuard, and daemons that behave like wireguard-go.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The one that ratios are taken against.
pub(crate) const REFERENCE: &str = "wireguard-go";
pub(crate) const BARE: &str = "none";
pub(crate) const PLOYZD_URING: &str = "ployzd";
pub(crate) const PLOYZD_EPOLL: &str = "ployzd-epoll";
pub(crate) const KERNEL: &str = "kernel";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No tunnel: the limit of the machine.
    Bare,
    Kernel,
    /// A program and its arguments; `%i` stands for the interface.
    Daemon {
        program: PathBuf,
        arguments: Vec<String>,
    },
}

/// A contender that takes part, with its version, or one that does not, with the reason.
pub(crate) type Presence = Result<String>;

impl Contender {
    /// All that are compared by default, in the order of the table.
    pub(crate) fn all(ployzd: &Path) -> Vec<Self> {
        let dataplane = |backend: &str| format!("dataplane %i --io-backend {backend}");
        vec![
            Self {
                name: BARE.into(),
                kind: Kind::Bare,
            },
            Self::daemon(PLOYZD_URING, ployzd, &dataplane("io_uring")),
            Self::daemon(PLOYZD_EPOLL, ployzd, &dataplane("epoll")),
            Self::daemon(REFERENCE, &on_path("wireguard-go"), "-f %i"),
            Self::daemon(
                "gotatun",
                &on_path("gotatun"),
                "-f --disable-drop-privileges %i",
            ),
            Self::daemon(
                "boringtun",
                &on_path("boringtun-cli"),
                "-f --disable-drop-privileges %i",
            ),
            Self {
                name: KERNEL.into(),
                kind: Kind::Kernel,
            },
        ]
    }

    /// Reads `NAME=PROGRAM ARGUMENTS`, with `%i` for the interface.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (name, command) = text
            .split_once('=')
            .context("expected NAME=PROGRAM ARGUMENTS")?;
        let (program, arguments) = command
            .split_once(' ')
            .context("expected arguments with %i")?;
        if !arguments.contains("%i") {
            bail!("`{arguments}` has no %i for the interface");
        }
        Ok(Self::daemon(name, &on_path(program), arguments))
    }

    /// Whether the runs with many peers are for it: ployzd, the reference, and the caller's own.
    pub(crate) fn takes_scale_runs(&self) -> bool {
        let left_out = [BARE, KERNEL, PLOYZD_EPOLL, "gotatun", "boringtun"];
        !left_out.contains(&self.name.as_str())
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.kind == Kind::Bare
    }

    /// The command that runs it on `interface`, for daemons.
    pub(crate) fn command(&self, interface: &str) -> Option<Command> {
        let Kind::Daemon { program, arguments } = &self.kind else {
            return None;
        };
        let mut command = Command::new(program);
        command.args(arguments.iter().map(|word| word.replace("%i", interface)));
        command
            .env("LOG_LEVEL", "error")
            .env("WG_LOG_LEVEL", "error");
        Some(command)
    }

    /// Whether it can run here.
    pub(crate) fn presence(&self) -> Presence {
        match &self.kind {
            Kind::Bare => Ok("veth without a tunnel".into()),
            Kind::Kernel => kernel_presence(),
            Kind::Daemon { program, .. } => daemon_presence(program),
        }
    }

    fn daemon(name: &str, program: &Path, arguments: &str) -> Self {
        let arguments = arguments.split_whitespace().map(str::to_owned).collect();
        Self {
            name: name.into(),
            kind: Kind::Daemon {
                program: program.into(),
                arguments,
            },
        }
    }
}

/// The program where the shell would find it, or in cargo's directory, or the bare name.
fn on_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cargo = Path::new(&home).join(".cargo/bin");
    let found = std::env::split_paths(&path)
        .chain([cargo])
        .map(|dir| dir.join(program));
    found
        .into_iter()
        .find(|file| file.is_file())
        .unwrap_or_else(|| program.into())
}

fn daemon_presence(program: &Path) -> Presence {
    if !program.is_file() {
        bail!("{} is not installed", program.display());
    }
    let version = process::run(Command::new(program).arg("--version"), process::SHORT);
    let version = version.unwrap_or_default();
    let first = version.lines().next().unwrap_or_default().trim();
    Ok(if first.is_empty() {
        "version unknown".into()
    } else {
        first.to_owned()
    })
}

fn kernel_presence() -> Presence {
    let name = format!("pb{}k", std::process::id());
    let add = ["link", "add", &name, "type", "wireguard"];
    process::run(Command::new("ip").args(add), process::SHORT)
        .context("the kernel has no WireGuard")?;
    process::run(
        Command::new("ip").args(["link", "del", &name]),
        process::SHORT,
    )?;
    Ok("in the kernel".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_of_the_callers_own_is_a_name_and_a_command() {
        let contender = Contender::parse("old=/tmp/ployzd dataplane %i --shards 2").unwrap();
        assert_eq!(contender.name, "old");
        let command = contender.command("wg7").unwrap();
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(words, ["dataplane", "wg7", "--shards", "2"]);
    }

    #[test]
    fn a_command_without_an_interface_is_refused() {
        assert!(Contender::parse("old=/tmp/ployzd dataplane").is_err());
        assert!(Contender::parse("/tmp/ployzd").is_err());
    }
}
