//! Taking part in the network or not, and forgetting it.

use std::rc::Rc;

use anyhow::Context as _;
use ployz_api::{Code, Failure, Lifecycle, Name, NetworkState, Outcome, Success};
use ployz_core::SavedView;

use crate::daemon::{Daemon, addresses};
use crate::host::failure::internal;
use crate::host::membership::{AUTHORITY_FILE, FILE, Membership, VIEW_FILE};
use crate::nats;
use crate::requests::mesh_init::{described, started};
use crate::services::founding::found;
use crate::services::store_change;

/// Takes part again, or for the first time.
pub(crate) async fn start(daemon: &Rc<Daemon>) -> Outcome {
    let mut membership = known(daemon)?;
    let _entering = daemon.begin_entering()?;
    match membership.state {
        NetworkState::Running => Ok(Success {
            message: format!("network {} is running here already", membership.network),
            payload: Some(described(daemon, &membership, None)),
        }),
        NetworkState::Created => {
            let authority = daemon.authority().map_err(internal)?;
            found(daemon, membership.clone(), authority).await?;
            started(daemon, &membership).await
        }
        NetworkState::Stopped => {
            membership.state = NetworkState::Running;
            if let Err(error) = daemon.take_part(membership.clone()).await {
                let own = addresses(&membership).map_err(internal)?;
                let overlay = &daemon.overlay;
                overlay.remove_addresses(&own).await.map_err(internal)?;
                return Err(internal(error));
            }
            daemon.files.write(FILE, &membership).map_err(internal)?;
            Ok(Success {
                message: format!("network {} is running again", membership.network),
                payload: Some(described(daemon, &membership, None)),
            })
        }
    }
}

/// Takes part no more, until it is started again.
pub(crate) async fn stop(daemon: &Daemon, force: bool) -> Outcome {
    let mut membership = known(daemon)?;
    let Some(network) = daemon.network() else {
        let (network, state) = (&membership.network, membership.state);
        return Ok(message(format!(
            "network {network} is {state} here already"
        )));
    };
    let own = daemon.identity.machine_id;
    let lifecycle = network.view().machine(own).map(|machine| machine.lifecycle);
    drop(network);
    if !force && lifecycle == Some(Lifecycle::Active) {
        let text = "this machine is active: drain it first, or say --force";
        return Err(Failure::new(Code::InvalidTransition, text)
            .hint(format!("ployzctl machine drain {}", membership.name)));
    }
    let _entering = daemon.begin_entering()?;
    membership.state = NetworkState::Stopped;
    daemon.files.write(FILE, &membership).map_err(internal)?;
    daemon.leave().await.map_err(internal)?;
    Ok(message(format!(
        "network {} is stopped here",
        membership.network
    )))
}

/// Forgets the network: for good where it is founded, and only here with `force`.
pub(crate) async fn destroy(daemon: &Daemon, name: Option<Name>, force: bool) -> Outcome {
    let Some(membership) = daemon.membership().map_err(internal)? else {
        return Ok(message("this machine is in no network".to_owned()));
    };
    if let Some(name) = name.filter(|name| *name != membership.network) {
        let text = format!(
            "this machine is in network {}, not {name}",
            membership.network
        );
        return Err(Failure::new(Code::NetworkMismatch, text).hint("ployzctl mesh list"));
    }
    if !force {
        may_go(daemon, &membership)?;
    }
    let _entering = daemon.begin_entering()?;
    daemon.leave().await.map_err(internal)?;
    forget(daemon).await.map_err(internal)?;
    Ok(message(format!(
        "network {} is gone from here",
        membership.network
    )))
}

/// Takes away what there is of a network that has been left.
pub(crate) async fn forget(daemon: &Daemon) -> anyhow::Result<()> {
    // The file that makes it a member goes first: what is left after that is of no consequence.
    for file in [FILE, nats::DIRECTORY, VIEW_FILE, AUTHORITY_FILE] {
        daemon.files.remove(file)?;
    }
    store_change::forget(daemon).await
}

/// A network goes with its last machine, and a machine leaves by being removed.
fn may_go(daemon: &Daemon, membership: &Membership) -> Result<(), Failure> {
    if !membership.is_storage() {
        let text = format!(
            "{} is a network of other machines as well: remove this one from there",
            membership.network
        );
        return Err(Failure::new(Code::Unsupported, text).hint(format!(
            "ployzctl machine rm {} (on a machine that holds the store)",
            membership.name
        )));
    }
    let others = others(daemon).map_err(internal)?;
    if others.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = others.iter().map(Name::as_str).collect();
    let text = format!(
        "{} has other machines: {}. Remove them first, or say --force and leave them alone",
        membership.network,
        names.join(", ")
    );
    Err(Failure::new(Code::Conflict, text).hint(format!("ployzctl machine rm {}", names[0])))
}

/// From the view, or, while the network is stopped, from what was last saved of it.
fn others(daemon: &Daemon) -> anyhow::Result<Vec<Name>> {
    let own = daemon.identity.machine_id;
    if let Some(network) = daemon.network() {
        let view = network.view();
        let others = view.machines().filter(|machine| machine.id != own);
        return Ok(others.map(|machine| machine.name.clone()).collect());
    }
    let saved: Option<SavedView> = daemon.files.read(VIEW_FILE).context("the saved view")?;
    let machines = saved.map(|saved| saved.machines).unwrap_or_default();
    let others = machines.into_iter().filter(|machine| machine.id != own);
    Ok(others.map(|machine| machine.name).collect())
}

fn known(daemon: &Daemon) -> Result<Membership, Failure> {
    let membership = daemon.membership().map_err(internal)?;
    membership.ok_or_else(|| {
        Failure::new(Code::NetworkNotRunning, "this machine is in no network")
            .hint("ployzctl mesh init <name>, or ployzctl machine invite import --token-stdin")
    })
}

const fn message(message: String) -> Success {
    Success {
        message,
        payload: None,
    }
}
