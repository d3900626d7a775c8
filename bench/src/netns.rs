//! A network namespace of the harness's own.

use std::fs::File;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use crate::{leftovers, process};

/// Created on construction, deleted on drop together with every device in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    pub(crate) fn create(name: &str) -> Result<Self> {
        leftovers::note_namespace(name);
        process::run(
            Command::new("ip").args(["netns", "add", name]),
            process::SHORT,
        )?;
        let path = format!("/run/netns/{name}");
        let handle = File::open(&path).with_context(|| path.clone())?;
        let namespace = Self {
            name: name.to_owned(),
            handle,
        };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets and children made there
    /// stay there, whichever thread uses them afterwards.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter namespace {}", self.name))?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a thread in {} panicked", self.name))
        })
    }

    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.enter(move || {
            command
                .spawn()
                .with_context(|| format!("cannot start {}", command.get_program().display()))
        })
    }

    pub(crate) fn run(&self, command: &mut Command, limit: Duration) -> Result<String> {
        let shown = format!("{command:?}");
        let child = self.spawn(process::piped(command))?;
        process::finish(child, limit).with_context(|| format!("{shown} in {}", self.name))
    }

    /// Runs `ip` with the words of `arguments`.
    pub(crate) fn ip(&self, arguments: &str) -> Result<String> {
        self.run(
            Command::new("ip").args(arguments.split_whitespace()),
            process::SHORT,
        )
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        leftovers::remove_namespace(&self.name);
    }
}
