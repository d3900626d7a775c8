//! Credentials: the means to speak to a daemon.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::secret::Secret;

/// The file of its data directory in which a daemon leaves the credential for root of its own host.
pub const LOCAL_CREDENTIAL_FILE: &str = "local.json";

/// The file of its data directory in which a daemon leaves the credential by which the network knows root of this host.
pub const MEMBER_CREDENTIAL_FILE: &str = "member.json";

/// The endpoints to dial, the CA to trust, and the identity to show.
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
    /// The name of the context.
    pub name: Name,
    /// How to get in.
    pub credential: Credential,
}
