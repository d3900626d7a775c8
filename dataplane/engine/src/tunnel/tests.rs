//! Tunnels against each other, against boringtun's, and against bad weather.

mod secrets;
mod twin;
mod weather;

use ployz_aead::TAG_LEN;

use super::*;
use crate::key::PrivateKey;
use crate::message::{self, DATA_HEADER_LEN};
use crate::sealing::in_place;
use crate::tests::{clock, sources};

/// One end.
struct End {
    tunnel: Tunnel,
    identity: Arc<Identity>,
    sources: Sources,
}

impl End {
    /// The end with key `n`, to the one with key `peer`.
    fn new(n: u8, peer: u8) -> Self {
        let identity = Arc::new(Identity::new(PrivateKey::from_bytes([n; 32])));
        let peer = PrivateKey::from_bytes([peer; 32]).public_key();
        Self {
            tunnel: Tunnel::new(&identity, &peer, n.into()).unwrap(),
            identity,
            sources: sources(n.into()),
        }
    }

    fn initiate(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut message = [0; HANDSHAKE_INITIATION_LEN];
        let tunnel = &mut self.tunnel;
        let is_written = tunnel.initiate(now, &mut self.sources, &mut message);
        is_written.then(|| message.to_vec())
    }

    fn respond(&mut self, now: Instant, initiation: &[u8]) -> Result<Vec<u8>, Drop> {
        let claim = Claim::read(&self.identity, initiation)?;
        let mut message = [0; HANDSHAKE_RESPONSE_LEN];
        let (tunnel, sources) = (&mut self.tunnel, &mut self.sources);
        tunnel.respond(now, sources, &claim, initiation, &mut message)?;
        Ok(message.to_vec())
    }

    fn seal(&mut self, now: Instant, packet: &[u8]) -> Vec<u8> {
        let mut message = vec![0; packet.len() + DATA_OVERHEAD_LEN];
        self.tunnel.seal(now, packet, &mut message);
        message
    }

    fn open(&mut self, now: Instant, datagram: &[u8]) -> Result<Vec<u8>, Drop> {
        let Some(message::Message::Data {
            receiver_index,
            counter,
        }) = message::Message::parse(datagram)
        else {
            panic!("this is no data: {datagram:02x?}")
        };
        let mut opened = datagram.to_vec();
        let key = self.tunnel.receiving_key(now, receiver_index)?;
        let messages = &mut in_place(&mut opened, datagram.len())[..1];
        if !key.open(messages).contains(0) {
            return Err(Drop::BadTag);
        }
        let packet = &opened[DATA_HEADER_LEN..datagram.len() - TAG_LEN];
        self.tunnel
            .accept(now, receiver_index, counter, packet.len())?;
        Ok(packet.to_vec())
    }

    fn tick(&mut self, now: Instant) -> (Tick, Vec<u8>) {
        let mut message = [0; HANDSHAKE_INITIATION_LEN];
        let tick = self.tunnel.tick(now, &mut self.sources, &mut message);
        let len = if let Tick::Send(len) = tick { len } else { 0 };
        (tick, message[..len].to_vec())
    }
}

/// Two ends, of which `a` has initiated a session that both use.
fn ends(now: Instant) -> (End, End) {
    let (mut a, mut b) = (End::new(1, 2), End::new(2, 1));
    let initiation = a.initiate(now).unwrap();
    let response = b.respond(now, &initiation).unwrap();
    a.tunnel.complete(now, &response).unwrap();
    assert!(a.tunnel.is_ready(now) && !b.tunnel.is_ready(now));
    let first = a.seal(now, &[]);
    assert_eq!(b.open(now, &first), Ok(Vec::new()));
    assert!(b.tunnel.is_ready(now));
    (a, b)
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn initiations_that_are_not_newer_are_not_answered() {
    let now = clock();
    let (mut a, mut b) = (End::new(1, 2), End::new(2, 1));
    let first = a.initiate(now).unwrap();
    let second = a.initiate(now + REKEY_TIMEOUT).unwrap();
    assert!(b.respond(now, &second).is_ok());
    assert_eq!(b.respond(now, &second), Err(Drop::BadHandshake));
    assert_eq!(b.respond(now, &first), Err(Drop::BadHandshake));
}

#[test]
fn initiations_that_cross_make_a_session_at_once() {
    let now = clock();
    let (mut a, mut b) = (End::new(1, 2), End::new(2, 1));
    let (from_a, from_b) = (a.initiate(now).unwrap(), b.initiate(now).unwrap());
    let to_a = b.respond(now, &from_a).unwrap();
    let to_b = a.respond(now, &from_b).unwrap();
    a.tunnel.complete(now, &to_a).unwrap();
    b.tunnel.complete(now, &to_b).unwrap();
    for _ in 0..3 {
        let there = a.seal(now, b"there");
        assert_eq!(b.open(now, &there).as_deref(), Ok(&b"there"[..]));
        let back = b.seal(now, b"back");
        assert_eq!(a.open(now, &back).as_deref(), Ok(&b"back"[..]));
    }
}

#[test]
fn a_handshake_message_is_for_one_handshake() {
    let now = clock();
    let (mut a, mut b) = (End::new(1, 2), End::new(2, 1));
    let initiation = a.initiate(now).unwrap();
    let response = b.respond(now, &initiation).unwrap();
    for at in 0..response.len() - 32 {
        let mut forged = response.clone();
        forged[at] ^= 1;
        // Type, and the index of the sender, are nothing that the responder signs.
        let is_signed = at >= 8;
        let mut other = End::new(1, 2);
        assert_eq!(other.initiate(now).as_ref(), Some(&initiation));
        assert_eq!(other.tunnel.complete(now, &forged).is_err(), is_signed);
    }
    assert_eq!(a.tunnel.complete(now, &response), Ok(()));
    let again = a.tunnel.complete(now, &response);
    assert_eq!(again, Err(Drop::BadHandshake));
    for at in 8..initiation.len() - 32 {
        let mut forged = initiation.clone();
        forged[at] ^= 1;
        assert!(End::new(2, 1).respond(now, &forged).is_err(), "{at}");
    }
}

#[test]
fn a_counter_is_taken_once_even_within_a_batch() {
    let now = clock();
    let (mut a, mut b) = ends(now);
    let datagram = a.seal(now, b"once");
    let (index, counter) = (message::sender_index(&datagram).unwrap(), 1);
    let tunnel = &mut b.tunnel;
    assert!(tunnel.receiving_key(now, index).is_ok());
    assert_eq!(tunnel.accept(now, index, counter, 4), Ok(false));
    assert_eq!(tunnel.accept(now, index, counter, 4), Err(Drop::Replay));
    let stray = tunnel.receiving_key(now, index + 1).err();
    assert_eq!(stray, Some(Drop::UnknownSession));
}

#[test]
fn handshakes_that_come_to_nothing_leave_the_session_alone() {
    let now = clock();
    let (mut a, mut b) = ends(now);
    for n in 1..600 {
        let initiation = a.initiate(now + seconds(5 * n)).unwrap();
        b.respond(now, &initiation).unwrap();
    }
    let packet = b.seal(now, b"still here");
    assert_eq!(a.open(now, &packet).as_deref(), Ok(&b"still here"[..]));
    let packet = a.seal(now, b"here as well");
    assert_eq!(b.open(now, &packet).as_deref(), Ok(&b"here as well"[..]));
}

#[test]
fn indices_say_whose_they_are() {
    let (mut a, mut b) = (End::new(1, 2), End::new(2, 1));
    let start = clock();
    for n in 0..300 {
        let now = start + seconds(5 * n);
        let initiation = a.initiate(now).unwrap();
        assert_eq!(message::sender_index(&initiation).unwrap() >> 8, 1);
        let response = b.respond(now, &initiation).unwrap();
        assert_eq!(message::sender_index(&response).unwrap() >> 8, 2);
    }
}

#[test]
fn the_initiator_renews_what_it_sends_on_and_late_messages_still_arrive() {
    let start = clock();
    let (mut a, mut b) = ends(start);
    let now = start + seconds(119);
    assert_eq!(b.open(now, &a.seal(now, b"1")).as_deref(), Ok(&b"1"[..]));
    assert_eq!(a.tick(now).0, Tick::Nothing);
    let now = start + seconds(120);
    let late = a.seal(now, b"late");
    b.seal(now, b"the responder does not");
    assert_eq!(b.tick(now).0, Tick::Nothing);
    let (tick, initiation) = a.tick(now);
    assert_eq!(tick, Tick::Send(HANDSHAKE_INITIATION_LEN));
    let response = b.respond(now, &initiation).unwrap();
    let old = b.seal(now, b"on the old one");
    a.tunnel.complete(now, &response).unwrap();
    assert_eq!(a.open(now, &old).as_deref(), Ok(&b"on the old one"[..]));
    assert_eq!(b.open(now, &a.seal(now, b"2")).as_deref(), Ok(&b"2"[..]));
    assert_eq!(b.open(now, &late).as_deref(), Ok(&b"late"[..]));
    assert_eq!(a.tick(now).0, Tick::Nothing, "once is enough");
}

#[test]
fn who_only_receives_renews_in_the_last_minute() {
    let start = clock();
    let (mut a, mut b) = ends(start);
    let initiation = Tick::Send(HANDSHAKE_INITIATION_LEN);
    for (second, tick) in [
        (164, Tick::Nothing),
        (165, initiation),
        (166, Tick::Nothing),
    ] {
        let now = start + seconds(second);
        a.open(now, &b.seal(now, b"data")).unwrap();
        assert_eq!(a.tick(now).0, tick, "{second}");
    }
}

#[test]
fn a_new_preshared_key_is_for_the_next_handshake() {
    let now = clock();
    let (mut a, mut b) = ends(now);
    let key = PresharedKey::from_bytes([7; 32]);
    a.tunnel.set_preshared_key(key.as_ref());
    assert_eq!(b.open(now, &a.seal(now, b"on")).as_deref(), Ok(&b"on"[..]));
    let initiation = a.initiate(now).expect("at once: it is another handshake");
    let response = b.respond(now, &initiation).unwrap();
    let refused = a.tunnel.complete(now, &response);
    assert_eq!(refused, Err(Drop::BadHandshake));
    b.tunnel.set_preshared_key(key.as_ref());
    let now = now + REKEY_TIMEOUT;
    let initiation = a.initiate(now).unwrap();
    let response = b.respond(now, &initiation).unwrap();
    a.tunnel.complete(now, &response).unwrap();
    assert_eq!(b.open(now, &a.seal(now, b"2")).as_deref(), Ok(&b"2"[..]));
}

#[test]
fn keys_are_forgotten_and_the_tunnel_sleeps() {
    let start = clock();
    let (mut a, _) = ends(start);
    let history: Vec<(u64, Tick)> = (1..600)
        .map(|second| (second, a.tick(start + seconds(second)).0))
        .filter(|(_, tick)| *tick != Tick::Nothing)
        .collect();
    assert_eq!(history[0], (541, Tick::Asleep));
    assert!(a.tunnel.sessions.current().is_none());
}
