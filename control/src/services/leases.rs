//! Names and subnets: what only one machine can have, claimed by creating a lease.

use ployz_api::{Code, Failure, MachineId, Name};
use ployz_core::{Addresses, HolderState, Lease, MachineRecord, NAME_REST_SECS, SUBNET_REST_SECS};

use crate::network::Network;
use crate::store::{LEASES, MACHINES, Revised, Slot, Store};

/// A name that is taken gets a number; nobody has so many machines.
const NAMESAKES_MAX: u32 = 1_000;

/// The name, or the first that is free with a number behind it.
pub(crate) async fn claim_name(
    store: &Store,
    wanted: &Name,
    id: MachineId,
    now: u64,
) -> Result<Name, Failure> {
    for number in 1..=NAMESAKES_MAX {
        let name = match number {
            1 => wanted.clone(),
            _ => Name::nearest(&format!("{:.58}-{number}", wanted.as_str())),
        };
        if claim(store, &name_key(&name), id, NAME_REST_SECS, now).await? {
            return Ok(name);
        }
    }
    let message = format!("{NAMESAKES_MAX} machines are called {wanted}");
    Err(Failure::new(Code::Conflict, message)
        .hint("ployzctl machine invite create --name <another>"))
}

/// The name and no other; `false` if another machine has it.
pub(crate) async fn claim_this_name(
    store: &Store,
    name: &Name,
    id: MachineId,
    now: u64,
) -> Result<bool, Failure> {
    claim(store, &name_key(name), id, NAME_REST_SECS, now).await
}

/// Gives a name back; what another machine has, it keeps.
pub(crate) async fn release_name(store: &Store, name: &Name, id: MachineId) -> Result<(), Failure> {
    let key = name_key(name);
    let found: Option<Revised<Lease>> = store.get(LEASES, &key).await?;
    if let Some(found) = found.filter(|found| found.value.holder() == id) {
        // Whoever was faster has it by right.
        store.delete(LEASES, &key, Some(found.revision)).await?;
    }
    Ok(())
}

/// The first subnet that is free.
pub(crate) async fn claim_subnet(
    network: &Network,
    id: MachineId,
    now: u64,
) -> Result<Addresses, Failure> {
    let membership = &network.membership;
    let full = || {
        let message = format!("{} has no subnet left", membership.cluster_cidr);
        Failure::new(Code::Conflict, message)
            .hint("ployzctl machine rm --force <machine>; its subnet is free a day later")
    };
    let plan = membership.addresses.ok_or_else(full)?;
    for index in 0..plan.capacity() {
        if claim(
            &network.store,
            &subnet_key(index),
            id,
            SUBNET_REST_SECS,
            now,
        )
        .await?
        {
            return plan
                .addresses(membership.network_id, index)
                .ok_or_else(full);
        }
    }
    Err(full())
}

/// What the founder of a network has: the first of everything, while nobody else is there to want it.
pub(crate) async fn claim_first(store: &Store, name: &Name, id: MachineId) -> Result<(), Failure> {
    for key in [subnet_key(0), name_key(name)] {
        store.create(LEASES, &key, &Lease::of(id)).await?;
    }
    Ok(())
}

fn name_key(name: &Name) -> String {
    format!("name.{name}")
}

fn subnet_key(index: u32) -> String {
    format!("subnet.{index}")
}

/// Takes something that only one machine can have; `true` as well if it has it already.
async fn claim(
    store: &Store,
    key: &str,
    machine: MachineId,
    rest_secs: u64,
    now: u64,
) -> Result<bool, Failure> {
    let lease = Lease::of(machine);
    if store.create(LEASES, key, &lease).await? {
        return Ok(true);
    }
    let found: Option<Revised<Lease>> = store.get(LEASES, key).await?;
    let Some(Revised { value, revision }) = found else {
        return Ok(false);
    };
    if value.holder() == machine {
        return Ok(true);
    }
    let holder = holder_state(store, value.holder()).await?;
    if !Lease::is_free(holder, rest_secs, now) {
        return Ok(false);
    }
    // Another may be faster; then it is another's.
    Ok(store.update(LEASES, key, &lease, revision).await?)
}

async fn holder_state(store: &Store, machine: MachineId) -> Result<HolderState, Failure> {
    let held: Slot<MachineRecord> = store.slot(MACHINES, &machine.to_string()).await?;
    Ok(match held {
        Slot::Nothing => HolderState::Unknown,
        Slot::Record(_) => HolderState::Member,
        Slot::Deleted { at, .. } => HolderState::Removed(at),
    })
}

#[cfg(test)]
mod contract;
