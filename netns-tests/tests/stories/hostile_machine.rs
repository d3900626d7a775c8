//! A member that has turned against the others: what its key for the store is good for.
//!
//! ```text
//!   m1 founds, and so holds the store ──┬── switch
//!   m2 joins; its key is in bad hands ──┘
//! ```

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, ConnectOptions, HeaderMap};
use futures_util::StreamExt as _;
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::{Value, json};

/// An answer comes at once or never.
const ANSWER_WAIT: Duration = Duration::from_millis(200);

#[test]
fn a_machines_key_opens_its_own_record_and_no_other() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 2)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        machines[1].join(&machines[0])?;
        let refused_before = refused(&machines[0])?;
        let options = credentials(stage, &machines[1])?;
        let attempts = machines[1].netns.enter(|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build()?;
            runtime.block_on(attack(options, &machines))
        })?;
        ensure!(machines[0].code("machine inspect m1")? == "OK");
        let found = machines[0].json("events --machine m1 --limit 5")?;
        ensure!(
            text(&found, "/payload/events/0/operation") == "mesh-init",
            "{found}"
        );
        wait_until("every attempt to be counted", PATIENCE, || {
            refused(&machines[0]).is_ok_and(|it| it >= refused_before + attempts)
        })?;
        machines[1].wait_ready(PATIENCE)
    })
}

/// How many attempts the server has had to refuse.
async fn attack(options: ConnectOptions, machines: &[Machine]) -> Result<u64> {
    let [founder, own] = machines else {
        anyhow::bail!("two machines");
    };
    let victim = text(&founder.json("status")?, "/payload/id");
    let id = text(&own.json("status")?, "/payload/id");
    let client = options.connect("tls://10.101.0.1:4222").await?;
    let before = list(&client, "machines").await?;
    ensure!(before.len() == 2, "it may read: {before:?}");
    let attempts = forbidden_subjects(&client, founder, &victim).await?;
    answers_cannot_be_sent_elsewhere(&client, &id, &victim).await?;
    news_cannot_be_forged(&client, own, &id, &victim).await?;
    its_own_record_is_its_own_only(&client, founder, &id, &victim).await?;
    its_events_are_at_its_own_expense(&client, &id, &victim).await?;
    its_text_is_shown_and_not_obeyed(&client, founder, &id).await?;
    ensure!(
        list(&client, "machines").await? == before,
        "somebody has written to machines"
    );
    Ok(attempts)
}

fn credentials(stage: &Stage, machine: &Machine) -> Result<ConnectOptions> {
    let read = |file: &str| -> Result<Value> {
        let bytes = fs::read(machine.data_dir.join(file))?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let (membership, identity) = (read("network.json")?, read("identity.json")?);
    let pem = |name: &str, from: &Value, pointer: &str| stage.file(name, &text(from, pointer));
    Ok(ConnectOptions::with_nkey(text(&identity, "/nkey_seed"))
        .require_tls(true)
        .add_root_certificates(pem("ca.pem", &membership, "/ca_pem")?)
        .add_client_certificate(
            pem("certificate.pem", &membership, "/certificate_pem")?,
            pem("key.pem", &identity, "/certificate_key_pem")?,
        )
        .custom_inbox_prefix(format!("_INBOX.{}", text(&identity, "/machine_id")))
        .request_timeout(Some(ANSWER_WAIT)))
}

/// Sequence numbers and contents.
async fn list(client: &Client, bucket: &str) -> Result<Vec<(u64, String)>> {
    list_stream(client, &format!("KV_{bucket}"), &format!("$KV.{bucket}.>")).await
}

async fn list_stream(client: &Client, stream: &str, subjects: &str) -> Result<Vec<(u64, String)>> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    let question = json!({ "seq": 1, "batch": 100, "next_by_subj": subjects });
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    client
        .publish_with_reply(subject, inbox, question.to_string().into())
        .await?;
    let mut records = Vec::new();
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await?;
        let answer = answer.context("an answer")?;
        if answer.status.is_some() {
            return Ok(records);
        }
        let headers = answer.headers.context("headers")?;
        let sequence = headers.get("Nats-Sequence").context("a number")?;
        records.push((
            sequence.as_str().parse()?,
            String::from_utf8_lossy(&answer.payload).into_owned(),
        ));
    }
}

/// Where a machine asks for what it is to run itself.
const READ: &str = "$JS.API.DIRECT.GET.KV_workloads.$KV.workloads";

/// Each of them is refused, and the server's log says so by subject.
async fn forbidden_subjects(client: &Client, founder: &Machine, victim: &str) -> Result<u64> {
    let consumer = json!({ "stream_name": "KV_machines", "config": {
        "deliver_subject": format!("$KV.machines.{victim}"), "ack_policy": "none",
    }});
    let update = json!({ "name": "KV_machines", "subjects": ["x"] });
    let published = [
        (format!("$KV.machines.{victim}"), json!({})),
        (format!("$KV.observed.{victim}"), json!({})),
        ("$KV.invites.x".to_owned(), json!({})),
        ("$KV.leases.subnet.9".to_owned(), json!({})),
        ("$JS.API.STREAM.INFO.KV_invites".to_owned(), json!({})),
        (
            "$JS.API.DIRECT.GET.KV_invites".to_owned(),
            json!({ "seq": 1 }),
        ),
        (
            "$JS.API.DIRECT.GET.KV_workloads".to_owned(),
            json!({ "seq": 1 }),
        ),
        (format!("{READ}.instance.{victim}.x"), json!({})),
        (format!("{READ}.service.default.web"), json!({})),
        (
            "$JS.API.STREAM.MSG.GET.KV_machines".to_owned(),
            json!({ "seq": 1 }),
        ),
        (
            "$JS.API.CONSUMER.CREATE.KV_machines".to_owned(),
            consumer.clone(),
        ),
        ("$JS.API.CONSUMER.CREATE.KV_observed.x".to_owned(), consumer),
        (
            "$JS.API.STREAM.UPDATE.KV_machines".to_owned(),
            update.clone(),
        ),
        ("$JS.API.STREAM.CREATE.mine".to_owned(), update),
        ("$JS.API.STREAM.PURGE.KV_observed".to_owned(), json!({})),
        ("$JS.API.STREAM.DELETE.KV_machines".to_owned(), json!({})),
        (format!("ployz.changed.machines.{victim}"), json!({})),
        (format!("_INBOX.{victim}.x"), json!({})),
    ];
    for (subject, payload) in &published {
        let answer = client.request(subject.clone(), payload.to_string().into());
        ensure!(answer.await.is_err(), "{subject} was answered");
    }
    let subscribed = [
        ">".to_owned(),
        "$KV.>".to_owned(),
        "$JS.>".to_owned(),
        format!("_INBOX.{victim}.>"),
        "$SYS.>".to_owned(),
    ];
    for subject in &subscribed {
        let _refused_later = client.subscribe(subject.clone()).await?;
    }
    client.flush().await?;
    let log = founder.data_dir.join("nats/log");
    let subjects = published.iter().map(|(subject, _)| subject);
    for subject in subjects.chain(&subscribed) {
        wait_until(format!("a violation of {subject}"), PATIENCE, || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            log.lines()
                .any(|line| line.contains("Violation") && line.contains(&format!("\"{subject}\"")))
        })?;
    }
    Ok(u64::try_from(published.len() + subscribed.len())?)
}

/// What it may ask for is answered to itself, whatever it says: an answer cannot become a record.
async fn answers_cannot_be_sent_elsewhere(client: &Client, id: &str, victim: &str) -> Result<()> {
    let elsewhere = [
        format!("$KV.machines.{victim}"),
        format!("$KV.invites.{id}"),
        format!("$KV.leases.name.{id}"),
        format!("ployz.changed.machines.{victim}"),
    ];
    let question = json!({ "seq": 1, "batch": 9, "next_by_subj": "$KV.machines.>" }).to_string();
    for reply in elsewhere {
        for (subject, payload) in [
            ("$JS.API.DIRECT.GET.KV_machines".to_owned(), &*question),
            (format!("$KV.observed.{id}"), "{}"),
        ] {
            client
                .publish_with_reply(subject, reply.clone(), payload.to_owned().into())
                .await?;
        }
    }
    Ok(client.flush().await?)
}

/// It has its own record, dressed up as that of another, sent to where the others hear what has changed.
async fn news_cannot_be_forged(
    client: &Client,
    own: &Machine,
    id: &str,
    victim: &str,
) -> Result<()> {
    let known = || -> Result<Value> {
        let inspected = own.json(&format!("machine inspect {victim}"))?;
        Ok(inspected["payload"]["desired"].clone())
    };
    let before = known()?;
    let mut forged = before.clone();
    forged["name"] = "forged".into();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Stream", "KV_machines");
    headers.insert("Nats-Subject", format!("$KV.machines.{victim}"));
    headers.insert("Nats-Sequence", "999999");
    let subject = format!("$KV.observed.{id}");
    client
        .request_with_headers(subject.clone(), headers, forged.to_string().into())
        .await?;
    let news = format!("ployz.changed.machines.{victim}");
    let mut heard = client.subscribe("ployz.changed.machines.>").await?;
    let question = json!({ "last_by_subj": subject }).to_string();
    client
        .publish_with_reply("$JS.API.DIRECT.GET.KV_observed", news, question.into())
        .await?;
    // It arrives, with us and with everybody else; what it is worth is another matter.
    let message = tokio::time::timeout(PATIENCE, heard.next()).await?;
    let message = message.context("the forged news")?;
    ensure!(
        message.payload == forged.to_string().as_bytes(),
        "{message:?}"
    );
    let listed = own.json("machine ls")?;
    ensure!(known()? == before, "{listed}");
    Ok(())
}

/// Under its own key it can say what it likes, of itself.
async fn its_own_record_is_its_own_only(
    client: &Client,
    founder: &Machine,
    id: &str,
    victim: &str,
) -> Result<()> {
    let record = |whose: &str, version: &str| {
        json!({ "version": 1, "id": whose, "software_version": version,
                "backend": "none", "workloads": 0, "sessions": 0 })
        .to_string()
    };
    let mut roll_up = HeaderMap::new();
    roll_up.insert("Nats-Rollup", "all");
    let own = format!("$KV.observed.{id}");
    client
        .publish_with_headers(own.clone(), roll_up, record(id, "rolled-up").into())
        .await?;
    client
        .publish(own.clone(), record(victim, "forged").into())
        .await?;
    client.publish(own, record(id, "said").into()).await?;
    client.flush().await?;
    let version = |whose: &str| -> Result<String> {
        let inspected = founder.json(&format!("machine inspect {whose}"))?;
        Ok(text(&inspected, "/payload/observed/software_version"))
    };
    wait_until("what it says of itself to be heard", PATIENCE, || {
        version(id).is_ok_and(|it| it == "said")
    })?;
    let of_the_victim = version(victim)?;
    ensure!(
        of_the_victim != "forged" && !of_the_victim.is_empty(),
        "{of_the_victim}"
    );
    let observed = list(client, "observed").await?;
    ensure!(observed.len() == 2, "all is still there: {observed:?}");
    Ok(())
}

/// What a terminal obeys: clearing it, colours in two ways, another order of letters, and a row of one's own.
const ODD: &str = "9\u{1b}[2J\u{9b}31m\u{202e}\r\nm9  active\u{200b}";
/// Every way to show what a machine has said.
const SHOWN: [&str; 5] = [
    "machine ls --wide",
    "machine inspect m2",
    "events",
    "events --machine m2",
    "doctor m2",
];

/// Whatever it says of itself, and in whoever's name: a terminal shows it, and an event has its writer.
async fn its_text_is_shown_and_not_obeyed(
    client: &Client,
    founder: &Machine,
    id: &str,
) -> Result<()> {
    let observed = json!({ "version": 1, "id": id, "software_version": ODD, "backend": ODD,
        "runtime": ODD, "workloads": 0, "sessions": 0, "later\nm8": ODD });
    // The certificate of an admin, by which it says that it was asked.
    let admin = "01JX3Z5E9V5R2K7Q8W4N6T1M0B";
    let event = json!({ "at": 1, "machine": id, "subject": admin, "role": "admin",
        "operation": "machine-remove", "target": ODD, "code": "OK", "message": ODD.repeat(20) });
    client
        .publish(format!("events.{id}"), event.to_string().into())
        .await?;
    for command in SHOWN {
        for mode in ["", "--plain", "--json", "-v"] {
            // Its daemon reports as well, every 10 s.
            let subject = format!("$KV.observed.{id}");
            client.publish(subject, observed.to_string().into()).await?;
            client.flush().await?;
            let shown = founder.ctl(&format!("{mode} {command}"))?;
            let is_odd = |c: char| c != '\n' && (c.is_control() || ODD_FORMATS.contains(&c));
            for said in [&shown.stdout, &shown.stderr] {
                ensure!(!said.contains(is_odd), "{mode} {command}: {said:?}");
            }
            let forged = shown.stdout.lines().any(|line| line.starts_with("m9"));
            ensure!(!forged, "{mode} {command}: {shown}");
        }
    }
    let version = || -> Result<String> {
        let inspected = founder.json("machine inspect m2")?;
        Ok(text(&inspected, "/payload/machine/version"))
    };
    let begin = now();
    while !version()?.starts_with("9\u{fffd}[2J") {
        ensure!(begin.elapsed() < PATIENCE, "{}", version()?);
        let subject = format!("$KV.observed.{id}");
        client.publish(subject, observed.to_string().into()).await?;
        client.flush().await?;
    }
    let listed = founder.ctl("events")?;
    let row = listed.stdout.lines().find(|line| line.contains(admin));
    let row = row.with_context(|| listed.to_string())?;
    let (writer, caller) = (row.find(id), row.find(admin));
    ensure!(writer.is_some() && writer < caller, "{row}");
    Ok(())
}

const ODD_FORMATS: [char; 2] = ['\u{202e}', '\u{200b}'];

/// It writes as much as it likes: what others have written stays.
async fn its_events_are_at_its_own_expense(client: &Client, id: &str, victim: &str) -> Result<()> {
    let events = async |of: &str| {
        let events = list_stream(client, "events", &format!("events.{of}")).await;
        events.map(|events| events.len())
    };
    let before = events(victim).await?;
    ensure!(before > 0, "the founder has written some");
    let event = json!({ "at": 1, "machine": id, "subject": "", "role": "machine",
        "operation": "status", "target": "", "code": "OK", "message": "" })
    .to_string();
    for number in 1..=FLOOD {
        let (subject, event) = (format!("events.{id}"), event.clone().into());
        if number % UNDER_WAY == 0 {
            let last = async_nats::Request::new().payload(event);
            let last = last.timeout(Some(PATIENCE));
            client.send_request(subject, last).await?;
        } else {
            client.publish(subject, event).await?;
        }
    }
    ensure!(events(victim).await? >= before, "they were pushed out");
    Ok(())
}

/// More than all events that a store had room for.
const FLOOD: usize = 11_000;
/// The store refuses what it cannot write in time: so many are under way.
const UNDER_WAY: usize = 500;

fn refused(machine: &Machine) -> Result<u64> {
    let status = machine.json("status")?;
    let count = status.pointer("/payload/refused/store");
    Ok(count.and_then(Value::as_u64).unwrap_or_default())
}
