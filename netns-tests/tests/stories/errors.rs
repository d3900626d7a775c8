//! What keeps the daemon from starting is said in one line, and nothing is left behind.
//!
//! ```text
//!   a      one host on which something is wrong
//! ```

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::command::{Finished, run, words};
use ployz_netns_tests::netns::HostSetting;
use ployz_netns_tests::uapi::Uapi;
use ployz_netns_tests::{
    Backend, Contender, Daemon, Keys, Netns, Outcome, Stage, Wg, story, tell_with,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// 1: `io_uring` is for whoever has CAP_SYS_ADMIN. The machine's other programs do not notice.
const IO_URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

const WITHOUT_SYS_ADMIN: &str = "setpriv --inh-caps=-sys_admin --bounding-set=-sys_admin";

mod privileges {
    use super::*;
    story!(are_missing);
}

mod interface {
    use super::*;
    story!(exists_or_cannot_exist);
}

mod port {
    use super::*;
    story!(is_busy);
}

mod configuration {
    use super::*;
    story!(is_wrong);
}

mod tun {
    use super::*;
    story!(device_is_missing);
}

/// One interface name, and what a failed start must not leave under it.
struct Bench {
    netns: Netns,
    interface: String,
    contender: Contender,
}

impl Bench {
    fn new(stage: &Stage) -> Result<Option<Self>> {
        let (netns, interface) = (Netns::new(stage, "a")?, stage.interface());
        let bench = Self {
            netns,
            interface,
            contender: stage.contender(),
        };
        Ok(stage.contender().is_ployzd().then_some(bench))
    }

    /// Runs the daemon behind `prefix`, which has to end by itself.
    fn start(&self, prefix: &str, flags: &str) -> Result<Finished> {
        self.start_behind(words(prefix), flags)
    }

    fn start_behind(&self, mut argv: Vec<String>, flags: &str) -> Result<Finished> {
        argv.extend(self.contender.argv(&self.interface, &words(flags)));
        run(&self.netns.argv(&argv), &[], PATIENCE)
    }

    /// Exit 1, one line that has one of `hints` in it, no interface and no socket.
    fn is_refused(&self, ended: &Finished, hints: &[&str]) -> Result<()> {
        ensure!(
            !self.netns.has_link(&self.interface),
            "left its interface: {ended}"
        );
        self.is_refused_over_a_link(ended, hints)
    }

    fn is_refused_over_a_link(&self, ended: &Finished, hints: &[&str]) -> Result<()> {
        ensure!(ended.status.code() == Some(1), "not exit 1: {ended}");
        let lines: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| !line.is_empty())
            .collect();
        ensure!(lines.len() == 1, "{} lines, not one: {ended}", lines.len());
        let says = |hint: &&str| lines[0].to_lowercase().contains(&hint.to_lowercase());
        ensure!(hints.iter().any(says), "none of {hints:?} in: {ended}");
        ensure!(
            !ended.stdout.contains("ready"),
            "said that it was ready: {ended}"
        );
        ensure!(
            !Uapi::new(&self.interface).path().exists(),
            "left its socket: {ended}"
        );
        Ok(())
    }
}

fn are_missing(stage: &Stage) -> Result<()> {
    let Some(bench) = Bench::new(stage)? else {
        return Ok(());
    };
    let ended = bench.start(
        "setpriv --inh-caps=-net_admin --bounding-set=-net_admin",
        "",
    )?;
    bench.is_refused(&ended, &["CAP_NET_ADMIN", "root"])?;
    let without_bpf = "setpriv --inh-caps=-bpf,-sys_admin --bounding-set=-bpf,-sys_admin";
    let ended = bench.start(without_bpf, "--shards 2")?;
    bench.is_refused(&ended, &["CAP_BPF"])
}

fn exists_or_cannot_exist(stage: &Stage) -> Result<()> {
    let Some(mut bench) = Bench::new(stage)? else {
        return Ok(());
    };
    let name = bench.interface.clone();
    bench
        .netns
        .run(&format!("ip link add {name} type bridge"))?;
    bench.is_refused_over_a_link(&bench.start("", "")?, &[&name])?;
    ensure!(
        bench.netns.has_link(&name),
        "removed an interface that is not its own"
    );
    bench.netns.run(&format!("ip link del {name}"))?;

    // A second daemon for the same interface leaves the first alone.
    let first = Daemon::start_as(stage, &bench.netns, stage.contender(), &name, "")?;
    let ended = bench.start("", "")?;
    ensure!(
        ended.status.code() == Some(1) && ended.stderr.contains(&name),
        "{ended}"
    );
    ensure!(
        first.uapi().get().is_ok() && bench.netns.has_link(&name),
        "the first one suffered"
    );
    drop(first);

    for name in ["a-name-of-16-chars", "with/slash", ".."] {
        bench.interface = name.to_owned();
        bench.is_refused(&bench.start("", "")?, &["name"])?;
    }
    Ok(())
}

fn is_busy(stage: &Stage) -> Result<()> {
    let Some(bench) = Bench::new(stage)? else {
        return Ok(());
    };
    let _squatter = bench.netns.enter(|| Ok(UdpSocket::bind("0.0.0.0:4242")?))?;
    let keys = Keys::generate(stage)?;
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 4242\n",
        keys.private
    );
    let file = stage.file("busy.conf", &text)?;
    let ended = bench.start("", &format!("--config {}", file.display()))?;
    bench.is_refused(&ended, &["4242"])
}

fn is_wrong(stage: &Stage) -> Result<()> {
    let Some(bench) = Bench::new(stage)? else {
        return Ok(());
    };
    let ended = bench.start("", "--config /nowhere/wg.conf")?;
    bench.is_refused(&ended, &["/nowhere/wg.conf"])?;
    for text in [
        "[Interface]\nPrivateKey = nonsense\n",
        "[Interface]\nColour = blue\n",
        "[Peer]\nAllowedIPs = 10.0.0.0/8\n",
        "ListenPort = 7\n",
    ] {
        let file = stage.file("wrong.conf", text)?.display().to_string();
        let ended = bench.start("", &format!("--config {file}"))?;
        bench.is_refused(&ended, &[&file])?;
    }
    works_when_it_is_right(stage, &bench)
}

/// The rest of the story would hold for a daemon that refuses every configuration.
fn works_when_it_is_right(stage: &Stage, bench: &Bench) -> Result<()> {
    let (own, peer) = (Keys::generate(stage)?, Keys::generate(stage)?);
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 4243\nAddress = 10.5.5.1/24, fd05::1/64\n\
         MTU = 1380\n\n[Peer]\n# a comment\nPublicKey = {}\nAllowedIPs = 10.5.5.2/32, fd05::2/128\n\
         Endpoint = 10.0.0.2:51820\nPersistentKeepalive = 25\n",
        own.private, peer.public
    );
    let flags = format!("--config {}", stage.file("right.conf", &text)?.display());
    let name = &bench.interface;
    let daemon = Daemon::start_as(stage, &bench.netns, bench.contender, name, &flags)?;
    let device = Wg::new(&bench.netns, name).dump()?;
    ensure!(
        device.listen_port == 4243 && device.public_key == Some(own.public),
        "{device:?}"
    );
    ensure!(device.peers[0].persistent_keepalive == 25, "{device:?}");
    ensure!(device.peers[0].allowed_ips.len() == 2, "{device:?}");
    let shown = bench
        .netns
        .run(&format!("ip address show dev {name}"))?
        .stdout;
    for part in ["10.5.5.1/24", "fd05::1/64", "mtu 1380", "UP"] {
        ensure!(shown.contains(part), "no {part} in {shown}");
    }
    daemon.stop(nix::sys::signal::Signal::SIGTERM, &bench.netns)
}

fn device_is_missing(stage: &Stage) -> Result<()> {
    let Some(bench) = Bench::new(stage)? else {
        return Ok(());
    };
    let script = "mount -t tmpfs none /dev/net && exec \"$@\"";
    let argv = ["unshare", "-m", "sh", "-c", script, "sh"].map(str::to_owned);
    bench.is_refused(&bench.start_behind(argv.to_vec(), "")?, &["/dev/net/tun"])
}

#[test]
fn without_io_uring() -> Outcome {
    let contender = Contender::under_test(Backend::IoUring)?;
    if !contender.is_ployzd() {
        return Ok(());
    }
    tell_with(contender, |stage| {
        let _disabled = HostSetting::set(IO_URING_DISABLED, "1")?;
        let Some(bench) = Bench::new(stage)? else {
            return Ok(());
        };
        let ended = bench.start(WITHOUT_SYS_ADMIN, "")?;
        bench.is_refused(&ended, &["io_uring"])?;

        // Left to itself it takes the other way, and says so.
        let mut daemon = Daemon::start_behind(stage, &bench.netns, &words(WITHOUT_SYS_ADMIN))?;
        let status = daemon.uapi().status()?;
        let backend = status.get("backend").map(String::as_str);
        ensure!(backend == Some("epoll"), "runs on {backend:?}");
        ensure!(
            daemon.is_alive() && daemon.stderr().contains("epoll"),
            "did not say so"
        );
        daemon.stop(nix::sys::signal::Signal::SIGTERM, &bench.netns)
    })
}
