//! The client of other machines' management servers: their endpoints, and the credential for each request.

use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ployz_api::client::{ClientError, Peer, Session, connect_to};
use ployz_api::{Credential, MEMBER_CREDENTIAL_FILE, MachineId, Outcome, Request, Secret, Success};
use tokio::time::Instant;

use crate::host::files::DataDirectory;
use crate::host::identity::Identity;
use crate::network::error::NetworkError;
use crate::network::state::Network;

/// Time for the overlay address, and for the machine's other endpoints after it.
const CONNECT_WAIT: Duration = Duration::from_secs(8);

/// Asks other machines of a network.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    network: Rc<Network>,
    identity: Rc<Identity>,
    files: Rc<DataDirectory>,
    /// This machine's own management port, which others most likely have as well.
    port: u16,
}

impl Client {
    /// A client with this machine's identity.
    pub(crate) const fn new(
        network: Rc<Network>,
        identity: Rc<Identity>,
        files: Rc<DataDirectory>,
        port: u16,
    ) -> Self {
        Self {
            network,
            identity,
            files,
            port,
        }
    }

    /// Connects to a machine, as this one.
    ///
    /// # Errors
    /// [`NetworkError::Unreachable`].
    pub(crate) async fn reach(&self, machine: MachineId) -> Result<Session, NetworkError> {
        self.dial(machine, self.endpoints(machine), self.own_credential())
            .await
    }

    /// Connects to a machine as root of this host, who is an admin where the network's authority is kept.
    ///
    /// # Errors
    /// [`NetworkError::Unreachable`].
    pub(crate) async fn reach_as_admin(&self, machine: MachineId) -> Result<Session, NetworkError> {
        let credential: Option<Credential> = self
            .files
            .read(MEMBER_CREDENTIAL_FILE)
            .map_err(|error| unanswered(machine, &error))?;
        let credential =
            credential.ok_or_else(|| unanswered(machine, &"this daemon is stopping"))?;
        self.dial(machine, self.endpoints(machine), credential)
            .await
    }

    /// Asks a machine as root of this host.
    ///
    /// # Errors
    /// [`NetworkError::Unreachable`], and those of [`ask_once`].
    pub(crate) async fn ask_as_admin(
        &self,
        machine: MachineId,
        request: &Request,
    ) -> Result<Success, NetworkError> {
        let session = self.reach_as_admin(machine).await?;
        let outcome = ask_once(&session, machine, request).await;
        session.close().await;
        outcome
    }

    /// Asks a machine by its overlay address alone, which no other machine can have: its WireGuard key protects it.
    ///
    /// # Errors
    /// [`NetworkError::Unreachable`], and those of [`ask_once`].
    pub(crate) async fn ask_in_overlay(
        &self,
        machine: MachineId,
        credential: Credential,
        request: &Request,
    ) -> Result<Success, NetworkError> {
        let first = self.endpoints(machine).into_iter().take(1);
        let session = self.dial(machine, first.collect(), credential).await?;
        let outcome = ask_once(&session, machine, request).await;
        session.close().await;
        outcome
    }

    /// Connects to that machine and no other, whatever answers at the endpoints.
    async fn dial(
        &self,
        machine: MachineId,
        endpoints: Vec<SocketAddr>,
        credential: Credential,
    ) -> Result<Session, NetworkError> {
        let credential = Credential {
            endpoints,
            ..credential
        };
        let time = Some(self.network.certificate_time());
        let deadline = Instant::now() + CONNECT_WAIT;
        let session = connect_to(&credential, &Peer::Machine(machine), time, deadline)
            .await
            .map_err(|error| NetworkError::Unreachable {
                machine,
                cause: error.to_string(),
            })?;
        let issued_at = session.peer().and_then(|facts| facts.issued_at());
        self.network.note_issue(issued_at.unwrap_or_default());
        Ok(session)
    }

    /// The credential of this machine, without endpoints.
    pub(crate) fn own_credential(&self) -> Credential {
        let membership = &self.network.membership;
        Credential {
            endpoints: Vec::new(),
            network: membership.network_id.to_string(),
            ca_pem: membership.ca_pem.clone(),
            certificate_pem: self.network.certificate(),
            key_pem: Secret::new(self.identity.certificate_key_pem.expose().to_owned()),
        }
    }

    /// The endpoints of a machine's management server: in the overlay first, then those that it reports. A machine
    /// without a report is tried at its WireGuard addresses, with the port of this machine.
    fn endpoints(&self, machine: MachineId) -> Vec<SocketAddr> {
        let view = self.network.view();
        let said = view
            .observed(machine)
            .map(|(record, _)| record.management.clone())
            .unwrap_or_default();
        let port = said.first().map_or(self.port, SocketAddr::port);
        let Some(record) = view.machine(machine) else {
            return said;
        };
        let guessed = record.endpoints.iter().map(|it| (it.ip(), port).into());
        let others = if said.is_empty() {
            guessed.collect()
        } else {
            said
        };
        let overlay = SocketAddr::new(record.overlay_ip.into(), port);
        std::iter::once(overlay).chain(others).collect()
    }
}

/// Asks the machine at the other end of a session.
///
/// # Errors
/// [`NetworkError::Unanswered`], [`NetworkError::Refused`], or what the machine answers.
pub(crate) async fn ask_once(
    session: &Session,
    machine: MachineId,
    request: &Request,
) -> Result<Success, NetworkError> {
    let asking = async { session.open(request).await?.only().await };
    let response = asking.await.map_err(|error| {
        if let ClientError::Refused(cause) = error {
            return NetworkError::Refused(cause);
        }
        unanswered(machine, &error)
    });
    Outcome::from(response?).map_err(NetworkError::Answered)
}

fn unanswered(machine: MachineId, cause: &dyn Display) -> NetworkError {
    NetworkError::Unanswered {
        machine,
        cause: cause.to_string(),
    }
}
