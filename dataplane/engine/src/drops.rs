//! Why a packet or a datagram was not passed on. Hostile input costs a counter and nothing else.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $key:literal,)+) => {
        /// A reason to drop.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Drop {
            $($(#[$doc])* $name,)+
        }

        impl Drop {
            /// Every reason, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name in metrics and status, `snake_case`.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)+ }
            }
        }
    };
}

reasons! {
    /// Inner packet that is no IP packet, or shorter than its header says.
    MalformedPacket => "malformed_packet",
    /// Inner packet whose destination is in no peer's allowed IPs.
    NoPeer => "no_peer",
    /// Inner packet for a peer whose endpoint is unknown.
    NoEndpoint => "no_endpoint",
    /// Inner packet while the interface has no private key, or for a public key that no handshake is possible with.
    NoKey => "no_key",
    /// Inner packet that is our own datagram to that peer: it would circle for ever.
    RoutingLoop => "routing_loop",
    /// Inner packet that does not fit through the path to its peer; its sender was told (ICMP).
    PacketTooBig => "packet_too_big",
    /// Staged packet pushed out by a newer one.
    StagedOverflow => "staged_overflow",
    /// Staged packet whose handshake was given up.
    HandshakeTimeout => "handshake_timeout",
    /// Datagram that is no WireGuard message.
    MalformedMessage => "malformed_message",
    /// Message with a receiver index that is no peer's, or of a session that is over.
    UnknownSession => "unknown_session",
    /// Handshake message whose first MAC is wrong: its sender does not know our public key.
    BadMac => "bad_mac",
    /// Handshake message answered with a cookie because too many arrive.
    UnderLoad => "under_load",
    /// Handshake message that was one too many: of a peer, of an address that has a cookie, or for the cookie replies
    /// that may be sent.
    Flood => "flood",
    /// Handshake initiation from a public key that is no peer's.
    UnknownPeer => "unknown_peer",
    /// Handshake message that does not authenticate, is out of turn, was taken before, or is older than the last one.
    BadHandshake => "bad_handshake",
    /// Data message that does not authenticate.
    BadTag => "bad_tag",
    /// Data message seen before, or too old to tell.
    Replay => "replay",
    /// Inner packet with a source address that is not the sender's to use.
    Spoof => "spoof",
    /// Datagram that could not be sent: no route, no such source address, or the network is down.
    SendFailed => "send_failed",
    /// Inner packet that was queued for the shard which its prefix belonged to a moment before.
    WrongShard => "wrong_shard",
    /// Handshake message for another shard that has too many waiting.
    Handoff => "hand_over",
    /// Packet or datagram for which no buffer was free.
    NoBuffer => "no_buffer",
    /// Packet that the TUN did not take.
    TunFailed => "tun_failed",
    /// Inner packet not capable of ECN that crossed a congested path (RFC 6040, section 4.2).
    EcnCongestion => "ecn_congestion",
}

/// A counter for each reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; Drop::ALL.len()]);

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: Drop) {
        self.0[reason as usize] += 1;
    }

    /// Counts several.
    pub fn count_many(&mut self, reason: Drop, n: usize) {
        self.0[reason as usize] += n as u64;
    }

    /// The number that were dropped for this reason.
    pub fn get(&self, reason: Drop) -> u64 {
        self.0[reason as usize]
    }

    /// Reasons and counts, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Drop, u64)> + '_ {
        Drop::ALL.iter().map(|&reason| (reason, self.get(reason)))
    }

    /// Adds another set of counters to this one.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_kept_apart_and_merge() {
        let mut a = Drops::default();
        a.count(Drop::Spoof);
        a.count_many(Drop::Replay, 3);
        let mut b = a.clone();
        b.merge(&a);
        for (reason, n) in b.iter() {
            let expected = match reason.key() {
                "spoof" => 2,
                "replay" => 6,
                _ => 0,
            };
            assert_eq!(n, expected, "{}", reason.key());
        }
    }
}
