//! Signing the certificates of machines anew.

use ployz_api::{Code, Failure, Outcome, Payload};

use crate::machine::Machine;
use crate::requests::asker::Asker;
use crate::services::renewal::certify;
use crate::store::records::{Changed, change};

/// Signs those of the machine that asks, for the key that its connection was made with.
pub(super) async fn renew(here: &Machine, asker: Asker) -> Outcome {
    let network = here.running_network()?;
    let storage = network.require_storage()?;
    let Some((id, key)) = asker.into_machine() else {
        let message = "only a machine has its certificate renewed";
        return Err(Failure::new(Code::Forbidden, message));
    };
    let fingerprint = key.fingerprint();
    let changed = change(&network.store, id, |record| {
        let named = record
            .certificate_key
            .get_or_insert_with(|| fingerprint.clone());
        if *named == fingerprint {
            return Ok(());
        }
        let message = "the record of this machine names another key";
        Err(Failure::new(Code::Forbidden, message))
    });
    let Changed { after, .. } = changed.await?;
    let now = network.store.unix_secs().await?;
    let renewed = certify(&storage.authority, &after, now, &key)?;
    tracing::debug!(%id, "certificate renewed");
    Ok(Payload::Renewed(renewed).into())
}
