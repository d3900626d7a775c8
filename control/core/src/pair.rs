//! Why two machines do not talk: a pure function over what both say of each other, before and after they have tried.

use ployz_api::{Check, PairReport, PeerReport};

/// A session without a new handshake ends after this time.
pub const SESSION_SECS: u64 = 180;
/// Past this age a view may be wrong: three listings have been missed.
pub const STALE_SECS: u64 = 60;
/// The skew that certificates and the age of records tolerate.
const CLOCK_SKEW_MS_MAX: u64 = 5_000;
/// WireGuard's and UDP's headers, and padding: what a datagram is longer than the packet in it; with IPv4.
const OVERHEAD_LEN: u64 = 60;

/// A machine at two times.
#[derive(Clone, Debug)]
pub struct Side {
    /// When it was first asked.
    pub before: PairReport,
    /// After both have sent something.
    pub after: PairReport,
}

/// The reports about a pair.
#[derive(Clone, Debug)]
pub struct Pair {
    /// This machine.
    pub here: Side,
    /// The other one, or why it cannot be asked.
    pub there: Result<Side, String>,
    /// The name of the other machine.
    pub name: String,
    /// How much later the other one's clock is, in milliseconds.
    pub skew_ms: i64,
}

impl Side {
    fn peer(&self) -> Option<&PeerReport> {
        self.after.peer.as_ref()
    }

    fn has_received(&self) -> bool {
        self.grown(|peer| peer.rx_bytes)
    }

    /// Datagrams arrive, authentic or not. A datagram that is not authentic may come from anywhere and is a hint only.
    fn has_heard(&self) -> bool {
        self.has_received() || self.after.refused > self.before.refused
    }

    fn has_sent(&self) -> bool {
        self.grown(|peer| peer.tx_bytes)
    }

    fn grown(&self, counter: impl Fn(&PeerReport) -> u64) -> bool {
        let at = |report: &PairReport| report.peer.as_ref().map_or(0, &counter);
        at(&self.after) > at(&self.before)
    }

    fn has_session(&self) -> bool {
        let age = self.peer().and_then(|peer| peer.handshake_age_secs);
        age.is_some_and(|age| age < SESSION_SECS)
    }
}

/// Diagnoses the pair: every check with its verdict.
pub fn diagnose(pair: &Pair) -> Vec<Check> {
    let Pair { here, name, .. } = pair;
    let mut checks = vec![
        view("this machine", &here.after),
        route("this machine", here),
    ];
    match &pair.there {
        Err(cause) => {
            checks.push(Check::fail(
                "asked",
                format!("{name} does not answer, neither through the tunnel nor directly: {cause}"),
                format!("ployzctl doctor (on {name}), and allow UDP to it: the WireGuard port and the port of --listen"),
            ));
            checks.push(udp_unasked(here, name));
        }
        Ok(there) => {
            checks.push(Check::ok("asked", format!("{name} answers")));
            checks.push(view(name, &there.after));
            checks.push(route(name, there));
            checks.push(keys(here, there));
            checks.push(udp(here, there));
            checks.push(handshake(here, there));
            checks.push(mtu(here, name));
            checks.push(clock(pair.skew_ms, name));
        }
    }
    checks
}

fn view(whose: &str, report: &PairReport) -> Check {
    if report.view_age_secs > STALE_SECS {
        let cause = format!(
            "stale: the store last confirmed the view of {whose} {} s ago",
            report.view_age_secs
        );
        return Check::fail(
            "view",
            cause,
            "ployzctl status (on a machine that holds the store)",
        );
    }
    match report.known_key {
        Some(_) => Check::ok("view", format!("{whose} is up to date")),
        None => Check::fail(
            "view",
            format!("{whose} does not know the other machine"),
            "ployzctl machine ls (on both)",
        ),
    }
}

fn route(whose: &str, side: &Side) -> Check {
    let Some(peer) = side.peer() else {
        return Check::ok(
            "route",
            format!("{whose} has no WireGuard peer for the other machine"),
        );
    };
    match (peer.endpoint, &peer.no_route) {
        (None, _) => Check::fail(
            "route",
            format!("{whose} knows no endpoint of the other machine"),
            "ployzd run --wg-endpoint ADDR:PORT (on the other machine)",
        ),
        (Some(endpoint), Some(error)) => Check::fail(
            "route",
            format!("no route from {whose} to {endpoint}: {error}"),
            format!("ip route get {}", endpoint.ip()),
        ),
        (Some(endpoint), None) => Check::ok("route", format!("{whose} has a route to {endpoint}")),
    }
}

/// Each knows the other by the key that the other has, and has told its data plane.
fn keys(here: &Side, there: &Side) -> Check {
    for (knowing, known) in [(here, there), (there, here)] {
        let (knowing, known) = (&knowing.after, &known.after);
        let is_right = |key: &String| *key == known.wireguard_key;
        if knowing.known_key.as_ref().is_some_and(|key| !is_right(key)) {
            return Check::fail(
                "key",
                format!(
                    "wrong key: the WireGuard key of {} differs from the network's record",
                    known.name
                ),
                format!(
                    "restore identity.json on {}, or remove the machine from the network and let it join again",
                    known.name
                ),
            );
        }
        if knowing.known_key.is_some() && knowing.peer.is_none() {
            return Check::fail(
                "key",
                format!(
                    "wrong key: the interface of {} has no peer with the key of {}",
                    knowing.name, known.name
                ),
                format!(
                    "restart ployzd on {}: its peers were changed from outside",
                    knowing.name
                ),
            );
        }
    }
    Check::ok("key", "each machine has the other's key")
}

fn udp(here: &Side, there: &Side) -> Check {
    let (a, b) = (&here.after.name, &there.after.name);
    let lost = |sender: &Side, receiver: &Side| sender.has_sent() && !receiver.has_heard();
    let blocked = |from: &Side, to: &Side| {
        let endpoint = from.peer().and_then(|peer| peer.endpoint);
        let port = endpoint.map_or_else(String::new, |it| format!(" port {}", it.port()));
        format!("allow incoming UDP{port} on {}", to.after.name)
    };
    match (lost(here, there), lost(there, here)) {
        (true, true) => Check::fail(
            "udp",
            format!("UDP is blocked both ways between {a} and {b}"),
            format!("{}, and {}", blocked(here, there), blocked(there, here)),
        ),
        (true, false) => Check::fail(
            "udp",
            format!("UDP is blocked one way: nothing from {a} arrives at {b}"),
            blocked(here, there),
        ),
        (false, true) => Check::fail(
            "udp",
            format!("UDP is blocked one way: nothing from {b} arrives at {a}"),
            blocked(there, here),
        ),
        (false, false) if here.has_heard() && there.has_heard() => {
            Check::ok("udp", "datagrams arrive both ways")
        }
        (false, false) => Check::warn(
            "udp",
            "neither machine has sent anything, so the path cannot be judged",
            "fix the failed checks above, then run this again",
        ),
    }
}

/// All that one side can tell.
fn udp_unasked(here: &Side, name: &str) -> Check {
    if here.has_received() {
        return Check::ok("udp", format!("datagrams from {name} arrive here"));
    }
    Check::fail(
        "udp",
        format!("no datagram from {name} arrives here: the machine is down, or UDP is blocked"),
        format!("ployzctl status (on {name})"),
    )
}

fn handshake(here: &Side, there: &Side) -> Check {
    let (a, b) = (&here.after.name, &there.after.name);
    let is_heard = here.has_heard() && there.has_heard();
    let is_understood = here.has_received() && there.has_received();
    let is_recent = here.has_session() && there.has_session();
    if is_recent && (is_understood || !is_heard) {
        return Check::ok(
            "handshake",
            "the last handshake is less than three minutes old",
        );
    }
    if is_heard {
        return Check::fail(
            "handshake",
            format!(
                "no handshake between {a} and {b}, although datagrams arrive both ways: one side has a preshared key, or a clock was set back"
            ),
            format!("compare wg show on {a} and {b}, and restart ployzd on the one that differs"),
        );
    }
    Check::fail(
        "handshake",
        format!("no handshake between {a} and {b}"),
        "fix the failed checks above",
    )
}

fn mtu(here: &Side, name: &str) -> Check {
    let needed = u64::from(here.after.mtu) + OVERHEAD_LEN;
    match here.peer().and_then(|peer| peer.path_mtu) {
        Some(mtu) if mtu < needed => Check::warn(
            "mtu",
            format!(
                "the path to {name} carries packets of {mtu} bytes, but the interface's MTU of {} needs {needed}: longer packets are fragmented or dropped",
                here.after.mtu
            ),
            format!(
                "ployzd run --mtu {}, or raise the MTU of the path",
                mtu.saturating_sub(OVERHEAD_LEN).max(1280)
            ),
        ),
        Some(mtu) => Check::ok("mtu", format!("the path carries packets of {mtu} bytes")),
        None => Check::warn(
            "mtu",
            format!("the MTU of the path to {name} was not measured: no large packet gets through"),
            "fix the failed checks above",
        ),
    }
}

fn clock(skew_ms: i64, name: &str) -> Check {
    let skew = skew_ms.unsigned_abs();
    if skew <= CLOCK_SKEW_MS_MAX {
        return Check::ok("clock", "both clocks agree");
    }
    let direction = if skew_ms > 0 { "ahead of" } else { "behind" };
    Check::fail(
        "clock",
        format!(
            "the clock of {name} is {} s {direction} this machine's clock",
            (skew + 500) / 1_000
        ),
        "timedatectl set-ntp true (on the machine whose clock is wrong)",
    )
}

#[cfg(test)]
mod tests;
