//! What lies on disk of stores: the one that counts, the next one, and the one before.
//!
//! ```text
//!   nats-next ──move_in──▶ nats ──move_in──▶ nats-former ──settle──▶ nothing
//! ```

use std::rc::Rc;
use std::time::Duration;

use ployz_api::{Failure, MachineId, StoreLocation};
use ployz_core::{AddressPlan, MachineRecord, SavedView};
use serde::{Deserialize, Serialize};

use crate::host::ca::CertificateAuthority;
use crate::host::membership::{AUTHORITY_FILE, Membership, VIEW_FILE};
use crate::machine::Machine;
use crate::nats::{
    Certificates, DIRECTORY, FORMER_DIRECTORY, NEXT_DIRECTORY, NatsServer, own_user, store_settings,
};
use crate::services::store_change::journal::JOURNAL_FILE;

/// A server of a cluster looks for somebody who takes its part over, and nobody is to: all of them are exchanged.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The file of a [`Prepared`].
pub(crate) const PREPARED_FILE: &str = "storage-next.json";

/// The next store, as far as this machine has a part in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prepared {
    pub(crate) place: StoreLocation,
    pub(crate) coordinator: MachineId,
    pub(crate) authority: CertificateAuthority,
    pub(crate) addresses: AddressPlan,
}

/// The server of the next store, as it is run here.
pub(crate) fn next_server(here: &Machine) -> NatsServer {
    NatsServer::next(Rc::clone(&here.files), &here.config.nats_server)
}

/// Has everything of stores where it belongs, as `network.json` says which one counts: a next store that has become the
/// one that counts moves in, one that may still become it runs on, and where no store is held none runs.
pub(crate) async fn move_in(here: &Machine, membership: &Membership) -> Result<(), Failure> {
    let files = &here.files;
    let prepared: Option<Prepared> = files.read(PREPARED_FILE)?;
    if let Some(prepared) = prepared {
        if prepared.place.epoch > membership.store_epoch {
            next_server(here).start().await?;
        } else if prepared.place.epoch == membership.store_epoch && membership.is_storage() {
            exchange(here, membership, &prepared.authority).await?;
            files.remove(PREPARED_FILE)?;
        } else {
            abandon(here).await?;
        }
    }
    if !membership.is_storage() && files.path(DIRECTORY).exists() {
        here.nats_server().stop().await?;
        put_aside(here)?;
    }
    Ok(())
}

async fn exchange(
    here: &Machine,
    membership: &Membership,
    authority: &CertificateAuthority,
) -> Result<(), Failure> {
    let (next, nats) = (next_server(here), here.nats_server());
    next.stop_within(STOP_WAIT).await?;
    nats.stop_within(STOP_WAIT).await?;
    // If it is not there, it has moved in already.
    if here.files.path(NEXT_DIRECTORY).exists() {
        put_aside(here)?;
        here.files.rename(NEXT_DIRECTORY, DIRECTORY)?;
    }
    let saved: Option<SavedView> = here.files.read_last_good(VIEW_FILE)?;
    let machines = saved.map(|saved| saved.machines).unwrap_or_default();
    let location = membership.store_location();
    let own = own_user(here.identity.machine_id, here.identity.nkey()?);
    let settings = store_settings(own, membership, authority, &location, None, machines.iter())?;
    Ok(nats.configure(&settings)?)
}

fn put_aside(here: &Machine) -> Result<(), Failure> {
    if here.files.path(DIRECTORY).exists() {
        here.files.remove(FORMER_DIRECTORY)?;
        here.files.rename(DIRECTORY, FORMER_DIRECTORY)?;
    }
    Ok(())
}

/// Sets a server of the next store up, and starts it. What there is of an earlier next one goes.
pub(crate) async fn prepare(
    here: &Machine,
    membership: &Membership,
    prepared: &Prepared,
    machines: &[MachineRecord],
) -> Result<(), Failure> {
    abandon(here).await?;
    let next = next_server(here);
    let settings = store_settings(
        own_user(here.identity.machine_id, here.identity.nkey()?),
        membership,
        &prepared.authority,
        &prepared.place,
        Some(prepared.coordinator),
        machines.iter(),
    )?;
    let certificate_pem = here.store_certificate(membership, &prepared.authority)?;
    let certificates = Certificates {
        ca_pem: &membership.ca_pem,
        certificate_pem: &certificate_pem,
        key_pem: here.identity.certificate_key_pem.expose(),
    };
    next.set_up(&settings, certificates)?;
    here.files.write(PREPARED_FILE, prepared)?;
    Ok(next.start().await?)
}

/// Takes a next store away that will never count.
pub(crate) async fn abandon(here: &Machine) -> Result<(), Failure> {
    next_server(here).destroy().await?;
    Ok(here.files.remove(PREPARED_FILE)?)
}

/// Takes away what there is of the stores before the one that counts; where that is not held, also what its holders are
/// trusted with.
pub(crate) fn settle(here: &Machine, membership: &Membership) -> Result<(), Failure> {
    here.files.remove(FORMER_DIRECTORY)?;
    if !membership.is_storage() {
        here.files.remove(AUTHORITY_FILE)?;
    }
    Ok(())
}

/// Takes everything away that is not of the store that counts.
pub(crate) async fn delete_leftovers(here: &Machine) -> Result<(), Failure> {
    abandon(here).await?;
    here.files.remove(FORMER_DIRECTORY)?;
    Ok(here.files.remove(JOURNAL_FILE)?)
}
