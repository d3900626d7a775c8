//! Whom a management server lets in, and whom it does not.
//!
//! ```text
//!   m1 founds acme  ──┐
//!                     ├── switch      m2 holds acme's token, and a certificate of other
//!   m2 founds other ──┘
//! ```

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_api::client::{ClientError, ask, ask_invited};
use ployz_api::{
    Code, Credential, InviteId, MachineId, Name, NetworkId, RedeemRequest, Request, Response,
    Secret, Token,
};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::wait::now;
use ployz_netns_tests::{Backend, Outcome, tell};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
/// What a wrong guess costs.
const GUESS_WAIT: Duration = Duration::from_millis(300);

#[test]
fn only_the_networks_own_are_heard() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let (mut founder, mut other) = (segment.machine(stage, 1)?, segment.machine(stage, 2)?);
        founder.start(stage)?;
        other.start(stage)?;
        ensure!(founder.code("mesh init acme")? == "OK");
        ensure!(other.code("mesh init other")? == "OK");
        let token = founder.invite("")?;
        strangers_may_redeem_and_nothing_else(&other, &token)?;
        guesses_are_refused(&other, &token)?;
        another_authority_is_not_trusted(&other, &token)?;
        another_networks_certificate_is_not_taken(&other, &founder, &token)?;
        ensure!(
            founder.code("machine ls")? == "OK",
            "and none of it did any harm"
        );
        Ok(())
    })
}

fn strangers_may_redeem_and_nothing_else(from: &Machine, token: &str) -> Result<()> {
    for request in [
        Request::Status,
        Request::MachineList,
        Request::InviteList { all: true },
    ] {
        let response = invited(from, token, |_| {}, request)?.context("an answer")?;
        ensure!(response.code == Code::Forbidden, "{response:?}");
    }
    Ok(())
}

/// A token of which one field was changed, with everything else right, checksum included.
fn guesses_are_refused(from: &Machine, token: &str) -> Result<()> {
    let begin = now();
    let another_secret = |token: &mut Token| token.secret = Secret::new("00".repeat(16));
    let another_invite = |token: &mut Token| token.invite_id = InviteId::new(1, 1);
    ensure!(redeemed(from, token, another_secret)?? == Code::InviteInvalid);
    ensure!(redeemed(from, token, another_invite)?? == Code::InviteInvalid);
    ensure!(begin.elapsed() > GUESS_WAIT * 2, "{:?}", begin.elapsed());
    let another_network = |token: &mut Token| token.network_id = NetworkId::new(1, 1);
    let answer = redeemed(from, token, another_network)?;
    ensure!(
        matches!(answer, Err(ClientError::Unreachable(_))),
        "{answer:?}"
    );
    Ok(())
}

fn redeemed(
    from: &Machine,
    token: &str,
    change: impl FnOnce(&mut Token),
) -> Result<Result<Code, ClientError>> {
    let mut token = Token::decode(token)?;
    change(&mut token);
    let guess = Request::InviteRedeem(RedeemRequest {
        invite_id: token.invite_id,
        secret: Secret::new(token.secret.expose().to_owned()),
        machine_id: MachineId::new(1, 1),
        name: Name::nearest("guess"),
        region: "local".to_owned(),
        wireguard_key: "0nscWCo5g1p1G9ujcm+rwlQJSvDNqL644p4GpCpAWlI=".to_owned(),
        nkey: "UBMPTSOW4XX6FH27VLVTZQS7CTEQJEQBF6HI53WYWUPDNQ4LT2FUJHGZ".to_owned(),
        certificate_key: format!("04{}", "00".repeat(64)),
        endpoints: Vec::new(),
        proofs: None,
    });
    let word = token.encode();
    let answer = invited(from, word.expose(), |_| {}, guess)?;
    Ok(answer.map(|response| response.code))
}

/// The joiner's side: a server whose authority is not the one of the token is never told the secret.
fn another_authority_is_not_trusted(from: &Machine, token: &str) -> Result<()> {
    let wrong = |token: &mut Token| token.ca_fingerprint = "00".repeat(32);
    let answer = invited(from, token, wrong, Request::Status)?;
    ensure!(
        matches!(answer, Err(ClientError::Unreachable(_))),
        "{answer:?}"
    );
    Ok(())
}

/// A machine of one network is nobody in another: its certificate is a self-made one there.
fn another_networks_certificate_is_not_taken(
    from: &Machine,
    founder: &Machine,
    token: &str,
) -> Result<()> {
    let read = |machine: &Machine, file: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(
            machine.data_dir.join(file),
        )?)?)
    };
    let (foreign, identity) = (read(from, "network.json")?, read(from, "identity.json")?);
    let token = Token::decode(token)?;
    let credential = Credential {
        endpoints: token.endpoints.clone(),
        network: token.network_id.to_string(),
        ca_pem: text(&read(founder, "network.json")?, "/ca_pem"),
        certificate_pem: text(&foreign, "/certificate_pem"),
        key_pem: Secret::new(text(&identity, "/certificate_key_pem")),
    };
    let answer = from.netns.enter(|| {
        let asking = ask(&credential, &Request::Status, PATIENCE);
        Ok(runtime()?.block_on(asking))
    })?;
    ensure!(answer.is_err(), "{answer:?}");
    Ok(())
}

/// Asks as somebody who holds a token, from another machine.
fn invited(
    from: &Machine,
    token: &str,
    change: impl FnOnce(&mut Token),
    request: Request,
) -> Result<Result<Response, ClientError>> {
    let mut token = Token::decode(token)?;
    change(&mut token);
    from.netns
        .enter(|| Ok(runtime()?.block_on(ask_invited(&token, &request, PATIENCE))))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}
