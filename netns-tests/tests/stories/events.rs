//! Who did what: seen from any machine, as it happens, and bounded.
//!
//! ```text
//!   m1 founds ──┐
//!               ├── switch
//!   m2 joins  ──┘
//! ```

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

/// As many as one machine lets follow at a time.
const FOLLOWERS_MAX: usize = 16;
/// The store says so at once.
const NEWS_WAIT: Duration = Duration::from_secs(2);
/// A client that has died is missed when it has been silent for 20 s, as it has asked for.
const MISSED_WAIT: Duration = Duration::from_secs(45);
/// A follower is asked about once a second.
const REVOCATION_WAIT: Duration = Duration::from_secs(4);

#[test]
fn what_is_done_is_told() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 2)?;
        let [founder, other] = &machines[..] else {
            unreachable!()
        };
        ensure!(founder.code("events")? == "NETWORK_NOT_RUNNING");
        ensure!(founder.code("mesh init acme")? == "OK");
        other.join(founder)?;
        listed_everywhere(founder, other)?;
        followed(stage, founder, other)?;
        no_more_than_are_allowed(stage, other)?;
        a_revoked_follower_is_sent_away(stage, founder)
    })
}

fn listed_everywhere(founder: &Machine, other: &Machine) -> Result<()> {
    let invite = founder.json("machine invite create")?;
    let id = text(&invite, "/payload/invite_id");
    ensure!(founder.code("machine invite revoke 01JX3Z5E9V5R2K7Q8W4N6T1M0B")? == "INVITE_INVALID");
    ensure!(founder.code("machine ls")? == "OK", "to look is no event");
    for machine in [founder, other] {
        let list = machine.json("events")?;
        let events = list["payload"]["events"].as_array().cloned();
        let events = events.with_context(|| list.to_string())?;
        let what: Vec<(String, String)> = events
            .iter()
            .map(|event| (text(event, "/operation"), text(event, "/code")))
            .collect();
        let expected = [
            ("mesh-init", "OK"),
            ("invite-create", "OK"),
            ("invite-redeem", "OK"),
            ("invite-import", "OK"),
            ("invite-create", "OK"),
            ("invite-revoke", "INVITE_INVALID"),
        ]
        .map(|(operation, code)| (operation.to_owned(), code.to_owned()));
        ensure!(what == expected, "{}: {what:?}", machine.name);
        ensure!(text(&events[4], "/target") == id, "{}", events[4]);
        ensure!(text(&events[4], "/role") == "admin", "{}", events[4]);
        let last = machine.json("events --limit 1")?;
        let last = last["payload"]["events"].as_array().map(Vec::len);
        ensure!(last == Some(1), "{last:?}");
        ensure!(!list.to_string().contains("ployz2."), "a token is no event");
    }
    Ok(())
}

/// By itself, and through another machine, which passes on what it cannot read.
fn followed(stage: &Stage, founder: &Machine, other: &Machine) -> Result<()> {
    for on in ["", "--on m1"] {
        let said = stage.place("said");
        let arguments = format!("--json {on} events --follow --limit 2");
        let following = other.ctl_going_on(&arguments, &said)?;
        wait_until("the events that were", PATIENCE, || lines(&said).len() == 1)?;
        let list = &lines(&said)[0];
        ensure!(list["payload"]["kind"] == "event-list", "{list}");
        ensure!(founder.code("machine invite create")? == "OK");
        let begin = now();
        wait_until("the one that is", PATIENCE, || lines(&said).len() == 2)?;
        let event = &lines(&said)[1];
        let operation = text(event, "/payload/operation");
        ensure!(operation == "invite-create", "{event}");
        ensure!(begin.elapsed() < NEWS_WAIT, "{:?}", begin.elapsed());
        following.interrupt()?;
    }
    Ok(())
}

/// Each line a document.
fn lines(said: &Path) -> Vec<Value> {
    let text = fs::read_to_string(said).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn no_more_than_are_allowed(stage: &Stage, machine: &Machine) -> Result<()> {
    let mut following = Vec::new();
    for number in 0..FOLLOWERS_MAX {
        let said = stage.place(&format!("follower-{number}"));
        following.push(machine.ctl_going_on("--json events --follow", &said)?);
        wait_until("a follower to follow", PATIENCE, || {
            !lines(&said).is_empty()
        })?;
    }
    let refused = machine.ctl("events --follow")?;
    ensure!(refused.stderr.contains("[BUSY]"), "{refused}");
    // One leaves without a word, the others say goodbye.
    drop(following.pop());
    let free = |patience| {
        wait_until("a place to be free", patience, || {
            let said = stage.place("next");
            let next = machine.ctl_going_on("--json events --follow", &said);
            next.is_ok_and(|mut next| {
                let answered = || next.ended().is_some() || !lines(&said).is_empty();
                wait_until("an answer", PATIENCE, answered).is_ok()
                    && lines(&said).iter().all(|line| line["ok"] == true)
                    && next.interrupt().is_ok()
            })
        })
    };
    free(MISSED_WAIT)?;
    for follower in following {
        follower.interrupt()?;
    }
    free(PATIENCE)
}

fn a_revoked_follower_is_sent_away(stage: &Stage, founder: &Machine) -> Result<()> {
    let (file, said) = (stage.place("reader"), stage.place("reader-said"));
    let config = stage.place("config.toml");
    let created = founder.json(&format!(
        "credential create --role reader --output {}",
        file.display()
    ))?;
    let id = text(&created, "/payload/credential_id");
    let context = format!("--config {}", config.display());
    let import = format!("{context} context import {} --name reader", file.display());
    ensure!(founder.code(&import)? == "OK");
    let arguments = format!("{context} --context reader --json events --follow");
    let mut following = founder.ctl_going_on(&arguments, &said)?;
    wait_until("the reader to follow", PATIENCE, || {
        !lines(&said).is_empty()
    })?;
    ensure!(founder.code(&format!("credential revoke {id}"))? == "OK");
    wait_until("it to be sent away", REVOCATION_WAIT, || {
        following.ended() == Some(1)
    })?;
    let last = lines(&said).pop().context("a last word")?;
    ensure!(text(&last, "/code") == "FORBIDDEN", "{last}");
    Ok(())
}
