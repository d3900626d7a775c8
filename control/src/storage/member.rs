//! One machine's part in a change of who holds the store.

use std::net::IpAddr;
use std::rc::Rc;

use ployz_api::{
    Code, Failure, NextStore, Outcome, Payload, StorageReport, StorageStep, StorePlace, Success,
};

use super::places::{PREPARED_FILE, Prepared, abandon, prepare, settle};
use crate::authority::Authority;
use crate::daemon::Daemon;
use crate::membership::{AUTHORITY_FILE, FILE, Membership};
use crate::requests::internal;

/// Does one step, asked for by another machine.
pub(crate) async fn step(daemon: &Rc<Daemon>, step: StorageStep) -> Outcome {
    match step {
        StorageStep::Preflight => Ok(Payload::StorageReport(preflight(daemon).await?).into()),
        StorageStep::Prepare(next) => prepare_next(daemon, *next).await,
        StorageStep::Adopt(place) => {
            if adopt(daemon, &place)? {
                tokio::task::spawn_local(Rc::clone(daemon).re_enter());
            }
            Ok(done())
        }
        StorageStep::Abandon { epoch } => {
            let membership = known(daemon)?;
            if epoch > membership.store_epoch {
                abandon(daemon).await.map_err(internal)?;
            }
            Ok(done())
        }
        StorageStep::Settle { epoch } => {
            let membership = known(daemon)?;
            if epoch == membership.store_epoch {
                settle(daemon, &membership).map_err(internal)?;
            }
            Ok(done())
        }
    }
}

async fn preflight(daemon: &Daemon) -> Result<StorageReport, Failure> {
    let membership = known(daemon)?;
    daemon.nats_server().version().await?;
    Ok(StorageReport {
        version: ployz_install::own_version().to_owned(),
        port: daemon.config.nats_port,
        epoch: membership.store_epoch,
    })
}

async fn prepare_next(daemon: &Daemon, next: NextStore) -> Outcome {
    let membership = known(daemon)?;
    refuse_former(&membership, &next.place)?;
    let malformed =
        |what: &str| Failure::new(Code::InvalidArgument, format!("{what} of the next store"));
    let authority: Authority =
        serde_json::from_str(next.authority.expose()).map_err(|_| malformed("the authority"))?;
    if authority.certificate_pem() != membership.ca_pem {
        let message = "this is another network's authority";
        return Err(Failure::new(Code::NetworkMismatch, message));
    }
    let addresses =
        serde_json::from_value(next.addresses).map_err(|_| malformed("the addresses"))?;
    let prepared = Prepared {
        place: next.place,
        coordinator: next.coordinator,
        authority,
        addresses,
    };
    let network = daemon.running_network()?;
    let machines: Vec<_> = network.view().machines().cloned().collect();
    let prepared = prepare(daemon, &membership, &prepared, &machines).await;
    prepared.map_err(internal)?;
    Ok(done())
}

/// Writes down that this is the store from now on; false if it is known already. What follows from it is drawn by whoever takes part in
/// the network next.
pub(super) fn adopt(daemon: &Daemon, place: &StorePlace) -> Result<bool, Failure> {
    let mut membership = known(daemon)?;
    if *place == membership.store_place() {
        return Ok(false);
    }
    refuse_former(&membership, place)?;
    let own = IpAddr::from(membership.overlay_ip);
    membership.addresses = None;
    if place.servers.iter().any(|(address, _)| *address == own) {
        let prepared: Option<Prepared> = daemon.files.read(PREPARED_FILE).map_err(internal)?;
        let prepared = prepared.filter(|prepared| prepared.place == *place);
        let Some(prepared) = prepared else {
            let message = "this machine is to hold a store that it has never been given";
            return Err(Failure::new(Code::Conflict, message).hint(
                "ployzctl machine storage promote once more, with another machine instead of it",
            ));
        };
        let written = daemon.files.write(AUTHORITY_FILE, &prepared.authority);
        written.map_err(internal)?;
        membership.addresses = Some(prepared.addresses);
    }
    membership.store.clone_from(&place.servers);
    membership.store_epoch = place.epoch;
    daemon.files.write(FILE, &membership).map_err(internal)?;
    tracing::info!(
        epoch = place.epoch,
        holds = membership.is_storage(),
        "the store has moved"
    );
    Ok(true)
}

fn refuse_former(membership: &Membership, place: &StorePlace) -> Result<(), Failure> {
    if place.epoch > membership.store_epoch {
        return Ok(());
    }
    let message = format!(
        "store {} comes after {} here: it is not the next one",
        membership.store_epoch, place.epoch
    );
    Err(Failure::new(Code::Conflict, message).hint("ployzctl machine storage ls"))
}

pub(super) fn known(daemon: &Daemon) -> Result<Membership, Failure> {
    let membership = daemon.membership().map_err(internal)?;
    membership.ok_or_else(|| Failure::new(Code::NetworkNotRunning, "this machine is in no network"))
}

const fn done() -> Success {
    Success {
        message: String::new(),
        payload: None,
    }
}
