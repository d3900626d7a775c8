//! An operator beside the machines of a [`Lab`], with a `ployzctl`, the programs that it installs, and contexts of
//! their own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{Finished, mortal, run, words};
use crate::lab::Lab;
use crate::release::side_by_side;
use crate::stage::Stage;

/// A host is a machine in ten seconds; four at once, of binaries without optimisation, on two processors, in a minute.
pub const ADD_PATIENCE: Duration = Duration::from_secs(240);

/// Whoever runs commands.
#[derive(Debug)]
pub struct Operator<'a> {
    lab: &'a Lab,
    programs: PathBuf,
    contexts: PathBuf,
}

/// A command that goes on by itself.
#[derive(Debug)]
pub struct UnderWay {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl<'a> Operator<'a> {
    /// Lays out the programs side by side, as an installation has them.
    pub fn new(stage: &Stage, lab: &'a Lab) -> Result<Self> {
        let programs = stage.place("programs");
        side_by_side(&programs)?;
        Ok(Self {
            lab,
            programs,
            contexts: stage.place("contexts"),
        })
    }

    /// Runs `ployzctl`; it may fail.
    pub fn ctl(&self, arguments: &str, patience: Duration) -> Result<Finished> {
        run(&self.argv(arguments), b"", patience)
    }

    /// The document that `ployzctl --json` prints.
    pub fn json(&self, arguments: &str) -> Result<Value> {
        let finished = self.ctl(&format!("--json {arguments}"), ADD_PATIENCE)?;
        serde_json::from_str(&finished.stdout).with_context(|| finished.to_string())
    }

    /// The same of a command that has to succeed.
    pub fn done(&self, arguments: &str) -> Result<Value> {
        let finished = self
            .ctl(&format!("--json {arguments}"), ADD_PATIENCE)?
            .success()?;
        let document: Value = serde_json::from_str(&finished.stdout)?;
        ensure!(document["ok"] == true, "{document}");
        Ok(document["payload"].clone())
    }

    /// Copies the programs into a directory of a machine's user, as somebody who has no installation there does.
    pub fn bring_programs(&self, machine: u8, directory: &str) -> Result<()> {
        let from = self.programs.display().to_string();
        let to = format!("{}:{directory}", Lab::target(machine));
        let copy = [
            "scp",
            "-q",
            "-r",
            "-o",
            "StrictHostKeyChecking=accept-new",
            &from,
            &to,
        ];
        self.lab.run(&copy, b"", ADD_PATIENCE)?.success()?;
        Ok(())
    }

    /// Starts a command whose output goes to files.
    pub fn start(&self, stage: &Stage, arguments: &str) -> Result<UnderWay> {
        let (stdout, stderr) = (stage.log("ctl-stdout"), stage.log("ctl-stderr"));
        let child = mortal(&self.argv(arguments))
            .stdin(Stdio::null())
            .stdout(fs::File::create(&stdout)?)
            .stderr(fs::File::create(&stderr)?)
            .spawn()?;
        Ok(UnderWay {
            child,
            stdout,
            stderr,
        })
    }

    fn argv(&self, arguments: &str) -> Vec<String> {
        let ctl = self.programs.join("ployzctl").display().to_string();
        let config = self.contexts.join("config.toml").display().to_string();
        let local = self.contexts.join("no-daemon").display().to_string();
        let flags = [&ctl, "--config", &config, "--data-dir", &local].map(str::to_owned);
        let argv = [&flags[..], &words(arguments)].concat();
        let argv: Vec<&str> = std::iter::once("run")
            .chain(argv.iter().map(String::as_str))
            .collect();
        self.lab.argv(&argv)
    }
}

impl UnderWay {
    /// What it has said of how far it is.
    #[must_use]
    pub fn progress(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// As a power cut of the operator's: no goodbye to anybody.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The document that it has printed at its end.
    pub fn document(&self) -> Result<Value> {
        let text = fs::read_to_string(&self.stdout)?;
        serde_json::from_str(&text).with_context(|| self.progress())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
