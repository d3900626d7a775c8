//! Cuts an IPv4 packet that may be cut (RFC 791, section 3.2): inside the tunnel, so that the path sees only datagrams
//! that fit.

use super::checksum::Sum;
use super::headers::{ipv4, read_u16, write_u16};

/// Offsets count in these many bytes.
const UNIT_LEN: usize = 8;
const MORE_FRAGMENTS: u16 = 0x2000;
/// The bit of an option's type that asks for it in every fragment.
const OPTION_COPIED: u8 = 0x80;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;

/// The fragments of one packet, in order.
#[derive(Debug)]
pub struct Fragments<'a> {
    packet: &'a [u8],
    header_len: usize,
    /// Payload of every fragment but the last.
    payload_max: usize,
    /// Where the payload of the next begins.
    at: usize,
}

impl<'a> Fragments<'a> {
    /// Of a packet without the don't-fragment bit, for a path that takes `mtu` bytes. `None` if its header is cut off
    /// or leaves no room for payload.
    pub fn new(packet: &'a [u8], mtu: usize) -> Option<Self> {
        let header_len = usize::from(packet.first()? & 0x0f) * 4;
        if header_len < ipv4::LEN_MIN || header_len > packet.len() {
            return None;
        }
        let payload_max = mtu.checked_sub(header_len)? / UNIT_LEN * UNIT_LEN;
        (payload_max > 0).then_some(Self {
            packet,
            header_len,
            payload_max,
            at: header_len,
        })
    }

    /// Writes the next fragment to `out`, which is as long as the path's MTU, and says how long it is.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let rest = &self.packet[self.at..];
        if rest.is_empty() {
            return None;
        }
        let payload = &rest[..rest.len().min(self.payload_max)];
        let len = self.header_len + payload.len();
        let (header, room) = out[..len].split_at_mut(self.header_len);
        header.copy_from_slice(&self.packet[..self.header_len]);
        room.copy_from_slice(payload);

        let offset = (self.at - self.header_len) / UNIT_LEN;
        if offset > 0 {
            keep_copied_options(&mut header[ipv4::LEN_MIN..]);
        }
        // A fragment that is cut again keeps its place, and the last of its pieces whether more follow.
        let mut place = read_u16(header, ipv4::FRAGMENT) + offset as u16;
        if payload.len() < rest.len() {
            place |= MORE_FRAGMENTS;
        }
        write_u16(header, ipv4::TOTAL_LEN, len as u16);
        write_u16(header, ipv4::FRAGMENT, place);
        write_u16(header, ipv4::CHECKSUM, 0);
        let checksum = Sum::of(header).checksum();
        write_u16(header, ipv4::CHECKSUM, checksum);
        self.at += payload.len();
        Some(len)
    }
}

/// Overwrites the options that belong into the first fragment only.
fn keep_copied_options(mut options: &mut [u8]) {
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest.first()) {
            (OPTION_END, _) => return,
            (OPTION_NOTHING, _) => 1,
            (_, Some(len)) => usize::from(*len).max(2),
            (_, None) => return,
        };
        let len = len.min(options.len());
        let (option, others) = options.split_at_mut(len);
        if option[0] & OPTION_COPIED == 0 {
            option.fill(OPTION_NOTHING);
        }
        options = others;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(options: &[u8], place: u16, payload: &[u8]) -> Vec<u8> {
        let header_len = ipv4::LEN_MIN + options.len();
        let mut packet = vec![0; header_len];
        packet[0] = 0x40 | (header_len / 4) as u8;
        write_u16(&mut packet, ipv4::FRAGMENT, place);
        packet[ipv4::LEN_MIN..].copy_from_slice(options);
        packet.extend(payload);
        let len = packet.len() as u16;
        write_u16(&mut packet, ipv4::TOTAL_LEN, len);
        packet
    }

    fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let mut fragments = Fragments::new(packet, mtu).unwrap();
        let mut out = vec![0xee; mtu];
        std::iter::from_fn(|| {
            fragments
                .write_next(&mut out)
                .map(|len| out[..len].to_vec())
        })
        .collect()
    }

    proptest! {
        #[test]
        fn put_together_they_are_the_packet(
            payload in prop::collection::vec(any::<u8>(), 1..5_000),
            mtu in 68_usize..2_000,
            more: bool,
            offset in 0_u16..500,
        ) {
            let place = offset | if more { MORE_FRAGMENTS } else { 0 };
            let fragments = cut(&packet(&[], place, &payload), mtu);
            let mut together = vec![0; payload.len()];
            for (i, fragment) in fragments.iter().enumerate() {
                prop_assert!(fragment.len() <= mtu);
                prop_assert_eq!(usize::from(read_u16(fragment, ipv4::TOTAL_LEN)), fragment.len());
                prop_assert_eq!(Sum::of(&fragment[..20]).fold(), 0xffff);
                let place = read_u16(fragment, ipv4::FRAGMENT);
                let is_last = i + 1 == fragments.len();
                prop_assert_eq!(place & MORE_FRAGMENTS != 0, more || !is_last);
                let at = usize::from((place & ipv4::OFFSET) - offset) * 8;
                together[at..at + fragment.len() - 20].copy_from_slice(&fragment[20..]);
            }
            prop_assert_eq!(together, payload);
        }
    }

    #[test]
    fn options_are_in_every_fragment_only_if_they_ask_for_it() {
        // A record of the route, which does not, and a loose source route, which does; then the end.
        let options = [7, 3, 4, 0x83, 3, 4, 0, 9];
        let fragments = cut(&packet(&options, 0, &[5; 100]), 76);
        assert_eq!(fragments[0][20..28], options);
        assert_eq!(fragments[1][20..28], [1, 1, 1, 0x83, 3, 4, 0, 9]);
    }

    #[test]
    fn headers_that_are_cut_off_or_too_long_are_refused() {
        let whole = packet(&[], 0, &[0; 100]);
        for broken in [&whole[..0], &whole[..19]] {
            assert!(Fragments::new(broken, 1280).is_none());
        }
        let mut short = whole.clone();
        short[0] = 0x44;
        assert!(Fragments::new(&short, 1280).is_none());
        assert!(Fragments::new(&whole, 27).is_none());
        assert!(Fragments::new(&whole, 28).is_some());
        // An option that claims to be longer than the header.
        assert_eq!(cut(&packet(&[7, 200, 0, 0], 0, &[0; 80]), 64).len(), 2);
    }
}
