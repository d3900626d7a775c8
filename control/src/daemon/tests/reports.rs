//! What machines say of themselves and of each other: diagnosis, status, round trips and metrics.

use ployz_api::{Check, Code, Request, StorageState, Verdict};

use super::cluster::{Cluster, Host, payload, refused};
use crate::daemon::metrics;
use crate::store::StoreError;
use crate::store::records::change;
use crate::testkit::{PATIENCE, assert_page, run, wait_until};

async fn doctor(host: &Host, machine: Option<&str>) -> ployz_api::Doctor {
    let machine = machine.map(str::to_owned);
    payload!(host.ask(Request::Doctor { machine }).await, Doctor)
}

fn finding<'a>(doctor: &'a ployz_api::Doctor, check: &str) -> &'a Check {
    let found = doctor.checks.iter().find(|it| it.check == check);
    found.unwrap_or_else(|| panic!("no {check} in {doctor:?}"))
}

fn assert_finding(doctor: &ployz_api::Doctor, check: &str, verdict: Verdict, words: &str) {
    let found = finding(doctor, check);
    assert_eq!(found.verdict, verdict, "{found:?}");
    let mend = found.mend.as_deref().unwrap_or_default();
    let said = format!("{}; {mend}", found.cause);
    assert!(said.contains(words), "'{words}' is not in '{said}'");
    assert_eq!(found.mend.is_some(), verdict != Verdict::Ok, "{found:?}");
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_doctor_finds_what_is_well_and_says_of_the_rest_what_mends_it() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let own = doctor(founder, None).await;
        assert_finding(&own, "network", Verdict::Ok, "in acme");
        assert_finding(&own, "storage", Verdict::Ok, "nats-server 2.14.6 runs here");
        assert_finding(&own, "store", Verdict::Ok, "the store answers");
        assert_finding(&own, "view", Verdict::Ok, "confirmed");
        assert_finding(&own, "record", Verdict::Ok, "matches");
        assert_finding(&own, "data plane", Verdict::Warn, "io_uring");
        // Nothing carries packets here, and that is what it says.
        assert_finding(&own, "peer", Verdict::Fail, "ployzctl doctor m2");
        assert!(!own.healthy && own.machine.is_none());
        // A machine that is asked for itself answers the same, by whatever name.
        let id = founder.id().to_string();
        for named in ["m1", id.as_str()] {
            assert_eq!(
                doctor(founder, Some(named)).await.checks.len(),
                own.checks.len()
            );
        }
        let other = doctor(member, None).await;
        assert!(
            other.checks.iter().all(|it| it.check != "storage"),
            "{other:?}"
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_doctor_sees_a_record_with_another_key_and_tells_a_machine_in_no_network_how_to_get_in() {
    run(async {
        let mut cluster = Cluster::founded(1).await;
        let stranger = cluster.add_host().await;
        let alone = doctor(stranger, None).await;
        assert_finding(
            &alone,
            "network",
            Verdict::Fail,
            "ployzctl mesh init <name>",
        );
        let host = &cluster.hosts[0];
        let network = host.machine.network().unwrap();
        let other = crate::host::identity::Identity::generate().unwrap();
        let key = other.wireguard_key.public_key().to_string();
        let changed = change(&network.store, host.id(), |record| {
            record.wireguard_key = key.clone();
            Ok::<_, StoreError>(())
        });
        changed.await.unwrap();
        wait_until("the other key to be in view", PATIENCE, || {
            let view = network.view();
            view.machine(host.id())
                .is_some_and(|it| it.wireguard_key == key)
        })
        .await;
        let found = doctor(host, None).await;
        assert_finding(&found, "record", Verdict::Fail, "restore identity.json");
        let network_observes = || network.view().observed(host.id()).is_some();
        wait_until("the first report", PATIENCE, network_observes).await;
        assert_finding(
            &doctor(host, None).await,
            "clock",
            Verdict::Ok,
            "the store's",
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_status_tells_what_runs_here_with_a_network_and_without() {
    run(async {
        let mut cluster = Cluster::founded(2).await;
        let alone = cluster.add_host().await;
        let status = payload!(alone.ask(Request::Status).await, Status);
        assert_eq!((status.id, status.name.as_str()), (alone.id(), "m3"));
        assert!(status.network.is_none() && status.overlay_ip.is_none());
        assert!(matches!(status.storage, StorageState::None));
        assert!(!status.control.connected && status.control.view_age_secs.is_none());
        let [founder, member, _] = &cluster.hosts[..] else {
            panic!("three hosts");
        };
        let status = payload!(founder.ask(Request::Status).await, Status);
        assert!(
            matches!(status.storage, StorageState::Running { ref version, .. } if version == "2.14.6")
        );
        assert_eq!(status.control.machines, 2);
        assert_eq!(status.lifecycle.unwrap().to_string(), "active");
        let status = payload!(member.ask_remotely(&Request::Status).await, Status);
        assert!(matches!(status.storage, StorageState::None));
        assert_eq!(
            status.overlay_ip.unwrap(),
            member.machine.config.listen.ip()
        );
        // A machine that is called something else by its network says that name.
        let rename = Request::MachineRename {
            machine: "m2".to_owned(),
            name: "db".parse().unwrap(),
        };
        founder.ask(rename).await.unwrap();
        let network = member.machine.network().unwrap();
        wait_until("the new name to be in view", PATIENCE, || {
            network.view().select("db").is_ok()
        })
        .await;
        let status = payload!(member.ask(Request::Status).await, Status);
        assert_eq!(status.name.as_str(), "db");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn round_trips_that_nobody_has_measured_are_told_as_warnings_of_each_machine() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let host = &cluster.hosts[0];
        let session =
            ployz_api::client::connect(&host.credential(), tokio::time::Instant::now() + PATIENCE)
                .await
                .unwrap();
        let request = |machines: &[&str]| Request::MachineRtt {
            machines: machines.iter().map(|it| (*it).to_owned()).collect(),
            count: Some(1),
        };
        let mut answers = session.open(&request(&[])).await.unwrap();
        let mut warnings = Vec::new();
        while let Some(answer) = answers.next().await.unwrap() {
            let measured = payload!(ployz_api::Outcome::from(answer), MachineRtt);
            assert_eq!(measured.machines, 2, "so many answers are to come");
            assert!(measured.rows.is_empty());
            warnings.extend(measured.warnings);
        }
        warnings.sort();
        let expected = [
            "m1 to m2: unmeasured, no session",
            "m2 to m1: unmeasured, no session",
        ];
        assert_eq!(warnings, expected);
        let unknown = session.open(&request(&["m2", "m9"])).await.unwrap();
        let answer = unknown.only().await.unwrap();
        refused(answer.into(), Code::MachineNotFound, "ployzctl machine ls");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_page_of_metrics_is_well_formed_in_a_network_and_without_one() {
    run(async {
        let mut cluster = Cluster::founded(2).await;
        cluster.add_host().await;
        let [founder, member, alone] = &cluster.hosts[..] else {
            panic!("three hosts");
        };
        for (host, families) in [(founder, 11), (member, 10), (alone, 1)] {
            let page = metrics::page(&host.machine);
            assert_eq!(assert_page(&page), families, "{page}");
        }
        let page = metrics::page(&founder.machine);
        for line in [
            "ployz_network_running 1",
            "ployz_machines 2",
            "ployz_store_connected 1",
        ] {
            assert!(page.lines().any(|it| it == line), "no {line} in {page}");
        }
        let key = member.machine.identity.wireguard_key.public_key();
        let peer = format!(
            "ployz_peer_info{{public_key=\"{key}\",machine=\"{}\",name=\"m2\"}} 1",
            member.id()
        );
        assert!(page.lines().any(|it| it == peer), "no {peer} in {page}");
        assert_eq!(
            page.matches("ployz_peer_info{").count(),
            1,
            "and not of itself"
        );
    });
}
