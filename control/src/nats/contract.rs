//! The server as a process: found again, told to reload, and replaced when it has ended.

use std::rc::Rc;

use ployz_api::StorageState;

use crate::host::identity::Identity;
use crate::nats::{DIRECTORY, NatsServer};
use crate::store::{LEASES, Revised};
use crate::testkit::{Ground, PATIENCE, program_under_test, run, wait_until};

/// The server as another daemon sees it.
fn later(ground: &Ground) -> NatsServer {
    NatsServer::new(Rc::clone(ground.files()), &program_under_test(), None)
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_next_daemon_adopts_the_server_that_runs() {
    run(async {
        let ground = Ground::under_test().await;
        let pid = ground.nats.pid().unwrap();
        let next = later(&ground);
        next.start().await.unwrap();
        assert_eq!((next.pid(), ground.nats.pid()), (Some(pid), Some(pid)));
        let StorageState::Running {
            pid: shown,
            version,
        } = next.state().await
        else {
            panic!("it runs");
        };
        assert_eq!(shown, pid);
        assert_eq!(version, next.version().await.unwrap().to_string());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_server_is_found_although_its_note_is_damaged_or_missing() {
    run(async {
        let ground = Ground::under_test().await;
        let pid = ground.nats.pid().unwrap();
        let note = format!("{DIRECTORY}/process.json");
        ground.files().write_bytes(&note, b"{").unwrap();
        assert_eq!(later(&ground).pid(), Some(pid));
        ground.files().remove(&note).unwrap();
        let next = later(&ground);
        assert!(next.is_running());
        // Adopting it writes the note anew.
        next.start().await.unwrap();
        assert!(ground.files().path(&note).exists());
        assert_eq!(next.pid(), Some(pid));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_note_of_another_process_is_not_believed() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let note = format!("{DIRECTORY}/process.json");
        let former: serde_json::Value = ground.files().read(&note).unwrap().unwrap();
        ground.cut_power(&store).await;
        // The number is used again, by this very test.
        let mut reused = former;
        reused["pid"] = std::process::id().into();
        ground.files().write(&note, &reused).unwrap();
        assert!(!ground.nats.is_running());
        assert!(matches!(ground.nats.state().await, StorageState::Down));
        ground.nats.stop().await.expect("nothing is to be stopped");
        ground.restore_power(&store).await;
        assert_ne!(ground.nats.pid().unwrap(), std::process::id());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn whoever_is_added_is_let_in_without_a_restart_and_others_stay_connected() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let pid = ground.nats.pid().unwrap();
        let machine = Identity::generate().unwrap();
        ground.admit(std::slice::from_ref(&machine));
        let client = ground.store(&machine).await;
        assert!(client.follow().await.is_ok());
        assert_eq!(ground.nats.pid(), Some(pid));
        assert_eq!(store.health().disconnects(), 0);
        ground.admit(&[]);
        wait_until("it to be put out", PATIENCE, || !client.is_connected()).await;
        assert_eq!(store.health().disconnects(), 0);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn settings_that_are_the_same_are_not_written_again() {
    run(async {
        use std::os::unix::fs::MetadataExt as _;
        let ground = Ground::under_test().await;
        let file = ground.files().path(&format!("{DIRECTORY}/config.json"));
        // Each write is a file of its own.
        let inode = || std::fs::metadata(&file).unwrap().ino();
        let before = inode();
        ground.nats.configure(&ground.settings(&[])).unwrap();
        assert_eq!(inode(), before);
        // A damaged one is.
        let half = b"{\"listen\": ";
        ground
            .files()
            .write_bytes(&format!("{DIRECTORY}/config.json"), half)
            .unwrap();
        ground.nats.configure(&ground.settings(&[])).unwrap();
        let text: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(text, ground.settings(&[]).render());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_server_that_is_stopped_keeps_what_it_has_and_one_that_is_destroyed_does_not() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        store.put(LEASES, "a", &7).await.unwrap();
        ground.nats.stop().await.unwrap();
        assert!(!ground.nats.is_running());
        ground.nats.stop().await.expect("once more is harmless");
        wait_until("the client to notice", PATIENCE, || !store.is_connected()).await;
        ground.restore_power(&store).await;
        let kept: Option<Revised<u32>> = store.get(LEASES, "a").await.unwrap();
        assert_eq!(kept.unwrap().value, 7);
        ground.nats.destroy().await.unwrap();
        assert!(!ground.nats.is_running());
        assert!(!ground.files().path(DIRECTORY).exists());
        ground.nats.destroy().await.expect("nothing is left");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_server_that_has_ended_is_started_again_however_often() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let again = async {
            for _ in 0..2 {
                let pid = ground.nats.pid().unwrap();
                ground.nats.kill();
                // Looked at once: the former one may end between two looks.
                let is_another = || ground.nats.pid().is_some_and(|it| it != pid);
                wait_until("another process", PATIENCE, is_another).await;
            }
        };
        tokio::select! {
            () = ground.nats.supervise() => {}
            () = again => {}
        }
        store.wait_connected(PATIENCE).await.unwrap();
    });
}
