//! The answer to a STAMP test from outside of the tunnel, for tools that measure against this machine: RFC 8762,
//! section 4.3, unauthenticated and stateless, with the TLVs of RFC 8972.
//!
//! Stateless: a sender costs no memory, and the reply has the sender's own number. An answer is as long as the test, so
//! it amplifies nothing.

use crate::outer_header::WallNs;
use crate::stamp::{
    BASE_LEN, FOLLOW_UP, FOLLOW_UP_LEN, FREE_RUNNING, Stamper, TIMESTAMP_INFORMATION,
    TIMESTAMP_INFORMATION_LEN, TLV_HEADER_LEN, UNRECOGNIZED, method, timestamp, u16_at,
};

/// RFC 8972, section 4.1.
const EXTRA_PADDING: u8 = 1;
/// The length is not one that the type has, or is more than there is (RFC 8972, section 4).
const MALFORMED: u8 = 0x40;
/// In an error estimate: timestamps are those of PTP, and not those of NTP (RFC 8186, section 2.3).
const PTP: u16 = 0x4000;
/// Not synchronised as far as we know, within 10 us: 168 times 2^8 / 2^32 s (RFC 4656, section 4.1.2).
const ERROR_ESTIMATE: u16 = 0x08a8;
/// From 1900 to 1970 (RFC 868).
const NTP_ERA_SECONDS: u64 = 2_208_988_800;
const SECOND_NS: u64 = 1_000_000_000;

/// The arrival of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestArrival {
    /// T2.
    pub at: WallNs,
    /// The clock that took it.
    pub by: Stamper,
    /// Hop limit of the packet.
    pub hop_limit: u8,
}

/// Makes the reply out of a test, where it is, at `now` (T3); false if it is none. The reply's timestamps have the
/// format of the test's.
pub fn reflect(packet: &mut [u8], arrival: TestArrival, now: WallNs) -> bool {
    let Some((base, tlvs)) = packet.split_first_chunk_mut::<BASE_LEN>() else {
        return false;
    };
    let format = u16_at(base, 12) & PTP;
    let stamp = |ns| if format == 0 { ntp(ns) } else { timestamp(ns) };
    base.copy_within(0..14, 24);
    base[4..12].copy_from_slice(&stamp(now));
    base[12..14].copy_from_slice(&(ERROR_ESTIMATE | format).to_be_bytes());
    base[16..24].copy_from_slice(&stamp(arrival.at));
    base[38..].fill(0);
    base[40] = arrival.hop_limit;
    answer_tlvs(tlvs, arrival.by);
    true
}

/// Says of every TLV whether it was understood, and fills in those that ask something.
fn answer_tlvs(mut tlvs: &mut [u8], received_by: Stamper) {
    while let Some((header, rest)) = tlvs.split_first_chunk_mut::<TLV_HEADER_LEN>() {
        let len = usize::from(u16_at(header, 2));
        let Some((value, rest)) = rest.split_at_mut_checked(len) else {
            // The beginning of the next one is unknown.
            header[0] = MALFORMED;
            return;
        };
        header[0] = match (header[1], len) {
            (EXTRA_PADDING, _) => 0,
            (TIMESTAMP_INFORMATION, TIMESTAMP_INFORMATION_LEN) => {
                value.copy_from_slice(&[
                    FREE_RUNNING,
                    method(received_by),
                    FREE_RUNNING,
                    method(Stamper::User),
                ]);
                0
            }
            // Without state there is nothing to follow up (section 4.7).
            (FOLLOW_UP, FOLLOW_UP_LEN) => {
                value.fill(0);
                0
            }
            (TIMESTAMP_INFORMATION | FOLLOW_UP, _) => MALFORMED,
            _ => UNRECOGNIZED,
        };
        tlvs = rest;
    }
}

/// Seconds since 1900 and their 2^32nd parts (RFC 5905, section 6).
fn ntp(ns: WallNs) -> [u8; 8] {
    let seconds = (ns / SECOND_NS).wrapping_add(NTP_ERA_SECONDS);
    let fraction = ((ns % SECOND_NS) << 32) / SECOND_NS;
    (seconds << 32 | fraction).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ARRIVAL: TestArrival = TestArrival {
        at: 4 * SECOND_NS + SECOND_NS / 4,
        by: Stamper::Kernel,
        hop_limit: 63,
    };
    const NOW: WallNs = 4 * SECOND_NS + SECOND_NS / 2;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
    }

    fn reflected(hex: &str) -> Vec<u8> {
        let mut packet = bytes(hex);
        assert!(reflect(&mut packet, ARRIVAL, NOW));
        packet
    }

    /// Worked out by hand: 1970 is second 0x83aa7e80 of NTP, so T2 is 83aa7e84.4 and T3 83aa7e84.8.
    #[test]
    fn a_test_with_timestamps_of_ntp() {
        let test = "
            00000007
            83aa7e83 00000000
            8a01 1234
            00000000 00000000 00000000 00000000 00000000 00000000 00000000";
        let reply = "
            00000007
            83aa7e84 80000000
            08a8 1234
            83aa7e84 40000000
            00000007
            83aa7e83 00000000
            8a01 0000
            3f 000000";
        assert_eq!(reflected(test), bytes(reply));
    }

    /// T2 is second 4 and 250,000,000 ns (0x0ee6b280), T3 second 4 and 500,000,000 ns (0x1dcd6500).
    #[test]
    fn a_test_with_timestamps_of_ptp_and_every_kind_of_tlv() {
        let test = "
            00000008
            00000003 0000000a
            c801 0000
            00000000 00000000 00000000 00000000 00000000 00000000 00000000
            80 01 0005 aaaaaaaaaa
            80 03 0004 00000000
            80 04 0004 01020304
            80 07 0010 00000001 00000002 00000003 04050607
            80 03 0002 0000
            80 01 0009 bbbb";
        let reply = "
            00000008
            00000004 1dcd6500
            48a8 0000
            00000004 0ee6b280
            00000008
            00000003 0000000a
            c801 0000
            3f 000000
            00 01 0005 aaaaaaaaaa
            00 03 0004 05020503
            80 04 0004 01020304
            00 07 0010 00000000 00000000 00000000 00000000
            40 03 0002 0000
            40 01 0009 bbbb";
        assert_eq!(reflected(test), bytes(reply));
    }

    proptest! {
        #[test]
        fn no_packet_is_too_strange(mut packet in proptest::collection::vec(any::<u8>(), 0..200), at: u64, now: u64) {
            let before = packet.clone();
            let arrival = TestArrival { at, ..ARRIVAL };
            let is_answered = reflect(&mut packet, arrival, now);
            prop_assert_eq!(is_answered, before.len() >= BASE_LEN);
            if is_answered {
                prop_assert_eq!(&packet[24..38], &before[..14]);
            } else {
                prop_assert_eq!(packet, before);
            }
        }
    }
}
