//! Workloads as coordinators see them. No container engine answers here: they are claimed, and none of them runs.

use std::collections::BTreeMap;

use ployz_api::{
    Code, DeployRequest, InstanceId, MigrateRequest, Outcome, Program, PublishedPort, Request,
    Secret, VolumePart, VolumeRequest, WorkloadName, WorkloadRow, WorkloadSpec, WorkloadState,
};

use super::cluster::{Cluster, Host, payload, refused};
use crate::testkit::{PATIENCE, run, wait_until};

fn image() -> WorkloadSpec {
    WorkloadSpec {
        program: Program::Image("web:1".to_owned()),
        env: BTreeMap::from([("TOKEN".to_owned(), Secret::new("hidden".to_owned()))]),
        volumes: BTreeMap::from([("data".parse().unwrap(), "/data".to_owned())]),
        publish: vec![PublishedPort {
            machine: 8_080,
            workload: 80,
        }],
    }
}

fn named(name: &str) -> WorkloadName {
    name.parse().unwrap()
}

async fn deploy(host: &Host, name: &str, machine: Option<&str>, spec: WorkloadSpec) -> Outcome {
    let request = DeployRequest {
        privileged: false,
        workload: named(name),
        machine: machine.map(str::to_owned),
        spec,
    };
    host.ask(Request::WorkloadDeploy(request)).await
}

async fn remove(host: &Host, name: &str) -> Outcome {
    let workload = named(name);
    host.ask(Request::WorkloadRemove { workload }).await
}

async fn rows(host: &Host) -> Vec<WorkloadRow> {
    payload!(host.ask(Request::WorkloadList).await, WorkloadList).rows
}

/// Waits until the view of this machine has so many workloads.
async fn seen(host: &Host, count: usize) {
    let network = host.machine.network().unwrap();
    wait_until("the claims to be in view", PATIENCE, || {
        let view = network.view();
        view.machines().map(|it| it.workloads.len()).sum::<usize>() == count
    })
    .await;
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_workload_is_placed_once_shown_without_its_secrets_and_its_name_is_free_when_it_is_removed() {
    run(async {
        let cluster = Cluster::founded_without_engines(1).await;
        let host = &cluster.hosts[0];
        let placed = payload!(deploy(host, "web", None, image()).await, Workload);
        assert_eq!(placed.workload.to_string(), "default/web");
        assert_eq!(placed.machine_id, host.id());
        assert_eq!(placed.state, WorkloadState::Unknown);
        refused(
            deploy(host, "web", None, image()).await,
            Code::Conflict,
            "ployzctl workload rm default/web",
        );
        let other = payload!(deploy(host, "shop/web", None, image()).await, Workload);
        assert_ne!(other.id, placed.id);
        seen(host, 2).await;
        let names: Vec<_> = rows(host)
            .await
            .into_iter()
            .map(|it| it.workload.to_string())
            .collect();
        assert_eq!(names, ["default/web", "shop/web"]);

        let inspect = || Request::WorkloadInspect {
            workload: named("web"),
        };
        let shown = payload!(host.ask(inspect()).await, WorkloadInspect);
        assert_eq!(shown.workload.id, placed.id);
        assert_eq!(shown.env, ["TOKEN"]);
        assert_eq!(shown.publish, image().publish);
        assert!(!serde_json::to_string(&shown).unwrap().contains("hidden"));

        remove(host, "web").await.unwrap();
        for answer in [host.ask(inspect()).await, remove(host, "web").await] {
            refused(answer, Code::WorkloadNotFound, "ployzctl workload ls");
        }
        let again = payload!(deploy(host, "web", Some("m1"), image()).await, Workload);
        assert_ne!(again.id, placed.id, "each placement has an id of its own");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_no_machine_could_run_is_refused_and_nothing_is_written_of_it() {
    run(async {
        let cluster = Cluster::founded_without_engines(1).await;
        let host = &cluster.hosts[0];
        let network = host.machine.network().unwrap();
        wait_until("the runtime to be known", PATIENCE, || {
            network.view().observed(host.id()).is_some()
        })
        .await;
        let specs: [(WorkloadSpec, &str); 5] = [
            (
                WorkloadSpec {
                    program: Program::Image("  ".to_owned()),
                    ..image()
                },
                "default/web: the image or command is empty",
            ),
            (
                WorkloadSpec {
                    volumes: BTreeMap::from([("data".parse().unwrap(), "/a/../b".to_owned())]),
                    ..image()
                },
                "'/a/../b' is not an absolute path",
            ),
            (
                WorkloadSpec {
                    env: BTreeMap::from([("A=B".to_owned(), Secret::new(String::new()))]),
                    ..image()
                },
                "'A=B' is not the name of an environment variable",
            ),
            (
                WorkloadSpec {
                    program: Program::Exec("true".to_owned()),
                    ..image()
                },
                "only containers publish ports",
            ),
            (
                WorkloadSpec {
                    env: BTreeMap::from([("A".to_owned(), Secret::new("a\0b".to_owned()))]),
                    ..image()
                },
                "the value of A contains a NUL byte",
            ),
        ];
        for (spec, words) in specs {
            let answer = deploy(host, "web", None, spec).await;
            refused(answer, Code::InvalidArgument, words);
        }
        // A command of the host, where containers are run.
        let command = || WorkloadSpec {
            program: Program::Exec("true".to_owned()),
            publish: Vec::new(),
            ..image()
        };
        let nowhere = deploy(host, "web", None, command()).await;
        refused(nowhere, Code::Conflict, "ployzctl machine ls");
        let here = deploy(host, "web", Some("m1"), command()).await;
        refused(
            here,
            Code::Unsupported,
            "m1 does not run workloads of runtime host",
        );
        let unknown = deploy(host, "web", Some("m2"), image()).await;
        refused(unknown, Code::MachineNotFound, "ployzctl machine ls");
        assert!(rows(host).await.is_empty());
        deploy(host, "web", None, image()).await.unwrap();
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn workloads_spread_over_machines_and_keep_a_machine_from_standby_until_it_is_forced() {
    run(async {
        let cluster = Cluster::founded_without_engines(2).await;
        let host = &cluster.hosts[0];
        let mut machines = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let placed = payload!(deploy(host, name, None, image()).await, Workload);
            machines.push(placed.machine_id);
        }
        for machine in &cluster.hosts {
            let held = machines.iter().filter(|it| **it == machine.id()).count();
            assert_eq!(
                held, 2,
                "placed one after the other, though the view is late"
            );
        }
        let standby = |force| Request::MachineStandby {
            machine: "m2".to_owned(),
            force,
        };
        let words = "ployzctl machine standby --force m2";
        refused(
            host.ask(standby(false)).await,
            Code::MachineHoldsWorkloads,
            words,
        );
        let drain = Request::MachineDrain {
            machine: "m2".to_owned(),
        };
        let drained = payload!(host.ask(drain).await, MachineLifecycle);
        assert_eq!(
            (drained.to.to_string().as_str(), drained.workloads),
            ("draining", 2)
        );
        assert_eq!(drained.holds.len(), 2);
        let named = deploy(host, "e", Some("m2"), image()).await;
        refused(
            named,
            Code::InvalidTransition,
            "ployzctl machine activate m2",
        );
        let placed = payload!(deploy(host, "e", None, image()).await, Workload);
        assert_eq!(placed.machine_id, host.id(), "whoever drains takes no more");
        for row in &drained.holds {
            remove(host, &row.to_string()).await.unwrap();
        }
        let drain = Request::MachineDrain {
            machine: "m2".to_owned(),
        };
        let drained = payload!(host.ask(drain).await, MachineLifecycle);
        assert_eq!(
            (drained.to.to_string().as_str(), drained.workloads),
            ("drained", 0)
        );
        payload!(host.ask(standby(true)).await, MachineLifecycle);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_move_is_refused_before_anything_happens_where_it_cannot_end_well() {
    run(async {
        let cluster = Cluster::founded_without_engines(2).await;
        let host = &cluster.hosts[0];
        deploy(host, "web", Some("m1"), image()).await.unwrap();
        let request = |name: &str, to: &str| MigrateRequest {
            workload: named(name),
            to: to.to_owned(),
        };
        let preview = |name: &str, to: &str| host.ask(Request::MigratePreview(request(name, to)));
        let plan = payload!(preview("web", "m2").await, MigratePreview);
        assert_eq!((plan.from.as_str(), plan.to.as_str()), ("m1", "m2"));
        assert_eq!(plan.volumes.len(), 1);
        assert!(!plan.stages.is_empty());
        let drain = Request::MachineDrain {
            machine: "m2".to_owned(),
        };
        host.ask(drain).await.unwrap();
        let network = host.machine.network().unwrap();
        wait_until("the drain to be in view", PATIENCE, || {
            let view = network.view();
            let machine = view.select("m2").unwrap();
            machine.lifecycle == ployz_api::Lifecycle::Draining
        })
        .await;
        for (name, to, code, words) in [
            ("web", "m1", Code::Conflict, "default/web is on m1 already"),
            (
                "web",
                "m2",
                Code::InvalidTransition,
                "ployzctl machine activate m2",
            ),
            ("web", "m3", Code::MachineNotFound, "ployzctl machine ls"),
            ("db", "m2", Code::WorkloadNotFound, "ployzctl workload ls"),
        ] {
            refused(preview(name, to).await, code, words);
            let apply = Request::MigrateApply(request(name, to));
            refused(host.ask(apply).await, code, words);
        }
        // None of them has kept the workload.
        let moving = host.machine.workloads.begin_to_move(&named("web")).unwrap();
        let apply = || Request::MigrateApply(request("web", "m2"));
        refused(
            host.ask(apply()).await,
            Code::Busy,
            "ployzctl operation list",
        );
        drop(moving);
        refused(
            host.ask(apply()).await,
            Code::InvalidTransition,
            "m2 is drained",
        );
        seen(host, 1).await;
    });
}

/// A coordinator that died between the record and the claim leaves a name that nobody holds.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_name_that_no_machine_holds_is_taken_over_and_one_whose_instance_is_lost_says_so() {
    run(async {
        let cluster = Cluster::founded_without_engines(1).await;
        let host = &cluster.hosts[0];
        let store = &host.machine.network().unwrap().store;
        let workload = named("web");
        let left = ployz_core::ServiceRecord {
            version: ployz_core::RECORD_VERSION,
            workload: workload.clone(),
            id: InstanceId::new(1, 1),
            machine: host.id(),
            next: None,
            created_at: 0,
        };
        let key = "service.default.web";
        assert!(
            store
                .create(crate::store::WORKLOADS, key, &left)
                .await
                .unwrap()
        );
        let inspect = Request::WorkloadInspect { workload };
        let words = "ployzctl workload rm default/web";
        refused(host.ask(inspect).await, Code::WorkloadNotFound, words);
        let placed = payload!(deploy(host, "web", None, image()).await, Workload);
        assert_ne!(placed.id, left.id);
        refused(
            deploy(host, "web", None, image()).await,
            Code::Conflict,
            "exists already",
        );
        remove(host, "web").await.unwrap();
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn logs_and_volumes_are_only_where_the_workload_is() {
    run(async {
        let cluster = Cluster::founded_without_engines(1).await;
        let host = &cluster.hosts[0];
        let logs = Request::WorkloadLogs {
            workload: named("web"),
            lines: 10,
        };
        refused(
            host.ask(logs).await,
            Code::WorkloadNotFound,
            "ployzctl workload ls",
        );
        deploy(host, "web", None, image()).await.unwrap();
        // It is not paused: nobody gets what it is writing.
        let volume = Request::Volume(VolumeRequest {
            workload: named("web"),
            volume: "data".parse().unwrap(),
            part: VolumePart::Entries { after: None },
        });
        assert_eq!(host.ask(volume).await.unwrap_err().code, Code::Busy);
    });
}
