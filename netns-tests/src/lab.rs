//! Real machines, made by `scripts/lab`: each a systemd with sshd and a user who may use sudo.
//!
//! ```text
//!              switch
//!       ┌─────────┼─────────┬───────────┐
//!   10.42.0.1  10.42.0.2  10.42.0.3 …  10.42.0.254    m1 m2 m3 …, and the operator
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use anyhow::Result;

use crate::command::{Finished, PATIENCE, run};

/// A machine is up in five seconds; the first lab of all has to make their root.
const UP_PATIENCE: Duration = Duration::from_secs(600);
/// Where `scripts/lab` keeps its labs, by name.
const LABS: &str = "/run/ployz-lab";
/// A test's lab is called this and its process.
const PREFIX: &str = "t";
/// The user of every machine, who may use sudo.
const USER: &str = "op";

/// Machines `m1`, `m2` and so on. They go when this does.
#[derive(Debug)]
pub struct Lab {
    name: String,
}

impl Lab {
    /// Boots so many machines.
    pub fn up(count: u8) -> Result<Self> {
        sweep()?;
        let lab = Self {
            name: format!("{PREFIX}{}", process::id()),
        };
        lab.call(&["up", &count.to_string()], UP_PATIENCE)?
            .success()?;
        Ok(lab)
    }

    /// Where ssh gets to a machine.
    #[must_use]
    pub fn target(machine: u8) -> String {
        format!("{USER}@{}", Self::address(machine))
    }

    /// A machine's address on the switch.
    #[must_use]
    pub fn address(machine: u8) -> String {
        format!("10.42.0.{machine}")
    }

    /// The network namespace of a machine, as `ip netns` knows it.
    #[must_use]
    pub fn namespace(&self, machine: u8) -> String {
        format!("ployz-{}-m{machine}", self.name)
    }

    /// What a machine has on its disk.
    #[must_use]
    pub fn root(&self, machine: u8) -> PathBuf {
        Path::new(LABS)
            .join(&self.name)
            .join(format!("m{machine}/root"))
    }

    /// The secret key that all machines know.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        Path::new(LABS).join(&self.name).join("operator/id_ed25519")
    }

    /// Runs a command in the operator's place.
    pub fn run(&self, argv: &[&str], stdin: &[u8], patience: Duration) -> Result<Finished> {
        run(&self.argv(&[&["run"], argv].concat()), stdin, patience)
    }

    /// Has a machine's shell run a command, as its user.
    pub fn ssh(&self, machine: u8, command: &str) -> Result<Finished> {
        self.call(&["ssh", &format!("m{machine}"), command], PATIENCE)
    }

    /// Cuts a machine's power.
    pub fn kill(&self, machine: u8) -> Result<()> {
        self.call(&["kill", &format!("m{machine}")], PATIENCE)?
            .success()?;
        Ok(())
    }

    /// Switches a machine on again, and waits until it lets one in.
    pub fn boot(&self, machine: u8) -> Result<()> {
        self.call(&["boot", &format!("m{machine}")], UP_PATIENCE)?
            .success()?;
        Ok(())
    }

    /// The command line of a verb of `scripts/lab`, on this lab.
    #[must_use]
    pub fn argv(&self, words: &[&str]) -> Vec<String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab");
        let lab = format!("PLOYZ_LAB={}", self.name);
        [&["env", &lab, &script.display().to_string()], words]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    fn call(&self, words: &[&str], patience: Duration) -> Result<Finished> {
        run(&self.argv(words), b"", patience)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut down = Command::new("env");
        let _reported_by_the_next = down.args(&self.argv(&["down"])[1..]).status();
    }
}

/// Removes the labs of tests that were killed.
fn sweep() -> Result<()> {
    let Ok(labs) = fs::read_dir(LABS) else {
        return Ok(());
    };
    for lab in labs {
        let name = lab?.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok());
        let is_left: Option<u32> = owner.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if is_left.is_some() {
            drop(Lab { name });
        }
    }
    Ok(())
}
