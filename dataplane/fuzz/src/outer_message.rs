//! Datagrams from anywhere, against an engine with keys, peers and a session: only what a peer has really said, bit for
//! bit, changes anything; all else is counted.
//!
//! ```text
//!   victim (1)  peers: 2, with a session; 3, without one
//!   stranger (4)  knows the victim's public key and nothing else
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use blake2::digest::consts::U16;
use blake2::digest::{Digest, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use ployz_dataplane::offload::VnetHeader;
use ployz_engine::{DATA_OVERHEAD_LEN, Ecn, Snapshot};

use super::hosts::{Speaker, Victim, address, connect, drops, peer, private_key};
use super::input::Input;

const VICTIM: u8 = 1;
const PEERS: [u8; 2] = [2, 3];
const STRANGER: u8 = 4;
const SPEAKERS: usize = PEERS.len() + 1;

/// Enough to replay, alter and replay again; few enough for many runs a second.
const STEPS_MAX: usize = 48;

/// Lengths of the messages with a fixed one, by type.
const LENGTHS: [usize; 3] = [148, 92, 64];
const RESPONSE_LEN: usize = 92;
const COOKIE_REPLY_LEN: usize = 64;

/// A run of messages, most of them not what they seem.
pub fn outer_message(data: &[u8]) {
    let mut world = World::new();
    let mut input = Input::new(data);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
}

struct World {
    victim: Victim,
    speakers: Vec<Speaker>,
    /// The packets that wait for a session at each speaker, the oldest first.
    staged: [Vec<Vec<u8>>; SPEAKERS],
    genuine: Vec<Genuine>,
}

/// A message that a speaker really made for the victim.
struct Genuine {
    bytes: Vec<u8>,
    /// What a data message holds.
    inner: Vec<u8>,
    is_delivered: bool,
}

impl World {
    fn new() -> Self {
        let peers = vec![
            peer(PEERS[0], &["10.0.0.2/32", "fd00::2/128"]),
            peer(PEERS[1], &["10.0.0.3/32"]),
        ];
        let mut victim = Victim::new(VICTIM, peers);
        let numbers = [PEERS[0], PEERS[1], STRANGER];
        let mut speakers: Vec<Speaker> = numbers.map(|n| Speaker::new(n, VICTIM)).into();
        let said = connect(&mut victim, &mut speakers[0], VICTIM);
        let genuine = said.into_iter().map(|bytes| Genuine {
            bytes,
            inner: Vec::new(),
            is_delivered: true,
        });
        Self {
            victim,
            genuine: genuine.collect(),
            speakers,
            staged: Default::default(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let from = address(2 + input.byte() % 4);
        match input.byte() % 8 {
            0 => {
                let segment_len = Some(usize::from(input.byte()) + 1).filter(|_| input.flag());
                self.deliver(from, input.string(), segment_len, input);
            }
            1 => {
                let message = self.shaped(input);
                self.deliver(from, &message, None, input);
            }
            2 | 3 => {
                let message = self.altered(input);
                self.deliver(from, &message, None, input);
            }
            4 => self.say(0, input),
            5 => self.say(1 + usize::from(input.byte()) % 2, input),
            6 => {
                self.victim.now += Duration::from_millis(input.word().into());
                self.end_turn();
            }
            _ => {
                let destination = 2 + input.byte() % 2;
                let packet = inner(1, destination, input.below(100));
                let read = [&VnetHeader::Whole.to_bytes()[..], &packet].concat();
                self.victim.tun_read(&read);
                self.end_turn();
            }
        }
    }

    /// A speaker makes a message; nobody has delivered it yet.
    fn say(&mut self, speaker: usize, input: &mut Input<'_>) {
        let inner = inner(2 + speaker as u8, 1, input.below(1400));
        let said = self.speakers[speaker].say(self.victim.now, &inner);
        if !said.iter().any(|bytes| bytes[0] == 4) {
            self.staged[speaker].push(inner.clone());
        }
        self.genuine.extend(said.into_iter().map(|bytes| Genuine {
            inner: if bytes[0] == 4 {
                inner.clone()
            } else {
                Vec::new()
            },
            bytes,
            is_delivered: false,
        }));
    }

    /// Rubbish with the shape of a message: its type, its length, an index that exists, its first MAC.
    fn shaped(&self, input: &mut Input<'_>) -> Vec<u8> {
        let kind = input.byte() % 4;
        let len = match LENGTHS.get(usize::from(kind)) {
            Some(len) => *len,
            None => 32 + input.below(1500),
        };
        let mut message = vec![kind + 1, 0, 0, 0];
        message.extend(input.bytes(len - 4));
        message.resize(len, 0);
        if input.flag()
            && let Some(index) = self.index(input)
        {
            let at = if kind == 1 { 8 } else { 4 };
            message[at..at + 4].copy_from_slice(&index);
        }
        if input.flag() {
            seal_mac1(&mut message);
        }
        message
    }

    /// A receiver index that the victim has given out: that of a data message.
    fn index(&self, input: &mut Input<'_>) -> Option<[u8; 4]> {
        let data: Vec<_> = self.genuine.iter().filter(|it| it.bytes[0] == 4).collect();
        let chosen = data.get(usize::from(input.byte()) % data.len().max(1))?;
        chosen.bytes[4..8].try_into().ok()
    }

    /// A genuine message, perhaps altered, cut or extended, and perhaps with its first MAC mended.
    fn altered(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut message = self.genuine[input.below(self.genuine.len())].bytes.clone();
        input.alter(&mut message);
        match input.byte() % 8 {
            0 => message.truncate(input.below(message.len() + 1)),
            1 => message.extend(input.string()),
            2 => seal_mac1(&mut message),
            _ => {}
        }
        message
    }

    /// The victim receives a payload, and nothing happens that should not.
    fn deliver(
        &mut self,
        from: SocketAddr,
        payload: &[u8],
        segment_len: Option<usize>,
        input: &mut Input<'_>,
    ) {
        self.end_turn();
        let before = self.victim.snapshot();
        self.victim
            .receive(from, payload, Ecn::from_bits(input.byte()), segment_len);
        let after = self.victim.snapshot();
        let segments: Vec<&[u8]> = payload
            .chunks(segment_len.unwrap_or(payload.len()).max(1))
            .collect();
        let said = segments.iter().filter(|it| self.is_said(it)).count();
        let writes = self.answer(from, &before, said > 0);
        let lost = drops(&after) - drops(&before);
        assert!(
            lost >= (segments.len() - said) as u64,
            "all rubbish is counted"
        );
        if said == 0 {
            assert!(writes.is_empty(), "rubbish came through");
            assert_unmoved(&before, &after);
        } else if let [message] = segments[..] {
            self.take(message, &writes);
        }
    }

    /// One of the genuine messages, in all that is authenticated.
    fn is_said(&self, message: &[u8]) -> bool {
        self.genuine.iter().any(|it| is_same(&it.bytes, message))
    }

    /// A data message gives its packet, once.
    fn take(&mut self, message: &[u8], writes: &[Vec<u8>]) {
        let Some(genuine) = self.genuine.iter_mut().find(|it| it.bytes == message) else {
            assert!(writes.is_empty(), "handshakes hold no packets");
            return;
        };
        let Some(write) = writes.first() else {
            return;
        };
        assert!(writes.len() == 1 && !genuine.is_delivered, "once");
        assert!(write[VnetHeader::LEN..] == genuine.inner);
        genuine.is_delivered = true;
    }

    /// Ends the turn that began at `before`; what the victim wrote to its TUN. Where no peer is known to be it sends a
    /// cookie at most, and a response if there was something genuine: the peer has to confirm that it is there.
    fn answer(&mut self, from: SocketAddr, before: &Snapshot, is_said: bool) -> Vec<Vec<u8>> {
        let (datagrams, writes) = self.victim.end_turn();
        let after = self.victim.snapshot();
        let mut peers = before.peers.iter().chain(&after.peers);
        let is_known = peers.any(|peer| peer.endpoint == Some(from));
        for datagram in datagrams {
            if datagram.to == from && !is_known {
                let len = datagram.bytes.len();
                assert!(len == COOKIE_REPLY_LEN || is_said && len == RESPONSE_LEN);
            }
            self.hear(datagram.to, &datagram.bytes);
        }
        writes
    }

    fn end_turn(&mut self) {
        let (datagrams, writes) = self.victim.end_turn();
        assert!(writes.is_empty(), "nothing was received");
        for datagram in datagrams {
            self.hear(datagram.to, &datagram.bytes);
        }
    }

    /// Whoever is at `to` answers, and the answer is delivered when the input says so.
    fn hear(&mut self, to: SocketAddr, datagram: &[u8]) {
        let Some(index) = self.speakers.iter().position(|it| it.at == to) else {
            return;
        };
        let (said, _) = self.speakers[index].hear(self.victim.now, VICTIM, datagram);
        let inner = take_flushed(&mut self.staged[index], &said);
        let genuine = said.into_iter().zip(inner).map(|(bytes, inner)| Genuine {
            bytes,
            inner,
            is_delivered: false,
        });
        self.genuine.extend(genuine);
    }
}

/// The packets in `said`, empty where there is none. Once a speaker has a session all that waited for it leaves, in
/// order and behind everything else; no answer of another kind is as long as the last packet that waited.
fn take_flushed(staged: &mut Vec<Vec<u8>>, said: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut inner = vec![Vec::new(); said.len()];
    let Some(first) = said.len().checked_sub(staged.len()) else {
        return inner;
    };
    let holds = |(message, packet): (&Vec<u8>, &Vec<u8>)| {
        message[0] == 4 && message.len() == packet.len() + DATA_OVERHEAD_LEN
    };
    if said[first..].iter().zip(&*staged).all(holds) {
        inner.splice(first.., staged.drain(..));
    }
    inner
}

/// What nobody has authenticated leaves no trace but in the counters.
fn assert_unmoved(before: &Snapshot, after: &Snapshot) {
    for (before, after) in before.peers.iter().zip(&after.peers) {
        assert_eq!(before.rx_bytes, after.rx_bytes);
        assert_eq!(before.endpoint, after.endpoint);
        assert_eq!(before.last_handshake, after.last_handshake);
    }
}

/// The noise of a handshake message vouches for neither the sender's index nor the MACs; those are against floods only.
fn is_same(genuine: &[u8], message: &[u8]) -> bool {
    let vouched = match (genuine[0], genuine.len()) {
        (1, 148) => 8..116,
        (2, 92) => 8..60,
        _ => 0..genuine.len(),
    };
    genuine.len() == message.len()
        && genuine[..4] == message[..4]
        && genuine[vouched.clone()] == message[vouched]
}

/// The first MAC is keyed with the victim's public key: anybody can make it.
fn seal_mac1(message: &mut [u8]) {
    let macs = match message.len() {
        148 => 116,
        92 => 60,
        _ => return,
    };
    let mut hash = <Blake2s256 as Digest>::new();
    Digest::update(&mut hash, b"mac1----");
    Digest::update(&mut hash, private_key(VICTIM).public_key().as_bytes());
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&hash.finalize());
    let mac = mac
        .expect("32 bytes are a key")
        .chain_update(&message[..macs]);
    message[macs..macs + 16].copy_from_slice(&mac.finalize().into_bytes());
}

/// An IPv4 packet of no protocol in particular.
fn inner(from: u8, to: u8, payload_len: usize) -> Vec<u8> {
    let len = 20 + payload_len as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    packet.resize(len.into(), 0xab);
    packet
}
