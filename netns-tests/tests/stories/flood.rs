//! Fifty thousand handshakes a second from spoofed addresses, and the tunnel hardly notices.
//!
//! ```text
//!   a ========== b      TCP from a to b through the tunnel
//!                |
//!                c      sends initiations with a valid MAC from 100.64.0.0/10
//! ```
//!
//! The generator takes processor time away from everybody. So the bar is the throughput under the same
//! generator when it aims at a port next to the daemon's.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::attack::{Attack, Pace};
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::relay::udp_socket;
use ployz_netns_tests::traffic::Iperf;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::wg::bytes;
use ployz_netns_tests::{Host, Netns, Pair, Plan, Stage, story, traffic};

const A_SECOND: u32 = 50_000;
const SECONDS: u32 = 2;
const ROUNDS_MIN: usize = 3;
const ROUNDS_MAX: usize = 15;
const SHARE: f64 = 0.8;

const VICTIM: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);

/// An initiator that is asked for a cookie tries again after five seconds.
const TWO_TRIES: Duration = Duration::from_secs(13);

story!(of_handshakes);

fn of_handshakes(stage: &Stage) -> Result<()> {
    let Pair { a, mut b } = Pair::new(stage, Plan::of(stage))?;
    let c = attacker(stage, &b)?;
    traffic::ping(&a.netns, b.inner(Family::V4))?;
    let bystander = udp_socket(&b.netns, SocketAddr::new(VICTIM.into(), PORT + 1))?;

    // One right after the other, so that whatever else goes on weighs on both; and more of them while it weighs too
    // much.
    let mut shares = Vec::new();
    while shares.len() < ROUNDS_MIN || (shares.len() < ROUNDS_MAX && median(&mut shares) < SHARE) {
        let harmless = throughput_under(&a, &b, &c, PORT + 1)?;
        shares.push(throughput_under(&a, &b, &c, PORT)? / harmless);
    }
    drop(bystander);
    let share = median(&mut shares);
    ensure!(
        share >= SHARE,
        "{share:.2} of the throughput is left: {shares:.2?}"
    );
    ensure!(b.daemon.is_alive(), "the daemon died of it");
    newcomers_get_in(stage, &a, &b, &c)
}

fn attacker(stage: &Stage, b: &Host) -> Result<Netns> {
    let c = Netns::new(stage, "c")?;
    c.cable("veth3", &b.netns, "veth4")?;
    c.address("veth3", "10.0.3.3/24")?;
    b.netns.address("veth4", &format!("{VICTIM}/24"))?;
    b.netns.run("ip route add 100.64.0.0/10 via 10.0.3.3")?;
    for scope in ["all", "veth4"] {
        b.netns
            .sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
    }
    Ok(c)
}

fn throughput_under(a: &Host, b: &Host, c: &Netns, port: u16) -> Result<f64> {
    let attack = flood(b, c, port)?;
    let (sent_before, start) = (attack.sent(), now());
    let report = Iperf::tcp(a, b, Family::V4, SECONDS).run()?;
    let (sent, seconds) = (attack.sent() - sent_before, (now() - start).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "hundreds of thousands")]
    let pace = sent as f64 / seconds;
    ensure!(
        pace > 0.8 * f64::from(A_SECOND),
        "the generator sent {pace:.0} a second"
    );
    Ok(report.bits_per_second / 1e6)
}

fn flood(b: &Host, c: &Netns, port: u16) -> Result<Attack> {
    let pace = Pace {
        datagrams: u64::MAX,
        a_second: A_SECOND.into(),
    };
    Attack::with_initiations(
        c,
        &bytes(&b.keys.public)?,
        SocketAddrV4::new(VICTIM, port),
        pace,
    )
}

/// A peer that has no session yet gets one in the middle of it, with a cookie.
fn newcomers_get_in(stage: &Stage, a: &Host, b: &Host, c: &Netns) -> Result<()> {
    let _flood = flood(b, c, PORT)?;
    let keys = ployz_netns_tests::Keys::generate(stage)?;
    b.wg().set(&format!("peer {} remove", a.keys.public))?;
    a.wg().set(&format!("private-key {}", keys.path()))?;
    a.wg()
        .set(&format!("peer {} preshared-key /dev/null", b.keys.public))?;
    let ips = a.allowed_ips();
    b.wg()
        .set(&format!("peer {} allowed-ips {ips}", keys.public))?;
    wait_until("a newcomer's handshake", TWO_TRIES, || {
        traffic::ping(&a.netns, b.inner(Family::V4)).is_ok()
    })
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
