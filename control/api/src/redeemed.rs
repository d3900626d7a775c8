//! What a machine is given when it joins, and when its certificates are renewed.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::NetworkId;
use crate::name::Name;

/// The data that a coordinator gives a machine that it admits.
#[derive(Debug, Serialize, Deserialize)]
pub struct Redeemed {
    /// The network's id.
    pub network_id: NetworkId,
    /// The network's name.
    pub network: Name,
    /// The range that subnets come from.
    pub cluster_cidr: Ipv4Net,
    /// Its authority.
    pub ca_pem: String,
    /// The joiner's certificate.
    pub certificate_pem: String,
    /// The servers of the store, in the overlay.
    pub store: Vec<(IpAddr, u16)>,
    /// How many stores there were before it.
    #[serde(default)]
    pub store_epoch: u32,
    /// The records of all machines, the joiner's among them.
    pub machines: Vec<Value>,
    /// The joiner's certificate for the store's servers, which see no other of its certificates.
    #[serde(default)]
    pub store_certificate_pem: Option<String>,
}

/// A machine's certificates, signed anew.
#[derive(Debug, Serialize, Deserialize)]
pub struct Renewed {
    /// The certificate for the management protocol.
    pub certificate_pem: String,
    /// The certificate for the store's servers.
    pub store_certificate_pem: String,
}
