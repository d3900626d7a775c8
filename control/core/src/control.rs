//! The control task without I/O.
//!
//! The driver passes in changes of the store and the time, carries out the effects, and calls
//! [`Control::handle_timeout`] when [`Control::poll_timeout`] says so:
//!
//! ```text
//!   handle(Input, now) ─┐                      ┌─ Distrust   end the connections of those believed no more
//!                       │                      ├─ Configure  the data plane
//!                       │                      ├─ Admit      to the store, where it is here
//!                       ├─▶ Control ─ effect ──┼─ Save       the view, for a start without the store
//!   handle_timeout(now)─┘   poll_effect()      ├─ Resync     watch the store anew, from a full listing
//!                                              ├─ Observe    tell the store how this machine is
//!                                              └─ Listen     hear from the data plane who has a session
//! ```
//!
//! A watch can die without a word, so changes are hints: what counts is a full listing every `RESYNC_INTERVAL`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ployz_api::MachineId;
use ployz_engine::{PeerUpdate, PublicKey, Tai64n};

use crate::attempts::Attempts;
use crate::credentials::CredentialRecord;
use crate::machines::{MachineRecord, ObservedRecord};
use crate::peers::{PeerPlan, changes, plan};
use crate::view::{SavedView, View};

/// How long a dead watch can go unnoticed. 200 machines make ten listings a second of it.
const RESYNC_INTERVAL: Duration = Duration::from_secs(20);
/// How soon a store is listed again that says less than is known.
const OLDER_WAIT: Duration = Duration::from_secs(2);
/// How often a machine says how it is.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a new initiation can go unsaved: a listing saves the view as often, while the store answers. After a crash
/// a recording of one that was not saved is answered, and moves no endpoint: the engine has no proof of it.
const SAVE_INTERVAL: Duration = RESYNC_INTERVAL;

/// How soon it is noticed that there is no session.
const LISTEN_INTERVAL: Duration = Duration::from_secs(5);

/// The time, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For intervals.
    pub instant: Instant,
    /// For ages that outlive the process; seconds since 1970.
    pub unix_secs: u64,
}

/// An event for the control task.
#[derive(Debug)]
pub enum Input {
    /// The view that was on disk.
    Restored(SavedView),
    /// All machines, each with the revision of its record.
    Listed(Vec<(MachineRecord, u64)>),
    /// News of one.
    Changed(Change),
    /// With whom there is a session, and where they are.
    Sessions(BTreeMap<PublicKey, SocketAddr>),
    /// The newest initiation that was taken from each peer.
    Initiations(BTreeMap<PublicKey, Tai64n>),
}

/// News from the store.
#[derive(Debug)]
pub enum Change {
    /// A machine is as it now is.
    Machine(Box<MachineRecord>, u64),
    /// A machine is no more.
    MachineGone(MachineId, u64),
    /// A machine has said something of itself, which the store got at this time (seconds since 1970).
    Observed(ObservedRecord, u64),
    /// A credential is as it now is.
    Credential(CredentialRecord),
}

/// An effect for the driver to carry out.
#[derive(Debug)]
pub enum Effect {
    /// Somebody is believed no more: end what they have begun.
    Distrust,
    /// Change these peers.
    Configure(Vec<PeerUpdate>),
    /// Let exactly these machines connect to the store, each with its key.
    Admit(BTreeMap<MachineId, String>),
    /// Write the view to disk: [`View::saved`].
    Save,
    /// Watch the store anew.
    Resync,
    /// Say how this machine is.
    Observe,
    /// Ask the data plane with whom there is a session.
    Listen,
}

/// The control task of one machine.
#[derive(Debug)]
pub struct Control {
    own: MachineId,
    view: View,
    peers: BTreeMap<PublicKey, PeerPlan>,
    attempts: Attempts,
    nkeys: BTreeMap<MachineId, String>,
    effects: VecDeque<Effect>,
    resync_at: Instant,
    observe_at: Instant,
    listen_at: Instant,
    saved_at: Instant,
    /// Initiations have been taken since.
    has_unsaved: bool,
    /// Whether the last listing was older than what is known.
    is_older: bool,
}

impl Control {
    /// A task that knows nothing yet and is due for everything.
    pub fn new(own: MachineId, now: Now) -> Self {
        Self {
            own,
            view: View::default(),
            peers: BTreeMap::new(),
            attempts: Attempts::default(),
            nkeys: BTreeMap::new(),
            effects: VecDeque::new(),
            resync_at: now.instant,
            observe_at: now.instant,
            listen_at: now.instant + LISTEN_INTERVAL,
            saved_at: now.instant,
            has_unsaved: false,
            is_older: false,
        }
    }

    /// The current view.
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// Something has happened.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Restored(saved) => self.restore(saved),
            Input::Listed(machines) => self.list(machines, now),
            Input::Changed(Change::Machine(record, revision)) => {
                self.record_machine(*record, revision, now);
                self.reconcile();
                self.save(now);
            }
            Input::Changed(Change::MachineGone(id, revision)) => {
                let known = self.view.machines.get(&id);
                if known.is_some_and(|(_, known)| *known < revision) {
                    self.view.newest = (revision, now.unix_secs);
                    self.view.machines.remove(&id);
                    self.view.observed.remove(&id);
                    self.effects.push_back(Effect::Distrust);
                    self.reconcile();
                    self.save(now);
                }
            }
            Input::Sessions(sessions) => {
                let updates = self
                    .attempts
                    .handle_sessions(&self.peers, &sessions, now.instant);
                if !updates.is_empty() {
                    self.effects.push_back(Effect::Configure(updates));
                }
                if self.view.record_sessions(&sessions) {
                    self.save(now);
                }
            }
            Input::Initiations(taken) => {
                self.has_unsaved |= self.view.record_initiations(&taken);
                let age = now.instant.saturating_duration_since(self.saved_at);
                if self.has_unsaved && age >= SAVE_INTERVAL {
                    self.save(now);
                }
            }
            Input::Changed(Change::Observed(record, at)) => {
                self.view.observed.insert(record.id, (record, at));
            }
            Input::Changed(Change::Credential(record)) => {
                // What was taken back stays so, in whatever order news comes.
                if record.revoked_at.is_some() && self.view.revoked.insert(record.id) {
                    self.effects.push_back(Effect::Distrust);
                    self.reconcile();
                    self.save(now);
                }
            }
        }
    }

    /// Call when the time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Now) {
        if now.instant >= self.resync_at {
            self.resync_at = now.instant + RESYNC_INTERVAL;
            self.effects.push_back(Effect::Resync);
        }
        if now.instant >= self.observe_at {
            self.observe_at = now.instant + OBSERVE_INTERVAL;
            self.effects.push_back(Effect::Observe);
        }
        if now.instant >= self.listen_at {
            self.listen_at = now.instant + LISTEN_INTERVAL;
            self.effects.push_back(Effect::Listen);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Instant {
        self.resync_at.min(self.observe_at).min(self.listen_at)
    }

    /// The next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn restore(&mut self, saved: SavedView) {
        // What is said of where they are is where they were last, which their records need not know.
        let updates = saved.peers(self.own);
        if !updates.is_empty() {
            self.effects.push_back(Effect::Configure(updates));
        }
        self.peers = plan(self.own, saved.machines.iter());
        self.view.roamed.extend(saved.roamed);
        self.view.initiations.extend(saved.initiations);
        // Revision 0 is older than every record in the store.
        for record in saved.machines {
            self.view.machines.entry(record.id).or_insert((record, 0));
        }
        self.view.revoked.extend(saved.revoked);
        self.view.confirmed_at = self.view.confirmed_at.max(saved.confirmed_at);
        self.reconcile();
    }

    fn list(&mut self, machines: Vec<(MachineRecord, u64)>, now: Now) {
        let listed: BTreeMap<MachineId, u64> = machines
            .iter()
            .map(|(record, revision)| (record.id, *revision))
            .collect();
        let mut known = self.view.machines.keys();
        let has_gone = known.any(|id| !listed.contains_key(id));
        // Revisions only go back when the store was restored from a copy: then what was heard since does not count.
        let newest = listed.values().copied().max().unwrap_or(0);
        // Or a server of the store is behind the others, which passes.
        if newest < self.view.newest.0 {
            if !std::mem::replace(&mut self.is_older, true) {
                self.resync_at = self.resync_at.min(now.instant + OLDER_WAIT);
                return;
            }
            self.view.machines.clear();
            self.view.newest = (0, 0);
        }
        self.is_older = false;
        if has_gone {
            self.effects.push_back(Effect::Distrust);
        }
        self.view.machines.retain(|id, _| listed.contains_key(id));
        self.view.observed.retain(|id, _| listed.contains_key(id));
        for (record, revision) in machines {
            self.record_machine(record, revision, now);
        }
        self.view.confirmed_at = now.unix_secs;
        self.reconcile();
        self.save(now);
    }

    /// A listing and a watch may overtake each other: only what is newer counts.
    fn record_machine(&mut self, record: MachineRecord, revision: u64, now: Now) {
        if revision > self.view.newest.0 {
            self.view.newest = (revision, now.unix_secs);
        }
        let known = self.view.machines.get(&record.id);
        if known.is_none_or(|(_, known)| *known < revision) {
            self.view.machines.insert(record.id, (record, revision));
        }
    }

    /// Draws the consequences of a new view.
    fn reconcile(&mut self) {
        let peers = plan(self.own, self.view.machines());
        let updates = changes(&self.peers, &peers);
        let moved = updates.iter().filter(|update| update.endpoint.is_some());
        for update in moved {
            self.attempts.restart(&update.public_key);
        }
        self.peers = peers;
        if !updates.is_empty() {
            self.effects.push_back(Effect::Configure(updates));
        }
        let nkeys: BTreeMap<MachineId, String> = self
            .view
            .machines()
            .map(|machine| (machine.id, machine.nkey.clone()))
            .collect();
        if nkeys != self.nkeys {
            self.nkeys.clone_from(&nkeys);
            self.effects.push_back(Effect::Admit(nkeys));
        }
    }

    fn save(&mut self, now: Now) {
        self.saved_at = now.instant;
        self.has_unsaved = false;
        self.effects.push_back(Effect::Save);
    }
}

#[cfg(test)]
mod tests;
