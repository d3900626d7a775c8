//! Changing what the operator has said of a machine: read, changed, and written if nobody else has written meanwhile.

use std::collections::BTreeMap;

use ployz_api::{
    Code, Failure, LabelKey, LabelValue, MachineId, MachineRecordShown, Name, Outcome, Payload,
    Success,
};
use ployz_core::MachineRecord;

use crate::requests::machines::{document, not_selected};
use crate::services::leases::{claim_this_name, release_name};

use crate::daemon::Daemon;
use crate::store::{MACHINES, Revised, Store};

/// Whoever loses has lost to somebody who is done then: so many can be at one record at a time.
const ATTEMPTS: usize = 64;
/// A record stays small, and a view of 200 machines with it.
const LABELS_MAX: usize = 32;

/// What came of a change.
pub(crate) struct Changed {
    pub(crate) before: MachineRecord,
    pub(crate) after: MachineRecord,
}

pub(crate) async fn rename(daemon: &Daemon, wanted: &str, name: Name) -> Outcome {
    let network = daemon.running_network()?;
    network.coordinator()?;
    let id = selected(daemon, wanted)?;
    let store = &network.store;
    let now = store.unix_secs().await?;
    if !claim_this_name(store, &name, id, now).await? {
        let message = format!("another machine is called {name}");
        return Err(Failure::new(Code::Conflict, message).hint("ployzctl machine ls"));
    }
    let changed = change(store, id, |record| {
        record.name = name.clone();
        Ok(())
    });
    let Changed { before, after } = changed.await?;
    if before.name == after.name {
        return shown(format!("the machine is called {name} already"), &after);
    }
    let mut message = format!("{} is called {name} now", before.name);
    if let Err(failure) = release_name(store, &before.name, id).await {
        // The machine has its name; only nobody else can have the former one.
        tracing::warn!(cause = %failure, name = %before.name, "a name stays taken");
        message += "; its former name stays taken, as the store does not answer";
    }
    tracing::info!(%id, before = %before.name, %name, "machine renamed");
    shown(message, &after)
}

pub(crate) async fn label(
    daemon: &Daemon,
    wanted: &str,
    labels: &BTreeMap<LabelKey, Option<LabelValue>>,
) -> Outcome {
    let network = daemon.running_network()?;
    network.coordinator()?;
    let id = selected(daemon, wanted)?;
    let changed = change(&network.store, id, |record| {
        for (key, value) in labels {
            match value {
                Some(value) => record.labels.insert(key.to_string(), value.to_string()),
                None => record.labels.remove(key.as_str()),
            };
        }
        if record.labels.len() > LABELS_MAX {
            let message = format!("a machine has at most {LABELS_MAX} labels");
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        Ok(())
    });
    let Changed { before, after } = changed.await?;
    let message = if before == after {
        format!("the labels of {} are so already", after.name)
    } else {
        tracing::info!(%id, "machine labelled");
        format!("the labels of {} are changed", after.name)
    };
    shown(message, &after)
}

pub(crate) fn selected(daemon: &Daemon, wanted: &str) -> Result<MachineId, Failure> {
    let network = daemon.running_network()?;
    let view = network.view();
    Ok(view.select(wanted).map_err(not_selected)?.id)
}

pub(crate) async fn change(
    store: &Store,
    id: MachineId,
    edit: impl Fn(&mut MachineRecord) -> Result<(), Failure>,
) -> Result<Changed, Failure> {
    let key = id.to_string();
    for _ in 0..ATTEMPTS {
        let found: Option<Revised<MachineRecord>> = store.get(MACHINES, &key).await?;
        let Some(Revised { value, revision }) = found else {
            let message = format!("machine {id} has been removed");
            return Err(Failure::new(Code::MachineNotFound, message).hint("ployzctl machine ls"));
        };
        let mut after = value.clone();
        edit(&mut after)?;
        let written = after == value || store.update(MACHINES, &key, &after, revision).await?;
        if written {
            return Ok(Changed {
                before: value,
                after,
            });
        }
    }
    let message = format!("others keep changing machine {id}");
    Err(Failure::new(Code::Conflict, message).hint("run the same command again"))
}

fn shown(message: String, record: &MachineRecord) -> Outcome {
    let record = document(record)?;
    Ok(Success {
        message,
        payload: Some(Payload::MachineRecord(MachineRecordShown { record })),
    })
}
