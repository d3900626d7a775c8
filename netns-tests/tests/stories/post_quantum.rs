//! What is recorded today is not opened by a quantum computer later: every TLS session between our own is agreed on
//! with ML-KEM, the store's included, and whoever lacks that is served all the same, and seen.
//!
//! ```text
//!   m1 founds ──┬── switch
//!   m2 joins  ──┘   its port takes 1,280 bytes: the first message of a client does not fit into one datagram
//! ```

use anyhow::{Result, ensure};
use ployz_api::Credential;
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::machine_client::credential_of;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, quic_client, tell};
use serde_json::Value;

/// The least that IPv6 asks of a link (RFC 8200, section 5).
const LINK_MTU: u32 = 1_280;

#[test]
fn every_session_is_with_ml_kem_and_whoever_lacks_it_is_served_and_seen() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 2)?;
        let [founder, second] = &machines[..] else {
            anyhow::bail!("two machines");
        };
        segment.port_mtu(2, LINK_MTU)?;
        ensure!(founder.code("mesh init acme")? == "OK");
        second.join(founder)?;
        second.wait_ready(PATIENCE)?;
        ensure!(second.code("--on m1 status")? == "OK");
        for machine in &machines {
            let (post_quantum, classical) = exchanges(machine)?;
            ensure!(classical == 0 && post_quantum > 0, "{}", machine.name);
            ensure!(verdict(machine)? == "ok", "{}", machine.json("doctor")?);
        }
        let former = credential_of(second, vec![([10, 0, 0, 1], 51_821).into()])?;
        is_served(second, &former)?;
        wait_until("the founder to have counted it", PATIENCE, || {
            exchanges(founder).is_ok_and(|(_, classical)| classical == 1)
        })?;
        ensure!(verdict(founder)? == "warn", "{}", founder.json("doctor")?);
        ensure!(exchanges(second)?.1 == 0);
        Ok(())
    })
}

/// With ML-KEM and without.
fn exchanges(machine: &Machine) -> Result<(u64, u64)> {
    let status = machine.json("status")?;
    let count = |kind: &str| {
        let count = status.pointer(&format!("/payload/key_exchanges/{kind}"));
        count.and_then(Value::as_u64).unwrap_or_default()
    };
    Ok((count("post_quantum"), count("classical")))
}

fn verdict(machine: &Machine) -> Result<String> {
    let doctor = machine.json("doctor")?;
    let checks = doctor["payload"]["checks"].as_array();
    let mut checks = checks.into_iter().flatten();
    let check = checks.find(|check| check["check"] == "key exchange");
    Ok(check
        .map(|check| text(check, "/verdict"))
        .unwrap_or_default())
}

/// A client that has X25519 alone.
fn is_served(from: &Machine, credential: &Credential) -> Result<()> {
    from.netns.enter(|| {
        let runtime = quic_client::runtime()?;
        runtime.block_on(async {
            let (endpoint, connection) = quic_client::connect(credential).await?;
            connection.close(0_u32.into(), b"");
            endpoint.wait_idle().await;
            Ok(())
        })
    })
}
