//! The certificates of machines: renewed in time, after their time, and where an earlier version has signed them.

use ployz_api::Request;
use ployz_api::client::{CERTIFICATE_SECS, Facts};
use ployz_core::MachineRecord;

use super::cluster::{Cluster, Host};
use crate::host::ca::Subject;
use crate::host::clock;
use crate::host::membership::{CERTIFICATES_FILE, OwnCertificates};
use crate::host::tls;
use crate::store::records::change;
use crate::testkit::{PATIENCE, run, wait_until};

/// Gives a machine a certificate that its founder's authority has signed, and starts it again.
async fn restart_with(cluster: &mut Cluster, at: usize, machine_pem: String) {
    let machine = &cluster.hosts[at].machine;
    let mut own: OwnCertificates = machine.files.read(CERTIFICATES_FILE).unwrap().unwrap();
    own.machine_pem = machine_pem;
    machine.files.write(CERTIFICATES_FILE, &own).unwrap();
    cluster.restart(at).await;
}

/// A certificate of a machine that was signed so long ago.
fn signed(cluster: &Cluster, at: usize, secs_ago: u64) -> String {
    let host = &cluster.hosts[at];
    let authority = cluster.hosts[0].machine.authority().unwrap();
    let subject = Subject {
        id: host.id(),
        name: &host.machine.config.name,
        holds_store: at == 0,
    };
    let key = host.machine.identity.certificate_key().unwrap();
    let now = clock::now().unix_secs;
    let certificate = authority.certify_machine(&subject, now - secs_ago, &key);
    certificate.unwrap()
}

fn facts(host: &Host) -> Facts {
    let pem = host.machine.network().unwrap().certificate();
    Facts::read(&tls::certificate(&pem).unwrap()).unwrap()
}

fn is_fresh(host: &Host) -> bool {
    let issued_at = facts(host).issued_at().unwrap_or_default();
    clock::now().unix_secs - issued_at < 60
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_was_away_for_longer_than_its_certificate_comes_back() {
    run(async {
        let mut cluster = Cluster::founded(2).await;
        let (founder_day, member_month) = (2 * 24 * 3600, 2 * CERTIFICATE_SECS);
        for (at, secs_ago) in [(0, founder_day), (1, member_month)] {
            let former = signed(&cluster, at, secs_ago);
            restart_with(&mut cluster, at, former).await;
            let host = &cluster.hosts[at];
            wait_until("a certificate of today", PATIENCE, || is_fresh(host)).await;
        }
        // On disk as well, and it serves with it.
        cluster.restart(1).await;
        let member = &cluster.hosts[1];
        assert!(is_fresh(member));
        let listed = member.ask_remotely(&Request::MachineList).await;
        assert!(listed.is_ok(), "{listed:?}");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn one_without_an_end_is_replaced_and_the_record_names_its_key_from_then_on() {
    run(async {
        let mut cluster = Cluster::founded(2).await;
        let id = cluster.hosts[1].id();
        let founder = cluster.hosts[0].machine.network().unwrap();
        // As the version before has left it.
        let forgotten = change(&founder.store, id, |record| {
            record.certificate_key = None;
            Ok::<_, crate::store::StoreError>(())
        });
        forgotten.await.unwrap();
        let authority = cluster.hosts[0].machine.authority().unwrap();
        let key = cluster.hosts[1].machine.identity.certificate_key().unwrap();
        let former = authority.certify_host(id, &key).unwrap();
        restart_with(&mut cluster, 1, former).await;
        let member = &cluster.hosts[1];
        wait_until("a certificate that ends", PATIENCE, || {
            facts(member).expires_at.is_some()
        })
        .await;
        let own = member.machine.identity.certificate_fingerprint().unwrap();
        wait_until("the key in the record", PATIENCE, || {
            let view = founder.view();
            let record: Option<&MachineRecord> = view.machine(id);
            record.is_some_and(|it| it.certificate_key.as_ref() == Some(&own))
        })
        .await;
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_certificate_says_what_the_record_says_by_now() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let has = |host: &Host, part: &str| {
            let names = facts(host).names;
            names.iter().any(|name| name.contains(part))
        };
        assert!(has(founder, "holder.") && !has(member, "holder."));
        let rename = Request::MachineRename {
            machine: "m2".to_owned(),
            name: "other".parse().unwrap(),
        };
        founder.ask(rename).await.unwrap();
        wait_until("its new name", PATIENCE, || has(member, "other.named.")).await;
        assert!(!has(member, "m2.named."));
    });
}
