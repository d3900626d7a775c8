//! One interface on several threads: from outside nobody can tell.
//!
//! ```text
//!   hub  10.1.n.1 ========== 10.1.n.2       peer n    n = 2 to 7: ployzd, and wireguard-go for 3 and 6
//!        192.168.241.1 ~~~~~ 192.168.241.n            at home in shard n modulo shards
//! ```
//!
//! The hub forwards, so that what peers send to each other crosses it from one shard to another.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use ployz_netns_tests::contender::SHARDS;
use ployz_netns_tests::numbered::Numbered;
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::traffic::{Iperf, Protocol};
use ployz_netns_tests::wg::bytes;
use ployz_netns_tests::{Contender, Daemon, Host, Keys, Netns, Stage, story, traffic};

const PEERS: std::ops::RangeInclusive<u8> = 2..=7;

mod one {
    use super::*;
    story!(everybody_is_served_by_one);
}

mod two {
    use super::*;
    story!(everybody_is_served_by_two);
}

mod four {
    use super::*;
    story!(everybody_is_served_by_four);
}

mod order {
    use super::*;
    story!(no_datagram_overtakes_another);
}

mod allowed_ips {
    use super::*;
    story!(move_from_shard_to_shard);
}

mod port {
    use super::*;
    story!(moves_for_all_shards);
}

/// The hub and its peers; drops in this order.
struct Star {
    hub: Host,
    peers: Vec<Host>,
    shards: u8,
}

impl Star {
    fn new(stage: &Stage, shards: u8) -> Result<Self> {
        let netns = Netns::new(stage, "hub")?;
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.default.send_redirects", "0"),
        ] {
            netns.sysctl(key, value)?;
        }
        let flags = format!("{SHARDS} {shards}");
        let daemon =
            Daemon::start_as(stage, &netns, stage.contender(), &stage.interface(), &flags)?;
        let hub = Host::of(daemon, netns, 1, Keys::generate(stage)?)?;
        let peers = PEERS.map(|number| peer(stage, &hub, number, shards));
        let peers = peers.collect::<Result<_>>()?;
        Ok(Self { hub, peers, shards })
    }

    fn dropped(&self, reason: &str) -> Result<u64> {
        let status = self.hub.daemon.uapi().status()?;
        Ok(status[&format!("drop_{reason}")].parse()?)
    }

    /// What was steered wrongly, came from the wrong side, or found no room on its way to another shard.
    fn nothing_went_astray(&self) -> Result<()> {
        self.nothing_went_astray_but(0)
    }

    /// The same, but for so many datagrams of a peer that did not know that it was none.
    fn nothing_went_astray_but(&self, strangers: u64) -> Result<()> {
        for reason in ["wrong_shard", "unknown_session", "hand_over", "spoof"] {
            let dropped = self.dropped(reason)?;
            let expected = if reason == "unknown_session" {
                strangers
            } else {
                0
            };
            ensure!(dropped == expected, "{dropped} dropped for {reason}");
        }
        Ok(())
    }

    fn stop(self) -> Result<()> {
        self.hub.daemon.stop(Signal::SIGTERM, &self.hub.netns)
    }
}

/// Tells the story on a hub with so many shards; only ours has any.
fn with(stage: &Stage, shards: u8, story: fn(&Stage, &Star) -> Result<()>) -> Result<()> {
    if !stage.contender().is_ployzd() {
        return Ok(());
    }
    let star = Star::new(stage, shards)?;
    story(stage, &star)?;
    star.stop()
}

/// A peer with its cable and its place, which the hub knows and has not heard.
fn peer(stage: &Stage, hub: &Host, number: u8, shards: u8) -> Result<Host> {
    let netns = Netns::new(stage, &format!("peer{number}"))?;
    let (near, far) = (format!("veth{number}a"), format!("veth{number}"));
    hub.netns.cable(&near, &netns, &far)?;
    hub.netns.address(&near, &format!("10.1.{number}.1/24"))?;
    netns.address(&far, &format!("10.1.{number}.2/24"))?;
    let contender = if number.is_multiple_of(3) {
        Contender::WireguardGo
    } else {
        stage.contender()
    };
    let daemon = Daemon::start_as(stage, &netns, contender, &stage.interface(), "")?;
    let host = Host::of(
        daemon,
        netns,
        number,
        keys_of(stage, number % shards, shards)?,
    )?;
    introduce(hub, &host)?;
    host.wg().set(&format!(
        "peer {} endpoint 10.1.{number}.1:{PORT} allowed-ips 192.168.241.0/24,fd00::/64",
        hub.keys.public
    ))?;
    Ok(host)
}

fn introduce(hub: &Host, peer: &Host) -> Result<()> {
    hub.know(peer, &format!("endpoint 10.1.{}.2:{PORT}", peer.number))
}

/// Keys that are at home there. How a home follows from a key is the daemon's own affair; that the peers are spread
/// over all of them is the story's.
fn keys_of(stage: &Stage, home: u8, shards: u8) -> Result<Keys> {
    loop {
        let keys = Keys::generate(stage)?;
        let [a, b, c, d, ..] = bytes(&keys.public)?;
        if u32::from_le_bytes([a, b, c, d]) % u32::from(shards) == u32::from(home) {
            return Ok(keys);
        }
    }
}

fn everybody_is_served_by_one(stage: &Stage) -> Result<()> {
    with(stage, 1, everybody_is_served)
}

fn everybody_is_served_by_two(stage: &Stage) -> Result<()> {
    with(stage, 2, everybody_is_served)
}

fn everybody_is_served_by_four(stage: &Stage) -> Result<()> {
    with(stage, 4, everybody_is_served)
}

fn everybody_is_served(stage: &Stage, star: &Star) -> Result<()> {
    for peer in &star.peers {
        // Who is odd is called first, who is even calls first.
        let (first, second) = if peer.number % 2 == 1 {
            (&star.hub, peer)
        } else {
            (peer, &star.hub)
        };
        for family in Family::BOTH {
            traffic::pings(&first.netns, second.inner(family), 20)?;
            traffic::pings(&second.netns, first.inner(family), 20)?;
        }
    }
    for family in Family::BOTH {
        tcp_around(star, family)?;
    }
    star.nothing_went_astray()?;
    let status = star.hub.daemon.uapi().status()?;
    ensure!(status["shards"] == star.shards.to_string(), "{status:?}");
    looks_like_one_shard(stage, star)
}

/// All at once: every peer to the next one, through the hub.
fn tcp_around(star: &Star, family: Family) -> Result<()> {
    let next = star.peers.iter().cycle().skip(1);
    thread::scope(|scope| {
        let streams: Vec<_> = star
            .peers
            .iter()
            .zip(next)
            .map(|(from, to)| Iperf {
                client: &from.netns,
                server: &to.netns,
                target: to.inner(family),
                protocol: Protocol::Tcp,
                streams: 2,
                seconds: 2,
            })
            .map(|stream| scope.spawn(move || stream.run()))
            .collect();
        for stream in streams {
            stream
                .join()
                .expect("iperf3 is waited for with a deadline")?;
        }
        Ok(())
    })
}

fn looks_like_one_shard(stage: &Stage, star: &Star) -> Result<()> {
    let dump = star.hub.wg().dump()?;
    ensure!(dump.peers.len() == star.peers.len());
    for (shown, peer) in dump.peers.iter().zip(&star.peers) {
        ensure!(shown.public_key == peer.keys.public, "out of order");
        ensure!(shown.latest_handshake != 0, "no handshake: {shown:?}");
        ensure!(shown.received > 0 && shown.sent > 0, "no bytes: {shown:?}");
    }
    let elsewhere = Netns::new(stage, "elsewhere")?;
    let flags = format!("{SHARDS} 1");
    let contender = stage.contender();
    let one = Daemon::start_as(stage, &elsewhere, contender, &stage.interface(), &flags)?;
    let wg = ployz_netns_tests::Wg::new(&elsewhere, one.interface());
    let configuration = star.hub.wg().showconf()?;
    wg.configure("setconf", &configuration)?.success()?;
    let shown = wg.showconf()?;
    ensure!(shown == configuration, "{shown}\nis not\n{configuration}");
    Ok(())
}

fn no_datagram_overtakes_another(stage: &Stage) -> Result<()> {
    with(stage, 4, |_, star| {
        // Both ends would begin at once otherwise, and of two handshakes that cross none may come to anything.
        for peer in &star.peers {
            traffic::pings(&star.hub.netns, peer.inner(Family::V4), 10)?;
        }
        let mut flows = Vec::new();
        for peer in &star.peers {
            for family in Family::BOTH {
                flows.push(Numbered::start(&star.hub, peer, peer.inner(family))?);
                flows.push(Numbered::start(peer, &star.hub, star.hub.inner(family))?);
            }
        }
        for flow in flows {
            flow.finish()?.is_in_order()?;
        }
        star.nothing_went_astray()
    })
}

fn move_from_shard_to_shard(stage: &Stage) -> Result<()> {
    const ELSEWHERE: [&str; 2] = ["10.77.0.1/32", "fd77::1/128"];
    with(stage, 4, |_, star| {
        let mut strangers = 0;
        for prefix in ELSEWHERE {
            strangers += a_prefix_moves(star, prefix)?;
        }
        star.nothing_went_astray_but(strangers)?;
        for prefix in ELSEWHERE {
            a_prefix_moves_in_full_flow(star, prefix)?;
        }
        Ok(())
    })
}

/// Two peers get a prefix in turn; only the second has the address. What it sends while it is no peer at all, which are
/// tests of the round trip, is counted.
fn a_prefix_moves(star: &Star, prefix: &str) -> Result<u64> {
    let (hub, a, b) = (&star.hub, &star.peers[0], &star.peers[2]);
    hub.netns
        .run(&format!("ip route add {prefix} dev {}", hub.link()))?;
    b.netns.address("lo", prefix)?;
    let address = address_of(prefix)?;
    give(hub, prefix, a)?;
    traffic::ping_in_vain(&hub.netns, address)?;
    give(hub, prefix, b)?;
    traffic::pings(&hub.netns, address, 10)?;
    // Taken away alone, then with the peer, and given back each time.
    let key = &b.keys.public;
    let own = b.allowed_ips();
    hub.wg().set(&format!("peer {key} allowed-ips {own}"))?;
    traffic::ping_in_vain(&hub.netns, address)?;
    give(hub, prefix, b)?;
    traffic::pings(&hub.netns, address, 10)?;
    let before = star.dropped("unknown_session")?;
    hub.wg().set(&format!("peer {key} remove"))?;
    traffic::ping_in_vain(&hub.netns, address)?;
    introduce(hub, b)?;
    give(hub, prefix, b)?;
    traffic::pings(&hub.netns, address, 10)?;
    Ok(star.dropped("unknown_session")? - before)
}

/// What is in the wrong queue when the prefix moves is lost, but what arrives is in order.
fn a_prefix_moves_in_full_flow(star: &Star, prefix: &str) -> Result<()> {
    let (hub, a, b) = (&star.hub, &star.peers[0], &star.peers[2]);
    let address = address_of(prefix)?;
    let flow = Numbered::start(hub, b, address)?;
    while flow.is_sending() {
        give(hub, prefix, a)?;
        give(hub, prefix, b)?;
    }
    flow.finish()?.is_in_order()?;
    traffic::pings(&hub.netns, address, 10)?;
    traffic::pings(&hub.netns, a.inner(Family::V4), 10)
}

fn give(hub: &Host, prefix: &str, peer: &Host) -> Result<()> {
    let (key, own) = (&peer.keys.public, peer.allowed_ips());
    hub.wg()
        .set(&format!("peer {key} allowed-ips {own},{prefix}"))
}

fn address_of(prefix: &str) -> Result<IpAddr> {
    let (address, _) = prefix.split_once('/').unwrap_or((prefix, ""));
    Ok(address.parse()?)
}

fn moves_for_all_shards(stage: &Stage) -> Result<()> {
    const ELSEWHERE: u16 = 51_999;
    with(stage, 4, |_, star| {
        let hub = &star.hub;
        let sockets = |port: u16| -> Result<usize> {
            let shown = hub.netns.run(&format!("ss -Huln sport = :{port}"))?;
            Ok(shown.stdout.lines().count())
        };
        ensure!(sockets(PORT)? == 8, "two for each shard");
        let taken = SocketAddr::new("0.0.0.0".parse()?, ELSEWHERE);
        let other = hub.netns.enter(|| Ok(std::net::UdpSocket::bind(taken)?))?;
        let refused = hub.wg().try_set(&format!("listen-port {ELSEWHERE}"))?;
        ensure!(!refused.succeeded(), "took a port that is in use");
        ensure!(sockets(PORT)? == 8, "lost its port");
        drop(other);
        hub.wg().set(&format!("listen-port {ELSEWHERE} fwmark 7"))?;
        ensure!(sockets(PORT)? == 0 && sockets(ELSEWHERE)? == 8);
        for peer in &star.peers {
            traffic::pings(&hub.netns, peer.inner(Family::V4), 10)?;
            traffic::pings(&peer.netns, hub.inner(Family::V6), 10)?;
        }
        star.nothing_went_astray()
    })
}
