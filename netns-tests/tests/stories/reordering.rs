//! One TCP stream arrives in the order in which it was sent.
//!
//! ```text
//!   a ========== b      nothing is lost on the cable
//! ```
//!
//! With a window smaller than any buffer on the way nothing is lost either, so a segment that arrives
//! before its turn has been overtaken. At full speed a queue may overflow, which is no reordering: there
//! the sender's own verdict counts.

use anyhow::{Result, ensure};
use ployz_netns_tests::counters::netstat;
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::traffic::{Iperf, Protocol};
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

const SECONDS: u32 = 3;

/// 8 segments of what a TUN with offloads hands over at a time.
const SMALL_WINDOW: u64 = 512 * 1024;

/// What Debian's kernel allows a receiver by itself.
const LARGE_WINDOW: u64 = 6 << 20;

/// Sender's statistics that say "overtaken", not "lost".
const VERDICTS: [&str; 3] = ["TCPSACKReorder", "TCPTSReorder", "TCPRenoReorder"];

story!(nothing_is_overtaken);

fn nothing_is_overtaken(stage: &Stage) -> Result<()> {
    for family in Family::BOTH {
        let Pair { a, b } = Pair::new(stage, Plan::of(stage))?;
        traffic::ping(&a.netns, b.inner(family))?;
        small_window(&a, &b, family)?;
        full_speed(&a, &b, family)?;
    }
    Ok(())
}

fn small_window(a: &Host, b: &Host, family: Family) -> Result<()> {
    window_at_most(a, SMALL_WINDOW)?;
    window_at_most(b, SMALL_WINDOW)?;
    let report = stream(a, b, family)?;
    for name in ["TCPOFOQueue", "TCPDSACKOfoSent", "TCPOFODrop"] {
        let count = netstat(&b.netns, "TcpExt", name)?;
        ensure!(count == 0, "{name} = {count} at the receiver of {report}");
    }
    sender_saw_none(a)
}

fn full_speed(a: &Host, b: &Host, family: Family) -> Result<()> {
    window_at_most(a, LARGE_WINDOW)?;
    window_at_most(b, LARGE_WINDOW)?;
    stream(a, b, family)?;
    sender_saw_none(a)
}

fn window_at_most(host: &Host, bytes: u64) -> Result<()> {
    for key in ["tcp_wmem", "tcp_rmem"] {
        host.netns.sysctl(
            &format!("net.ipv4.{key}"),
            &format!("4096\t131072\t{bytes}"),
        )?;
    }
    Ok(())
}

fn stream(a: &Host, b: &Host, family: Family) -> Result<traffic::IperfReport> {
    Iperf {
        client: &a.netns,
        server: &b.netns,
        target: b.inner(family),
        protocol: Protocol::Tcp,
        streams: 1,
        seconds: SECONDS,
    }
    .run()
}

fn sender_saw_none(a: &Host) -> Result<()> {
    for name in VERDICTS {
        let count = netstat(&a.netns, "TcpExt", name)?;
        ensure!(count == 0, "{name} = {count} at the sender");
    }
    Ok(())
}
