//! Requests that change records, against a real store.

use std::collections::BTreeMap;

use ployz_api::{Code, DeployRequest, Payload, Program, Request, WorkloadSpec};

use super::cluster::{Cluster, Host};
use crate::testkit::run;

async fn posture(host: &Host, request: Request) -> Result<(String, String), Code> {
    match host
        .ask(request)
        .await
        .map_err(|failure| failure.code)?
        .payload
    {
        Some(Payload::MachineLifecycle(it)) => Ok((it.from.to_string(), it.to.to_string())),
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_goes_through_its_lifecycle_and_repeats_change_nothing() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let machine = || "m1".to_owned();
        let drain = || Request::MachineDrain { machine: machine() };
        let activate = || Request::MachineActivate { machine: machine() };
        let standby = || Request::MachineStandby {
            machine: machine(),
            force: false,
        };
        let said = |from: &str, to: &str| Ok((from.to_owned(), to.to_owned()));
        assert_eq!(posture(host, standby()).await, said("active", "standby"));
        assert_eq!(posture(host, drain()).await, Err(Code::InvalidTransition));
        assert_eq!(posture(host, activate()).await, said("standby", "active"));
        assert_eq!(posture(host, drain()).await, said("active", "drained"));
        assert_eq!(posture(host, drain()).await, said("drained", "drained"));
        assert_eq!(posture(host, standby()).await, said("drained", "standby"));
        assert_eq!(posture(host, standby()).await, said("standby", "standby"));
        assert_eq!(posture(host, activate()).await, said("standby", "active"));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn no_workload_is_placed_where_no_machine_is_active() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let machine = "m1".to_owned();
        host.ask(Request::MachineDrain { machine }).await.unwrap();
        for machine in [None, Some("m1".to_owned())] {
            let deploy = Request::WorkloadDeploy(DeployRequest {
                privileged: false,
                workload: "default/web".parse().unwrap(),
                machine,
                spec: WorkloadSpec {
                    program: Program::Exec("true".to_owned()),
                    env: BTreeMap::new(),
                    volumes: BTreeMap::new(),
                    publish: Vec::new(),
                },
            });
            let refused = host.ask(deploy).await.unwrap_err();
            assert!(
                matches!(refused.code, Code::Conflict | Code::InvalidTransition),
                "{refused}"
            );
        }
        let Some(Payload::WorkloadList(list)) =
            host.ask(Request::WorkloadList).await.unwrap().payload
        else {
            panic!("a list of workloads");
        };
        assert!(list.rows.is_empty(), "nothing is left of them");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_name_is_one_machines_and_free_again_once_it_is_given_up() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let host = &cluster.hosts[0];
        let rename = |machine: &str, name: &str| Request::MachineRename {
            machine: machine.to_owned(),
            name: name.parse().unwrap(),
        };
        let taken = host.ask(rename("m2", "m1")).await.unwrap_err();
        assert_eq!(taken.code, Code::Conflict);
        host.ask(rename("m2", "db")).await.unwrap();
        host.ask(rename(&cluster.hosts[0].id().to_string(), "m2"))
            .await
            .unwrap();
    });
}
