//! How far machines are from one another. Each is asked to measure now, and what it says is passed on as it comes; who
//! cannot be asked has told the store something a while ago.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use ployz_api::{
    Code, Failure, MachineId, MachineRtt, Outcome, Payload, RTT_COUNT_MAX, Request, RttRecord,
};
use ployz_core::{MachineRecord, View};
use ployz_engine::{BURST_LEN, PublicKey, RttSnapshot, burst_duration};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::host::clock;
use crate::machine::Machine;
use crate::network::Host as _;
use crate::services::measure::rows::Source;
use crate::store::RTT;

/// Machines that measure at a time for one who asks: each takes a connection.
const ASKED_MAX: usize = 64;
/// A machine that is there takes some round trips to be reached.
const REACH_WAIT: Duration = Duration::from_secs(4);
/// After the last test: as long as a reply is waited for, and a moment.
const REPLY_WAIT: Duration = Duration::from_millis(2_500);
/// How often it is looked whether all replies are there.
const POLL: Duration = Duration::from_millis(50);

/// Whom one machine is to measure.
struct Task {
    machine: MachineRecord,
    peers: Vec<MachineRecord>,
}

/// Measures, and sends the rows of every machine that is to measure as they come.
///
/// # Errors
/// `MACHINE_NOT_FOUND`, `MACHINE_AMBIGUOUS` or `NETWORK_NOT_RUNNING`, before anything is sent.
pub(crate) async fn stream_rtt(
    here: &Machine,
    machines: &[String],
    count: Option<u16>,
    results: mpsc::Sender<Payload>,
) -> Result<(), Failure> {
    let tasks = tasks(here, machines)?;
    let machines = tasks.len();
    let asking = |task: Task| async move { (measured(here, &task, count).await, task) };
    let mut answers = stream::iter(tasks).map(asking).buffer_unordered(ASKED_MAX);
    let mut silent = Vec::new();
    while let Some((answer, task)) = answers.next().await {
        let record = match answer {
            Ok(record) => record,
            Err(failure) => {
                silent.push((task, failure.message));
                continue;
            }
        };
        if results
            .send(shown(machines, &task, &Source::Now(&record)))
            .await
            .is_err()
        {
            // The client has gone.
            return Ok(());
        }
    }
    if silent.is_empty() {
        return Ok(());
    }
    let earlier = earlier_reports(here).await;
    for (task, cause) in silent {
        let source = Source::Earlier(earlier.get(&task.machine.id), &cause);
        if results.send(shown(machines, &task, &source)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What this machine measures of others, for the one of them that was asked.
pub(crate) async fn report(here: &Machine, peers: &[MachineId], count: Option<u16>) -> Outcome {
    let record = measure(here, peers, count).await?;
    Ok(Payload::RttReport(Box::new(record)).into())
}

fn tasks(here: &Machine, wanted: &[String]) -> Result<Vec<Task>, Failure> {
    let network = here.running_network()?;
    let view = network.view();
    let select = |wanted: &String| view.select(wanted).map(|it| it.id).map_err(Failure::from);
    let wanted: BTreeSet<MachineId> = wanted.iter().map(select).collect::<Result<_, _>>()?;
    let is_wanted = |id| wanted.is_empty() || wanted.contains(&id);
    let task = |machine: &MachineRecord| {
        let peers = view
            .machines()
            .filter(|peer| peer.id != machine.id && (is_wanted(machine.id) || is_wanted(peer.id)));
        Task {
            machine: machine.clone(),
            peers: peers.cloned().collect(),
        }
    };
    let tasks = view.machines().map(task);
    Ok(tasks.filter(|task| !task.peers.is_empty()).collect())
}

async fn measured(here: &Machine, task: &Task, count: Option<u16>) -> Result<RttRecord, Failure> {
    let peers: Vec<MachineId> = task.peers.iter().map(|peer| peer.id).collect();
    if task.machine.id == here.identity.machine_id {
        return measure(here, &peers, count).await;
    }
    let patience = REACH_WAIT + measuring_time(peers.len(), tests(count));
    let request = Request::RttReport { peers, count };
    timeout(patience, ask(here, task.machine.id, &request))
        .await
        .map_err(|_| Failure::new(Code::Timeout, format!("no answer within {patience:?}")))?
}

async fn ask(here: &Machine, machine: MachineId, request: &Request) -> Result<RttRecord, Failure> {
    let broken = |cause: String| Failure::new(Code::MachineUnreachable, cause);
    let session = here.client()?.reach(machine).await?;
    let mut answers = session
        .open(request)
        .await
        .map_err(|error| broken(error.to_string()))?;
    let response = answers
        .next()
        .await
        .map_err(|error| broken(error.to_string()))?;
    let response = response.ok_or_else(|| broken("the connection was closed".to_owned()))?;
    match Outcome::from(response)?.payload {
        Some(Payload::RttReport(record)) => Ok(*record),
        Some(_) | None => Err(broken(
            "measuring on request is not supported there; update ployzd on it".to_owned(),
        )),
    }
}

pub(crate) async fn measure(
    here: &Machine,
    peers: &[MachineId],
    count: Option<u16>,
) -> Result<RttRecord, Failure> {
    let network = here.running_network()?;
    let wanted = keys(&network.view(), peers);
    let tests = tests(count);
    let before = here.round_trips().await?;
    here.overlay.measure_round_trips(tests, wanted.clone())?;
    let mut known = finished(here, &wanted, tests).await?;
    known.retain(|key, _| wanted.contains(key));
    if let Some(count) = count {
        let nothing = RttSnapshot::default();
        for (key, rtt) in &mut known {
            let former = before.get(key).unwrap_or(&nothing);
            *rtt = std::mem::take(rtt).since(former, count.into());
        }
    }
    Ok(network.rtt_record(&known))
}

/// What is known when all tests have been answered, or could have been.
async fn finished(
    here: &Machine,
    wanted: &BTreeSet<PublicKey>,
    tests: u16,
) -> Result<BTreeMap<PublicKey, RttSnapshot>, Failure> {
    let deadline = Instant::now() + measuring_time(wanted.len(), tests);
    sleep(burst_duration(wanted.len(), tests)).await;
    loop {
        sleep(POLL).await;
        let known = here.round_trips().await?;
        let is_done = |key| known.get(key).is_none_or(|rtt| rtt.under_way == 0);
        if wanted.iter().all(is_done) || Instant::now() >= deadline {
            return Ok(known);
        }
    }
}

/// Twice what it should take to send the tests, and time for the last reply.
fn measuring_time(peers: usize, tests: u16) -> Duration {
    burst_duration(peers, tests) * 2 + REPLY_WAIT
}

fn tests(count: Option<u16>) -> u16 {
    count.unwrap_or(BURST_LEN).clamp(1, RTT_COUNT_MAX)
}

fn keys(view: &View, peers: &[MachineId]) -> BTreeSet<PublicKey> {
    let key = |id: &MachineId| {
        let machine = view.machine(*id)?;
        PublicKey::from_base64(&machine.wireguard_key).ok()
    };
    peers.iter().filter_map(key).collect()
}

/// What machines have told the store; nothing if it does not say.
async fn earlier_reports(here: &Machine) -> BTreeMap<MachineId, RttRecord> {
    let Ok(network) = here.running_network() else {
        return BTreeMap::new();
    };
    let records: Vec<RttRecord> = network.store.list(RTT).await.unwrap_or_default();
    records.into_iter().map(|it| (it.id, it)).collect()
}

fn shown(machines: usize, task: &Task, source: &Source<'_>) -> Payload {
    let unix_secs = clock::now().unix_secs;
    let (rows, warnings) = rows::of(&task.machine, &task.peers, source, unix_secs);
    Payload::MachineRtt(MachineRtt {
        machines,
        rows,
        warnings,
    })
}
