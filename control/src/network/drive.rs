//! The control task: it passes events to `core::Control`, and carries out the effects that this returns.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ployz_core::{Effect, Input};
use tokio::sync::mpsc;

use crate::host::clock;
use crate::nats::{self, NatsError, Settings};
use crate::network::error::NetworkError;
use crate::network::host::Host;
use crate::network::state::{Network, Storage};

/// Changes that wait while earlier ones are applied to the data plane. A listing counts as one.
const CHANGES_MAX: usize = 64;
/// The interval at which refusals of the store's server are counted.
const LOG_POLL: Duration = Duration::from_secs(1);

impl Network {
    /// Runs the control task. Ends only if this machine cannot carry out an effect.
    pub(crate) async fn run(self: Rc<Self>, host: &impl Host) -> Result<(), NetworkError> {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        tokio::select! {
            result = self.drive(host, receiver) => result,
            () = self.follow(sender) => Ok(()),
            () = self.report(host) => Ok(()),
            () = self.tell_servers() => Ok(()),
            () = self.supervise() => Ok(()),
            () = self.count_refusals(host) => Ok(()),
        }
    }

    async fn drive(
        &self,
        host: &impl Host,
        mut news: mpsc::Receiver<Input>,
    ) -> Result<(), NetworkError> {
        loop {
            while let Some(effect) = self.next_effect() {
                self.carry_out(host, effect).await?;
            }
            let deadline = self.control.borrow().poll_timeout();
            tokio::select! {
                () = self.heartbeat.answer() => {}
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.control.borrow_mut().handle_timeout(clock::now());
                }
                Some(input) = news.recv() => {
                    let is_listing = matches!(input, Input::Listed(_));
                    self.control.borrow_mut().handle(input, clock::now());
                    self.listed.set(self.listed.get() || is_listing);
                }
            }
        }
    }

    fn next_effect(&self) -> Option<Effect> {
        self.control.borrow_mut().poll_effect()
    }

    async fn carry_out(&self, host: &impl Host, effect: Effect) -> Result<(), NetworkError> {
        match effect {
            Effect::Distrust => self.distrust.send_replace(()),
            Effect::Configure(peers) => host.change_peers(peers).await?,
            Effect::Admit(nkeys) => {
                let admitted = nkeys.keys().copied().collect();
                if let Some(storage) = &self.storage {
                    let settings = self.nats_settings(storage)?;
                    storage.nats.configure(&settings)?;
                }
                // Effects that configure peers come before this one.
                self.admitted.send_replace(admitted);
            }
            // The mesh works without it; the next start may have an older view.
            Effect::Save => {
                if let Err(error) = host.save(&self.view()) {
                    tracing::warn!(%error, "cannot save the view");
                }
                self.update_servers();
            }
            Effect::Resync => self.resync.notify_one(),
            Effect::Observe => self.observe.notify_one(),
            Effect::Listen => self.read_contacts(host).await,
        }
        Ok(())
    }

    /// Passes what the data plane knows of its peers to the control task.
    async fn read_contacts(&self, host: &impl Host) {
        match host.contacts().await {
            Ok(contacts) => {
                let mut control = self.control.borrow_mut();
                control.handle(Input::Initiations(contacts.initiations), clock::now());
                control.handle(Input::Sessions(contacts.sessions), clock::now());
            }
            // The control task asks again; the end of the data plane ends the daemon elsewhere.
            Err(error) => tracing::debug!(%error, "cannot read the sessions"),
        }
    }

    /// Saves the view as it is when the daemon stops: the next one begins with it.
    pub(crate) async fn save_last(&self, host: &impl Host) {
        self.read_contacts(host).await;
        if let Err(error) = host.save(&self.view()) {
            tracing::warn!(%error, "cannot save the view");
        }
    }

    fn nats_settings(&self, storage: &Storage) -> Result<Settings, NatsError> {
        let own = nats::own_user(self.own, storage.nkey.clone());
        let membership = &self.membership;
        let place = membership.store_location();
        let view = self.view();
        nats::store_settings(
            own,
            membership,
            &storage.authority,
            &place,
            None,
            view.machines(),
        )
    }

    /// Updates the addresses of the store from the records of its holders: a machine that was away during a change
    /// finds the store as long as one of the former holders is still one.
    fn update_servers(&self) {
        let mut servers: BTreeSet<_> = self.membership.store.iter().copied().collect();
        servers.extend(self.view().store_servers());
        self.servers.send_if_modified(|known| {
            let is_new = *known != servers;
            *known = servers;
            is_new
        });
    }

    /// Tells the store's client where the store is: beside the control task, because a client that is looking for the
    /// store takes nothing in until it has found it. Never returns.
    async fn tell_servers(&self) {
        let mut servers = self.servers.subscribe();
        while servers.changed().await.is_ok() {
            let all: Vec<_> = servers.borrow_and_update().iter().copied().collect();
            self.store.set_servers(&all).await;
        }
    }

    /// Keeps the store's server running, where it is here. Never returns.
    async fn supervise(&self) {
        match &self.storage {
            Some(storage) => storage.nats.supervise().await,
            None => std::future::pending().await,
        }
    }

    /// Counts the clients that the store's server on this machine refuses. Never returns.
    async fn count_refusals(&self, host: &impl Host) {
        let Some(storage) = &self.storage else {
            return std::future::pending().await;
        };
        let mut log = storage.nats.log();
        loop {
            tokio::time::sleep(LOG_POLL).await;
            for said in log.refusals() {
                host.store_refused(&said);
            }
        }
    }
}
