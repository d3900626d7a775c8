//! Changes to the configuration, whole or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::engine::{Engine, Keys, Recent};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::peer_id::PeerId;
use crate::sink::Sink;
use crate::tunnel::{Gate, Identity, Tai64n, Tunnel};
use crate::update::{AllowedIpChange, MAX_PEERS, PeerUpdate, Update, UpdateError};

/// A peer's clock may be ahead of ours by so much; for as long at most it is refused if it is set back.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(600);

impl Engine {
    /// Applies `update`. Listen port and mark are the driver's business and are not looked at. Whether it can be
    /// applied does not depend on the shard: all engines of an interface that were told the same take it, or none.
    ///
    /// # Errors
    /// [`UpdateError::TooManyPeers`]; nothing was changed then.
    pub fn apply(
        &mut self,
        now: Instant,
        update: &Update,
        sink: &mut impl Sink,
    ) -> Result<(), UpdateError> {
        self.check_room(update)?;
        self.recent = Recent::default();
        if let Some(private_key) = &update.private_key {
            self.set_private_key(private_key.as_ref());
        }
        if update.replace_peers {
            for id in self.peers.ids().to_vec() {
                self.remove_peer(id);
            }
        }
        for peer in &update.peers {
            self.apply_peer(now, peer, sink);
        }
        Ok(())
    }

    fn check_room(&self, update: &Update) -> Result<(), UpdateError> {
        let kept = if update.replace_peers {
            0
        } else {
            self.peers.len()
        };
        let named: BTreeSet<&PublicKey> = update
            .peers
            .iter()
            .filter(|peer| !peer.remove && !peer.update_only)
            .map(|peer| &peer.public_key)
            .filter(|key| update.replace_peers || self.peers.by_key(key).is_none())
            .collect();
        if kept + named.len() > MAX_PEERS {
            Err(UpdateError::TooManyPeers)
        } else {
            Ok(())
        }
    }

    /// A new key ends every session: the peers know us by the old one. A peer with our own key is dropped.
    fn set_private_key(&mut self, private_key: Option<&PrivateKey>) {
        let unchanged = match (&self.keys, &private_key) {
            (Some(keys), Some(new)) => keys.identity.private_key().expose() == new.expose(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if unchanged {
            return;
        }
        self.keys = private_key.map(|key| {
            let identity = Arc::new(Identity::new(key.copy()));
            let gate = Gate::new(&identity, &mut self.sources);
            Keys { identity, gate }
        });
        if let Some(own) = self.public_key().and_then(|key| self.peers.by_key(&key)) {
            self.remove_peer(own);
        }
        for id in self.peers.ids().to_vec() {
            self.renew_tunnel(id);
        }
    }

    fn apply_peer(&mut self, now: Instant, update: &PeerUpdate, sink: &mut impl Sink) {
        let known = self.peers.by_key(&update.public_key);
        if update.remove {
            if let Some(id) = known {
                self.remove_peer(id);
            }
            return;
        }
        let id = match known {
            Some(id) => id,
            None if update.update_only || self.public_key() == Some(update.public_key) => return,
            None => {
                let id = self.peers.insert(update.public_key, now, &mut self.sources);
                self.renew_tunnel(id);
                id
            }
        };
        if let Some(preshared_key) = &update.preshared_key {
            self.set_preshared_key(id, preshared_key.as_ref());
        }
        if let Some(remote) = update.endpoint {
            self.set_endpoint(id, remote);
        }
        if let Some(taken) = update.newest_initiation {
            self.set_newest_initiation(id, taken);
        }
        if update.replace_allowed_ips {
            self.clear_allowed_ips(id);
        }
        for change in &update.allowed_ips {
            self.change_allowed_ip(id, *change);
        }
        if let Some(seconds) = update.persistent_keepalive_secs {
            self.set_persistent_keepalive(now, id, seconds, sink);
        }
        if self.peers.get(id).staged.len() > 0 {
            self.initiate(now, id, sink);
        }
    }

    /// The preshared key is part of the handshake: a session that there is goes on until the next.
    fn set_preshared_key(&mut self, id: PeerId, preshared_key: Option<&PresharedKey>) {
        let peer = self.peers.get_mut(id);
        let former = peer.preshared_key.as_ref().map(PresharedKey::expose);
        if former != preshared_key.map(PresharedKey::expose) {
            peer.preshared_key = preshared_key.map(PresharedKey::copy);
            if let Some(tunnel) = &mut peer.tunnel {
                tunnel.set_preshared_key(preshared_key);
            }
        }
    }

    /// An endpoint that is set to what it is keeps its sticky source address.
    fn set_endpoint(&mut self, id: PeerId, remote: std::net::SocketAddr) {
        let endpoint = &mut self.peers.get_mut(id).endpoint;
        if endpoint.is_none_or(|current| current.remote != remote) {
            *endpoint = Some(Endpoint::configured(remote));
        }
    }

    /// A timestamp from further in the future is left out: a peer whose clock was wrong for a while would be refused
    /// until then. What that lets in can move no endpoint, since it is unproven.
    fn set_newest_initiation(&mut self, id: PeerId, taken: Tai64n) {
        let latest = (self.sources.unix_time)().saturating_add(CLOCK_SKEW_MAX);
        if let Some(tunnel) = &mut self.peers.get_mut(id).tunnel
            && taken <= Tai64n::new(latest)
        {
            tunnel.set_newest_initiation(taken);
        }
    }

    fn set_persistent_keepalive(
        &mut self,
        now: Instant,
        id: PeerId,
        seconds: u16,
        sink: &mut impl Sink,
    ) {
        let peer = self.peers.get_mut(id);
        let was_off = peer.persistent_keepalive.is_none();
        peer.persistent_keepalive = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
        if seconds > 0 && peer.tunnel.is_some() {
            let reachable = peer.endpoint.is_some();
            self.wake(now, id);
            if was_off && reachable {
                self.send_keepalive(now, id, sink);
            }
        }
    }

    fn change_allowed_ip(&mut self, id: PeerId, change: AllowedIpChange) {
        match change {
            AllowedIpChange::Add(prefix) => {
                let prefix = prefix.trunc();
                self.note_move(prefix);
                let former = self.allowed_ips.insert(prefix, id);
                if let Some(former) = former.filter(|former| *former != id) {
                    self.peers.get_mut(former).allowed_ips.remove(&prefix);
                }
                self.peers.get_mut(id).allowed_ips.insert(prefix);
            }
            AllowedIpChange::Remove(prefix) => {
                let prefix = prefix.trunc();
                if self.allowed_ips.remove(prefix, id) {
                    self.note_move(prefix);
                    self.peers.get_mut(id).allowed_ips.remove(&prefix);
                }
            }
        }
    }

    fn clear_allowed_ips(&mut self, id: PeerId) {
        for prefix in std::mem::take(&mut self.peers.get_mut(id).allowed_ips) {
            self.allowed_ips.remove(prefix, id);
            self.note_move(prefix);
        }
    }

    fn remove_peer(&mut self, id: PeerId) {
        self.clear_allowed_ips(id);
        self.awake.retain(|other| *other != id);
        self.peers.remove(id);
        self.awaited.forget(id);
        self.bursts.forget(id);
    }

    /// Gives a peer a tunnel without sessions, if there can be one and the peer is at home here.
    fn renew_tunnel(&mut self, id: PeerId) {
        self.peers.reindex(id, &mut self.sources);
        let peer = self.peers.get_mut(id);
        let is_home = peer.home == self.shard_map.shard();
        peer.last_initiation = None;
        peer.tunnel = match &self.keys {
            Some(keys) if is_home => Tunnel::new(&keys.identity, &peer.public_key, peer.index),
            Some(_) | None => None,
        };
        if let Some(tunnel) = &mut peer.tunnel {
            tunnel.set_preshared_key(peer.preshared_key.as_ref());
        }
    }
}
