//! A thousand machines show one token at the same moment; and what becomes of a token whose machine was removed.
//!
//! ```text
//!   m1 founds ──────────────────────────┐
//!   m2, m3 join ────────────────────────┼── switch
//!   m4 to m19, from which 998 knock ────┘
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_api::client::{ClientError, ask_invited};
use ployz_api::{Code, MachineId, Request, Response, Token};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::joiner::Joiner;
use ployz_netns_tests::machine_client::ask_as;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

const CROWD: u32 = 998;
/// Where they come from: a server takes so many handshakes at a time from one address.
const ADDRESSES: u8 = 16;
/// As the daemon's own patience with a coordinator.
const REDEEM_WAIT: Duration = Duration::from_secs(30);
/// What is granted until a machine that was removed is nobody's peer.
const FORGET_WAIT: Duration = Duration::from_secs(2);

#[test]
fn one_token_lets_one_machine_in_and_never_another() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 3)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        let crowd = (4..4 + ADDRESSES)
            .map(|number| segment.machine(stage, number))
            .collect::<Result<Vec<_>>>()?;
        a_thousand_at_once(&machines, &crowd)?;
        let token = everybody_in(stage, &mut machines)?;
        refuse_to_remove(&machines)?;
        removed_means_removed(&machines)?;
        no_way_back(stage, &mut machines, &token)
    })
}

/// Exactly one gets in, who is one of the crowd or a daemon; the daemons that do not are left as they were.
fn a_thousand_at_once(machines: &[Machine], crowd: &[Machine]) -> Result<()> {
    let token = machines[0].invite("")?;
    let begin = now();
    let (daemons, crowd) = thread::scope(|scope| {
        let importing = machines[1..]
            .iter()
            .map(|machine| scope.spawn(|| machine.import(&token)))
            .collect();
        let knocking = (0..)
            .zip(crowd)
            .map(|(share, from)| {
                let token = &token;
                scope.spawn(move || from.netns.enter(|| knock(token, share)))
            })
            .collect();
        (joined(importing), joined(knocking))
    });
    let mut codes: BTreeMap<String, u32> = BTreeMap::new();
    for answer in crowd?.into_iter().flatten() {
        let code = answer.map_or_else(|error| error.to_string(), |it| it.code.to_string());
        *codes.entry(code).or_default() += 1;
    }
    for (machine, answer) in machines[1..].iter().zip(daemons?) {
        let code = text(&answer, "/code");
        let is_in = machine.data_dir.join("network.json").exists();
        ensure!(is_in == (code == "OK"), "{} got {code}", machine.name);
        *codes.entry(code).or_default() += 1;
    }
    show("a thousand imports of one token", begin.elapsed());
    let expected = [("INVITE_CONSUMED", CROWD + 1), ("OK", 1)];
    ensure!(
        codes
            == expected
                .map(|(code, count)| (code.to_owned(), count))
                .into(),
        "{codes:?}"
    );
    let list = machines[0].json("machine ls")?;
    let rows = list["payload"]["rows"].as_array().context("rows")?;
    ensure!(rows.len() == 2, "one machine was let in: {list}");
    Ok(())
}

/// Both daemons get in with a token of their own, whichever of them the race has let in before; that of m2.
fn everybody_in(stage: &Stage, machines: &mut [Machine]) -> Result<String> {
    let list = machines[0].json("machine ls")?;
    for row in list["payload"]["rows"].as_array().into_iter().flatten() {
        if text(row, "/name") != "m1" {
            let id = text(row, "/id");
            ensure!(machines[0].code(&format!("machine rm {id} --force --yes"))? == "OK");
        }
    }
    for machine in &mut machines[1..] {
        forget_network(stage, machine)?;
    }
    let token = machines[1].join(&machines[0])?;
    machines[2].join(&machines[0])?;
    Ok(token)
}

/// It forgets the network, but not who it is.
fn forget_network(stage: &Stage, machine: &mut Machine) -> Result<()> {
    machine.stop()?;
    for file in ["network.json", "view.json"] {
        let path = machine.data_dir.join(file);
        if path.exists() {
            fs::remove_file(path)?;
        }
    }
    machine.start(stage)
}

fn joined<T>(threads: Vec<ScopedJoinHandle<'_, Result<T>>>) -> Result<Vec<T>> {
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        .collect()
}

/// One share of the crowd, each with an identity of its own, all at once.
fn knock(token: &str, share: u32) -> Result<Vec<Result<Response, ClientError>>> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build()?;
    let knocking: Vec<_> = (0..CROWD)
        .filter(|number| number % u32::from(ADDRESSES) == share)
        .map(|number| {
            let token = Token::decode(token)?;
            let joiner = Joiner::new(MachineId::new(1, number.into()))?;
            let request = Request::InviteRedeem(joiner.introduction(&token)?);
            Ok(runtime.spawn(async move { ask_invited(&token, &request, REDEEM_WAIT).await }))
        })
        .collect::<Result<_>>()?;
    knocking
        .into_iter()
        .map(|knocked| Ok(runtime.block_on(knocked)?))
        .collect()
}

fn refuse_to_remove(machines: &[Machine]) -> Result<()> {
    for (asked, arguments, code) in [
        (0, "machine rm m1 --force --yes", "CANNOT_REMOVE_SELF"),
        (0, "machine rm nobody --force --yes", "MACHINE_NOT_FOUND"),
        (0, "machine rm m --force --yes", "MACHINE_AMBIGUOUS"),
        (0, "machine rm m2 --force", "INVALID_ARGUMENT"),
        (1, "machine rm m3 --force --yes", "UNSUPPORTED"),
    ] {
        let got = machines[asked].code(arguments)?;
        ensure!(got == code, "{arguments}: {got}, not {code}");
    }
    let list = machines[0].json("machine ls")?;
    ensure!(list["payload"]["rows"].as_array().map(Vec::len) == Some(3));
    Ok(())
}

/// Within two seconds nobody has it as a peer, the store does not know it, and its address is not given away.
fn removed_means_removed(machines: &[Machine]) -> Result<()> {
    let [founder, gone, other] = machines else {
        anyhow::bail!("three machines");
    };
    let address = text(&gone.json("status")?, "/payload/overlay_ip");
    gone.wait_ready(PATIENCE)?;
    wait_until("m3 to reach m2", PATIENCE, || other.reaches(&address))?;
    ensure!(matches!(certified(gone), Ok(answer) if answer.code == Code::Ok));
    let nkey = text(
        &founder.json("machine inspect m2")?,
        "/payload/desired/nkey",
    );
    ensure!(store_users(founder)?.contains(&nkey) && !nkey.is_empty());
    let asked = now();
    let removed = founder.json("machine rm m2 --force --yes")?;
    ensure!(removed["ok"] == true, "{removed}");
    ensure!(text(&removed, "/payload/kind") == "machine-remove");
    let steps = removed["payload"]["cleanup"].as_array().context("steps")?;
    ensure!(
        !steps.is_empty() && steps.iter().all(|step| step["ok"] == true),
        "{removed}"
    );
    for machine in [founder, other] {
        wait_until(
            format!("{} to have no peer for {address}", machine.name),
            FORGET_WAIT.saturating_sub(asked.elapsed()),
            || has_no_peer(machine, &address),
        )?;
        ensure!(machine.code("machine inspect m2")? == "MACHINE_NOT_FOUND");
    }
    show("removal, until nobody has the peer", asked.elapsed());
    ensure!(!store_users(founder)?.contains(&nkey), "its nkey counts");
    let certified = certified(gone);
    ensure!(certified.is_err(), "its certificate counts: {certified:?}");
    // Nobody speaks to it any more, not even to say so: it takes two pings of the store's client to notice.
    wait_until("m2 to have lost the store", PATIENCE, || {
        let status = gone.json("status").unwrap_or_default();
        status.pointer("/payload/control/connected") == Some(&Value::Bool(false))
    })?;
    ensure!(founder.code("machine rm m2 --force --yes")? == "MACHINE_NOT_FOUND");
    Ok(())
}

/// What the founder answers to the machine's own certificate, by which it may look.
fn certified(machine: &Machine) -> Result<Response> {
    ask_as(machine, [10, 0, 0, 1], &Request::Status)
}

/// The store's configuration, which names its users.
fn store_users(founder: &Machine) -> Result<String> {
    Ok(fs::read_to_string(
        founder.data_dir.join("nats/config.json"),
    )?)
}

fn has_no_peer(machine: &Machine, address: &str) -> bool {
    let shown = machine
        .netns
        .attempt(&format!("wg show {} allowed-ips", machine.interface));
    let subnet = address.trim_end_matches(".1").to_owned() + ".0/24";
    shown.is_ok_and(|shown| shown.succeeded() && !shown.stdout.contains(&subnet))
}

/// The token that it had come in with is used up, though it is still the same machine. A new one lets it in.
fn no_way_back(stage: &Stage, machines: &mut [Machine], token: &str) -> Result<()> {
    let before = machines[1].json("status")?;
    forget_network(stage, &mut machines[1])?;
    let replay = machines[1].import(token)?;
    ensure!(text(&replay, "/code") == "INVITE_CONSUMED", "{replay}");
    ensure!(!machines[1].data_dir.join("network.json").exists());
    the_addresses_of_the_removed_rest(machines)?;
    machines[1].join(&machines[0])?;
    let status = machines[1].json("status")?;
    for pointer in ["/payload/overlay_ip", "/payload/name"] {
        ensure!(
            before.pointer(pointer) == status.pointer(pointer),
            "who comes back has what it had: {status}"
        );
    }
    machines[1].wait_ready(PATIENCE)
}

fn the_addresses_of_the_removed_rest(machines: &[Machine]) -> Result<()> {
    let token = Token::decode(&machines[0].invite("")?)?;
    let answer = machines[1].netns.enter(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build()?;
        let joiner = Joiner::new(MachineId::new(1, CROWD.into()))?;
        let request = Request::InviteRedeem(joiner.introduction(&token)?);
        Ok(runtime.block_on(ask_invited(&token, &request, REDEEM_WAIT))?)
    })?;
    ensure!(answer.code == Code::Ok, "{answer:?}");
    let list = machines[0].json("machine ls")?;
    let rows = list["payload"]["rows"].as_array().context("rows")?;
    let newcomer = rows.iter().find(|row| text(row, "/name") == "joiner");
    let subnet = text(newcomer.context("the newcomer")?, "/subnet");
    // The founder has the first; the race, m2 and m3 have had up to three more.
    let ever_given = (0..3).map(|number| format!("10.101.{number}.0/24"));
    ensure!(
        ever_given.into_iter().all(|given| given != subnet),
        "{subnet} was somebody's this day"
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what}: {took:.1?}");
}
