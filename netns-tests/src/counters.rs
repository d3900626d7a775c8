//! Counters that somebody else keeps: the kernel's TCP statistics, a link's bytes.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::Netns;

/// One value of `/proc/net/netstat` or `/proc/net/snmp` in a namespace, such as `TcpExt` `TCPOFOQueue`.
pub fn netstat(netns: &Netns, group: &str, name: &str) -> Result<u64> {
    let text = netns.run("cat /proc/net/netstat /proc/net/snmp")?.stdout;
    let prefix = format!("{group}:");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let names = lines.next().with_context(|| format!("no {group}"))?;
    let values = lines
        .next()
        .with_context(|| format!("no values of {group}"))?;
    let mut all = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = all
        .find(|(it, _)| *it == name)
        .with_context(|| format!("no {name}"))?;
    Ok(value.parse()?)
}

/// One value of `/proc/net/snmp6` in a namespace, such as `Udp6RcvbufErrors`.
pub fn snmp6(netns: &Netns, name: &str) -> Result<u64> {
    let text = netns.run("cat /proc/net/snmp6")?.stdout;
    let mut pairs = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    let (_, value) = pairs
        .find(|(it, _)| *it == name)
        .with_context(|| format!("no {name}"))?;
    Ok(value.trim().parse()?)
}

/// Bytes that the kernel counted on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkBytes {
    pub received: u64,
    pub sent: u64,
}

impl LinkBytes {
    pub fn of(netns: &Netns, link: &str) -> Result<Self> {
        let shown = netns
            .run(&format!("ip -json -stats link show dev {link}"))?
            .stdout;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let bytes = |way: &str| {
            shown[0]["stats64"][way]["bytes"]
                .as_u64()
                .with_context(|| format!("{link}: no {way}"))
        };
        Ok(Self {
            received: bytes("rx")?,
            sent: bytes("tx")?,
        })
    }
}

/// Counts the keepalives that reach a namespace, on the wire: a UDP datagram of 8 + 32 bytes.
#[derive(Debug)]
pub struct Keepalives<'a>(&'a Netns);

impl<'a> Keepalives<'a> {
    pub fn of(netns: &'a Netns) -> Result<Self> {
        netns.run("nft add table inet keepalives")?;
        netns.run("nft add chain inet keepalives in { type filter hook input priority 0 ; }")?;
        netns.run("nft add rule inet keepalives in udp length 40 counter")?;
        Ok(Self(netns))
    }

    pub fn count(&self) -> Result<u64> {
        let listed = self.0.run("nft list table inet keepalives")?.stdout;
        let mut words = listed
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        Ok(words.nth(1).context("no counter")?.parse()?)
    }
}

impl Drop for Keepalives<'_> {
    fn drop(&mut self) {
        let _with_the_namespace = self.0.run("nft delete table inet keepalives");
    }
}

/// Processor time that a process has used.
pub fn processor_time(pid: u32) -> Result<Duration> {
    /// USER_HZ, which the kernel fixes for every program.
    const TICKS_A_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces: fields count from behind its parenthesis, utime and stime are the 12th and 13th.
    let (_, fields) = stat.rsplit_once(')').context("odd stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}
