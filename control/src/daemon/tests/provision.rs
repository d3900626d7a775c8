//! Clients that make machines of hosts, and say how far they are.

use ployz_api::{Code, OperationId, OperationRow, Outcome, ProvisionReport, Request, WorkState};

use super::cluster::{Cluster, Host, payload, refused};
use crate::testkit::run;

async fn report(host: &Host, report: ProvisionReport) -> Outcome {
    host.ask(Request::Provision(report)).await
}

fn begin(network: &str, targets: usize) -> ProvisionReport {
    ProvisionReport::Begin {
        network: network.parse().unwrap(),
        targets: (0..targets).map(|it| format!("host-{it}")).collect(),
    }
}

async fn get(host: &Host, operation_id: OperationId) -> OperationRow {
    *payload!(
        host.ask(Request::OperationGet { operation_id }).await,
        Operation
    )
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn work_of_a_client_is_seen_as_it_goes_and_takes_no_reports_once_it_is_over() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        refused(
            report(host, begin("other", 1)).await,
            Code::NetworkMismatch,
            "--network acme",
        );
        for count in [0, 201] {
            let words = format!("1 to 200 hosts, not {count}");
            refused(
                report(host, begin("acme", count)).await,
                Code::InvalidArgument,
                &words,
            );
        }
        let row = payload!(report(host, begin("acme", 2)).await, Operation);
        let operation_id = row.operation_id;
        assert_eq!(
            (row.state, row.target.as_str()),
            (WorkState::Running, "host-0 host-1")
        );
        assert!(row.lease_until.is_some_and(|until| until > row.started_at));

        let stage = |target: &str, stage: &str| ProvisionReport::Stage {
            operation_id,
            target: target.to_owned(),
            stage: stage.to_owned(),
        };
        let ended = |target: &str, cause: Option<&str>| ProvisionReport::Ended {
            operation_id,
            target: target.to_owned(),
            cause: cause.map(str::to_owned),
        };
        for said in [
            stage("host-0", "copy"),
            stage("host-1", "copy"),
            stage("host-0", "install"),
            ended("host-0", None),
            ended("host-1", Some("no space")),
            ProvisionReport::Alive { operation_id },
        ] {
            report(host, said).await.unwrap();
        }
        let row = get(host, operation_id).await;
        assert_eq!(
            (row.state, row.message.as_str()),
            (WorkState::Running, "host-1: no space")
        );
        let stages: Vec<_> = row
            .stages
            .iter()
            .map(|it| (it.target.as_deref().unwrap(), it.stage.as_str(), it.state))
            .collect();
        let expected = [
            ("host-0", "copy", WorkState::Done),
            ("host-1", "copy", WorkState::Failed),
            ("host-0", "install", WorkState::Done),
        ];
        assert_eq!(stages, expected);

        let end = || ProvisionReport::End {
            operation_id,
            code: Code::SshFailed,
            message: "1 of 2 failed".to_owned(),
        };
        report(host, end()).await.unwrap();
        let row = get(host, operation_id).await;
        assert_eq!(
            (row.state, row.code),
            (WorkState::Failed, Some(Code::SshFailed))
        );
        assert_eq!(row.message, "1 of 2 failed");
        assert!(row.next.starts_with("ployzctl machine add"), "{row:?}");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn operations_are_listed_in_their_order_and_one_that_nobody_knows_is_refused() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let host = &cluster.hosts[0];
        let begun = payload!(report(host, begin("acme", 1)).await, Operation);
        for asked in &cluster.hosts {
            let list = payload!(asked.ask(Request::OperationList).await, OperationList);
            let operations: Vec<_> = list
                .operations
                .iter()
                .map(|row| (row.operation.as_str(), row.state))
                .collect();
            let expected = [
                ("machine-join", WorkState::Done),
                ("machine-add", WorkState::Running),
            ];
            assert_eq!(operations, expected);
            assert_eq!(list.operations[0].target, cluster.hosts[1].id().to_string());
            assert_eq!(list.operations[1].operation_id, begun.operation_id);
            let unknown = Request::OperationGet {
                operation_id: OperationId::new(1, 1),
            };
            refused(
                asked.ask(unknown).await,
                Code::InvalidArgument,
                "ployzctl operation list",
            );
        }
        let gone = ProvisionReport::Alive {
            operation_id: OperationId::new(1, 1),
        };
        refused(
            report(host, gone).await,
            Code::InvalidArgument,
            "ployzctl operation list",
        );
    });
}
