//! Diagnosis: checks and the reports of machines about each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::MachineId;
use crate::name::Name;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The check found no fault.
    Ok,
    /// The part works, but not at its best.
    Warn,
    /// The part does not work.
    Fail,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The name of the check.
    pub check: String,
    /// The result.
    pub verdict: Verdict,
    /// The cause of the result.
    pub cause: String,
    /// The command that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Check {
    /// Nothing to mend.
    pub fn ok(check: &str, cause: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, cause, None)
    }

    /// Something that could be better.
    pub fn warn(check: &str, cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, cause, Some(mend.into()))
    }

    /// Something that has to be mended.
    pub fn fail(check: &str, cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, cause, Some(mend.into()))
    }

    fn new(check: &str, verdict: Verdict, cause: impl Into<String>, mend: Option<String>) -> Self {
        Self {
            check: check.to_owned(),
            verdict,
            cause: cause.into(),
            mend,
        }
    }
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// Whether nothing has failed.
    pub healthy: bool,
    /// The other machine, if it was about a pair.
    pub machine: Option<Name>,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Doctor {
    /// The sum of all checks.
    pub fn new(machine: Option<Name>, checks: Vec<Check>) -> Self {
        Self {
            healthy: checks.iter().all(|check| check.verdict < Verdict::Fail),
            machine,
            checks,
        }
    }
}

/// A machine, and what it has to say of another one. Each such report sends one packet to it through the tunnel, so
/// that the next report has something to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairReport {
    /// The machine that reports.
    pub id: MachineId,
    /// The name of the machine.
    pub name: Name,
    /// Its clock: milliseconds since 1970.
    pub unix_ms: u64,
    /// When the store last confirmed its view.
    pub view_age_secs: u64,
    /// Its own WireGuard key, in base64.
    pub wireguard_key: String,
    /// The MTU of its interface, in bytes.
    pub mtu: u32,
    /// The other one's key as in its view; none if the other one is not in it.
    pub known_key: Option<String>,
    /// Datagrams from any source that it could not authenticate.
    pub refused: u64,
    /// The other one's data plane, as far as this one has to do with it.
    pub peer: Option<PeerReport>,
}

/// A data plane's report about a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The endpoint that it sends to.
    pub endpoint: Option<SocketAddr>,
    /// Why it cannot be sent to, as the kernel says; none if it can.
    pub no_route: Option<String>,
    /// Since the last handshake.
    pub handshake_age_secs: Option<u64>,
    /// Bytes that came and were authentic.
    pub rx_bytes: u64,
    /// Bytes that were sent.
    pub tx_bytes: u64,
    /// The longest IP packet that reaches it, in bytes, if it is known.
    pub path_mtu: Option<u64>,
}
