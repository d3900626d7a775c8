//! One machine's part in a change of who holds the store.

use std::net::IpAddr;
use std::rc::Rc;

use ployz_api::{
    Code, Failure, NextStore, Outcome, Payload, StorageReport, StorageStep, StoreLocation, Success,
};

use crate::host::ca::CertificateAuthority;
use crate::host::membership::{AUTHORITY_FILE, FILE, Membership};
use crate::machine::{Command, Machine};
use crate::services::store_change::directories::{
    PREPARED_FILE, Prepared, abandon, prepare, settle,
};

/// Does one step, asked for by another machine.
pub(crate) async fn step(here: &Rc<Machine>, step: StorageStep) -> Outcome {
    match step {
        StorageStep::Preflight => Ok(Payload::StorageReport(preflight(here).await?).into()),
        StorageStep::Prepare(next) => prepare_next(here, *next).await,
        StorageStep::Adopt(location) => {
            if adopt(here, &location)? {
                here.ask_root_later(Command::Reenter)?;
            }
            Ok(done())
        }
        StorageStep::Abandon { epoch } => {
            let membership = known(here)?;
            if epoch > membership.store_epoch {
                abandon(here).await?;
            }
            Ok(done())
        }
        StorageStep::Settle { epoch } => {
            let membership = known(here)?;
            if epoch == membership.store_epoch {
                settle(here, &membership)?;
            }
            Ok(done())
        }
    }
}

async fn preflight(here: &Machine) -> Result<StorageReport, Failure> {
    let membership = known(here)?;
    here.nats_server().version().await?;
    Ok(StorageReport {
        version: ployz_install::own_version().to_owned(),
        port: here.config.nats_port,
        epoch: membership.store_epoch,
    })
}

async fn prepare_next(here: &Machine, next: NextStore) -> Outcome {
    let membership = known(here)?;
    refuse_former(&membership, &next.location)?;
    let malformed = |what: &str| {
        Failure::new(
            Code::InvalidArgument,
            format!("{what} of the next store cannot be parsed"),
        )
    };
    let authority: CertificateAuthority =
        serde_json::from_str(next.authority.expose()).map_err(|_| malformed("the authority"))?;
    if authority.certificate_pem() != membership.ca_pem {
        let message = "the CA of the next store is another network's";
        return Err(Failure::new(Code::NetworkMismatch, message));
    }
    let addresses =
        serde_json::from_value(next.addresses).map_err(|_| malformed("the addresses"))?;
    let prepared = Prepared {
        place: next.location,
        coordinator: next.coordinator,
        authority,
        addresses,
    };
    let network = here.running_network()?;
    let machines: Vec<_> = network.view().machines().cloned().collect();
    prepare(here, &membership, &prepared, &machines).await?;
    Ok(done())
}

/// Writes down that this is the store from now on; false if it is known already. What follows from it is drawn by
/// whoever takes part in the network next.
pub(crate) fn adopt(here: &Machine, location: &StoreLocation) -> Result<bool, Failure> {
    let mut membership = known(here)?;
    if *location == membership.store_location() {
        return Ok(false);
    }
    refuse_former(&membership, location)?;
    let own = IpAddr::from(membership.overlay_ip);
    membership.addresses = None;
    if location.servers.iter().any(|(address, _)| *address == own) {
        let prepared: Option<Prepared> = here.files.read(PREPARED_FILE)?;
        let prepared = prepared.filter(|prepared| prepared.place == *location);
        let Some(prepared) = prepared else {
            let message = "this machine has prepared no such store";
            return Err(Failure::new(Code::Conflict, message)
                .hint("ployzctl machine storage promote, with another machine instead"));
        };
        here.files.write(AUTHORITY_FILE, &prepared.authority)?;
        membership.addresses = Some(prepared.addresses);
    }
    membership.store.clone_from(&location.servers);
    membership.store_epoch = location.epoch;
    here.files.write(FILE, &membership)?;
    tracing::info!(
        epoch = location.epoch,
        holds = membership.is_storage(),
        "using another store"
    );
    Ok(true)
}

fn refuse_former(membership: &Membership, location: &StoreLocation) -> Result<(), Failure> {
    if location.epoch > membership.store_epoch {
        return Ok(());
    }
    let message = format!(
        "this machine uses store {}, and store {} is not newer",
        membership.store_epoch, location.epoch
    );
    Err(Failure::new(Code::Conflict, message).hint("ployzctl machine storage ls"))
}

pub(crate) fn known(here: &Machine) -> Result<Membership, Failure> {
    let membership = here.membership()?;
    membership.ok_or_else(|| Failure::new(Code::NetworkNotRunning, "this machine is in no network"))
}

const fn done() -> Success {
    Success {
        message: String::new(),
        payload: None,
    }
}
