//! Datagrams of one length to one endpoint, which leave in one `sendmsg` (UDP GSO).

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ployz_aead::{GROUP_LEN_MAX, Key};
use ployz_engine::{Departure, Endpoint, SendMode, seal_messages};

use crate::sys::control;
use crate::sys::message::Outgoing;

/// The kernel's `UDP_MAX_SEGMENTS` was 64 before it was 128.
const SEGMENTS_MAX: usize = 64;
/// A GSO send is one IP packet until it is cut: 65,535 bytes less the longer of the two IP headers and UDP's.
pub const BATCH_LEN_MAX: usize = 65_535 - 40 - 8;

/// A batch owns its bytes and the header they are sent with, so that an operation in a ring can own the batch.
#[derive(Debug)]
pub struct SendBatch {
    bytes: Box<[u8]>,
    len: usize,
    to: Endpoint,
    departure: Departure,
    /// Length of the first datagram, and of every other but perhaps the last.
    segment_len: usize,
    /// Nothing fits behind a datagram that is shorter than the first.
    closed: bool,
    /// Datagrams from here on are still to be sealed, with this key.
    sealed: usize,
    key: Option<Arc<Key>>,
    header: Box<Outgoing>,
}

impl SendBatch {
    /// Room for one batch.
    #[expect(clippy::new_without_default, reason = "64 KiB are not a default")]
    pub fn new() -> Self {
        let nowhere = Endpoint::configured(([0, 0, 0, 0], 0).into());
        Self {
            bytes: vec![0; BATCH_LEN_MAX].into_boxed_slice(),
            len: 0,
            to: nowhere,
            departure: Departure::default(),
            segment_len: 0,
            closed: false,
            sealed: 0,
            key: None,
            header: Outgoing::new(),
        }
    }

    /// Empties the batch for datagrams to `to`.
    pub fn open(&mut self, to: &Endpoint, departure: Departure) {
        self.len = 0;
        self.segment_len = 0;
        self.closed = false;
        self.sealed = 0;
        self.to = *to;
        self.departure = departure;
    }

    /// True if a datagram of `len` bytes may follow what is there.
    pub fn takes(&self, len: usize, to: &Endpoint, departure: Departure) -> bool {
        let fits = self.len + len <= BATCH_LEN_MAX;
        if self.len == 0 {
            return fits;
        }
        fits && !self.closed
            && len <= self.segment_len
            && self.len < SEGMENTS_MAX * self.segment_len
            && self.departure == departure
            && self.to == *to
    }

    /// Room for the next datagram.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.len..self.len + len]
    }

    /// The room's first `len` bytes are a datagram now.
    pub fn push(&mut self, len: usize) {
        self.seal();
        self.append(len);
        self.sealed = self.len;
    }

    /// The room's first `len` bytes are a data message now, but for being sealed.
    pub fn push_unsealed(&mut self, len: usize, key: &Arc<Key>) {
        if !self.key.as_ref().is_some_and(|it| Arc::ptr_eq(it, key)) {
            self.seal();
            self.key = Some(Arc::clone(key));
        }
        self.append(len);
        if self.len - self.sealed >= GROUP_LEN_MAX * self.segment_len {
            self.seal();
        }
    }

    /// Seals what is still to be sealed.
    fn seal(&mut self) {
        if let Some(key) = self.key.as_ref().filter(|_| self.sealed < self.len) {
            let messages = &mut self.bytes[self.sealed..self.len];
            seal_messages(key, messages, self.segment_len);
        }
        self.sealed = self.len;
    }

    /// Seals what is left, before anything is sent, and forgets the key.
    pub fn close(&mut self) {
        self.seal();
        self.key = None;
    }

    fn append(&mut self, len: usize) {
        if self.len == 0 {
            self.segment_len = len;
        }
        self.closed = len < self.segment_len;
        self.len += len;
    }

    /// True without datagrams.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of datagrams.
    pub const fn count(&self) -> usize {
        if self.len == 0 {
            0
        } else {
            self.len.div_ceil(self.segment_len)
        }
    }

    /// The datagrams, end to end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The same, for a receiver that decrypts them where they are.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// The length of every datagram but perhaps the last.
    pub const fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// The endpoint that they go to.
    pub const fn to(&self) -> &Endpoint {
        &self.to
    }

    /// The mode that they leave in.
    pub const fn mode(&self) -> SendMode {
        self.departure.mode
    }

    /// Lets the kernel choose the source address.
    pub fn forget_local(&mut self) {
        self.to.local = None;
    }

    /// The message header for a `sendmsg` that the batch outlives.
    pub fn prepare(&mut self) -> *const libc::msghdr {
        let say = self.say(self.segmentation());
        self.header
            .prepare(self.to.remote, say, &self.bytes[..self.len])
    }

    /// Sends the whole batch in one call.
    ///
    /// # Errors
    /// Whatever `sendmsg` says.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> std::io::Result<()> {
        let say = self.say(self.segmentation());
        self.header
            .send(socket, self.to.remote, say, &self.bytes[..self.len])
            .map(|_| ())
    }

    /// Sends the datagram number `index` by itself.
    ///
    /// # Errors
    /// Whatever `sendmsg` says.
    pub fn send_one(&mut self, socket: BorrowedFd<'_>, index: usize) -> std::io::Result<()> {
        let say = self.say(None);
        let start = index * self.segment_len;
        let end = self.len.min(start + self.segment_len);
        self.header
            .send(socket, self.to.remote, say, &self.bytes[start..end])
            .map(|_| ())
    }

    /// The segments that the kernel should cut the bytes into, if there is anything to cut.
    fn segmentation(&self) -> Option<u16> {
        (self.len > self.segment_len).then_some(self.segment_len as u16)
    }

    fn say(&self, segment_len: Option<u16>) -> control::Send {
        control::Send {
            ipv6: self.to.remote.is_ipv6(),
            local: self.to.local,
            ecn: self.departure.ecn,
            segment_len,
            stamped: matches!(self.departure.mode, SendMode::Stamped(_)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ployz_engine::Ecn;

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::configured(([192, 0, 2, 1], port).into())
    }

    #[test]
    fn a_batch_is_of_one_length_but_for_the_last() {
        let plain = Departure::default();
        let alone = Departure::new(SendMode::Single);
        let marked = Departure {
            ecn: Ecn::Ce,
            ..plain
        };
        let mut batch = SendBatch::new();
        let to = endpoint(1);
        batch.open(&to, plain);
        assert!(batch.takes(1452, &to, plain));
        batch.push(1452);
        assert!(!batch.takes(1453, &to, plain), "longer than the first");
        assert!(!batch.takes(1452, &endpoint(2), plain), "elsewhere");
        assert!(!batch.takes(1452, &to, marked), "another mark");
        assert!(!batch.takes(1452, &to, alone), "another mode");
        batch.push(100);
        assert!(!batch.takes(100, &to, plain), "the short one was the last");
        assert_eq!(batch.count(), 2);
    }

    #[test]
    fn a_batch_stops_at_sixty_four_and_at_the_longest_packet() {
        for (len, count) in [(32, 64), (1452, 45), (9000, 7), (BATCH_LEN_MAX, 1)] {
            let mut batch = SendBatch::new();
            let (to, plain) = (endpoint(1), Departure::default());
            batch.open(&to, plain);
            while batch.takes(len, &to, plain) {
                batch.push(len);
            }
            assert_eq!(batch.count(), count, "{len}");
        }
    }

    /// Message number `n`, but for being sealed.
    fn unsealed(n: u8, len: usize) -> Vec<u8> {
        let mut message = vec![n; len];
        message[8..16].copy_from_slice(&u64::from(n).to_le_bytes());
        message
    }

    #[test]
    fn sealed_together_is_sealed_one_by_one() {
        let keys = [1, 2].map(|n| Arc::new(Key::new(&[n; 32])));
        // Whose messages, in order; none for a datagram that is no data message.
        let runs: [&[(Option<usize>, u8)]; 5] = [
            &[(Some(0), 1)],
            &[(Some(0), 40)],
            &[(Some(0), 16), (Some(1), 16), (Some(0), 1)],
            &[(Some(1), 3), (None, 1), (Some(1), 20), (None, 2)],
            &[(None, 5)],
        ];
        for run in runs {
            for last_len in [100, 64] {
                let mut batch = SendBatch::new();
                let (to, plain) = (endpoint(1), Departure::default());
                batch.open(&to, plain);
                let mut expected = Vec::new();
                let owners: Vec<_> = run
                    .iter()
                    .flat_map(|&(key, count)| (0..count).map(move |_| key))
                    .collect();
                for (n, key) in (0..).zip(&owners) {
                    let is_last = usize::from(n) + 1 == owners.len();
                    let len = if is_last { last_len } else { 100 };
                    let mut message = unsealed(n, len);
                    assert!(batch.takes(len, &to, plain));
                    batch.room(len).copy_from_slice(&message);
                    match key {
                        None => batch.push(len),
                        Some(key) => {
                            batch.push_unsealed(len, &keys[*key]);
                            seal_messages(&keys[*key], &mut message, len);
                        }
                    }
                    expected.extend(message);
                }
                batch.close();
                assert_eq!(batch.bytes(), expected, "{run:?}");
            }
        }
    }
}
