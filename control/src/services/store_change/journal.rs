//! What the coordinator of a change keeps on its disk, and how long its steps may take.

use std::collections::BTreeSet;
use std::time::Duration;

use ployz_api::{MachineId, OperationId, StoreLocation};
use serde::{Deserialize, Serialize};

/// The file of a [`Journal`].
pub(super) const JOURNAL_FILE: &str = "storage-change.json";
/// A step that waits for no election.
pub(super) const STEP_WAIT: Duration = Duration::from_secs(15);
pub(super) const AGAIN: &str =
    "ployzctl machine storage ls, and the same command again: what was half done is undone";

/// A change that is under way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) operation_id: OperationId,
    pub(super) place: StoreLocation,
    /// Who will hold the store.
    pub(super) members: BTreeSet<MachineId>,
    /// Who ceases to.
    pub(super) leavers: BTreeSet<MachineId>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::host::files::DataDirectory;

    fn journal() -> Journal {
        Journal {
            operation_id: OperationId::new(1, 1),
            place: StoreLocation {
                epoch: 3,
                servers: vec![([10, 101, 0, 1].into(), 4_222)],
            },
            members: BTreeSet::from([MachineId::new(1, 1), MachineId::new(1, 2)]),
            leavers: BTreeSet::from([MachineId::new(1, 3)]),
        }
    }

    #[test]
    fn the_next_daemon_reads_what_the_former_one_was_changing() {
        let path = std::env::temp_dir().join(format!("ployz-journal-{}", std::process::id()));
        let files = DataDirectory::open(&path).unwrap();
        assert!(files.read::<Journal>(JOURNAL_FILE).unwrap().is_none());
        files.write(JOURNAL_FILE, &journal()).unwrap();
        let found: Journal = files.read(JOURNAL_FILE).unwrap().unwrap();
        let (found, expected) = (serde_json::to_value(found), serde_json::to_value(journal()));
        let expected = expected.unwrap();
        assert_eq!(found.unwrap(), expected);
        // One that is half written, or says more than this version knows, is not taken for less than it was.
        let text = expected.to_string();
        files
            .write_bytes(JOURNAL_FILE, &text.as_bytes()[..text.len() / 2])
            .unwrap();
        assert!(files.read::<Journal>(JOURNAL_FILE).is_err());
        let mut later = expected.clone();
        later["later"] = json!(1);
        files.write(JOURNAL_FILE, &later).unwrap();
        assert!(files.read::<Journal>(JOURNAL_FILE).is_err());
        for field in ["operation_id", "place", "members", "leavers"] {
            let mut without = expected.clone();
            without
                .as_object_mut()
                .and_then(|it| it.remove(field))
                .unwrap();
            files.write(JOURNAL_FILE, &without).unwrap();
            let read: Result<Option<Journal>, _> = files.read(JOURNAL_FILE);
            assert!(read.unwrap_err().to_string().contains(field));
        }
        files.write(JOURNAL_FILE, &Value::Null).unwrap();
        assert!(files.read::<Journal>(JOURNAL_FILE).is_err());
        std::fs::remove_dir_all(path).unwrap();
    }
}
