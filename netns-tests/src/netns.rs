//! Hosts and cables: network namespaces, veth pairs, bridges.

use std::fs::File;
use std::net::IpAddr;
use std::time::Duration;
use std::{fs, process, thread};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Finished, PATIENCE, run, words};
use crate::stage::Stage;
use crate::wait::wait_until;

const PREFIX: &str = "ployz-";

/// A network namespace. Its processes and links go with it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    pub fn new(stage: &Stage, role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{}-{role}", process::id(), stage.number());
        host(&format!("ip netns add {name}"))?;
        let netns = Self { name };
        netns.run("ip link set dev lo up")?;
        let settings = ["all", "default"].map(|scope| {
            let scope = format!("net.ipv6.conf.{scope}");
            format!("{scope}.accept_dad=0 {scope}.router_solicitations=0")
        });
        netns.run(&format!("sysctl -qw {}", settings.join(" ")))?;
        Ok(netns)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command line inside, which has to succeed.
    pub fn run(&self, line: &str) -> Result<Finished> {
        self.attempt(line)?.success()
    }

    /// Runs a command line inside, which may fail.
    pub fn attempt(&self, line: &str) -> Result<Finished> {
        self.attempt_within(line, &[], PATIENCE)
    }

    /// As [`Self::attempt`], with input and for longer or shorter.
    pub fn attempt_within(&self, line: &str, stdin: &[u8], patience: Duration) -> Result<Finished> {
        run(&self.argv(&words(line)), stdin, patience)
    }

    /// The command that runs `argv` inside. `ip netns exec` replaces itself, so the process id is the program's.
    #[must_use]
    pub fn argv(&self, argv: &[String]) -> Vec<String> {
        let mut all = words(&format!("ip netns exec {}", self.name));
        all.extend_from_slice(argv);
        all
    }

    /// Changes a setting of this namespace; the value may be several words.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let argv = ["sysctl", "-qw", &format!("{key}={value}")].map(str::to_owned);
        run(&self.argv(&argv), &[], PATIENCE)?.success().map(drop)
    }

    /// Runs `work` on a thread that lives inside; sockets that it opens stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.move_in()?;
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread inside, for good.
    pub fn move_in(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| path)?;
        Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
    }

    /// Lays a cable to `other`, up at both ends.
    pub fn cable(&self, end: &str, other: &Self, other_end: &str) -> Result<()> {
        host(&format!(
            "ip link add {end} netns {} type veth peer name {other_end} netns {}",
            self.name, other.name
        ))?;
        for (netns, end) in [(self, end), (other, other_end)] {
            netns.run(&format!("ip link set dev {end} up"))?;
        }
        for (netns, end) in [(self, end), (other, other_end)] {
            netns.wait_link_up(end)?;
        }
        Ok(())
    }

    /// A bridge named `name` whose ports are `ports`.
    pub fn bridge(&self, name: &str, ports: &[&str]) -> Result<()> {
        self.run(&format!(
            "ip link add {name} type bridge forward_delay 0 mcast_snooping 0"
        ))?;
        for port in ports {
            self.run(&format!("ip link set dev {port} master {name}"))?;
        }
        self.run(&format!("ip link set dev {name} up"))?;
        self.wait_link_up(name)
    }

    /// Adds an address (`10.0.0.1/24`, `fd00::1/64`), usable at once.
    pub fn address(&self, link: &str, address: &str) -> Result<()> {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.run(&format!("ip address add {address} dev {link} {nodad}"))
            .map(drop)
    }

    pub fn remove_address(&self, link: &str, address: &str) -> Result<()> {
        self.run(&format!("ip address del {address} dev {link}"))
            .map(drop)
    }

    pub fn mtu(&self, link: &str, mtu: u32) -> Result<()> {
        self.run(&format!("ip link set dev {link} mtu {mtu}"))
            .map(drop)
    }

    #[must_use]
    pub fn has_link(&self, link: &str) -> bool {
        self.attempt(&format!("ip link show dev {link}"))
            .is_ok_and(|shown| shown.succeeded())
    }

    fn wait_link_up(&self, link: &str) -> Result<()> {
        wait_until(
            format!("{link} in {} to come up", self.name),
            PATIENCE,
            || {
                self.attempt(&format!("ip -br link show dev {link}"))
                    .is_ok_and(|shown| shown.stdout.contains("LOWER_UP"))
            },
        )
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// The longest prefix: a host route to `address`.
#[must_use]
pub fn host_prefix(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}/32"),
        IpAddr::V6(address) => format!("{address}/128"),
    }
}

/// Removes what a killed run of these tests left behind.
pub fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !fs::exists(format!("/proc/{owner}")).unwrap_or(true) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    if let Ok(pids) = host(&format!("ip netns pids {name}")) {
        for pid in pids
            .stdout
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            let _already_gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _already_gone = host(&format!("ip netns del {name}"));
}

/// Runs a command line outside every namespace, which has to succeed.
pub fn host(line: &str) -> Result<Finished> {
    run(&words(line), &[], PATIENCE)?.success()
}

/// Changes a setting of the whole machine until dropped.
#[derive(Debug)]
pub struct HostSetting {
    path: &'static str,
    before: String,
}

impl HostSetting {
    pub fn set(path: &'static str, value: &str) -> Result<Self> {
        let before = fs::read_to_string(path).with_context(|| path)?;
        let setting = Self {
            path,
            before: before.trim().to_owned(),
        };
        fs::write(path, value).with_context(|| path)?;
        let now = fs::read_to_string(path)?;
        if now.trim() != value {
            bail!("{path} did not take {value}");
        }
        Ok(setting)
    }
}

impl Drop for HostSetting {
    fn drop(&mut self) {
        let _read_only = fs::write(self.path, &self.before);
    }
}
