//! An initiation that was recorded on the path is replayed from another address after the daemon was restarted: the
//! peer's endpoint stays where it is.
//!
//! ```text
//!   m1 (holds the store) ── switch ── m2        10.0.0.1, 10.0.0.2
//!                             └── thief         10.0.0.66: has what comes to m1, and sends it again
//! ```

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use ployz_netns_tests::cluster::{Machine, Segment};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::forged_handshake::INITIATION_BYTES;
use ployz_netns_tests::pair::PORT;
use ployz_netns_tests::relay::{INITIATION, udp_socket};
use ployz_netns_tests::wait::{stays, wait_until};
use ployz_netns_tests::{Backend, Netns, Outcome, Stage, tell};

const VICTIM: &str = "10.0.0.1";
const PEER: &str = "10.0.0.2";
const THIEF: &str = "10.0.0.66";
const HEADERS_BYTES: usize = 20 + 8;
const SILENCE: Duration = Duration::from_secs(1);

/// The daemon has saved what it has taken.
#[test]
fn after_a_restart() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let answers = replayed(stage, Machine::stop)?;
        ensure!(answers == 0, "{answers} recordings were answered");
        Ok(())
    })
}

/// It may not have: what is answered leads to nothing.
#[test]
fn after_a_crash() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let crash = |machine: &mut Machine| {
            machine.kill();
            Ok(())
        };
        replayed(stage, crash).map(drop)
    })
}

/// Has the victim end, starts it again, and replays what was recorded before; the number of answers to that.
fn replayed(stage: &Stage, end: impl Fn(&mut Machine) -> Result<()>) -> Result<usize> {
    let segment = Segment::new(stage)?;
    let thief = segment.machine(stage, 66)?;
    let (mut m1, mut m2) = (segment.machine(stage, 1)?, segment.machine(stage, 2)?);
    m1.start(stage)?;
    m2.start(stage)?;
    ensure!(m1.code("mesh init acme")? == "OK");
    m2.join(&m1)?;
    m2.wait_ready(PATIENCE)?;
    let recorder = Recorder::new(&m1.netns)?;
    // A daemon that starts looks for its peers: its initiation is what is recorded.
    m2.stop()?;
    m2.start(stage)?;
    m2.wait_ready(PATIENCE)?;
    let recorded = recorder.initiations();
    ensure!(!recorded.is_empty(), "m2 has initiated nothing");
    m2.stop()?;

    end(&mut m1)?;
    m1.start(stage)?;
    let at_home = format!("{PEER}:{PORT}");
    ensure!(endpoint(&m1)? == at_home, "{}", endpoint(&m1)?);
    let socket = udp_socket(&thief.netns, format!("{THIEF}:0").parse()?)?;
    for initiation in &recorded {
        socket.send_to(initiation, (VICTIM, PORT))?;
    }
    stays("the endpoint", SILENCE, || {
        endpoint(&m1).is_ok_and(|it| it == at_home)
    })?;
    socket.set_nonblocking(true)?;
    let answers = std::iter::from_fn(|| socket.recv(&mut [0; 256]).ok()).count();
    m2.start(stage)?;
    wait_until("m2 to reach m1", PATIENCE, || m2.reaches("10.101.0.1"))?;
    Ok(answers)
}

/// The endpoint of the only peer.
fn endpoint(machine: &Machine) -> Result<String> {
    let shown = machine
        .netns
        .run(&format!("wg show {} endpoints", machine.interface))?;
    let endpoint = shown.stdout.split_whitespace().nth(1);
    Ok(endpoint.context("no peer")?.to_owned())
}

/// All datagrams that come to a host.
struct Recorder(OwnedFd);

impl Recorder {
    fn new(netns: &Netns) -> Result<Self> {
        let raw = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let udp = SockProtocol::Udp;
            Ok(socket(AddressFamily::Inet, SockType::Raw, flags, udp)?)
        };
        netns.enter(raw).map(Self)
    }

    /// The initiations that have come so far.
    fn initiations(&self) -> Vec<Vec<u8>> {
        let mut packet = [0; 2048];
        let packets = std::iter::from_fn(|| {
            let len = recv(self.0.as_raw_fd(), &mut packet, MsgFlags::empty()).ok()?;
            Some(packet[HEADERS_BYTES.min(len)..len].to_vec())
        });
        packets
            .filter(|it| it.len() == INITIATION_BYTES && it[0] == INITIATION)
            .collect()
    }
}
