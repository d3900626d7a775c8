//! Preflight: a script reports the facts of a host, and this file evaluates them. All obstacles are reported at
//! once.

use std::collections::BTreeMap;

use ployz_api::{Code, Failure, Name, NetworkState, Payload, Response, Status};
use ployz_install::{Arch, Version};

use crate::arguments::{InstallSource, Runtime};

/// The script; `$1` are the UDP ports that are needed.
pub(crate) const SCRIPT: &str = include_str!("preflight.sh");

/// The kernel from which on io_uring can do what the data plane asks of it; before that it runs on epoll.
const IO_URING_KERNEL: (u32, u32) = (6, 7);
/// Certificates are valid from the moment they are made, by the clock of their issuer.
const CLOCK_OFFSET_SECS_MAX: u64 = 300;
/// Three programs packed and unpacked, twice as an update needs them, and a store beside them.
const FREE_KIB_MIN: u64 = 400 << 10;
/// The space for building on top of that.
const BUILD_KIB_MIN: u64 = 6 << 20;

/// The wishes of the operator for the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) network: &'a Name,
    pub(crate) runtime: Runtime,
    pub(crate) source: InstallSource,
}

/// A host that will do.
#[derive(Debug)]
pub(crate) struct Fit {
    pub(crate) arch: Arch,
    /// Whether ssh has come in as root.
    pub(crate) is_root: bool,
    pub(crate) found: Found,
    pub(crate) warnings: Vec<String>,
}

/// How far the host is already.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing of ours is there.
    Bare,
    /// A daemon that is in no network.
    Installed(Version),
    /// A machine of the network that is wanted.
    Member(Box<Status>),
}

/// The facts that the script reports.
#[derive(Debug, Default)]
struct Facts {
    facts: BTreeMap<String, String>,
    taken: Vec<String>,
}

impl Facts {
    fn read(text: &str) -> Self {
        let mut read = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            if key == "taken" {
                read.taken.push(value.to_owned());
            } else {
                read.facts.insert(key.to_owned(), value.to_owned());
            }
        }
        read
    }

    fn get(&self, key: &str) -> &str {
        self.facts.get(key).map_or("", String::as_str)
    }

    fn has(&self, key: &str) -> bool {
        self.facts.contains_key(key)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.get(key).parse().ok()
    }
}

/// An obstacle, with the hint that removes it.
struct Obstacle {
    code: Code,
    what: String,
    mend: String,
}

impl Obstacle {
    fn new(code: Code, what: String, mend: &str) -> Self {
        let mend = mend.to_owned();
        Self { code, what, mend }
    }
}

/// Evaluates the facts that the script has reported, at this time (seconds since 1970).
///
/// Fails with the code and the hint of the first obstacle, and the text of all.
pub(crate) fn evaluate(text: &str, wanted: Wanted<'_>, unix_secs: u64) -> Result<Fit, Failure> {
    let facts = Facts::read(text);
    let root = facts.get("root");
    if !matches!(root, "user" | "sudo") {
        let message = format!("user {} cannot become root: {root}", facts.get("user"));
        return Err(Failure::new(Code::Forbidden, message).hint(
            "allow that user sudo without a password (NOPASSWD in /etc/sudoers.d), or connect as root@",
        ));
    }
    if !facts.has("end") {
        let message = format!("the preflight script did not finish on the host: {text}");
        return Err(Failure::new(Code::SshFailed, message));
    }
    let arch: Arch = facts.get("arch").parse()?;
    let found = found(&facts, wanted.network)?;
    let obstacles = obstacles(&facts, wanted, &found, unix_secs);
    if let Some(first) = obstacles.first() {
        let all: Vec<&str> = obstacles.iter().map(|it| it.what.as_str()).collect();
        return Err(Failure::new(first.code, all.join("; ")).hint(first.mend.clone()));
    }
    Ok(Fit {
        arch,
        is_root: root == "user",
        found,
        warnings: warnings(&facts),
    })
}

fn found(facts: &Facts, wanted: &Name) -> Result<Found, Failure> {
    if facts.has("foreign") {
        let message = "a ployzd is running there that ployz did not install";
        return Err(Failure::new(Code::Conflict, message).hint(
            "stop it, or let it join by itself: ployzctl machine invite import --token-stdin",
        ));
    }
    if !facts.has("installed") {
        return Ok(Found::Bare);
    }
    let version: Version = facts.get("installed").parse()?;
    let answer: Option<Response> = serde_json::from_str(facts.get("status")).ok();
    let Some(Payload::Status(status)) = answer.and_then(|answer| answer.payload) else {
        // It was cut off while it was installed: that is done again.
        return Ok(Found::Installed(version));
    };
    match (&status.network, status.network_state) {
        (None, _) => Ok(Found::Installed(version)),
        (Some(network), Some(NetworkState::Running)) if network == wanted => {
            Ok(Found::Member(status))
        }
        (Some(network), state) => {
            let state = state.map(|state| format!(" ({state})")).unwrap_or_default();
            let message = format!("the host is already in network {network}{state}");
            Err(Failure::new(Code::NetworkAlreadyRunning, message)
                .hint("run there: ployzctl mesh destroy, or mesh start if it is this network"))
        }
    }
}

fn obstacles(facts: &Facts, wanted: Wanted<'_>, found: &Found, unix_secs: u64) -> Vec<Obstacle> {
    let mut obstacles = without_what_runs_it(facts, wanted);
    obstacles.extend(without_tools(facts, wanted, found));
    obstacles.extend(without_room(facts, wanted, found));
    let offset = facts.number("now").unwrap_or(0).abs_diff(unix_secs);
    if offset > CLOCK_OFFSET_SECS_MAX {
        let what = format!("its clock differs from this machine's by {offset} s");
        let mend = "run there: timedatectl set-ntp true";
        obstacles.push(Obstacle::new(Code::Unsupported, what, mend));
    }
    obstacles
}

fn without_what_runs_it(facts: &Facts, wanted: Wanted<'_>) -> Vec<Obstacle> {
    let needed = [
        (
            "systemd",
            true,
            "systemd is not running there",
            "run ployzd there under another supervisor, then ployzctl machine invite import --token-stdin",
        ),
        (
            "tun",
            true,
            "/dev/net/tun is missing there",
            "run there: modprobe tun (in a container: pass the device in)",
        ),
        (
            "has_docker",
            wanted.runtime == Runtime::Docker,
            "no container engine is running there",
            "install Docker there, or use --runtime host",
        ),
    ];
    needed
        .into_iter()
        .filter(|(fact, is_needed, ..)| *is_needed && !facts.has(fact))
        .map(|(_, _, what, mend)| Obstacle::new(Code::Unsupported, what.to_owned(), mend))
        .collect()
}

fn without_tools(facts: &Facts, wanted: Wanted<'_>, found: &Found) -> Vec<Obstacle> {
    let is_missing = |tool: &&str| !facts.has(&format!("has_{tool}"));
    let unpacks = ["tar", "gzip", "timeout"].into_iter().filter(is_missing);
    let mut obstacles: Vec<Obstacle> = unpacks
        .map(|tool| {
            let what = format!("{tool} is missing there");
            Obstacle::new(Code::Unsupported, what, "install it there")
        })
        .collect();
    if wanted.source == InstallSource::Git && !matches!(found, Found::Member(_)) {
        let builds = ["git", "cargo", "bash"].into_iter().filter(is_missing);
        obstacles.extend(builds.map(|tool| {
            let what = format!("{tool} is missing there, which building needs");
            let mend = "install it there, or use --install-source release";
            Obstacle::new(Code::Unsupported, what, mend)
        }));
    }
    obstacles
}

fn without_room(facts: &Facts, wanted: Wanted<'_>, found: &Found) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    // A daemon of ours has its ports.
    if matches!(found, Found::Bare) && !facts.taken.is_empty() {
        let what = format!("UDP port {} is in use there", facts.taken.join(" and "));
        let mend = "choose another --wg-port, or stop the program that uses it (ss -ulpn shows it)";
        obstacles.push(Obstacle::new(Code::Conflict, what, mend));
    }
    let least = match (found, wanted.source) {
        (Found::Member(_), _) => 0,
        (_, InstallSource::Git) => FREE_KIB_MIN + BUILD_KIB_MIN,
        (_, InstallSource::Release) => FREE_KIB_MIN,
    };
    let free = facts.number("free_kib").unwrap_or(0);
    if free < least {
        let (free, least) = (free >> 10, least >> 10);
        let what = format!("its disk has {free} MiB free; {least} are needed");
        obstacles.push(Obstacle::new(
            Code::InstallFailed,
            what,
            "free disk space there",
        ));
    }
    obstacles
}

fn warnings(facts: &Facts) -> Vec<String> {
    let mut warnings = Vec::new();
    let kernel = facts.get("kernel");
    if kernel_version(kernel) < Some(IO_URING_KERNEL) {
        let (major, minor) = IO_URING_KERNEL;
        warnings.push(format!(
            "kernel {kernel} is older than {major}.{minor}: the data plane uses epoll"
        ));
    } else if matches!(facts.get("io_uring_disabled"), "1" | "2") {
        warnings.push(
            "io_uring is disabled (kernel.io_uring_disabled): the data plane uses epoll".to_owned(),
        );
    }
    warnings
}

/// The first two numbers.
fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const GOOD: &str = "arch=x86_64\nkernel=6.8.0-45-generic\nuser=op\nnow=1800000001\nroot=sudo\nsystemd=yes\ntun=yes\n\
        io_uring_disabled=0\nfree_kib=10000000\nhas_tar=yes\nhas_gzip=yes\nhas_timeout=yes\nend=yes\n";

    fn evaluated(text: &str, source: InstallSource) -> Result<Fit, Failure> {
        let network = Name::nearest("acme");
        let wanted = Wanted {
            network: &network,
            runtime: Runtime::Host,
            source,
        };
        evaluate(text, wanted, NOW)
    }

    #[test]
    fn a_host_that_will_do_does() {
        let fit = evaluated(GOOD, InstallSource::Release).unwrap();
        assert!(!fit.is_root && fit.warnings.is_empty());
        assert!(matches!(fit.found, Found::Bare));
    }

    /// Everything that can be in the way, by what is different.
    #[test]
    fn what_is_in_the_way_is_named() {
        use Code::{Conflict, Forbidden, InstallFailed, SshFailed, Unsupported};
        let table = [
            (
                "root=sudo",
                "root=sudo: a password is required",
                Forbidden,
                "cannot become root",
            ),
            (
                "root=sudo",
                "root=sudo is not installed",
                Forbidden,
                "not installed",
            ),
            ("arch=x86_64", "arch=riscv64", Unsupported, "riscv64"),
            ("systemd=yes\n", "", Unsupported, "systemd"),
            ("tun=yes\n", "", Unsupported, "/dev/net/tun"),
            ("has_gzip=yes\n", "", Unsupported, "gzip"),
            (
                "free_kib=10000000",
                "free_kib=1024",
                InstallFailed,
                "1 MiB free",
            ),
            ("now=1800000001", "now=1800000301", Unsupported, "by 301 s"),
            ("now=1800000001", "now=", Unsupported, "clock differs"),
            (
                "end=yes",
                "taken=51820\ntaken=51821\nend=yes",
                Conflict,
                "51820 and 51821",
            ),
            (
                "end=yes",
                "foreign=yes\nend=yes",
                Conflict,
                "ployzd is running there",
            ),
            ("end=yes", "", SshFailed, "did not finish"),
        ];
        for (from, to, code, words) in table {
            let failure = evaluated(&GOOD.replace(from, to), InstallSource::Release).unwrap_err();
            assert_eq!(failure.code, code, "{to}: {failure}");
            assert!(failure.message.contains(words), "{to}: {failure}");
        }
        let failure = evaluated(GOOD, InstallSource::Git).unwrap_err();
        assert!(
            failure.message.contains("git") && failure.message.contains("cargo"),
            "{failure}"
        );
    }

    #[test]
    fn what_slows_it_down_is_a_warning() {
        for (from, to) in [
            ("io_uring_disabled=0", "io_uring_disabled=2"),
            ("6.8.0-45-generic", "6.1.0-18-amd64"),
        ] {
            let fit = evaluated(&GOOD.replace(from, to), InstallSource::Release).unwrap();
            assert!(
                fit.warnings[0].ends_with("uses epoll"),
                "{:?}",
                fit.warnings
            );
        }
    }

    #[test]
    fn a_host_that_was_left_halfway_is_gone_on_with() {
        let halfway = GOOD.replace("end=yes", "installed=0.1.0\nstatus=\ntaken=51820\nend=yes");
        let fit = evaluated(&halfway, InstallSource::Release).unwrap();
        assert!(matches!(fit.found, Found::Installed(_)));
    }
}
