//! Taking part in the network or not, and forgetting it.

use std::rc::Rc;

use ployz_api::{Code, Failure, Lifecycle, Name, NetworkState, Outcome, Success};
use ployz_core::SavedView;

use crate::host::membership::{FILE, Membership, VIEW_FILE};
use crate::machine::{Command, Machine, addresses};
use crate::requests::network_shown::{described, started};
use crate::services::founding::found;
use crate::services::joining::enter_again;
use crate::services::membership;

/// Takes part again, or for the first time.
pub(super) async fn start(here: &Rc<Machine>) -> Outcome {
    let mut membership = known(here)?;
    enter_again(here, &membership).await?;
    let _entering = here.begin_entering()?;
    match membership.state {
        NetworkState::Running => Ok(Success {
            message: format!("network {} is running here already", membership.network),
            payload: Some(described(here, &membership, None)),
        }),
        NetworkState::Created => {
            let authority = here.authority()?;
            found(here, membership.clone(), authority).await?;
            started(here, &membership).await
        }
        NetworkState::Stopped => {
            membership.state = NetworkState::Running;
            if let Err(error) = here
                .ask_root(Command::TakePart(Box::new(membership.clone())))
                .await
            {
                let own = addresses(&membership)?;
                let overlay = &here.overlay;
                overlay.remove_addresses(&own).await?;
                return Err(error);
            }
            here.files.write(FILE, &membership)?;
            Ok(Success {
                message: format!("network {} is running again", membership.network),
                payload: Some(described(here, &membership, None)),
            })
        }
    }
}

/// Takes part no more, until it is started again.
pub(super) async fn stop(here: &Machine, force: bool) -> Outcome {
    let mut membership = known(here)?;
    let Some(network) = here.network() else {
        let (network, state) = (&membership.network, membership.state);
        return Ok(message(format!(
            "network {network} is {state} here already"
        )));
    };
    let own = here.identity.machine_id;
    let lifecycle = network.view().machine(own).map(|machine| machine.lifecycle);
    drop(network);
    if !force && lifecycle == Some(Lifecycle::Active) {
        let text = "this machine is active; drain it first, or give --force";
        return Err(Failure::new(Code::InvalidTransition, text)
            .hint(format!("ployzctl machine drain {}", membership.name)));
    }
    let _entering = here.begin_entering()?;
    membership.state = NetworkState::Stopped;
    here.files.write(FILE, &membership)?;
    here.ask_root(Command::Leave).await?;
    Ok(message(format!(
        "network {} is stopped here",
        membership.network
    )))
}

/// Forgets the network: for good where it is founded, and only here with `force`.
pub(super) async fn destroy(here: &Machine, name: Option<Name>, force: bool) -> Outcome {
    let Some(membership) = here.membership()? else {
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
        may_go(here, &membership)?;
    }
    let _entering = here.begin_entering()?;
    here.ask_root(Command::Leave).await?;
    membership::delete(here).await?;
    Ok(message(format!(
        "network {} is removed from this machine",
        membership.network
    )))
}

/// A network goes with its last machine, and a machine leaves by being removed.
fn may_go(here: &Machine, membership: &Membership) -> Result<(), Failure> {
    if !membership.is_storage() {
        let text = format!(
            "network {} has other machines, and one that holds the store has to remove this one",
            membership.network
        );
        return Err(Failure::new(Code::Unsupported, text).hint(format!(
            "ployzctl machine rm {} (on a machine that holds the store)",
            membership.name
        )));
    }
    let others = others(here)?;
    if others.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = others.iter().map(Name::as_str).collect();
    let text = format!(
        "network {} has other machines: {}; remove them first, or give --force to leave them behind",
        membership.network,
        names.join(", ")
    );
    Err(Failure::new(Code::Conflict, text).hint(format!("ployzctl machine rm {}", names[0])))
}

/// From the view, or, while the network is stopped, from what was last saved of it.
fn others(here: &Machine) -> Result<Vec<Name>, Failure> {
    let own = here.identity.machine_id;
    if let Some(network) = here.network() {
        let view = network.view();
        let others = view.machines().filter(|machine| machine.id != own);
        return Ok(others.map(|machine| machine.name.clone()).collect());
    }
    let saved: Option<SavedView> = here.files.read(VIEW_FILE)?;
    let machines = saved.map(|saved| saved.machines).unwrap_or_default();
    let others = machines.into_iter().filter(|machine| machine.id != own);
    Ok(others.map(|machine| machine.name).collect())
}

fn known(here: &Machine) -> Result<Membership, Failure> {
    let membership = here.membership()?;
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
