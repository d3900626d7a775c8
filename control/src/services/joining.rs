//! Joining a network: the joiner's side.
//!
//! Nothing is written before the coordinator has answered, and the file that says that this machine is a member comes
//! last. If it dies before that, the same token lets it in again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use ployz_api::client::{ClientError, ask_invited};
use ployz_api::{
    CertificateName, Code, Failure, MachineJoin, NetworkState, Outcome, Payload, RedeemRequest,
    Redeemed, Request, Secret, Success, Token, fingerprint,
};
use ployz_core::{MachineRecord, SavedView};
use ployz_engine::PublicKey;
use rcgen::PublicKeyData as _;

use crate::host::clock;
use crate::host::error::HostError;
use crate::host::identity::{Identity, hex};
use crate::host::membership::{CERTIFICATES_FILE, FILE, Membership, OwnCertificates, VIEW_FILE};
use crate::host::{possession, tls};
use crate::machine::{Command, Entry, Machine};
use crate::overlay::interface_addresses;
use crate::store::Store;

/// The coordinator reserves a name and a subnet, one read for each that is taken.
const REDEEM_WAIT: Duration = Duration::from_secs(30);
/// The first handshake, the coordinator's news of us, and a connection through the tunnel.
const STORE_WAIT: Duration = Duration::from_secs(15);

pub(crate) async fn import(here: &Machine, token: &Secret) -> Outcome {
    let token = Token::decode(token.expose())
        .map_err(|error| Failure::new(Code::InviteInvalid, error.to_string()))?;
    if let Some(membership) = here.membership()? {
        if membership.network_id != token.network_id {
            let message = format!("this machine is in network {}", membership.network);
            return Err(Failure::new(Code::NetworkAlreadyRunning, message).hint("ployzctl status"));
        }
        enter_again(here, &membership).await?;
        return Ok(joined(here, &membership, "had joined before"));
    }
    let _entering = here.begin_entering()?;
    let mut introduction = introduction(here, &token)?;
    if let Some(named) = &token.coordinators {
        let proof_key = PublicKey::from_base64(&named.proof_key)
            .map_err(|error| Failure::new(Code::InviteInvalid, error.to_string()))?;
        let proofs = possession::prove(&here.identity, &introduction, token.network_id, &proof_key);
        introduction.proofs = Some(proofs?);
    }
    let request = Request::InviteRedeem(introduction);
    let response = ask_invited(&token, &request, REDEEM_WAIT)
        .await
        .map_err(unredeemed)?;
    let Some(Payload::Redeemed(redeemed)) = Outcome::from(response)?.payload else {
        let message =
            "the coordinator sent an unexpected answer; its ployzd may be of another version";
        return Err(Failure::new(Code::Internal, message));
    };
    check(&here.identity, &token, &redeemed)?;
    let membership = enter_network(here, *redeemed).await?;
    let network = here.running_network()?;
    // It is a member by now; a store that answers late is no reason to say otherwise.
    let status = match network.store.wait_connected(STORE_WAIT).await {
        Ok(()) => "joined",
        Err(_) => "joined; the store does not answer yet",
    };
    Ok(joined(here, &membership, status))
}

/// Enters a network that this machine is a member of and did not get into, as the last attempt failed in its last step.
///
/// # Errors
/// `BUSY`, and what has failed before.
pub(crate) async fn enter_again(here: &Machine, membership: &Membership) -> Result<(), Failure> {
    if here.network().is_some() || membership.state != NetworkState::Running {
        return Ok(());
    }
    let _entering = here.begin_entering()?;
    let take_part = Command::TakePart(Box::new(membership.clone()));
    here.ask_root(take_part).await
}

fn introduction(here: &Machine, token: &Token) -> Result<RedeemRequest, Failure> {
    let identity = &here.identity;
    Ok(RedeemRequest {
        invite_id: token.invite_id,
        secret: Secret::new(token.secret.expose().to_owned()),
        machine_id: identity.machine_id,
        name: here.config.name.clone(),
        region: here.config.region.to_string(),
        wireguard_key: identity.wireguard_key.public_key().to_string(),
        nkey: identity.nkey()?,
        certificate_key: hex(identity.certificate_key()?.der_bytes()),
        endpoints: here.endpoints(here.config.wg_port),
        proofs: None,
    })
}

/// Nothing that comes back is taken on the word of who sent it: the network and its authority are those of the token,
/// and both certificates are that authority's and for this machine's own key.
fn check(identity: &Identity, token: &Token, redeemed: &Redeemed) -> Result<(), Failure> {
    let refused = |what: &str| {
        let message = format!("the answer is not from the network of the token: {what}");
        Failure::new(Code::NetworkMismatch, message)
            .hint("ployzctl machine invite create (on a machine of the network that you mean)")
    };
    if redeemed.network_id != token.network_id {
        return Err(refused("it has another id"));
    }
    let authority = tls::certificate(&redeemed.ca_pem)?;
    if fingerprint(&authority) != token.ca_fingerprint {
        return Err(refused("it has another CA"));
    }
    let label = redeemed.network_id.to_string();
    let own = CertificateName::machine(identity.machine_id, &label).to_string();
    let key = identity.certificate_fingerprint()?;
    let store = redeemed.store_certificate_pem.as_ref();
    for pem in std::iter::once(&redeemed.certificate_pem).chain(store) {
        let facts = tls::verified(pem, &authority)
            .ok_or_else(|| refused("a certificate is not signed by its CA"))?;
        if facts.key() != key {
            return Err(refused("a certificate is for another key"));
        }
        if pem == &redeemed.certificate_pem && !facts.names.contains(&own) {
            return Err(refused("the certificate names another machine"));
        }
    }
    Ok(())
}

/// Takes the place that the coordinator has given.
async fn enter_network(here: &Machine, redeemed: Redeemed) -> Result<Membership, Failure> {
    let machines: Vec<MachineRecord> = redeemed
        .machines
        .into_iter()
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(&error))?;
    let own = machines
        .iter()
        .find(|machine| machine.id == here.identity.machine_id)
        .ok_or_else(|| unusable(&"the record of this machine is missing"))?;
    let renewed = redeemed
        .store_certificate_pem
        .map(|store_pem| OwnCertificates {
            network_id: redeemed.network_id,
            machine_pem: redeemed.certificate_pem.clone(),
            store_pem,
        });
    let membership = Membership {
        network_id: redeemed.network_id,
        network: redeemed.network,
        name: own.name.clone(),
        cluster_cidr: redeemed.cluster_cidr,
        addresses: None,
        overlay_ip: own.overlay_ip,
        overlay_ip6: own.overlay_ip6,
        subnet: own
            .subnet
            .ok_or_else(|| unusable(&"the subnet of this machine is missing"))?,
        ca_pem: redeemed.ca_pem,
        certificate_pem: redeemed.certificate_pem,
        store: redeemed.store,
        store_epoch: redeemed.store_epoch,
        state: NetworkState::Running,
        wg_port: None,
        endpoints: Vec::new(),
        renewed,
    };
    let addresses = interface_addresses(
        membership.cluster_cidr,
        membership.overlay_ip,
        membership.overlay_ip6,
    )?;
    let management = here.bind_management(&membership).await?;
    let store = Store::open(&membership, &here.identity).await?;
    let view = SavedView {
        confirmed_at: clock::now().unix_secs,
        machines,
        revoked: BTreeSet::new(),
        roamed: BTreeMap::new(),
        initiations: BTreeMap::new(),
    };
    here.overlay.add_addresses(&addresses).await?;
    if let Err(error) = commit(here, &view, &membership) {
        here.overlay.remove_addresses(&addresses).await?;
        return Err(error.into());
    }
    let entry = Entry {
        membership: membership.clone(),
        store,
        storage: None,
        management,
    };
    here.ask_root(Command::Enter(Box::new(entry))).await?;
    Ok(membership)
}

/// The file that says that this machine is a member comes last.
fn commit(here: &Machine, view: &SavedView, membership: &Membership) -> Result<(), HostError> {
    here.files.write(VIEW_FILE, view)?;
    if let Some(renewed) = &membership.renewed {
        here.files.write(CERTIFICATES_FILE, renewed)?;
    }
    here.files.write(FILE, membership)
}

fn joined(here: &Machine, membership: &Membership, status: &str) -> Success {
    Payload::MachineJoin(MachineJoin {
        id: here.identity.machine_id,
        name: membership.name.clone(),
        network: membership.network.clone(),
        overlay_ip: membership.overlay_ip,
        status: status.to_owned(),
    })
    .into()
}

fn unusable(cause: &dyn Display) -> Failure {
    let message = format!("the coordinator's answer cannot be used: {cause}");
    Failure::new(Code::Internal, message)
}

fn unredeemed(error: ClientError) -> Failure {
    let code = match &error {
        ClientError::Unreachable(_) => Code::MachineUnreachable,
        ClientError::Credential(_) | ClientError::Refused(_) => Code::InviteInvalid,
        ClientError::Broken(_) | ClientError::WrongMachine(_) => Code::MachineUnreachable,
        ClientError::Busy(_) => Code::Busy,
        ClientError::TimedOut(_) => Code::Timeout,
    };
    Failure::new(code, format!("the network's coordinator: {error}")).hint(
        "open the management port of the coordinator (UDP 51821, or that of --listen), then run the same command again",
    )
}

#[cfg(test)]
mod tests {
    use ployz_api::{InviteId, Name, NetworkId};
    use rcgen::KeyPair;

    use super::*;
    use crate::host::ca::{CertificateAuthority, Subject};

    const NETWORK: NetworkId = NetworkId::new(1, 1);

    /// What a coordinator with this authority gives to the holder of a key.
    fn redeemed(authority: &CertificateAuthority, own: &Identity, key: &KeyPair) -> Redeemed {
        let name = Name::nearest("m");
        let subject = Subject {
            id: own.machine_id,
            name: &name,
            holds_store: false,
        };
        Redeemed {
            network_id: NETWORK,
            network: Name::nearest("n"),
            cluster_cidr: "10.0.0.0/8".parse().unwrap(),
            ca_pem: authority.certificate_pem().to_owned(),
            certificate_pem: authority
                .certify_machine(&subject, 1_800_000_000, key)
                .unwrap(),
            store: Vec::new(),
            store_epoch: 0,
            machines: Vec::new(),
            store_certificate_pem: Some(authority.certify_store(own.machine_id, &[], key).unwrap()),
        }
    }

    #[test]
    fn nothing_that_comes_back_is_taken_but_what_the_token_and_the_own_key_say() {
        let generate = || CertificateAuthority::generate(&NETWORK.to_string()).unwrap();
        let (authority, other) = (generate(), generate());
        let (own, another) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let key = own.certificate_key().unwrap();
        let ca = tls::certificate(authority.certificate_pem()).unwrap();
        let token = Token {
            network_id: NETWORK,
            ca_fingerprint: fingerprint(&ca),
            endpoints: Vec::new(),
            invite_id: InviteId::new(1, 1),
            secret: Secret::new("s".to_owned()),
            expires_at: 0,
            coordinators: None,
        };
        let honest = || redeemed(&authority, &own, &key);
        check(&own, &token, &honest()).unwrap();
        let stolen = another.certificate_key().unwrap();
        for (answer, words) in [
            (redeemed(&other, &own, &key), "another CA"),
            (
                Redeemed {
                    network_id: NetworkId::new(1, 2),
                    ..honest()
                },
                "another id",
            ),
            (redeemed(&authority, &own, &stolen), "another key"),
            (redeemed(&authority, &another, &key), "another machine"),
            (
                Redeemed {
                    certificate_pem: redeemed(&other, &own, &key).certificate_pem,
                    ..honest()
                },
                "not signed",
            ),
            (
                Redeemed {
                    store_certificate_pem: redeemed(&other, &own, &key).store_certificate_pem,
                    ..honest()
                },
                "not signed",
            ),
        ] {
            let refused = check(&own, &token, &answer).unwrap_err();
            assert_eq!(refused.code, Code::NetworkMismatch);
            assert!(refused.message.contains(words), "{words}: {refused:?}");
        }
    }
}
