//! Machines with `ployzd run` on one network segment.
//!
//! ```text
//!              switch
//!       ┌─────────┼─────────┐
//!   10.0.0.1   10.0.0.2   10.0.0.3 …     eth0 of m1, m2, m3 …
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::Netns;
use crate::command::{Finished, PATIENCE, mortal, run};
use crate::contender::ployzd;
use crate::stage::Stage;
use crate::wait::wait_until;

/// Machines on a switch. Nothing runs on them yet.
#[derive(Debug)]
pub struct Segment {
    switch: Netns,
}

impl Segment {
    pub fn new(stage: &Stage) -> Result<Self> {
        let switch = Netns::new(stage, "switch")?;
        switch.bridge("br0", &[])?;
        Ok(Self { switch })
    }

    /// Connects machines from number 1 on, each with its daemon running and in no network.
    pub fn running_machines(&self, stage: &Stage, count: u8) -> Result<Vec<Machine>> {
        let mut machines = (1..=count)
            .map(|number| self.machine(stage, number))
            .collect::<Result<Vec<_>>>()?;
        for machine in &mut machines {
            machine.start(stage)?;
        }
        Ok(machines)
    }

    /// Sets the MTU of a machine's port of the switch: what is longer is dropped without a word.
    pub fn port_mtu(&self, number: u8, mtu: u32) -> Result<()> {
        self.switch.mtu(&format!("p{number}"), mtu)
    }

    /// Connects another machine.
    pub fn machine(&self, stage: &Stage, number: u8) -> Result<Machine> {
        let netns = Netns::new(stage, &format!("m{number}"))?;
        let port = format!("p{number}");
        netns.cable("eth0", &self.switch, &port)?;
        self.switch
            .run(&format!("ip link set dev {port} master br0"))?;
        netns.address("eth0", &format!("10.0.0.{number}/24"))?;
        Ok(Machine {
            daemon: None,
            prefix: Vec::new(),
            flags: Vec::new(),
            log: PathBuf::new(),
            name: format!("m{number}"),
            interface: stage.interface(),
            data_dir: stage.place("data"),
            nats_server: nats_server(),
            netns: Arc::new(netns),
        })
    }
}

/// A machine and its daemon.
#[derive(Debug)]
pub struct Machine {
    // Fields drop in this order, and the daemon has to end while its namespace is still there.
    daemon: Option<Running>,
    /// A command that runs the daemon's, if there is one; it has to replace itself.
    pub prefix: Vec<String>,
    /// More flags of the daemon.
    pub flags: Vec<String>,
    log: PathBuf,
    pub name: String,
    pub interface: String,
    pub data_dir: PathBuf,
    pub nats_server: PathBuf,
    pub netns: Arc<Netns>,
}

/// A `ployzctl` that goes on until it is dropped.
#[derive(Debug)]
pub struct GoingOn(Child);

impl GoingOn {
    /// As somebody at a terminal does.
    pub fn interrupt(mut self) -> Result<()> {
        kill(Pid::from_raw(self.0.id().try_into()?), Signal::SIGINT)?;
        wait_until("ployzctl to end", PATIENCE, || self.ended() == Some(0))
    }

    /// Whether it has ended, with which status.
    pub fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().ok().flatten()?.code()
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Machine {
    /// Starts the daemon and waits for its word that it is ready.
    pub fn start(&mut self, stage: &Stage) -> Result<()> {
        let stdout = stage.log(&format!("{}-stdout", self.name));
        self.log = stage.log(&format!("{}-stderr", self.name));
        let argv = self.netns.argv(&self.daemon_argv());
        let child = mortal(&argv)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&self.log)?)
            .spawn()
            .with_context(|| argv.join(" "))?;
        let running = self.daemon.insert(Running(child));
        wait_until(
            format!("ployzd on {} to be ready", self.name),
            PATIENCE,
            || {
                let died = !matches!(running.0.try_wait(), Ok(None));
                died || fs::read_to_string(&stdout).is_ok_and(|text| text.contains("ready"))
            },
        )?;
        let alive = matches!(running.0.try_wait(), Ok(None));
        ensure!(alive, "ployzd on {} ended at once", self.name);
        Ok(())
    }

    /// The daemon's process.
    pub fn pid(&self) -> Result<Pid> {
        let running = self.daemon.as_ref().context("it does not run")?;
        Ok(Pid::from_raw(running.0.id().try_into()?))
    }

    /// What the daemon has logged since it was started.
    #[must_use]
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// As a power cut of the process: no goodbye to anybody.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Whether the daemon was started and has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let running = self.daemon.as_mut();
        running.is_some_and(|it| matches!(it.0.try_wait(), Ok(Some(_))))
    }

    /// Asks the daemon to stop, and waits until it has.
    pub fn stop(&mut self) -> Result<()> {
        let mut running = self.daemon.take().context("it does not run")?;
        kill(Pid::from_raw(running.0.id().try_into()?), Signal::SIGTERM)?;
        wait_until("ployzd to stop", PATIENCE, || {
            running
                .0
                .try_wait()
                .is_ok_and(|status| status.is_some_and(|it| it.success()))
        })
    }

    /// Runs `ployzctl` there; it may fail.
    pub fn ctl(&self, arguments: &str) -> Result<Finished> {
        self.ctl_with(arguments, "")
    }

    /// As [`Self::ctl`], with something on stdin.
    pub fn ctl_with(&self, arguments: &str, stdin: &str) -> Result<Finished> {
        run(
            &self.ctl_argv(arguments),
            stdin.as_bytes(),
            Duration::from_secs(60),
        )
    }

    /// Starts a `ployzctl` that does not end by itself; what it says goes to a file.
    pub fn ctl_going_on(&self, arguments: &str, stdout: &Path) -> Result<GoingOn> {
        let child = mortal(&self.ctl_argv(arguments))
            .stdin(Stdio::null())
            .stdout(File::create(stdout)?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(GoingOn(child))
    }

    /// The command line of [`Self::ctl`].
    #[must_use]
    pub fn ctl_argv(&self, arguments: &str) -> Vec<String> {
        let line = format!(
            "{} --data-dir {} {arguments}",
            ployzctl().display(),
            self.data_dir.display()
        );
        self.netns.argv(&crate::command::words(&line))
    }

    /// The document that `ployzctl --json` prints.
    pub fn json(&self, arguments: &str) -> Result<Value> {
        let finished = self.ctl(&format!("--json {arguments}"))?;
        serde_json::from_str(&finished.stdout).with_context(|| finished.to_string())
    }

    /// The code of a document.
    pub fn code(&self, arguments: &str) -> Result<String> {
        Ok(text(&self.json(arguments)?, "/code"))
    }

    /// Makes an invite here; its token.
    pub fn invite(&self, flags: &str) -> Result<String> {
        let document = self.json(&format!("machine invite create {flags}"))?;
        ensure!(document["ok"] == true, "{document}");
        Ok(text(&document, "/payload/token"))
    }

    /// Uses a token here; the document.
    pub fn import(&self, token: &str) -> Result<Value> {
        let finished = self.ctl_with("--json machine invite import --token-stdin", token)?;
        serde_json::from_str(&finished.stdout).with_context(|| finished.to_string())
    }

    /// Gets into the network that `founder` is in; the token that did it.
    pub fn join(&self, founder: &Self) -> Result<String> {
        let token = founder.invite("")?;
        let document = self.import(&token)?;
        ensure!(text(&document, "/payload/status") == "joined", "{document}");
        Ok(token)
    }

    /// Waits until the daemon is in a network and its store answers.
    pub fn wait_ready(&self, patience: Duration) -> Result<()> {
        wait_until(format!("{} to be ready", self.name), patience, || {
            self.ctl("mesh ready").is_ok_and(|ready| ready.succeeded())
        })
    }

    /// The process of the store's server here.
    pub fn store_pid(&self) -> Result<Pid> {
        let status = self.json("status")?;
        let pid = status
            .pointer("/payload/storage/pid")
            .and_then(Value::as_i64);
        Ok(Pid::from_raw(
            pid.context("no store runs here")?.try_into()?,
        ))
    }

    /// Whether `target` answers to a ping from here.
    #[must_use]
    pub fn reaches(&self, target: &str) -> bool {
        self.netns
            .attempt(&format!("ping -n -q -c 1 -W 1 {target}"))
            .is_ok_and(|ping| ping.succeeded())
    }

    /// The command that runs the daemon.
    #[must_use]
    pub fn daemon_argv(&self) -> Vec<String> {
        let own = |path: &Path| path.display().to_string();
        let command = [
            own(&ployzd()),
            "run".to_owned(),
            "--data-dir".to_owned(),
            own(&self.data_dir),
            "--name".to_owned(),
            self.name.clone(),
            "--interface".to_owned(),
            self.interface.clone(),
            "--nats-server".to_owned(),
            own(&self.nats_server),
        ];
        [&self.prefix[..], &command, &self.flags].concat()
    }
}

/// Another daemon on the host of `first`, with everything of its own that two cannot share.
#[must_use]
pub fn neighbour(stage: &Stage, first: &Machine, number: u16) -> Machine {
    let flags = format!(
        "--wg-port {} --listen 0.0.0.0:{}",
        51_820 + 10 * number,
        51_821 + 10 * number
    );
    Machine {
        daemon: None,
        prefix: Vec::new(),
        flags: crate::command::words(&flags),
        log: PathBuf::new(),
        name: format!("{}-{number}", first.name),
        interface: stage.interface(),
        data_dir: stage.place("data"),
        nats_server: nats_server(),
        netns: Arc::clone(&first.netns),
    }
}

/// What to run a daemon behind so that it has another time of day, which libfaketime of Debian tells it; spans are what
/// they are.
#[must_use]
pub fn wrong_clock(ahead_secs: i64) -> Vec<String> {
    let library = format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
        env::consts::ARCH
    );
    [
        "env".to_owned(),
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME={ahead_secs:+}s"),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "FAKETIME_NO_CACHE=1".to_owned(),
    ]
    .to_vec()
}

/// Stops a process, and waits until all of its threads have: the signal alone says nothing of when.
pub fn freeze(pid: Pid) -> Result<()> {
    kill(pid, Signal::SIGSTOP)?;
    let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat"));
    let is_frozen = |text: String| {
        text.rsplit(") ")
            .next()
            .is_some_and(|it| it.starts_with('T'))
    };
    wait_until("a process to be frozen", PATIENCE, || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        tasks.is_ok_and(|mut tasks| tasks.all(|it| it.and_then(stat).is_ok_and(is_frozen)))
    })
}

/// A string within a document; empty if it is not there.
#[must_use]
pub fn text(document: &Value, pointer: &str) -> String {
    let value = document.pointer(pointer).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

/// The command line under test.
#[must_use]
pub fn ployzctl() -> PathBuf {
    env::var_os("PLOYZCTL").map_or_else(|| ployzd().with_file_name("ployzctl"), PathBuf::from)
}

/// The server that machines are given.
#[must_use]
pub fn nats_server() -> PathBuf {
    let fetched = || {
        let target = ployzd();
        let target = target
            .ancestors()
            .nth(2)
            .map(Path::to_owned)
            .unwrap_or_default();
        target.join("nats-server-2.14.6/nats-server")
    };
    env::var_os("NATS_SERVER_UNDER_TEST").map_or_else(fetched, PathBuf::from)
}

/// Another version of the store's server, beside the one that is under test.
#[must_use]
pub fn nats_server_of(version: &str) -> PathBuf {
    let under_test = nats_server();
    let versions = under_test.ancestors().nth(2).map(Path::to_owned);
    let versions = versions.unwrap_or_default();
    versions.join(format!("nats-server-{version}/nats-server"))
}
