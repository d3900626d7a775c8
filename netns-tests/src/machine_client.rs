//! A client that asks a daemon with the certificate of a machine, as that machine's daemon does.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use ployz_api::client::ask;
use ployz_api::{Credential, Request, Response, Secret};
use serde_json::Value;

use crate::cluster::{Machine, text};

/// As the daemon's own patience.
const ASK_WAIT: Duration = Duration::from_secs(30);

/// What the daemon at an address answers to `machine`, asked from there.
pub fn ask_as(machine: &Machine, address: [u8; 4], request: &Request) -> Result<Response> {
    let credential = credential_of(machine, vec![(address, 51_821).into()])?;
    machine.netns.enter(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build()?;
        Ok(runtime.block_on(ask(&credential, request, ASK_WAIT))?)
    })
}

/// The credential of a machine, as it is on its disk.
pub fn credential_of(machine: &Machine, endpoints: Vec<SocketAddr>) -> Result<Credential> {
    let read = |file: &str| -> Result<Value> {
        let bytes = fs::read(machine.data_dir.join(file))?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let (network, identity) = (read("network.json")?, read("identity.json")?);
    // Programs of earlier versions do not renew theirs.
    let renewed = read("certificates.json").map(|it| text(&it, "/machine_pem"));
    Ok(Credential {
        endpoints,
        network: text(&network, "/network_id"),
        ca_pem: text(&network, "/ca_pem"),
        certificate_pem: renewed.unwrap_or_else(|_| text(&network, "/certificate_pem")),
        key_pem: Secret::new(text(&identity, "/certificate_key_pem")),
    })
}
