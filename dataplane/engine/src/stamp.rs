//! STAMP test packets, unauthenticated mode: RFC 8762, section 4, with the session identifier and the TLVs of RFC 8972.
//!
//! ```text
//!   sender (44)      sequence (4)  T1 (8)  error (2)  session (2)  zeros (28)
//!   reflector (44)   sequence (4)  T3 (8)  error (2)  session (2)  T2 (8)
//!                    sender's sequence (4)  T1 (8)  error (2)  zeros (2)  TTL (1)  zeros (3)
//!   TLV              flags (1)  type (1)  length (2)  value
//! ```
//!
//! All numbers are big-endian. Timestamps are in the truncated format of PTP (seconds, nanoseconds), on the clock of
//! whoever writes them: only differences between stamps of one clock mean something.

/// Length of a test packet without TLVs.
pub(crate) const BASE_LEN: usize = 44;
pub(crate) const TLV_HEADER_LEN: usize = 4;
/// RFC 8972, section 4.3.
pub(crate) const TIMESTAMP_INFORMATION: u8 = 3;
pub(crate) const TIMESTAMP_INFORMATION_LEN: usize = 4;
/// RFC 8972, section 4.7.
pub(crate) const FOLLOW_UP: u8 = 7;
pub(crate) const FOLLOW_UP_LEN: usize = 16;
/// What a sender writes: the reflector clears it in a TLV that it knows.
pub(crate) const UNRECOGNIZED: u8 = 0x80;
/// The clock is synchronised with nobody (`Synchronization source`, RFC 8972, section 4.3).
pub(crate) const FREE_RUNNING: u8 = 5;
/// Not synchronised, PTP's format, within 10 us: 168 times 2^8 / 2^32 s (RFC 4656, section 4.1.2).
const ERROR_ESTIMATE: u16 = 0x48a8;
const SECOND_NS: u64 = 1_000_000_000;

/// Length of what [`Test`] and [`Reply`] write, in bytes.
pub(crate) const STAMP_LEN: usize = BASE_LEN
    + TLV_HEADER_LEN
    + TIMESTAMP_INFORMATION_LEN
    + FOLLOW_UPS * (TLV_HEADER_LEN + FOLLOW_UP_LEN);

/// Earlier replies that a reply tells of: with more than one, what a busy turn has left behind is caught up with.
pub(crate) const FOLLOW_UPS: usize = 2;

/// Who took a time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamper {
    /// The kernel, when the datagram passed the driver (`SW local` in RFC 8972).
    Kernel,
    /// This process, when it had the datagram in its hands (`Control plane` in RFC 8972).
    User,
}

impl Stamper {
    /// `kernel` or `user`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::User => "user",
        }
    }
}

/// A time stamp: nanoseconds on a clock that only its owner knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) ns: u64,
    pub(crate) by: Stamper,
}

/// What a sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) sequence: u32,
    pub(crate) session: u16,
    /// When it was written, on the sender's clock.
    pub(crate) sent_ns: u64,
}

/// What a reflector answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// How many tests of the session the reflector had answered before this one.
    pub(crate) sequence: u32,
    pub(crate) test: Test,
    /// T2.
    pub(crate) received: Stamp,
    /// T3 as far as the reflector could know it while it wrote.
    pub(crate) sent_ns: u64,
    /// T3 of earlier replies as the kernel took it.
    pub(crate) follow_ups: [Option<FollowUp>; FOLLOW_UPS],
}

/// When an earlier reply really left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FollowUp {
    pub(crate) sequence: u32,
    pub(crate) sent_ns: u64,
}

impl Test {
    /// Fills a packet of [`STAMP_LEN`] bytes.
    pub(crate) fn write(&self, packet: &mut [u8]) {
        packet.fill(0);
        packet[..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[4..12].copy_from_slice(&timestamp(self.sent_ns));
        packet[12..14].copy_from_slice(&ERROR_ESTIMATE.to_be_bytes());
        packet[14..16].copy_from_slice(&self.session.to_be_bytes());
        let tlvs = &mut packet[BASE_LEN..];
        let (information, follow_ups) =
            tlvs.split_at_mut(TLV_HEADER_LEN + TIMESTAMP_INFORMATION_LEN);
        tlv(UNRECOGNIZED, TIMESTAMP_INFORMATION, information);
        for follow_up in follow_ups.chunks_exact_mut(TLV_HEADER_LEN + FOLLOW_UP_LEN) {
            tlv(UNRECOGNIZED, FOLLOW_UP, follow_up);
        }
    }

    /// Reads a packet; `None` if it is too short.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let packet = packet.first_chunk::<BASE_LEN>()?;
        Some(Self {
            sequence: u32_at(packet, 0),
            session: u16_at(packet, 14),
            sent_ns: ns_at(packet, 4),
        })
    }
}

impl Reply {
    /// Fills a packet of [`STAMP_LEN`] bytes.
    pub(crate) fn write(&self, packet: &mut [u8]) {
        packet.fill(0);
        packet[..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[4..12].copy_from_slice(&timestamp(self.sent_ns));
        packet[12..14].copy_from_slice(&ERROR_ESTIMATE.to_be_bytes());
        packet[14..16].copy_from_slice(&self.test.session.to_be_bytes());
        packet[16..24].copy_from_slice(&timestamp(self.received.ns));
        packet[24..28].copy_from_slice(&self.test.sequence.to_be_bytes());
        packet[28..36].copy_from_slice(&timestamp(self.test.sent_ns));
        packet[36..38].copy_from_slice(&ERROR_ESTIMATE.to_be_bytes());
        // The hop limit of every test.
        packet[40] = 1;
        let tlvs = &mut packet[BASE_LEN..];
        let (information, follow_ups) =
            tlvs.split_at_mut(TLV_HEADER_LEN + TIMESTAMP_INFORMATION_LEN);
        let received_by = method(self.received.by);
        tlv(0, TIMESTAMP_INFORMATION, information).copy_from_slice(&[
            FREE_RUNNING,
            received_by,
            FREE_RUNNING,
            method(Stamper::User),
        ]);
        let follow_ups = follow_ups.chunks_exact_mut(TLV_HEADER_LEN + FOLLOW_UP_LEN);
        for (bytes, earlier) in follow_ups.zip(&self.follow_ups) {
            let value = tlv(0, FOLLOW_UP, bytes);
            if let Some(earlier) = earlier {
                value[..4].copy_from_slice(&earlier.sequence.to_be_bytes());
                value[4..12].copy_from_slice(&timestamp(earlier.sent_ns));
                value[12] = method(Stamper::Kernel);
            }
        }
    }

    /// Reads a packet; `None` if it is too short. TLVs that are unknown, cut off or missing are as if they said
    /// nothing.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let (base, mut tlvs) = packet.split_first_chunk::<BASE_LEN>()?;
        let mut reply = Self {
            sequence: u32_at(base, 0),
            test: Test {
                sequence: u32_at(base, 24),
                session: u16_at(base, 14),
                sent_ns: ns_at(base, 28),
            },
            received: Stamp {
                ns: ns_at(base, 16),
                by: Stamper::User,
            },
            sent_ns: ns_at(base, 4),
            follow_ups: [None; FOLLOW_UPS],
        };
        let mut follow_ups = reply.follow_ups.iter_mut();
        while let Some((kind, value, rest)) = split_tlv(tlvs) {
            tlvs = rest;
            match (kind, value) {
                (TIMESTAMP_INFORMATION, &[_, by, _, _]) if by == method(Stamper::Kernel) => {
                    reply.received.by = Stamper::Kernel;
                }
                (FOLLOW_UP, value)
                    if value.len() == FOLLOW_UP_LEN && value[12] == method(Stamper::Kernel) =>
                {
                    // More than there is room for is more than anybody sends.
                    if let Some(follow_up) = follow_ups.next() {
                        *follow_up = Some(FollowUp {
                            sequence: u32_at(value, 0),
                            sent_ns: ns_at(value, 4),
                        });
                    }
                }
                _ => {}
            }
        }
        Some(reply)
    }
}

/// `Timestamping method` (RFC 8972, section 4.3).
pub(crate) const fn method(by: Stamper) -> u8 {
    match by {
        Stamper::Kernel => 2,
        Stamper::User => 3,
    }
}

/// Writes the header of the TLV that fills `bytes`; returns the room for its value.
fn tlv(flags: u8, kind: u8, bytes: &mut [u8]) -> &mut [u8] {
    let (header, value) = bytes.split_at_mut(TLV_HEADER_LEN);
    header[0] = flags;
    header[1] = kind;
    header[2..].copy_from_slice(&(value.len() as u16).to_be_bytes());
    value
}

/// The first TLV that the reflector knew, its type and value, and what follows.
fn split_tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<TLV_HEADER_LEN>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16_at(header, 2)))?;
    let kind = if header[0] == 0 { header[1] } else { 0 };
    Some((kind, value, rest))
}

pub(crate) fn timestamp(ns: u64) -> [u8; 8] {
    let seconds = (ns / SECOND_NS) as u32;
    let nanoseconds = (ns % SECOND_NS) as u32;
    (u64::from(seconds) << 32 | u64::from(nanoseconds)).to_be_bytes()
}

fn ns_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) * SECOND_NS + u64::from(u32_at(bytes, at + 4))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Worked out by hand from the figures of RFC 8762 (sections 4.2.1 and 4.3.1) and RFC 8972 (4.3 and 4.7).
    const TEST: &str = "
        00000007
        00000003 0000000a
        48a8 1234
        00000000 00000000 00000000 00000000 00000000 00000000 00000000
        80 03 0004 00000000
        80 07 0010 00000000 00000000 00000000 00000000
        80 07 0010 00000000 00000000 00000000 00000000";
    const REPLY: &str = "
        00000005
        00000004 3b9ac9ff
        48a8 1234
        00000004 00000001
        00000007
        00000003 0000000a
        48a8 0000
        01 000000
        00 03 0004 05020503
        00 07 0010 00000004 00000002 00000063 02 000000
        00 07 0010 00000003 00000001 00000064 02 000000";

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
    }

    fn test() -> Test {
        Test {
            sequence: 7,
            session: 0x1234,
            sent_ns: 3 * SECOND_NS + 10,
        }
    }

    fn reply() -> Reply {
        Reply {
            sequence: 5,
            test: test(),
            received: Stamp {
                ns: 4 * SECOND_NS + 1,
                by: Stamper::Kernel,
            },
            sent_ns: 5 * SECOND_NS - 1,
            follow_ups: [
                Some(FollowUp {
                    sequence: 4,
                    sent_ns: 2 * SECOND_NS + 99,
                }),
                Some(FollowUp {
                    sequence: 3,
                    sent_ns: SECOND_NS + 100,
                }),
            ],
        }
    }

    #[test]
    fn packets_are_as_the_rfcs_say() {
        let mut packet = [0xff; STAMP_LEN];
        test().write(&mut packet);
        assert_eq!(packet[..], bytes(TEST));
        assert_eq!(Test::parse(&packet), Some(test()));
        reply().write(&mut packet);
        assert_eq!(packet[..], bytes(REPLY));
        assert_eq!(Reply::parse(&packet), Some(reply()));
    }

    #[test]
    fn a_reflector_without_tlvs_says_less() {
        let packet = &bytes(REPLY)[..BASE_LEN];
        let bare = Reply {
            received: Stamp {
                by: Stamper::User,
                ..reply().received
            },
            follow_ups: [None; FOLLOW_UPS],
            ..reply()
        };
        assert_eq!(Reply::parse(packet), Some(bare));
    }

    #[test]
    fn a_tlv_that_was_not_understood_says_nothing() {
        let mut packet = bytes(REPLY);
        packet[BASE_LEN] = UNRECOGNIZED;
        packet[BASE_LEN + 8] = UNRECOGNIZED;
        packet[BASE_LEN + 28] = UNRECOGNIZED;
        let read = Reply::parse(&packet).unwrap();
        assert_eq!(read.received.by, Stamper::User);
        assert_eq!(read.follow_ups, [None; FOLLOW_UPS]);
    }

    proptest! {
        #[test]
        fn no_packet_is_too_strange(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (test, reply) = (Test::parse(&packet), Reply::parse(&packet));
            prop_assert_eq!(test.is_some(), packet.len() >= BASE_LEN);
            prop_assert_eq!(reply.is_some(), packet.len() >= BASE_LEN);
        }

        #[test]
        fn a_packet_that_is_cut_anywhere_is_read_as_far_as_it_goes(len in 0..=STAMP_LEN) {
            let packet = &bytes(REPLY)[..len];
            let read = Reply::parse(packet);
            prop_assert_eq!(read.map(|read| read.test), (len >= BASE_LEN).then(test));
        }
    }
}
