//! The renewal of this machine's certificates: every day, and whenever they do not say what its record says.
//!
//! A machine that holds the store signs its own, every other one asks such a machine. Nothing else waits for it: a
//! certificate is good for two weeks, and one that has expired is renewed as long as the network has the machine.

use std::collections::BTreeSet;
use std::time::Duration;

use ployz_api::client::Facts;
use ployz_api::{
    Authority as Held, CertificateName, Code, Failure, MEMBER_CREDENTIAL_FILE, Outcome, Payload,
    Renewed, Request,
};
use ployz_core::MachineRecord;
use quinn::Endpoint;
use rcgen::PublicKeyData;
use tokio::time::sleep;

use crate::host::ca::{CertificateAuthority, Subject};
use crate::host::error::HostError;
use crate::host::listener;
use crate::host::membership::{CERTIFICATES_FILE, OwnCertificates};
use crate::host::tls;
use crate::machine::Machine;
use crate::network::{Host as _, Network, ask_once};

/// How old a certificate gets.
const AGE_SECS_MAX: u64 = 24 * 3600;
/// How often the certificate is compared with the record: a machine that has begun to hold the store says so by then.
const CHECK: Duration = Duration::from_secs(1);
/// The longest wait after an attempt, while the certificate does not say what it has to. With 200 machines, a store
/// that is away, or signs something else, is asked twice a second.
const RETRY_MAX: Duration = Duration::from_secs(100);

/// Signs a machine's certificates as its record says, at a time in seconds since 1970.
pub(crate) fn certify(
    authority: &CertificateAuthority,
    record: &MachineRecord,
    now: u64,
    key: &impl PublicKeyData,
) -> Result<Renewed, HostError> {
    let subject = Subject {
        id: record.id,
        name: &record.name,
        holds_store: record.authority == Held::Storage,
    };
    let addresses = [record.overlay_ip.into(), record.overlay_ip6.into()];
    Ok(Renewed {
        certificate_pem: authority.certify_machine(&subject, now, key)?,
        store_certificate_pem: authority.certify_store(record.id, &addresses, key)?,
    })
}

/// Keeps them renewed. Never returns.
pub(crate) async fn keep(here: &Machine, network: &Network, management: &Endpoint) {
    let mut wait = CHECK;
    loop {
        let due = {
            let view = network.view();
            let own = view.machine(network.own());
            own.filter(|own| is_due(&network.certificate(), own, network))
                .cloned()
        };
        let Some(record) = due else {
            wait = CHECK;
            sleep(CHECK).await;
            continue;
        };
        match Box::pin(renew(here, network, &record, management)).await {
            Ok(()) => tracing::debug!("certificate renewed"),
            Err(error) => tracing::debug!(%error, "certificate not renewed"),
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Whether a certificate is old, or says something else than the record.
fn is_due(certificate_pem: &str, own: &MachineRecord, network: &Network) -> bool {
    let facts = tls::certificate(certificate_pem).ok();
    let Some(facts) = facts.and_then(|certificate| Facts::read(&certificate)) else {
        return true;
    };
    let label = network.membership.network_id.to_string();
    let mut names = BTreeSet::from([
        CertificateName::machine(own.id, &label).to_string(),
        CertificateName::any_machine(&label),
        CertificateName::named(&own.name, &label),
    ]);
    if own.authority == Held::Storage {
        names.insert(CertificateName::any_holder(&label));
        names.insert(CertificateName::holder(own.id, &label));
    }
    // A later version may have it say more.
    let is_known = |name: &String| {
        ["machine.", ".named.", "holder."]
            .iter()
            .any(|it| name.contains(it))
    };
    let said: BTreeSet<String> = facts
        .names
        .iter()
        .filter(|it| is_known(it))
        .cloned()
        .collect();
    let is_old = |at: u64| network.unix_secs() >= at.saturating_add(AGE_SECS_MAX);
    facts.issued_at().is_none_or(is_old) || said != names
}

async fn renew(
    here: &Machine,
    network: &Network,
    record: &MachineRecord,
    management: &Endpoint,
) -> Result<(), Failure> {
    let key = here.identity.certificate_key()?;
    let renewed = match &network.storage {
        Some(storage) => certify(&storage.authority, record, network.unix_secs(), &key)?,
        None => ask(here, network).await?,
    };
    let own = OwnCertificates::of(network.membership.network_id, renewed);
    // One that does not fit the key is not used.
    let presence = here.presence(&network.membership, &own.machine_pem);
    let configuration = listener::configuration(presence)?;
    here.files.write(CERTIFICATES_FILE, &own)?;
    network.set_certificate(&own.machine_pem);
    management.set_server_config(Some(configuration));
    let (membership, storage) = (&network.membership, network.storage.as_ref());
    let member = here.member_credential(membership, &own.machine_pem, storage)?;
    Ok(here.files.write(MEMBER_CREDENTIAL_FILE, &member)?)
}

async fn ask(here: &Machine, network: &Network) -> Result<Renewed, Failure> {
    let coordinator = network.coordinator_id(&here.sessions().await.unwrap_or_default())?;
    let session = here.client()?.reach(coordinator).await?;
    let outcome: Outcome = ask_once(&session, coordinator, &Request::CertificateRenew)
        .await
        .map_err(Failure::from);
    session.close().await;
    match outcome?.payload {
        Some(Payload::Renewed(renewed)) => Ok(renewed),
        Some(_) | None => {
            let message = "the machine that holds the store sent an unexpected answer";
            Err(Failure::new(Code::Internal, message))
        }
    }
}
