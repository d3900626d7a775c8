//! From a host to a machine: the stages in their order, and taking back what was done when one of them fails.

use std::collections::BTreeSet;
use std::time::Duration;

use ployz_api::{
    Code, Failure, InviteRequest, MachineId, MachineList, MachineRow, Name, Payload, Posture,
    Request, Status, TTL_SECS_DEFAULT,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::host::{Access, Host};
use super::ledger::Ledger;
use super::preflight::{Fit, Found, Wanted, evaluate};
use super::remote;
use super::source::Source;
use super::stage::{Stage, Stopped};
use crate::arguments::{ProvisionArguments, Target};
use crate::clock::unix_secs;
use crate::connection::Connection;
use crate::outcome::unexpected;

/// The store says what it was told at once.
const RECORD_WAIT: Duration = Duration::from_secs(20);
/// An endpoint after the other, ten seconds for each, and most machines have three.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How often those two are looked at.
const POLL: Duration = Duration::from_millis(300);

/// The part that all hosts share.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) arguments: &'a ProvisionArguments,
    pub(crate) source: &'a Source,
    pub(crate) connection: &'a Connection,
    pub(crate) ledger: &'a Ledger,
    /// Whether the host is to be the first machine of a network that is not there yet.
    pub(crate) founds: bool,
}

/// A host that is a machine now.
#[derive(Debug)]
pub(crate) struct Joined {
    target: Target,
    pub(crate) id: MachineId,
    pub(crate) name: Name,
    overlay_ip: std::net::Ipv4Addr,
    /// `joined`, `founded`, or that it had been before.
    pub(crate) status: &'static str,
    /// Of a network that it has founded.
    pub(crate) credential: Option<Box<ployz_api::NewCredential>>,
}

impl Joined {
    /// As in the command line's contract.
    pub(crate) fn row(&self) -> Value {
        json!({
            "target": self.target.as_str(),
            "id": self.id,
            "name": self.name,
            "overlay_ip": self.overlay_ip,
            "status": self.status,
        })
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let (target, name, ip, status) = (&self.target, &self.name, self.overlay_ip, self.status);
        format!("{target}  {status} as {name}, {ip}")
    }
}

/// The changes made to a host, to be undone on failure.
#[derive(Debug, Default)]
struct Done {
    installed: bool,
    invite: Option<ployz_api::InviteId>,
    joined: Option<MachineId>,
}

impl Plan<'_> {
    /// Makes a machine of one host, or leaves it as it was.
    pub(crate) async fn make(&self, target: &Target) -> Result<Joined, Stopped> {
        let mut at = Stage::Preflight;
        let made = self.reach(target, &mut at).await;
        let failure = made.as_ref().err();
        self.ledger.ended(target, failure).await;
        made.map_err(|failure| Stopped { stage: at, failure })
    }

    async fn reach(&self, target: &Target, at: &mut Stage) -> Result<Joined, Failure> {
        self.enter(target, at, Stage::Preflight).await;
        let access = Access {
            identity: self.arguments.identity.clone(),
            port: self.arguments.ssh_port,
            accept_new: self.arguments.yes,
        };
        let mut host = Host::connect(target, &access).await?;
        let mut done = Done::default();
        let made = self.make_on(target, &mut host, at, &mut done).await;
        let made = match made {
            Ok(joined) => Ok(joined),
            Err(failure) => Err(self.take_back(&host, &done, failure).await),
        };
        host.close().await;
        made
    }

    async fn make_on(
        &self,
        target: &Target,
        host: &mut Host,
        at: &mut Stage,
        done: &mut Done,
    ) -> Result<Joined, Failure> {
        let fit = self.inspect(target, host).await?;
        let joined = match &fit.found {
            Found::Member(status) => self.member(target, status)?,
            Found::Bare | Found::Installed(_) => {
                self.enter(target, at, Stage::Install).await;
                self.install(target, host, &fit, done).await?;
                self.enter(target, at, Stage::Join).await;
                self.join(target, host, done).await?
            }
        };
        self.enter(target, at, Stage::Record).await;
        self.wait_recorded(host, joined.id).await?;
        self.enter(target, at, Stage::Ready).await;
        self.wait_ready(target, host, joined.id).await?;
        self.enter(target, at, Stage::Enable).await;
        self.enable(host, joined).await
    }

    /// A host that is done already, but for the last stages perhaps.
    fn member(&self, target: &Target, status: &Status) -> Result<Joined, Failure> {
        if let Source::Artifacts(wanted) = self.source
            && wanted.version().to_string() != status.version
        {
            let (version, name) = (&status.version, &status.name);
            self.ledger.warn(
                target,
                &format!("version {version} is running; to update: ployzctl machine update {name}"),
            );
        }
        Ok(Joined {
            target: target.clone(),
            id: status.id,
            name: status.name.clone(),
            overlay_ip: status.overlay_ip.ok_or_else(unexpected)?,
            status: "already a member",
            credential: None,
        })
    }

    async fn enter(&self, target: &Target, at: &mut Stage, stage: Stage) {
        *at = stage;
        self.ledger.stage(target, stage).await;
    }

    async fn inspect(&self, target: &Target, host: &mut Host) -> Result<Fit, Failure> {
        let wanted = Wanted {
            network: &self.arguments.network,
            runtime: self.arguments.runtime,
            source: self.arguments.install_source,
        };
        let ports = self.arguments.udp_ports();
        let facts = remote::facts(host, &ports).await?;
        let fit = evaluate(&facts, wanted, unix_secs())?;
        if fit.is_root {
            host.is_root();
        }
        for warning in &fit.warnings {
            self.ledger.warn(target, warning);
        }
        Ok(fit)
    }

    async fn install(
        &self,
        target: &Target,
        host: &Host,
        fit: &Fit,
        done: &mut Done,
    ) -> Result<(), Failure> {
        let flags = self.arguments.daemon_flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let artifact = match (self.source, &fit.found) {
            (Source::Artifacts(wanted), Found::Installed(found)) if found == wanted.version() => {
                return remote::install_again(host, &flags).await;
            }
            (Source::Artifacts(wanted), _) => wanted.get(fit.arch)?,
            (Source::Git(git), _) => {
                let report = |line: &str| self.ledger.detail(target, line);
                remote::build(host, git, report).await?.into()
            }
        };
        // What was there before us is not ours to remove.
        done.installed = matches!(fit.found, Found::Bare);
        remote::install(host, &artifact, &flags).await
    }

    async fn join(&self, target: &Target, host: &Host, done: &mut Done) -> Result<Joined, Failure> {
        let target = target.clone();
        if self.founds {
            let founded = remote::found(host, &self.arguments.network).await?;
            let labels = &self.arguments.terms.labels;
            if !labels.is_empty() {
                // Others have theirs from their invites.
                remote::label(host, founded.id, labels).await?;
            }
            return Ok(Joined {
                target,
                id: founded.id,
                name: founded.name,
                overlay_ip: founded.overlay_ip,
                status: "founded",
                credential: None,
            });
        }
        let invite = self.invite().await?;
        done.invite = Some(invite.invite_id);
        let joined = remote::join(host, &invite.token).await?;
        done.joined = Some(joined.id);
        Ok(Joined {
            target,
            id: joined.id,
            name: joined.name,
            overlay_ip: joined.overlay_ip,
            status: "joined",
            credential: None,
        })
    }

    /// An invite that makes a machine which is given no work until it has been seen ready.
    async fn invite(&self) -> Result<ployz_api::Invite, Failure> {
        let terms = self.arguments.terms.clone();
        let request = Request::InviteCreate(InviteRequest {
            ttl_secs: TTL_SECS_DEFAULT,
            name: terms.name,
            region: terms.region,
            labels: terms.labels.into_iter().collect(),
            standby: true,
        });
        match self.connection.asked(&request).await?.payload {
            Some(Payload::Invite(invite)) => Ok(invite),
            Some(_) | None => Err(unexpected()),
        }
    }

    /// The machines as the network sees them; of a network that is being founded, its first machine.
    async fn machines(&self, host: &Host) -> Result<Vec<MachineRow>, Failure> {
        if self.founds {
            return remote::machines(host).await;
        }
        match self.connection.asked(&Request::MachineList).await?.payload {
            Some(Payload::MachineList(MachineList { rows, .. })) => Ok(rows),
            Some(_) | None => Err(unexpected()),
        }
    }

    async fn wait_recorded(&self, host: &Host, id: MachineId) -> Result<(), Failure> {
        wait(RECORD_WAIT, async || {
            if self.machines(host).await?.iter().any(|row| row.id == id) {
                return Ok(());
            }
            let message = format!("the network has no record of {id} after {RECORD_WAIT:?}");
            Err(Failure::new(Code::MachineNotFound, message)
                .hint("if the machine was removed, run there: ployzctl mesh destroy --force"))
        })
        .await
    }

    /// Waits for a session with every active machine, but for those that the rest of the network cannot reach either.
    async fn wait_ready(&self, target: &Target, host: &Host, id: MachineId) -> Result<(), Failure> {
        let gone = wait(READY_WAIT, async || {
            let (seen, known) = (remote::machines(host).await?, self.machines(host).await?);
            let (missing, gone) = missing(id, &seen, &known);
            if missing.is_empty() {
                return Ok(gone);
            }
            let names: Vec<&str> = missing.iter().map(Name::as_str).collect();
            let names = names.join(", ");
            let message = format!("the machine has no session with {names} after {READY_WAIT:?}");
            Err(Failure::new(Code::Timeout, message).hint(
                "allow UDP between them (port 51820, or that of --wg-port), or give --wg-endpoint",
            ))
        });
        for name in gone.await? {
            self.ledger
                .warn(target, &format!("no machine can reach {name}"));
        }
        Ok(())
    }

    async fn enable(&self, host: &Host, joined: Joined) -> Result<Joined, Failure> {
        if self.founds {
            let credential = remote::credential(host).await?;
            return Ok(Joined {
                credential: Some(Box::new(credential)),
                ..joined
            });
        }
        let rows = self.machines(host).await?;
        let row = rows.iter().find(|row| row.id == joined.id);
        // Who drains it meanwhile has the last word.
        if row.is_some_and(|row| row.lifecycle == Posture::Standby) {
            let machine = joined.id.to_string();
            self.connection
                .asked(&Request::MachineActivate { machine })
                .await?;
        }
        Ok(joined)
    }

    /// Takes back what was done, and says so with the failure.
    async fn take_back(&self, host: &Host, done: &Done, failure: Failure) -> Failure {
        let undone = match (done.installed, done.joined) {
            (true, _) => remote::uninstall(host).await,
            (false, Some(_)) => remote::leave(host, &self.arguments.network).await,
            (false, None) => Ok(()),
        };
        if let Err(left) = undone {
            // A machine that cannot be told must not be told by others that it is none: it goes on with it.
            let again = "run the same command again: it continues where it stopped";
            let message = format!("{failure}; undoing the installation failed as well ({left})");
            return Failure { message, ..failure }.hint(again);
        }
        let taken_back = match (done.joined, done.invite) {
            (Some(id), _) => {
                let machine = id.to_string();
                let force = true;
                self.request(Request::MachineRemove { machine, force })
                    .await
            }
            (None, Some(invite_id)) => self.request(Request::InviteRevoke { invite_id }).await,
            (None, None) => Ok(()),
        };
        let message = match taken_back {
            Err(left) => format!(
                "{failure}; removing the machine's record from the network failed as well: {left}"
            ),
            Ok(()) if done.installed => format!("{failure}; the installation was removed again"),
            Ok(()) => return failure,
        };
        Failure { message, ..failure }
    }

    async fn request(&self, request: Request) -> Result<(), Failure> {
        match self.connection.asked(&request).await {
            Ok(_) => Ok(()),
            // It had got in before the connection to it was lost.
            Err(failure) if failure.code == Code::InviteConsumed => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// Asks until it is so, or why it is not so after this time. Who does not answer may be starting anew, but the host
/// itself is lost if ssh says so.
async fn wait<T>(
    patience: Duration,
    ask: impl AsyncFn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        match ask().await {
            Err(failure) if failure.code != Code::SshFailed && Instant::now() < deadline => {
                tokio::time::sleep(POLL).await;
            }
            answer => return answer,
        }
    }
}

/// The active machines that a new one should have a session with and has not, and those that no machine reaches.
fn missing(id: MachineId, seen: &[MachineRow], known: &[MachineRow]) -> (Vec<Name>, Vec<Name>) {
    let reached: BTreeSet<MachineId> = seen
        .iter()
        .filter(|row| row.reachable)
        .map(|row| row.id)
        .collect();
    let wanted = known
        .iter()
        .filter(|row| row.id != id && row.lifecycle != Posture::Standby)
        .filter(|row| !reached.contains(&row.id));
    let (there, gone): (Vec<_>, Vec<_>) = wanted.partition(|row| row.reachable);
    let names = |rows: Vec<&MachineRow>| rows.into_iter().map(|row| row.name.clone()).collect();
    (names(there), names(gone))
}
