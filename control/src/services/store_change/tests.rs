//! Which store counts on a machine, by what lies on its disk. No server runs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ployz_api::{Code, MachineId, NetworkId, StoreLocation};
use ployz_core::AddressPlan;

use crate::host::ca::CertificateAuthority;
use crate::host::files::DataDirectory;
use crate::host::identity::Identity;
use crate::host::membership::{AUTHORITY_FILE, FILE, Membership, VIEW_FILE};
use crate::machine::{Machine, Root};
use crate::nats::{DIRECTORY, FORMER_DIRECTORY, NEXT_DIRECTORY};
use crate::overlay::Overlay;
use crate::services::membership;
use crate::services::store_change::directories::{PREPARED_FILE, Prepared, move_in, settle};
use crate::services::store_change::journal::JOURNAL_FILE;
use crate::services::store_change::member::{adopt, known};
use crate::testkit::{config, member_of, run};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 101, 0, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 101, 1, 1));
const PORT: u16 = 4_222;
/// The number of the store that the machine knows.
const EPOCH: u32 = 5;

/// A machine of a network whose store others hold.
struct Ground {
    directory: PathBuf,
    authority: CertificateAuthority,
    here: Machine,
}

impl Ground {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ployz-{name}-{}", std::process::id()));
        let files = DataDirectory::open(&directory).unwrap();
        let identity = Identity::open(&files).unwrap();
        let authority = CertificateAuthority::generate("n").unwrap();
        let mut membership = member_of(NetworkId::new(1, 1), &authority, &identity);
        membership.overlay_ip = Ipv4Addr::new(10, 101, 0, 1);
        membership.store = place(EPOCH, &[OTHER]).servers;
        membership.store_epoch = EPOCH;
        files.write(FILE, &membership).unwrap();
        let (root, _commands) = Root::channel();
        let config = config(directory.clone());
        let here = Machine::new(config, files, identity, Overlay::detached(), root).unwrap();
        Self {
            directory,
            authority,
            here,
        }
    }

    /// The machine has prepared this store.
    fn prepare(&self, place: &StoreLocation) {
        let json = serde_json::to_value(&self.authority).unwrap();
        let prepared = Prepared {
            place: place.clone(),
            coordinator: MachineId::new(1, 1),
            authority: serde_json::from_value(json).unwrap(),
            addresses: plan(),
        };
        self.here.files.write(PREPARED_FILE, &prepared).unwrap();
    }

    /// A directory of a store, with something in it by which it is recognised.
    fn store(&self, directory: &str, mark: &str) {
        self.here.files.make_directory(directory).unwrap();
        let name = format!("{directory}/mark");
        self.here.files.write_bytes(&name, mark.as_bytes()).unwrap();
    }

    fn mark(&self, directory: &str) -> Option<String> {
        fs::read_to_string(self.here.files.path(directory).join("mark")).ok()
    }

    fn has(&self, name: &str) -> bool {
        self.here.files.path(name).exists()
    }

    fn membership(&self) -> Membership {
        known(&self.here).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.here.files.path(FILE)).unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _already_gone = fs::remove_dir_all(&self.directory);
    }
}

fn place(epoch: u32, holders: &[IpAddr]) -> StoreLocation {
    StoreLocation {
        epoch,
        servers: holders.iter().map(|address| (*address, PORT)).collect(),
    }
}

fn plan() -> AddressPlan {
    AddressPlan::new("10.101.0.0/16".parse().unwrap(), 24).unwrap()
}

#[test]
fn a_newer_store_is_used_and_the_same_one_is_no_news() {
    run(async {
        let ground = Ground::new("newer");
        let same = place(EPOCH, &[OTHER]);
        assert!(!adopt(&ground.here, &same).unwrap());
        let next = place(EPOCH + 1, &[OTHER]);
        assert!(adopt(&ground.here, &next).unwrap());
        assert_eq!(ground.membership().store_location(), next);
        assert!(!adopt(&ground.here, &next).unwrap(), "once more");
        // A machine that was away skips what there was in between.
        assert!(adopt(&ground.here, &place(EPOCH + 9, &[OTHER])).unwrap());
        assert_eq!(ground.membership().store_epoch, EPOCH + 9);
    });
}

#[test]
fn a_former_store_is_refused_and_so_is_another_one_of_the_same_number() {
    run(async {
        let ground = Ground::new("former");
        let before = ground.bytes();
        let more = [OTHER, IpAddr::from([10, 101, 2, 1])];
        for refused in [
            place(EPOCH - 1, &[OTHER]),
            place(0, &more),
            place(EPOCH, &more),
            place(EPOCH, &[]),
        ] {
            let failure = adopt(&ground.here, &refused).unwrap_err();
            assert_eq!(failure.code, Code::Conflict);
            assert!(
                failure.message.contains("is not newer"),
                "{}",
                failure.message
            );
            assert_eq!(ground.bytes(), before);
        }
    });
}

#[test]
fn a_machine_holds_only_a_store_that_it_has_prepared() {
    run(async {
        let ground = Ground::new("unprepared");
        let before = ground.bytes();
        let next = place(EPOCH + 2, &[OTHER, OWN]);
        let refused = || {
            let failure = adopt(&ground.here, &next).unwrap_err();
            assert_eq!(failure.code, Code::Conflict);
            assert!(failure.message.contains("prepared"), "{}", failure.message);
            assert_eq!(ground.bytes(), before);
            assert!(!ground.has(AUTHORITY_FILE));
        };
        refused();
        ground.prepare(&place(EPOCH + 1, &[OTHER, OWN]));
        refused();
        ground.prepare(&place(EPOCH + 2, &[OWN]));
        refused();
        ground.prepare(&next);
        assert!(adopt(&ground.here, &next).unwrap());
        let membership = ground.membership();
        assert_eq!(membership.store_location(), next);
        assert_eq!(membership.addresses, Some(plan()));
        let saved: CertificateAuthority = ground.here.files.read(AUTHORITY_FILE).unwrap().unwrap();
        assert_eq!(saved.certificate_pem(), ground.authority.certificate_pem());
    });
}

#[test]
fn whoever_ceases_to_hold_the_store_has_no_plan_from_then_on() {
    run(async {
        let ground = Ground::new("ceases");
        let mut membership = ground.membership();
        membership.addresses = Some(plan());
        membership.store = place(EPOCH, &[OWN]).servers;
        ground.here.files.write(FILE, &membership).unwrap();
        assert!(ground.membership().is_storage());
        assert!(adopt(&ground.here, &place(EPOCH + 1, &[OTHER])).unwrap());
        assert!(!ground.membership().is_storage());
    });
}

#[test]
fn a_machine_in_no_network_uses_no_store() {
    run(async {
        let ground = Ground::new("nowhere");
        ground.here.files.remove(FILE).unwrap();
        let failure = adopt(&ground.here, &place(EPOCH + 1, &[OTHER])).unwrap_err();
        assert_eq!(failure.code, Code::NetworkNotRunning);
        assert!(!ground.has(FILE));
    });
}

#[test]
fn the_store_that_counts_moves_in_and_the_former_one_is_kept_aside() {
    run(async {
        let ground = Ground::new("move-in");
        ground.store(DIRECTORY, "former");
        ground.store(FORMER_DIRECTORY, "older");
        ground.store(NEXT_DIRECTORY, "next");
        let next = place(EPOCH + 1, &[OWN]);
        ground.prepare(&next);
        assert!(adopt(&ground.here, &next).unwrap());
        let membership = ground.membership();
        // Repeating it is harmless: the daemon may have died after any step of it.
        for _ in 0..2 {
            move_in(&ground.here, &membership).await.unwrap();
            assert_eq!(ground.mark(DIRECTORY).as_deref(), Some("next"));
            assert_eq!(ground.mark(FORMER_DIRECTORY).as_deref(), Some("former"));
            assert!(!ground.has(NEXT_DIRECTORY) && !ground.has(PREPARED_FILE));
        }
        let file = format!("{DIRECTORY}/config.json");
        let config: serde_json::Value = ground.here.files.read(&file).unwrap().unwrap();
        assert_eq!(
            config["listen"],
            format!("{OWN}:{PORT}"),
            "the port of what counts"
        );
        settle(&ground.here, &membership).unwrap();
        assert_eq!(ground.mark(DIRECTORY).as_deref(), Some("next"));
        assert!(!ground.has(FORMER_DIRECTORY));
        assert!(ground.has(AUTHORITY_FILE), "a holder is trusted with it");
    });
}

#[test]
fn a_move_that_was_interrupted_is_completed() {
    run(async {
        let ground = Ground::new("interrupted");
        let next = place(EPOCH + 1, &[OWN]);
        ground.prepare(&next);
        assert!(adopt(&ground.here, &next).unwrap());
        // The former one is aside already, and the next one has not moved.
        ground.store(FORMER_DIRECTORY, "former");
        ground.store(NEXT_DIRECTORY, "next");
        move_in(&ground.here, &ground.membership()).await.unwrap();
        assert_eq!(ground.mark(DIRECTORY).as_deref(), Some("next"));
        assert_eq!(ground.mark(FORMER_DIRECTORY).as_deref(), Some("former"));
        // The next one has moved, and what was prepared is still written down.
        ground.prepare(&next);
        move_in(&ground.here, &ground.membership()).await.unwrap();
        assert_eq!(ground.mark(DIRECTORY).as_deref(), Some("next"));
        assert_eq!(ground.mark(FORMER_DIRECTORY).as_deref(), Some("former"));
        assert!(!ground.has(PREPARED_FILE));
    });
}

#[test]
fn a_next_store_that_will_never_count_is_taken_away_and_the_current_one_stays() {
    run(async {
        for (name, epoch) in [("never", EPOCH - 1), ("other", EPOCH)] {
            let ground = Ground::new(name);
            ground.prepare(&place(epoch, &[OTHER, OWN]));
            ground.store(NEXT_DIRECTORY, "next");
            move_in(&ground.here, &ground.membership()).await.unwrap();
            assert!(!ground.has(NEXT_DIRECTORY) && !ground.has(PREPARED_FILE));
            assert!(!ground.has(DIRECTORY), "it holds none");
        }
    });
}

#[test]
fn a_next_store_that_may_still_count_is_kept() {
    run(async {
        let ground = Ground::new("may-count");
        ground.prepare(&place(EPOCH + 1, &[OWN]));
        ground.store(NEXT_DIRECTORY, "next");
        // There is no program to run it with here, which is an error, and takes nothing away.
        let failure = move_in(&ground.here, &ground.membership()).await;
        assert!(
            failure
                .unwrap_err()
                .message
                .contains("/nonexistent/nats-server")
        );
        assert_eq!(ground.mark(NEXT_DIRECTORY).as_deref(), Some("next"));
        assert!(ground.has(PREPARED_FILE));
    });
}

#[test]
fn whoever_holds_no_store_puts_its_own_aside_until_that_is_settled() {
    run(async {
        let ground = Ground::new("aside");
        ground.store(DIRECTORY, "former");
        ground
            .here
            .files
            .write(AUTHORITY_FILE, &ground.authority)
            .unwrap();
        let membership = ground.membership();
        for _ in 0..2 {
            move_in(&ground.here, &membership).await.unwrap();
            assert!(!ground.has(DIRECTORY));
            assert_eq!(ground.mark(FORMER_DIRECTORY).as_deref(), Some("former"));
            assert!(ground.has(AUTHORITY_FILE), "the change may still be undone");
        }
        settle(&ground.here, &membership).unwrap();
        settle(&ground.here, &membership).unwrap();
        assert!(!ground.has(FORMER_DIRECTORY) && !ground.has(AUTHORITY_FILE));
    });
}

#[test]
fn nothing_of_a_network_is_left_on_a_machine_that_has_left_it_but_its_identity() {
    run(async {
        let ground = Ground::new("left");
        ground.prepare(&place(EPOCH + 1, &[OWN]));
        for directory in [DIRECTORY, NEXT_DIRECTORY, FORMER_DIRECTORY] {
            ground.store(directory, "x");
        }
        for file in [AUTHORITY_FILE, VIEW_FILE, JOURNAL_FILE] {
            ground.here.files.write(file, &1).unwrap();
        }
        for _ in 0..2 {
            membership::delete(&ground.here).await.unwrap();
            let entries = fs::read_dir(&ground.directory).unwrap();
            let mut left: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            assert_eq!(left, ["identity.json", "lock"]);
        }
    });
}

#[test]
fn a_view_that_was_saved_twice_leaves_no_copy_behind_either() {
    run(async {
        let ground = Ground::new("copy");
        for _ in 0..2 {
            ground.here.files.rewrite(VIEW_FILE, &1).unwrap();
        }
        membership::delete(&ground.here).await.unwrap();
        let found: Option<u32> = ground.here.files.read_last_good(VIEW_FILE).unwrap();
        assert_eq!(found, None, "of a network that has been left");
    });
}
