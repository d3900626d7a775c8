//! Entering and leaving a network. Everything that runs for a network is begun here and owned here.
//!
//! ```text
//!               enter, take part
//!   no network ─────────────────▶ running: server, control task, workloads, operations ──▶ leave, retire
//!                                    ▲                  │
//!                                    └──── reenter ─────┘  the store has moved; the data plane and operations go on
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use ployz_api::{Code, Failure, MEMBER_CREDENTIAL_FILE, NetworkState};
use quinn::Endpoint;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::host::heartbeat::Heartbeat;
use crate::host::membership::{Membership, VIEW_FILE};
use crate::host::tasks::TaskGroup;
use crate::machine::{Command, Entry, Machine, Participation, addresses};
use crate::nats::Certificates;
use crate::network::{Network, Storage};
use crate::overlay::reflector;
use crate::server::Server;
use crate::services::{membership, migration, removal, renewal, store_change, update};
use crate::store::Store;

/// The root's part in networks.
#[derive(Debug)]
pub(super) struct Networks {
    machine: Rc<Machine>,
    under_way: Rc<Semaphore>,
    running: RefCell<Option<Running>>,
    /// Servers that take no requests any more and let those that are under way end.
    retired: TaskGroup,
    /// Why the network that this machine is in cannot go on.
    failure: watch::Sender<Option<String>>,
}

/// A network that this machine takes part in, and what serves it here.
#[derive(Debug)]
struct Running {
    network: Rc<Network>,
    server: Server,
    tasks: TaskGroup,
}

impl Networks {
    /// In no network yet. Each request that is carried out holds one of the permits of `under_way`.
    pub(super) fn new(machine: &Rc<Machine>, under_way: &Rc<Semaphore>) -> Self {
        Self {
            machine: Rc::clone(machine),
            under_way: Rc::clone(under_way),
            running: RefCell::default(),
            retired: TaskGroup::default(),
            failure: watch::Sender::default(),
        }
    }

    /// Gets back into the network that it was in when it stopped, if there was one.
    pub(super) async fn resume(&self) -> Result<(), Failure> {
        match self.machine.membership()? {
            Some(membership) if membership.state == NetworkState::Running => {
                self.take_part(membership).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Carries out what requests and services ask for, one after the other. Ends when the network cannot go on.
    ///
    /// # Errors
    /// The cause.
    pub(super) async fn serve(
        &self,
        mut commands: mpsc::Receiver<Participation>,
    ) -> Result<(), Failure> {
        let mut failure = self.failure.subscribe();
        loop {
            tokio::select! {
                Some(asked) = commands.recv() => {
                    let is_retry = matches!(asked.command, Command::Reenter);
                    let outcome = Box::pin(self.carry_out(asked.command)).await;
                    let outcome = match outcome {
                        // Nothing serves the network any more: the supervisor starts the daemon again, which tries once
                        // more.
                        Err(error) if is_retry => return Err(error),
                        outcome => outcome,
                    };
                    // Whoever has asked may have given up.
                    let _unheard = asked.reply.send(outcome);
                }
                Ok(()) = failure.changed() => {
                    let cause = failure.borrow_and_update().clone();
                    return Err(Failure::new(Code::Internal, cause.unwrap_or_default()));
                }
            }
        }
    }

    /// The heartbeats of everything that has to make progress.
    pub(super) fn heartbeats(&self) -> Vec<Rc<Heartbeat>> {
        let running = self.running.borrow();
        let running = running.iter();
        running
            .flat_map(|it| [it.network.heartbeat(), it.server.heartbeat()])
            .collect()
    }

    /// The server for requests from afar, if there is one.
    pub(super) fn server(&self) -> Option<Server> {
        self.running.borrow().as_ref().map(|it| it.server.clone())
    }

    /// Saves the view of the network for the next process.
    pub(super) async fn save_view(&self) {
        let network = self
            .running
            .borrow()
            .as_ref()
            .map(|it| Rc::clone(&it.network));
        if let Some(network) = network {
            network.save_last(&*self.machine).await;
        }
    }

    /// Ends everything that runs for the network as the end of the process would: nothing is cleaned up.
    #[cfg(test)]
    pub(super) async fn abandon(&self) {
        if let Some(running) = self.running.take() {
            running.tasks.abort().await;
            self.machine.operations.abort().await;
            running.server.close().await;
            running.server.join().await;
        }
        self.machine.set_network(None);
    }

    async fn carry_out(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Enter(entry) => self.enter(*entry),
            Command::TakePart(membership) => self.take_part(*membership).await,
            Command::Reenter => self.reenter().await,
            Command::Leave => self.leave().await,
            Command::Retire => self.retire().await,
        }
    }

    /// Takes part in a network that this machine is a member of.
    async fn take_part(&self, membership: Membership) -> Result<(), Failure> {
        let machine = &self.machine;
        if let Some(port) = membership.wg_port {
            machine.overlay.set_port(port).await?;
        }
        machine
            .overlay
            .add_addresses(&addresses(&membership)?)
            .await?;
        store_change::move_in(machine, &membership).await?;
        let management = machine.bind_management(&membership).await?;
        let storage = self.resume_storage(&membership).await?;
        let store = Store::open(&membership, &machine.identity).await?;
        self.enter(Entry {
            membership,
            store,
            storage,
            management,
        })
    }

    /// Begins to take part: everything that can take long, or is likely to fail, has been done.
    fn enter(&self, entry: Entry) -> Result<(), Failure> {
        if self.running.borrow().is_some() {
            let message = "this machine is in a network already";
            return Err(Failure::new(Code::NetworkAlreadyRunning, message));
        }
        let machine = &self.machine;
        let Entry {
            membership,
            store,
            storage,
            management,
        } = entry;
        let saved = machine
            .files
            .read_last_good(VIEW_FILE)
            .unwrap_or_else(|error| {
                // The store has it all; only a start without the store would miss it.
                tracing::warn!(%error, "starting without a saved view");
                None
            });
        let certificate_pem = membership.machine_certificate();
        let member = machine.member_credential(&membership, certificate_pem, storage.as_ref())?;
        machine.files.write(MEMBER_CREDENTIAL_FILE, &member)?;
        tracing::info!(network = %membership.network, id = %membership.network_id, "entered network");
        let label = membership.network_id.to_string();
        let own = machine.identity.machine_id;
        let network = Rc::new(Network::new(own, membership, store, storage, saved));
        machine.set_network(Some(Rc::clone(&network)));
        let tasks = TaskGroup::default();
        self.begin_tasks(&tasks, &network, &management);
        let name = "the management server";
        let server = Server::start(machine, &self.under_way, management, label, name);
        self.running.replace(Some(Running {
            network,
            server,
            tasks,
        }));
        Ok(())
    }

    /// Everything that runs as long as the machine is in the network.
    fn begin_tasks(&self, tasks: &TaskGroup, network: &Rc<Network>, management: &Endpoint) {
        let membership = &network.membership;
        let own_addresses = [membership.overlay_ip.into(), membership.overlay_ip6.into()];
        tasks.spawn(reflector::serve(own_addresses));
        let (machine, driven) = (Rc::clone(&self.machine), Rc::clone(network));
        let failure = self.failure.clone();
        tasks.spawn(async move {
            if let Err(error) = Box::pin(driven.run(&*machine)).await {
                failure.send_replace(Some(error.to_string()));
            }
        });
        let (machine, held) = (Rc::clone(&self.machine), Rc::clone(network));
        tasks.spawn(async move {
            let client = machine.client_in(Rc::clone(&held));
            machine.workloads.supervise(&held, &client).await;
        });
        let (machine, watched) = (Rc::clone(&self.machine), Rc::clone(network));
        tasks.spawn(async move { removal::watch(&machine, &watched).await });
        let (machine, renewed) = (Rc::clone(&self.machine), Rc::clone(network));
        let management = management.clone();
        tasks.spawn(async move { renewal::keep(&machine, &renewed, &management).await });
        let (machine, announcing) = (Rc::clone(&self.machine), Rc::clone(network));
        tasks.spawn(async move { store_change::announce_to_silent(&machine, &announcing).await });
        // Long work of the daemon before this one.
        tasks.spawn(update::resume(Rc::clone(&self.machine), Rc::clone(network)));
        tasks.spawn(store_change::resume(
            Rc::clone(&self.machine),
            Rc::clone(network),
        ));
        tasks.spawn(migration::resume(
            Rc::clone(&self.machine),
            Rc::clone(network),
        ));
    }

    /// Takes part no more. What lies on disk stays.
    async fn leave(&self) -> Result<(), Failure> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let machine = &self.machine;
        machine.set_network(None);
        let Running {
            network,
            server,
            tasks,
        } = running;
        self.retired.spawn(server.retire());
        // Only when they have ended does nothing change the data plane's peers any more.
        tasks.abort().await;
        machine.operations.abort().await;
        machine.files.remove(MEMBER_CREDENTIAL_FILE)?;
        let membership = &network.membership;
        tracing::info!(network = %membership.network, "leaving network");
        if let Some(storage) = &network.storage {
            storage.nats.stop().await?;
        }
        machine.overlay.clear_peers().await?;
        machine
            .overlay
            .remove_addresses(&addresses(membership)?)
            .await?;
        if membership.wg_port.is_some() {
            machine.overlay.set_port(machine.config.wg_port).await?;
        }
        Ok(())
    }

    /// Takes part anew with what `network.json` says by now: where the store is, and whether it is here.
    async fn reenter(&self) -> Result<(), Failure> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let Running {
            network,
            server,
            tasks,
        } = running;
        // Whoever has asked for this hears the answer.
        server.drain().await;
        server.close().await;
        tasks.abort().await;
        self.machine.set_network(None);
        // What was asked of this server is carried out to its end. Its port, and the network's, are wanted again.
        self.retired.spawn(server.join());
        drop(network);
        match self.machine.membership()? {
            Some(membership) => self.take_part(membership).await,
            None => Ok(()),
        }
    }

    /// Leaves once whoever has asked for that has heard the answer, and deletes what there is of the network.
    async fn retire(&self) -> Result<(), Failure> {
        if let Some(server) = self.server() {
            server.drain().await;
        }
        let left = self.leave().await;
        // For the next network.
        self.machine.workloads.resume_starts();
        let deleted = match left {
            Ok(()) => membership::delete(&self.machine).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &deleted {
            tracing::warn!(%error, "network not left completely: restart ployzd");
        }
        deleted
    }

    async fn resume_storage(&self, membership: &Membership) -> Result<Option<Storage>, Failure> {
        if !membership.is_storage() {
            return Ok(None);
        }
        let machine = &self.machine;
        let authority = machine.authority()?;
        let nats = machine.nats_server();
        let certificate_pem = machine.store_certificate(membership, &authority)?;
        // They follow from what we have: a damaged one must not keep the store down.
        nats.write_certificates(Certificates {
            ca_pem: &membership.ca_pem,
            certificate_pem: &certificate_pem,
            key_pem: machine.identity.certificate_key_pem.expose(),
        })?;
        // The mesh does without it, and it is tried again and again.
        if let Err(error) = nats.start().await {
            tracing::warn!(%error, "cannot start nats-server");
        }
        Ok(Some(Storage {
            nats,
            authority,
            nkey: machine.identity.nkey()?,
        }))
    }
}
