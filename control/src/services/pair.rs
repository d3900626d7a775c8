//! Why this machine and another do not talk: both say what they see of each other, try, and say it again.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use ployz_api::client::{Between, ClientError, Relayed, Session};
use ployz_api::{
    Check, Code, Credential, Destination, Failure, MachineId, Outcome, PairReport, Payload,
    PeerReport, Request,
};
use ployz_core::{Pair, SESSION_SECS, Side, diagnose};
use ployz_engine::PublicKey;

use crate::host::clock;
use crate::machine::Machine;
use crate::network::is_session;

/// A handshake that was lost is tried again after 5 s.
const TRIAL_MAX: Duration = Duration::from_secs(7);
/// A path that has shrunk is noticed in 2 s of large packets.
const TRIAL_MIN: Duration = Duration::from_secs(3);
const TRIAL_STEP: Duration = Duration::from_millis(250);
/// Within a step the path is measured ten times a second, while large packets are sent.
const PACKETS_A_STEP: u32 = 5;
/// Each sends 30 KB/s.
const EXAMINATIONS_MAX: usize = 4;
/// Through somebody else it takes two connections.
const ASK_WAIT: Duration = Duration::from_secs(10);
/// Whoever else is asked to pass it on.
const OTHERS_MAX: usize = 2;
/// Nobody listens there (RFC 863), and it is not listened to either.
const DISCARD_PORT: u16 = 9;
const IP_AND_UDP_HEADER_LEN: usize = 28;

/// What this machine sees of another one.
pub(crate) async fn report(here: &Machine, machine: MachineId) -> Outcome {
    let report = observe(here, machine).await?;
    send_packet(here, machine, 0);
    Ok(Payload::PairReport(Box::new(report)).into())
}

/// What is wrong with this machine and another one.
pub(crate) async fn examine(here: &Machine, other: MachineId) -> Result<Vec<Check>, Failure> {
    let network = here.running_network()?;
    let Some(_permit) = network.examinations.take(EXAMINATIONS_MAX) else {
        let message = format!("this machine is examining {EXAMINATIONS_MAX} pairs already");
        return Err(Failure::new(Code::Busy, message).hint("run the same command again in 10 s"));
    };
    let before = observe(here, other).await?;
    let asked = match Path::find(here, other).await {
        Ok(path) => path.ask(here, other).await.map(|first| (path, first)),
        Err(cause) => Err(cause),
    };
    let skew_ms = asked.as_ref().map_or(0, |(_, first)| skew_ms(first));
    let (after, there) = attempt(here, other, &before, asked).await?;
    let name = network
        .view()
        .machine(other)
        .map_or_else(|| other.to_string(), |machine| machine.name.to_string());
    let pair = Pair {
        here: Side { before, after },
        there,
        name,
        skew_ms,
    };
    tracing::debug!(?pair, "pair examined");
    Ok(diagnose(&pair))
}

/// Sends to the other one until it is clear what arrives, at either end.
async fn attempt(
    here: &Machine,
    other: MachineId,
    before: &PairReport,
    asked: Result<(Path, PairReport), String>,
) -> Result<(PairReport, Result<Side, String>), Failure> {
    let begin = tokio::time::Instant::now();
    loop {
        for _ in 0..PACKETS_A_STEP {
            send_packet(here, other, here.config.mtu as usize);
            tokio::time::sleep(TRIAL_STEP / PACKETS_A_STEP).await;
        }
        let seen = observe(here, other).await?;
        let there = match &asked {
            Ok((path, first)) => path.ask(here, other).await.map(|after| Side {
                before: first.clone(),
                after,
            }),
            Err(cause) => Err(cause.clone()),
        };
        let clear = there.as_ref().is_ok_and(|there| {
            is_heard(&there.before, &there.after) && is_heard(before, &seen) && is_measured(&seen)
        });
        let took = begin.elapsed();
        if took >= TRIAL_MAX || took >= TRIAL_MIN && (clear || there.is_err()) {
            return Ok((seen, there));
        }
    }
}

fn is_heard(before: &PairReport, after: &PairReport) -> bool {
    let rx = |report: &PairReport| report.peer.as_ref().map_or(0, |peer| peer.rx_bytes);
    let age = after.peer.as_ref().and_then(|peer| peer.handshake_age_secs);
    rx(after) > rx(before) && age.is_some_and(|age| age < SESSION_SECS)
}

fn is_measured(report: &PairReport) -> bool {
    report
        .peer
        .as_ref()
        .is_some_and(|peer| peer.path_mtu.is_some())
}

/// The answer is a moment old; what matters is seconds.
fn skew_ms(report: &PairReport) -> i64 {
    let own = i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX);
    i64::try_from(report.unix_ms)
        .unwrap_or(i64::MAX)
        .saturating_sub(own)
}

async fn observe(here: &Machine, machine: MachineId) -> Result<PairReport, Failure> {
    let network = here.running_network()?;
    let now = clock::now();
    let traffic = here.traffic(now.instant).await?;
    let refused = here.overlay.refused().await?;
    let view = network.view();
    let known = view.machine(machine);
    let key = known.and_then(|it| PublicKey::from_base64(&it.wireguard_key).ok());
    let peer = key
        .and_then(|key| traffic.get(&key))
        .map(|peer| PeerReport {
            endpoint: peer.endpoint,
            no_route: peer.endpoint.and_then(no_route),
            handshake_age_secs: peer.handshake_age_secs,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            path_mtu: peer.path_mtu,
        });
    Ok(PairReport {
        id: here.identity.machine_id,
        name: network.membership.name.clone(),
        unix_ms: clock::unix_ms(),
        view_age_secs: view.age_secs(now.unix_secs),
        wireguard_key: here.identity.wireguard_key.public_key().to_string(),
        mtu: here.config.mtu,
        refused,
        known_key: known.map(|it| it.wireguard_key.clone()),
        peer,
    })
}

/// What the kernel has against sending there; a socket that is connected sends nothing yet.
fn no_route(endpoint: SocketAddr) -> Option<String> {
    let connected = any_socket(endpoint).and_then(|socket| socket.connect(endpoint));
    connected.err().map(|error| error.to_string())
}

fn any_socket(towards: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match towards {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Gives the data plane something to do for a machine: a packet of `len` bytes, or the shortest that there is. Whether
/// it arrives is what the counters tell.
fn send_packet(here: &Machine, machine: MachineId, len: usize) {
    let Some(network) = here.network() else {
        return;
    };
    let address = network.view().machine(machine).map(|it| it.overlay_ip);
    let Some(address) = address else {
        return;
    };
    let to = SocketAddr::from((address, DISCARD_PORT));
    let payload = vec![0; len.saturating_sub(IP_AND_UDP_HEADER_LEN)];
    let sent = any_socket(to).and_then(|socket| socket.send_to(&payload, to));
    if let Err(error) = sent {
        tracing::debug!(%error, "probe packet not sent");
    }
}

/// How the other machine is asked: by itself, or through a third one.
struct Path {
    session: Session,
    through: Option<Credential>,
}

impl Path {
    async fn find(here: &Machine, other: MachineId) -> Result<Self, String> {
        let client = here.client().map_err(|it| it.message)?;
        let mut causes = match client.reach(other).await {
            Ok(session) => {
                return Ok(Self {
                    session,
                    through: None,
                });
            }
            Err(error) => vec![error.to_string()],
        };
        let others = third_machines(here, other).await.map_err(|it| it.message)?;
        for third in others {
            let path = match client.reach(third).await {
                Ok(session) => Self {
                    session,
                    through: Some(client.own_credential()),
                },
                Err(error) => {
                    causes.push(error.to_string());
                    continue;
                }
            };
            match path.ask(here, other).await {
                Ok(_) => return Ok(path),
                Err(cause) => causes.push(cause),
            }
        }
        Err(causes.join("; "))
    }

    async fn ask(&self, here: &Machine, other: MachineId) -> Result<PairReport, String> {
        let request = Request::PairReport {
            machine: here.identity.machine_id,
        };
        tokio::time::timeout(ASK_WAIT, self.exchange(other, &request))
            .await
            .map_err(|_| format!("no answer within {ASK_WAIT:?}"))?
    }

    async fn exchange(&self, other: MachineId, request: &Request) -> Result<PairReport, String> {
        let failed = |error: ClientError| error.to_string();
        let response = match &self.through {
            None => {
                let mut answers = self.session.open(request).await.map_err(failed)?;
                answers.next().await.map_err(failed)?
            }
            Some(known_as) => {
                let destination = Destination::Machine(other.to_string());
                let relayed = Relayed {
                    known_as,
                    destination: &destination,
                    between: Between::Untrusted,
                };
                match self
                    .session
                    .relay(&relayed, request)
                    .await
                    .map_err(failed)?
                {
                    Ok(mut answers) => answers.next().await.map_err(failed)?,
                    Err(refusal) => Some(*refusal),
                }
            }
        };
        let response = response.ok_or("the connection was closed")?;
        match Outcome::from(response)
            .map_err(|failure| failure.message)?
            .payload
        {
            Some(Payload::PairReport(report)) => Ok(*report),
            Some(_) | None => {
                Err("pair reports are not supported there; update ployzd on it".to_owned())
            }
        }
    }
}

/// Machines that this one has a session with, those that hold the store first.
async fn third_machines(here: &Machine, other: MachineId) -> Result<Vec<MachineId>, Failure> {
    let network = here.running_network()?;
    let now = clock::now();
    let traffic = here.traffic(now.instant).await?;
    let view = network.view();
    let mut thirds: Vec<_> = view
        .machines()
        .filter(|machine| machine.id != other)
        .filter(|machine| {
            let key = PublicKey::from_base64(&machine.wireguard_key).ok();
            let peer = key.and_then(|key| traffic.get(&key));
            peer.is_some_and(|peer| is_session(peer.handshake_age_secs))
        })
        .map(|machine| {
            (
                machine.authority != ployz_api::Authority::Storage,
                machine.id,
            )
        })
        .collect();
    thirds.sort_unstable();
    Ok(thirds
        .into_iter()
        .map(|(_, id)| id)
        .take(OTHERS_MAX)
        .collect())
}
