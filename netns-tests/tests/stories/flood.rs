//! Fifty thousand handshakes a second from spoofed addresses, and the tunnel hardly notices; one address with a cookie
//! has few computed; and a peer whose own address is spoofed gets in all the same.
//!
//! ```text
//!   a ========== b      TCP from a to b through the tunnel
//!                |
//!                c      sends initiations with a valid MAC from 100.64.0.0/10, from a's address, or from its own
//! ```
//!
//! The generator takes processor time away from everybody. So the bar is the throughput under the same
//! generator when it aims at a port next to the daemon's.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ployz_netns_tests::attack::{Attack, Pace};
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::relay::udp_socket;
use ployz_netns_tests::traffic::Iperf;
use ployz_netns_tests::wait::{now, pause, wait_until};
use ployz_netns_tests::wg::bytes;
use ployz_netns_tests::{Host, Netns, Pair, Plan, Stage, story, traffic};

const A_SECOND: u32 = 50_000;
const SECONDS: u32 = 2;
const ROUNDS_MIN: usize = 3;
const ROUNDS_MAX: usize = 15;
/// What is left of the throughput. Two processors carry both daemons, iperf3 and the generator: medians of 0.79 to
/// above 0.8 were measured there, of 17e73ad and of its successors alike, from one hour to the next.
const SHARE: f64 = 0.7;

const VICTIM: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);

/// An initiator that is asked for a cookie tries again after five seconds.
const TWO_TRIES: Duration = Duration::from_secs(13);

/// From one address that has a cookie; for each the paper has 20 handshakes a second and a burst of 5.
const WITH_COOKIE_A_SECOND: u64 = 20_000;
const HANDSHAKES_A_SECOND: f64 = 20.0;
const HANDSHAKES_BURST: f64 = 5.0;

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
    one_cookie_buys_little(&b, &c)?;
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

/// What c sends from its own address is refused only after two scalar multiplications: that few are is what is counted.
fn one_cookie_buys_little(b: &Host, c: &Netns) -> Result<()> {
    if !b.daemon.contender().is_ployzd() {
        return Ok(());
    }
    let pace = Pace {
        datagrams: u64::MAX,
        a_second: WITH_COOKIE_A_SECOND,
    };
    let target = SocketAddrV4::new(VICTIM, PORT).into();
    let (attack, has_cookie) = Attack::with_a_cookie(c, &bytes(&b.keys.public)?, target, pace)?;
    wait_until("a cookie for the attacker", TWO_TRIES, || {
        has_cookie.load(Ordering::Relaxed)
    })?;
    // What was let in before there was load has been computed by then.
    pause(Duration::from_secs(1));
    let (sent, computed, start) = (attack.sent(), refused(b)?, now());
    pause(Duration::from_secs(3));
    let (sent, computed) = (attack.sent() - sent, refused(b)? - computed);
    let seconds = (now() - start).as_secs_f64();
    ensure!(sent > WITH_COOKIE_A_SECOND, "the generator sent {sent}");
    ensure!(
        computed <= HANDSHAKES_BURST + HANDSHAKES_A_SECOND * (seconds + 0.5),
        "{computed} handshakes of one address computed in {seconds:.1} s, of {sent}"
    );
    Ok(())
}

/// Handshake messages that were computed and found wanting.
fn refused(host: &Host) -> Result<f64> {
    let status = host.daemon.uapi().status()?;
    let count = status.get("drop_bad_handshake").context("no counter")?;
    Ok(count.parse()?)
}

/// A peer that has no session yet gets one in the middle of it, with a cookie, although its own address is spoofed.
fn newcomers_get_in(stage: &Stage, a: &Host, b: &Host, c: &Netns) -> Result<()> {
    let _flood = flood(b, c, PORT)?;
    let _spoof = spoof(a, b, c)?;
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

/// Twice a second c writes to b as if it were a.
fn spoof(a: &Host, b: &Host, c: &Netns) -> Result<Attack> {
    let SocketAddr::V4(source) = a.endpoint(Family::V4) else {
        bail!("a is at an address of IPv6");
    };
    let target = SocketAddrV4::new(VICTIM, PORT);
    let pace = Pace {
        datagrams: u64::MAX,
        a_second: 2,
    };
    Attack::with_initiations_from(c, &bytes(&b.keys.public)?, Some(source), target, pace)
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
