//! What is wrong here.

use ployz_api::client::key_exchanges;
use ployz_api::{
    Authority, Check, Doctor, Failure, KeyExchanges, MachineId, Outcome, Payload, StorageState,
};
use ployz_core::{STALE_SECS, View};
use ployz_engine::PublicKey;
use ployz_install::Version;

use crate::host::clock;
use crate::host::installation;
use crate::machine::Machine;
use crate::network::{Network, is_session};
use crate::services::pair;

/// Machines report to the store every 10 s, and news takes no time.
const REPORT_AGE_SECS_MAX: u64 = 30;
/// What certificates and the age of records can bear.
const CLOCK_SKEW_SECS_MAX: u64 = 5;
const STORE_DOCTOR: &str = "ployzctl doctor (on a machine that holds the store)";

pub(super) async fn doctor(here: &Machine, machine: Option<&str>) -> Outcome {
    let checks = match machine {
        None => own(here).await?,
        Some(wanted) => {
            let (id, name) = {
                let network = here.running_network()?;
                let view = network.view();
                let machine = view.select(wanted)?;
                (machine.id, machine.name.clone())
            };
            if id != here.identity.machine_id {
                let checks = pair::examine(here, id).await?;
                return Ok(Payload::Doctor(Doctor::new(Some(name), checks)).into());
            }
            own(here).await?
        }
    };
    Ok(Payload::Doctor(Doctor::new(None, checks)).into())
}

async fn own(here: &Machine) -> Result<Vec<Check>, Failure> {
    let mut checks = vec![data_plane(here)];
    checks.extend(version());
    let Some(network) = here.network() else {
        checks.push(Check::fail(
            "network",
            "this machine is in no network",
            "ployzctl mesh init <name>, or ployzctl machine invite import --token-stdin",
        ));
        return Ok(checks);
    };
    checks.push(Check::ok(
        "network",
        format!("in {}", network.membership.network),
    ));
    checks.extend(storage(&network).await);
    checks.push(store(&network));
    checks.push(key_exchange());
    let now = clock::now();
    let sessions = here.traffic(now.instant).await?;
    let view = network.view();
    checks.push(age(&view, now.unix_secs));
    checks.push(record(here, &network, &view));
    checks.push(clock_of_the_store(here, &network, &view, now.unix_secs));
    for machine in view.machines() {
        if machine.id == here.identity.machine_id {
            continue;
        }
        let key = PublicKey::from_base64(&machine.wireguard_key).ok();
        let peer = key.and_then(|key| sessions.get(&key));
        checks.push(
            if peer.is_some_and(|it| is_session(it.handshake_age_secs)) {
                Check::ok("peer", format!("a session with {}", machine.name))
            } else {
                Check::fail(
                    "peer",
                    format!("no session with {}", machine.name),
                    format!("ployzctl doctor {}", machine.name),
                )
            },
        );
    }
    Ok(checks)
}

fn data_plane(here: &Machine) -> Check {
    let backend = here.overlay.backend();
    let cause = format!("{backend} on {}", here.config.interface);
    if backend == "io_uring" {
        return Check::ok("data plane", cause);
    }
    Check::warn(
        "data plane",
        cause,
        "sysctl kernel.io_uring_disabled=0, or allow io_uring in the sandbox",
    )
}

/// Of an installed daemon: whether it is the one that would be started.
fn version() -> Option<Check> {
    let (current, own) = (installation::own()?.current()?, Version::own());
    if current == own {
        return Some(Check::ok("version", format!("{own} runs, as installed")));
    }
    Some(Check::warn(
        "version",
        format!("{own} runs, and {current} is installed"),
        "systemctl restart ployzd",
    ))
}

async fn storage(network: &Network) -> Option<Check> {
    let storage = network.storage.as_ref()?;
    Some(match storage.nats.state().await {
        StorageState::Running { version, .. } => {
            Check::ok("storage", format!("nats-server {version} runs here"))
        }
        StorageState::Down | StorageState::None => Check::fail(
            "storage",
            format!("nats-server is down: {}", storage.nats.last_words()),
            "read nats/log in the data directory",
        ),
    })
}

/// Sessions by X25519 alone can be recorded today and opened by a quantum computer later.
fn key_exchange() -> Check {
    let KeyExchanges {
        post_quantum,
        classical,
    } = key_exchanges();
    if classical == 0 {
        let cause = format!("all {post_quantum} with ML-KEM since the daemon started");
        return Check::ok("key exchange", cause);
    }
    let all = post_quantum + classical;
    let cause = format!("{classical} of {all} without ML-KEM since the daemon started");
    let mend = "update ployzctl, ployzd and nats-server wherever they connect from";
    Check::warn("key exchange", cause, mend)
}

fn store(network: &Network) -> Check {
    if network.store.is_connected() {
        return Check::ok("store", "the store answers");
    }
    let view = network.view();
    let holders = view
        .machines()
        .filter(|machine| machine.authority == Authority::Storage);
    let holders: Vec<&str> = holders.map(|machine| machine.name.as_str()).collect();
    let doctors: Vec<String> = holders
        .iter()
        .map(|name| format!("ployzctl doctor {name}"))
        .collect();
    Check::fail(
        "store",
        format!(
            "the store does not answer; its holders are {}",
            holders.join(", ")
        ),
        doctors.join("; "),
    )
}

fn age(view: &View, unix_secs: u64) -> Check {
    let age = view.age_secs(unix_secs);
    if age > STALE_SECS {
        let cause = format!("stale: the store confirmed the view {age} s ago");
        return Check::fail("view", cause, STORE_DOCTOR);
    }
    Check::ok("view", format!("confirmed {age} s ago"))
}

fn record(here: &Machine, network: &Network, view: &View) -> Check {
    let own = view.machine(here.identity.machine_id);
    let own = own.filter(|_| !network.is_removed());
    let key = here.identity.wireguard_key.public_key().to_string();
    match own {
        None => Check::fail(
            "record",
            "the network has no record of this machine: the machine was removed",
            "join again, with a new data directory",
        ),
        Some(record) if record.wireguard_key != key => Check::fail(
            "record",
            "wrong key: the network knows this machine by another WireGuard key",
            "restore identity.json, or join again with a new data directory",
        ),
        Some(_) => Check::ok("record", "the record matches this machine"),
    }
}

/// The store dates what this machine tells it every 10 s. That is how far its clock is off.
fn clock_of_the_store(here: &Machine, network: &Network, view: &View, now: u64) -> Check {
    let own: MachineId = here.identity.machine_id;
    let Some((_, at)) = view.observed(own).filter(|_| network.store.is_connected()) else {
        return Check::warn(
            "clock",
            "the store has not reported the time",
            "ployzctl doctor (again in 10 s, and on a machine that holds the store)",
        );
    };
    let mend = "timedatectl set-ntp true (here and on every machine that holds the store)";
    if at > now.saturating_add(CLOCK_SKEW_SECS_MAX) {
        let cause = format!("this machine's clock is {} s behind the store's", at - now);
        return Check::fail("clock", cause, mend);
    }
    let age = now.saturating_sub(at);
    if age > REPORT_AGE_SECS_MAX {
        let cause = format!("this machine's clock is {age} s ahead of the store's");
        return Check::fail("clock", cause, mend);
    }
    Check::ok("clock", "the same as the store's")
}

#[cfg(test)]
mod tests {
    use ployz_api::Verdict;
    use ployz_core::MachineRecord;

    use super::*;
    use crate::host::identity::Identity;
    use crate::testkit::{self, Offline, run};

    fn machine(number: u16, authority: Authority) -> MachineRecord {
        MachineRecord {
            authority,
            ..testkit::record(&Identity::generate().unwrap(), number)
        }
    }

    #[test]
    fn a_store_that_does_not_answer_is_looked_for_where_it_is() {
        run(async {
            let offline = Offline::new();
            let machines = vec![
                machine(1, Authority::Storage),
                machine(2, Authority::Compute),
                machine(3, Authority::Storage),
            ];
            let network = offline.network(false, machines).await;
            let found = store(&network);
            assert_eq!(found.verdict, Verdict::Fail);
            let mend = found.mend.unwrap();
            for (holder, is_one) in [("m1", true), ("m2", false), ("m3", true)] {
                assert_eq!(found.cause.contains(holder), is_one, "{}", found.cause);
                assert_eq!(
                    mend.contains(&format!("ployzctl doctor {holder}")),
                    is_one,
                    "{mend}"
                );
            }
            assert!(
                storage(&network).await.is_none(),
                "it is none of this machine's"
            );
        });
    }

    #[test]
    fn a_server_of_the_store_that_is_down_is_told_where_it_should_run() {
        run(async {
            let offline = Offline::new();
            let network = offline
                .network(true, vec![machine(1, Authority::Storage)])
                .await;
            let found = storage(&network).await.unwrap();
            assert_eq!(found.verdict, Verdict::Fail);
            assert!(
                found.cause.starts_with("nats-server is down"),
                "{}",
                found.cause
            );
        });
    }

    #[test]
    fn a_view_is_stale_past_its_bound_and_not_at_it() {
        run(async {
            let offline = Offline::new();
            let network = offline.network(false, Vec::new()).await;
            let view = network.view();
            let confirmed = clock::now().unix_secs - view.age_secs(clock::now().unix_secs);
            assert_eq!(age(&view, confirmed).cause, "confirmed 0 s ago");
            assert_eq!(age(&view, confirmed + STALE_SECS).verdict, Verdict::Ok);
            let stale = age(&view, confirmed + STALE_SECS + 1);
            assert_eq!(stale.verdict, Verdict::Fail);
            assert_eq!(stale.mend.as_deref(), Some(STORE_DOCTOR));
            // A clock that was set back makes no view of the future.
            assert_eq!(age(&view, 0).cause, "confirmed 0 s ago");
        });
    }
}
