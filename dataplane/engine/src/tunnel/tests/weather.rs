//! Two of ours with a network between them that loses, repeats, delays and overtakes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::message::Message as Kind;

/// A datagram on its way to the end with this number.
struct Flight {
    arrives: Instant,
    to: usize,
    datagram: Vec<u8>,
}

struct World {
    now: Instant,
    ends: [End; 2],
    flights: Vec<Flight>,
    /// The numbers in the packets that came to each end.
    received: [BTreeSet<u32>; 2],
    /// What waits for a session at each end.
    waiting: [Option<u32>; 2],
    sent: u32,
    /// What becomes of the datagrams, in turn.
    fates: Vec<u8>,
    turn: usize,
}

impl World {
    fn new(fates: Vec<u8>) -> Self {
        Self {
            now: clock(),
            ends: [End::new(1, 2), End::new(2, 1)],
            flights: Vec::new(),
            received: Default::default(),
            waiting: Default::default(),
            sent: 0,
            fates,
            turn: 0,
        }
    }

    /// A packet with a number of its own, which is forgotten if another comes before there is a session.
    fn send(&mut self, from: usize) -> u32 {
        self.sent += 1;
        let end = &mut self.ends[from];
        if end.tunnel.is_ready(self.now) {
            let datagram = end.seal(self.now, &self.sent.to_le_bytes());
            self.carry(1 - from, datagram);
        } else {
            self.waiting[from] = Some(self.sent);
            if let Some(initiation) = end.initiate(self.now) {
                self.carry(1 - from, initiation);
            }
        }
        self.sent
    }

    fn carry(&mut self, to: usize, datagram: Vec<u8>) {
        let fate = self.fates.get(self.turn % self.fates.len().max(1));
        self.turn += 1;
        let delays_ms: &[u64] = match fate {
            None | Some(0..100) => &[20],
            Some(100..130) => &[],
            Some(130..160) => &[20, 700],
            Some(160..200) => &[900],
            Some(200..) => &[6_000],
        };
        for delay_ms in delays_ms {
            self.flights.push(Flight {
                arrives: self.now + Duration::from_millis(*delay_ms),
                to,
                datagram: datagram.clone(),
            });
        }
    }

    /// Lets 100 ms pass.
    fn step(&mut self) {
        self.now += TICK;
        let now = self.now;
        for flight in self
            .flights
            .extract_if(.., |it| it.arrives <= now)
            .collect::<Vec<_>>()
        {
            self.arrive(flight.to, &flight.datagram);
        }
        for n in 0..2 {
            let (tick, message) = self.ends[n].tick(now);
            match tick {
                Tick::Send(_) => self.carry(1 - n, message),
                Tick::GaveUp => self.waiting[n] = None,
                Tick::Nothing | Tick::Asleep => {}
            }
        }
    }

    /// What is too old or was there before is dropped, as the engine does.
    fn arrive(&mut self, at: usize, datagram: &[u8]) {
        let now = self.now;
        let end = &mut self.ends[at];
        match Kind::parse(datagram).unwrap() {
            Kind::HandshakeInitiation => {
                if let Ok(response) = end.respond(now, datagram) {
                    self.carry(1 - at, response);
                }
            }
            Kind::HandshakeResponse { .. } => {
                if end.tunnel.complete(now, datagram).is_ok() && self.waiting[at].is_none() {
                    let keepalive = end.seal(now, &[]);
                    self.carry(1 - at, keepalive);
                }
            }
            Kind::Data { .. } => {
                if let Ok(packet) = end.open(now, datagram)
                    && !packet.is_empty()
                {
                    let number = u32::from_le_bytes(packet.try_into().unwrap());
                    assert!(self.received[at].insert(number), "{number} twice");
                }
            }
            Kind::CookieReply { .. } => unreachable!("there is no load"),
        }
        if self.ends[at].tunnel.is_ready(now)
            && let Some(number) = self.waiting[at].take()
        {
            let datagram = self.ends[at].seal(now, &number.to_le_bytes());
            self.carry(1 - at, datagram);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nothing arrives twice, and once the network is well both ends get through: after at most the silence that shows
    /// that a session is gone, a handshake, and one repetition of it.
    #[test]
    fn nothing_arrives_twice_and_the_tunnel_recovers(
        fates in prop::collection::vec(any::<u8>(), 1..200),
        use_ms in prop::collection::vec((100..40_000u64, 0..2usize), 1..30),
    ) {
        let mut world = World::new(fates);
        for (pause_ms, from) in use_ms {
            for _ in 0..pause_ms / 100 {
                world.step();
            }
            world.send(from);
        }
        world.fates.clear();
        for _ in 0..60 {
            world.step();
        }
        let well_after = 10 * (15 + 2 * 6);
        let mut last = [0, 0];
        for step in 0..well_after + 20 {
            if step % 10 == 0 {
                last = [world.send(0), world.send(1)];
            }
            world.step();
        }
        prop_assert!(world.received[1].contains(&last[0]));
        prop_assert!(world.received[0].contains(&last[1]));
    }
}
