//! Changing what the operator has said of a machine: read, changed, and written if nobody else has written meanwhile.

use std::collections::BTreeMap;

use ployz_api::{
    Code, Failure, LabelKey, LabelValue, MachineRecordShown, Name, Outcome, Payload, Success,
};
use ployz_core::MachineRecord;

use crate::machine::Machine;
use crate::requests::machines::{document, selected};
use crate::services::leases::{claim_this_name, release_name};
use crate::store::StoreError;
use crate::store::records::{Changed, change};

/// A record stays small, and a view of 200 machines with it.
const LABELS_MAX: usize = 32;

pub(super) async fn rename(here: &Machine, wanted: &str, name: Name) -> Outcome {
    let network = here.running_network()?;
    let id = selected(here, wanted)?;
    let store = &network.store;
    let now = store.unix_secs().await?;
    if !claim_this_name(store, &name, id, now).await? {
        let message = format!("another machine is called {name}");
        return Err(Failure::new(Code::Conflict, message).hint("ployzctl machine ls"));
    }
    let changed = change(store, id, |record| {
        record.name = name.clone();
        Ok::<_, StoreError>(())
    });
    let Changed { before, after } = changed.await?;
    if before.name == after.name {
        return shown(format!("the machine is called {name} already"), &after);
    }
    let mut message = format!("{} is called {name} now", before.name);
    if let Err(failure) = release_name(store, &before.name, id).await {
        // The machine has its name; only nobody else can have the former one.
        tracing::warn!(cause = %failure, name = %before.name, "former name not released");
        message += "; the store does not answer, so the former name stays taken";
    }
    tracing::info!(%id, before = %before.name, %name, "machine renamed");
    shown(message, &after)
}

pub(super) async fn label(
    here: &Machine,
    wanted: &str,
    labels: &BTreeMap<LabelKey, Option<LabelValue>>,
) -> Outcome {
    let network = here.running_network()?;
    let id = selected(here, wanted)?;
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
        format!("{} has these labels already", after.name)
    } else {
        tracing::info!(%id, "machine labelled");
        format!("the labels of {} are changed", after.name)
    };
    shown(message, &after)
}

fn shown(message: String, record: &MachineRecord) -> Outcome {
    let record = document(record)?;
    Ok(Success {
        message,
        payload: Some(Payload::MachineRecord(MachineRecordShown { record })),
    })
}
