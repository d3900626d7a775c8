//! A reader who takes every connection that there is: what is left for the others, and how it ends.
//!
//! ```text
//!   m1 founds acme ──┬── switch
//!   m2 joins       ──┤
//!   m3 joins later ──┤
//!   m4, no daemon  ──┘   somebody with a reader's credential
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_api::client::ask;
use ployz_api::{Code, Credential, NO_MEMBER, Request};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::hoard::Hoard;
use ployz_netns_tests::quic_client::runtime;
use ployz_netns_tests::wait::now;
use ployz_netns_tests::{Backend, Outcome, tell};

/// More than a server has.
const ATTEMPTS: usize = 450;
/// As many as one person's credential has.
const SHARE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);
/// A revocation is news for every machine within milliseconds; the rest is for a busy host.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn one_reader_takes_its_share_and_no_more() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 3)?;
        let crowd = segment.machine(stage, 4)?;
        let [founder, second, third] = &machines[..] else {
            anyhow::bail!("three machines");
        };
        ensure!(founder.code("mesh init acme")? == "OK");
        second.join(founder)?;
        let (id, reader) = credential(founder, "reader")?;
        let others = ["reader", "operator", "admin"].map(|role| credential(founder, role));
        crowd.netns.enter(|| {
            runtime()?.block_on(async {
                let mut hoards = Vec::new();
                for number in [1, 2] {
                    hoards.push(Hoard::take(&at(number, &reader)?, ATTEMPTS).await?);
                }
                for other in &others {
                    let (_, other) = other.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
                    for number in [1, 2] {
                        is_heard(second, &at(number, other)?)?;
                    }
                }
                third.join(founder).context("a joiner has room")?;
                for hoard in &hoards {
                    ensure!(hoard.len() == SHARE, "{}", hoard.len());
                }
                ensure!(founder.code(&format!("credential revoke {id}"))? == "OK");
                let revoked = now();
                for hoard in &hoards {
                    hoard.closed(NO_MEMBER, AT_ONCE).await?;
                }
                show(revoked.elapsed());
                Ok(())
            })
        })?;
        let status = founder.json("status")?;
        let refused = status.pointer("/payload/refused/holder");
        ensure!(
            refused.and_then(serde_json::Value::as_u64) == Some((ATTEMPTS - SHARE) as u64),
            "{status}"
        );
        Ok(())
    })
}

/// A credential of this role, and its id.
fn credential(founder: &Machine, role: &str) -> Result<(String, Credential)> {
    let created = founder.json(&format!("credential create --role {role}"))?;
    let context = created.pointer("/payload/context/credential");
    let context = context.with_context(|| created.to_string())?;
    let id = text(&created, "/payload/credential_id");
    Ok((id, serde_json::from_value(context.clone())?))
}

/// The same for the server of one machine.
fn at(number: u8, credential: &Credential) -> Result<Credential> {
    let mut document = serde_json::to_value(credential)?;
    document["endpoints"] = serde_json::json!([format!("10.0.0.{number}:51821")]);
    Ok(serde_json::from_value(document)?)
}

fn is_heard(from: &Machine, credential: &Credential) -> Result<()> {
    let answer = from
        .netns
        .enter(|| Ok(runtime()?.block_on(ask(credential, &Request::Status, PATIENCE))?))?;
    ensure!(answer.code == Code::Ok, "{answer:?}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(took: Duration) {
    println!("all connections closed {took:.1?} after the answer of the revocation");
}
