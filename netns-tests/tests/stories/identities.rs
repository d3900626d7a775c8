//! What an invite, a member's key and a place on the way are not good for.
//!
//! ```text
//!   m1 founds, and so holds the store ──┐
//!   m2 joins; its key is in bad hands ──┼── switch
//!   m3 joins where m2 is on the way   ──┤
//!   m4 is an operator's, asks through m2┘
//! ```

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ployz_api::client::ask_invited;
use ployz_api::{Code, MachineId, Request, Response, Token};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::joiner::Joiner;
use ployz_netns_tests::machine_client::ask_as;
use ployz_netns_tests::rogue::Rogue;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// Where the server is that is not the daemon's.
const ROGUE_PORT: u16 = 51_900;

#[test]
fn an_unused_invite_buys_no_machine_that_there_is() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 3)?;
        let [founder, second, third] = &machines[..] else {
            anyhow::bail!("three machines");
        };
        ensure!(founder.code("mesh init acme")? == "OK");
        second.join(founder)?;
        let word = founder.invite("")?;
        let token = Token::decode(&word)?;
        for victim in [founder, second] {
            for repeats in REPEATED {
                let answer = steal(second, &token, victim, repeats)?;
                ensure!(
                    matches!(answer.code, Code::Conflict | Code::Forbidden),
                    "{repeats:?}: {answer:?}"
                );
                ensure!(answer.payload.is_none(), "{answer:?}");
            }
        }
        // None of it has used the invite up.
        let joined = third.import(&word)?;
        ensure!(joined["ok"] == true, "{joined}");
        let listed = founder.json("machine ls")?;
        ensure!(listed["payload"]["rows"].as_array().context("rows")?.len() == 3);
        nobody_but_the_network_retires(founder, second, third)
    })
}

/// What the attacker repeats of a machine: its id, and the public halves of its keys.
#[derive(Clone, Copy, Debug)]
struct Repeated {
    id: bool,
    wireguard_key: bool,
    nkey: bool,
    has_proofs: bool,
}

const REPEATED: [Repeated; 5] = [
    // As it was done: the id, and the key that every member knows.
    repeated(true, true, false, false),
    repeated(true, true, false, true),
    repeated(true, true, true, true),
    repeated(true, false, false, true),
    // Another machine with the same keys would be the same peer, or the same user of the store.
    repeated(false, true, true, true),
];

const fn repeated(id: bool, wireguard_key: bool, nkey: bool, has_proofs: bool) -> Repeated {
    Repeated {
        id,
        wireguard_key,
        nkey,
        has_proofs,
    }
}

fn steal(from: &Machine, token: &Token, victim: &Machine, it: Repeated) -> Result<Response> {
    // What every member may see.
    let inspected = from.json(&format!("machine inspect {}", victim.name))?;
    let known = &inspected["payload"]["desired"];
    let id: MachineId = text(known, "/id").parse().ok().context("an id")?;
    let joiner = Joiner::new(if it.id { id } else { MachineId::new(1, 1) })?;
    let mut request = joiner.introduction(token)?;
    if it.wireguard_key {
        request.wireguard_key = text(known, "/wireguard_key");
    }
    if it.nkey {
        request.nkey = text(known, "/nkey");
    }
    joiner.prove(token, &mut request)?;
    if !it.has_proofs {
        request.proofs = None;
    }
    let request = Request::InviteRedeem(request);
    from.netns.enter(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build()?;
        Ok(runtime.block_on(ask_invited(token, &request, PATIENCE))?)
    })
}

/// A certificate is not a decision, not even that of the machine that holds the store.
fn nobody_but_the_network_retires(
    founder: &Machine,
    second: &Machine,
    third: &Machine,
) -> Result<()> {
    for decision in [None, Some("00".repeat(70)), Some("none".to_owned())] {
        for (asks, address) in [
            (founder, [10, 0, 0, 2]),
            (second, [10, 0, 0, 1]),
            (third, [10, 0, 0, 2]),
        ] {
            let request = Request::MachineRetire {
                decision: decision.clone(),
            };
            let answer = ask_as(asks, address, &request)?;
            ensure!(answer.code == Code::Forbidden, "{answer:?}");
        }
    }
    ensure!(founder.data_dir.join("ca.json").exists());
    for machine in [founder, second, third] {
        ensure!(machine.code("mesh ready")? == "OK");
    }
    Ok(())
}

#[test]
fn whoever_is_on_the_way_of_a_join_gets_neither_the_secret_nor_the_joiner() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 3)?;
        let [founder, second, third] = &machines[..] else {
            anyhow::bail!("three machines");
        };
        ensure!(founder.code("mesh init acme")? == "OK");
        second.join(founder)?;
        let rogue = Rogue::listen(second, ROGUE_PORT)?;
        let word = founder.invite("")?;
        gets_nothing(&rogue, third, &word)?;
        // Removed, it still has its key, and a certificate that has not expired.
        ensure!(founder.code("machine rm m2 --force --yes")? == "OK");
        gets_nothing(&rogue, third, &word)?;
        let joined = third.import(&word)?;
        ensure!(joined["ok"] == true, "{joined}");
        third.wait_ready(PATIENCE)
    })
}

/// The joiner takes whoever is there for a machine of the network, and does not even ask.
fn gets_nothing(rogue: &Rogue, joiner: &Machine, word: &str) -> Result<()> {
    let mut led_astray = Token::decode(word)?;
    led_astray.endpoints = vec![([10, 0, 0, 2], ROGUE_PORT).into()];
    let answer = joiner.import(led_astray.encode().expose())?;
    ensure!(answer["ok"] == false, "{answer}");
    ensure!(
        text(&answer, "/message").contains("not valid for"),
        "the certificate is why: {answer}"
    );
    for file in ["network.json", "certificates.json", "view.json"] {
        ensure!(!joiner.data_dir.join(file).exists(), "{file}");
    }
    ensure!(rogue.told().is_empty(), "{:?}", rogue.told());
    Ok(())
}

#[test]
fn a_machine_that_relays_a_request_cannot_read_it_or_answer_it() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 4)?;
        let [founder, second, third, operator] = &machines[..] else {
            anyhow::bail!("four machines");
        };
        ensure!(founder.code("mesh init acme")? == "OK");
        second.join(founder)?;
        third.join(founder)?;
        let through = context(stage, founder, operator)?;
        let rogue = Rogue::listen(second, ROGUE_PORT)?;
        let at = format!("--connect quic://10.0.0.2:{ROGUE_PORT}");
        for (command, meant) in [
            (
                "deploy service web --env SECRET=hush --exec true",
                "a machine that holds the store",
            ),
            ("--on m3 status", "a machine that holds the store"),
        ] {
            let answer = operator.json(&format!("{through} {at} {command}"))?;
            ensure!(answer["ok"] == false, "{answer}");
            ensure!(text(&answer, "/message").contains(meant), "{answer}");
        }
        let third_id = text(&third.json("status")?, "/payload/id");
        let by_id = operator.json(&format!("{through} {at} --on {third_id} status"))?;
        ensure!(text(&by_id, "/message").contains(&third_id), "{by_id}");
        for told in rogue.told() {
            ensure!(
                told.contains("\"relay\"") && !told.contains("hush"),
                "{told}"
            );
        }
        honest_ones_pass_it_on(operator, &through)
    })
}

/// A context of an operator.
fn context(stage: &Stage, founder: &Machine, operator: &Machine) -> Result<String> {
    let file = stage.place("operator.json");
    let (shown, contexts) = (file.display(), stage.place("contexts.toml"));
    founder
        .ctl(&format!(
            "credential create --role operator --name o --output {shown}"
        ))?
        .success()?;
    let through = format!("--config {}", contexts.display());
    operator
        .ctl(&format!("{through} context import {shown} --name o"))?
        .success()?;
    fs::remove_file(&file)?;
    Ok(through)
}

/// By a whole name, a unique beginning and an id; a machine that holds the store, and one that does not.
fn honest_ones_pass_it_on(operator: &Machine, through: &str) -> Result<()> {
    let at = "--connect quic://10.0.0.2:51821";
    for command in [
        "machine label m3 by=relay",
        "--on m3 status",
        "--on m1 status",
    ] {
        let answer = operator.json(&format!("{through} {at} {command}"))?;
        ensure!(answer["ok"] == true, "{command}: {answer}");
    }
    ensure!(operator.code("machine rename m3 third")? != "OK");
    let renamed = operator.json(&format!("{through} {at} machine rename m3 third"))?;
    ensure!(renamed["ok"] == true, "{renamed}");
    for wanted in ["third", "thi"] {
        let answer = operator.json(&format!("{through} {at} --on {wanted} status"))?;
        ensure!(
            text(&answer, "/payload/name") == "third",
            "{wanted}: {answer}"
        );
    }
    let ambiguous = operator.code(&format!("{through} {at} --on m status"))?;
    ensure!(ambiguous == "MACHINE_AMBIGUOUS", "{ambiguous}");
    Ok(())
}
