//! What operators say of machines: labels and names.

use std::collections::BTreeMap;

use ployz_api::{Code, Outcome, Request};
use serde_json::Value;

use super::cluster::{Cluster, Host, payload, refused};
use crate::testkit::run;

async fn label(host: &Host, machine: &str, labels: &[(&str, Option<&str>)]) -> Outcome {
    let labels = labels.iter().map(|(key, value)| {
        let value = value.map(|value| value.parse().unwrap());
        (key.parse().unwrap(), value)
    });
    let labels: BTreeMap<_, _> = labels.collect();
    let machine = machine.to_owned();
    host.ask(Request::MachineLabel { machine, labels }).await
}

async fn rename(host: &Host, machine: &str, name: &str) -> Outcome {
    let (machine, name) = (machine.to_owned(), name.parse().unwrap());
    host.ask(Request::MachineRename { machine, name }).await
}

fn labels(answer: Outcome) -> Value {
    payload!(answer, MachineRecord).record["labels"].clone()
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn labels_are_set_and_taken_away_in_one_request_and_repeats_change_nothing() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let first = label(host, "m1", &[("tier", Some("db")), ("rack", Some("7"))]).await;
        assert_eq!(
            labels(first),
            serde_json::json!({"tier": "db", "rack": "7"})
        );
        let change = [("tier", Some("web")), ("rack", None), ("never-set", None)];
        let second = label(host, "m1", &change).await.unwrap();
        assert_eq!(second.message, "the labels of m1 are changed");
        assert_eq!(labels(Ok(second)), serde_json::json!({"tier": "web"}));
        let again = label(host, "m1", &change).await.unwrap();
        assert_eq!(again.message, "m1 has these labels already");
        assert_eq!(labels(Ok(again)), serde_json::json!({"tier": "web"}));
        let empty = label(host, "m1", &[("tier", Some(""))]).await;
        assert_eq!(labels(empty), serde_json::json!({"tier": ""}));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_has_as_many_labels_as_fit_and_a_refused_change_leaves_all_of_them() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let keys: Vec<String> = (0..33).map(|number| format!("k{number}")).collect();
        let all: Vec<_> = keys.iter().map(|key| (key.as_str(), Some("v"))).collect();
        refused(
            label(host, "m1", &all).await,
            Code::InvalidArgument,
            "at most 32 labels",
        );
        let most = labels(label(host, "m1", &all[..32]).await);
        assert_eq!(most.as_object().unwrap().len(), 32);
        refused(
            label(host, "m1", &all[32..]).await,
            Code::InvalidArgument,
            "32",
        );
        // One goes, and another comes in its place.
        let swapped = labels(label(host, "m1", &[("k0", None), ("k32", Some("v"))]).await);
        assert_eq!(swapped.as_object().unwrap().len(), 32);
        assert!(swapped["k0"].is_null() && swapped["k32"] == "v");
    });
}

/// Every request that names a machine, with names that mean none or several.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_is_named_wrongly_is_refused_in_every_request_and_a_unique_beginning_is_enough() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let host = &cluster.hosts[0];
        for (wanted, code) in [
            ("m", Code::MachineAmbiguous),
            ("m3", Code::MachineNotFound),
            ("", Code::MachineNotFound),
            ("M1", Code::MachineNotFound),
            ("m1\n", Code::MachineNotFound),
        ] {
            let machine = || wanted.to_owned();
            let mut requests = vec![
                Request::MachineInspect { machine: machine() },
                Request::MachineActivate { machine: machine() },
                Request::MachineDrain { machine: machine() },
            ];
            requests.push(Request::MachineStandby {
                machine: machine(),
                force: true,
            });
            requests.push(Request::MachineRemove {
                machine: machine(),
                force: true,
            });
            requests.push(Request::Doctor {
                machine: Some(machine()),
            });
            for request in requests {
                refused(host.ask(request).await, code, "ployzctl machine ls");
            }
            refused(label(host, wanted, &[]).await, code, "ployzctl machine ls");
            refused(
                rename(host, wanted, "db").await,
                code,
                "ployzctl machine ls",
            );
        }
        rename(host, "m2", "db").await.unwrap();
        // The view of this machine hears of it in a moment; the id is its id at once.
        let id = cluster.hosts[1].id().to_string().to_lowercase();
        let inspect = Request::MachineInspect { machine: id };
        let shown = payload!(host.ask(inspect).await, MachineInspect);
        assert_eq!(shown.machine.id, cluster.hosts[1].id());
        assert_eq!(shown.desired["id"], cluster.hosts[1].id().to_string());
        assert!(!shown.machine.reachable, "there is no session with it");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_name_that_a_machine_has_already_is_given_to_it_again_and_to_no_other() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let host = &cluster.hosts[0];
        let own = cluster.hosts[0].id().to_string();
        let again = rename(host, &own, "m1").await.unwrap();
        assert_eq!(again.message, "the machine is called m1 already");
        refused(
            rename(host, &own, "m2").await,
            Code::Conflict,
            "ployzctl machine ls",
        );
        let renamed = rename(host, &own, "db").await.unwrap();
        assert_eq!(renamed.message, "m1 is called db now");
        // What was refused has taken nothing: the other machine gives its name up, and this one can have it.
        let other = cluster.hosts[1].id().to_string();
        rename(host, &other, "web").await.unwrap();
        let record = payload!(rename(host, &own, "m2").await, MachineRecord).record;
        assert_eq!(record["name"], "m2");
    });
}
