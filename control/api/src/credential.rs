//! What it takes to speak to a daemon.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::secret::Secret;

/// Where in its data directory a daemon leaves the credential for root of its own host.
pub const LOCAL_CREDENTIAL_FILE: &str = "local.json";

/// Where in its data directory a daemon leaves the credential by which the rest of its network knows root of this host.
pub const MEMBER_CREDENTIAL_FILE: &str = "member.json";

/// Where to dial, whom to trust, and who to be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Tried in this order.
    pub endpoints: Vec<SocketAddr>,
    /// The network as its certificates call it.
    pub network: String,
    /// The authority that the daemon's certificate has to come from.
    pub ca_pem: String,
    /// Our own certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: Secret,
}

/// A network as an operator's client knows it; `context export` writes one, `context import` reads it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// What to call it.
    pub name: Name,
    /// How to get in.
    pub credential: Credential,
}
