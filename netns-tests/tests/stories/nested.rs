//! WireGuard inside WireGuard.
//!
//! ```text
//!   a ========== b       the cable
//!   a ~~~~~~~~~~ b       wg0, over the cable
//!   a ~~~~~~~~~~ b       wg1, over wg0: two more daemons
//! ```

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::{Daemon, Host, Keys, Pair, Plan, Stage, Wg, story, traffic};

const INNER_PORT: u16 = 51821;

story!(a_tunnel_in_a_tunnel);

/// A daemon on a host that has one already.
struct Second<'a> {
    daemon: Daemon,
    keys: Keys,
    host: &'a Host,
}

impl<'a> Second<'a> {
    fn new(stage: &Stage, host: &'a Host) -> Result<Self> {
        let daemon = Daemon::start(stage, &host.netns)?;
        let second = Self {
            daemon,
            keys: Keys::generate(stage)?,
            host,
        };
        second.wg().set(&format!(
            "private-key {} listen-port {INNER_PORT}",
            second.keys.path()
        ))?;
        let link = second.daemon.interface();
        host.netns
            .address(link, &format!("192.168.99.{}/24", host.number))?;
        host.netns.mtu(link, 1420 - 60)?;
        host.netns.run(&format!("ip link set dev {link} up"))?;
        Ok(second)
    }

    fn wg(&self) -> Wg<'_> {
        Wg::new(&self.host.netns, self.daemon.interface())
    }

    fn know(&self, other: &Self) -> Result<()> {
        let endpoint = SocketAddr::new(other.host.inner(Family::V4), INNER_PORT);
        let ips = format!("192.168.99.{}/32", other.host.number);
        self.wg().set(&format!(
            "peer {} endpoint {endpoint} allowed-ips {ips}",
            other.keys.public
        ))
    }
}

fn a_tunnel_in_a_tunnel(stage: &Stage) -> Result<()> {
    let Pair { a, b } = Pair::new(stage, Plan::of(stage))?;
    let (inner_a, inner_b) = (Second::new(stage, &a)?, Second::new(stage, &b)?);
    inner_a.know(&inner_b)?;
    inner_b.know(&inner_a)?;

    traffic::pings(&a.netns, "192.168.99.2".parse()?, 1000)?;
    for (protocol, streams, seconds) in [
        (traffic::Protocol::Tcp, 1, 2),
        (traffic::Protocol::Udp, 1, 1),
        (traffic::Protocol::Tcp, 50, 2),
    ] {
        let (client, server, target) = (&b.netns, &a.netns, "192.168.99.1".parse()?);
        traffic::Iperf {
            client,
            server,
            target,
            protocol,
            streams,
            seconds,
        }
        .run()?;
    }

    let outer = a.wg().peer(&b.keys.public)?;
    let inner = inner_a.wg().peer(&inner_b.keys.public)?;
    ensure!(
        inner.received > 1_000_000,
        "the load did not go through the inner tunnel: {inner:?}"
    );
    ensure!(
        outer.received > inner.received,
        "the inner tunnel did not go through the outer"
    );
    Ok(())
}
