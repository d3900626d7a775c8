//! What to say about a packet that does not fit through the path to its peer.
//!
//! An interface has one MTU and its peers have many paths, so the tunnel is a router towards each of them and answers
//! as one: ICMP "fragmentation needed" (RFC 792, RFC 1191) and ICMPv6 "packet too big" (RFC 4443, section 3.2). The
//! sender is the packet's destination: an address of ours would be refused on the way in as one that cannot come from
//! there, and the destination's is the one that reverse path filters expect from this interface.

use super::checksum::Sum;
use super::headers::{ip_version, ipv4, ipv6, read_u16, write_u16};

/// An answer quotes as much as fits into what every IPv6 path takes; one over IPv4 stops at 576 (RFC 1812, section
/// 4.3.2.3).
pub const ANSWER_LEN_MAX: usize = 1280;
const ANSWER_LEN_MAX_V4: usize = 576;
/// Type, code, checksum, and four bytes that hold the MTU.
const ICMP_HEADER_LEN: usize = 8;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Destination unreachable, fragmentation needed and don't-fragment set.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
/// Of every link and path (RFC 8200, section 5): a smaller one has to be hidden from IPv6.
const IPV6_MTU_MIN: usize = 1280;
const TTL: u8 = 64;

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooBig {
    /// It may be cut: IPv4 without the don't-fragment bit.
    Cut,
    /// It has to get through as it is, whatever the path: IPv6 of the least MTU.
    Force,
    /// It is dropped, and an answer of this many bytes was written.
    Answer(usize),
    /// It is dropped, and nobody may be told.
    Silent,
}

/// Judges a packet that is too long for a path that takes `mtu` bytes, and writes the answer. Of a super-packet, what
/// will be sent are packets of at most `len` bytes.
pub fn judge(packet: &[u8], len: usize, mtu: usize, answer: &mut [u8; ANSWER_LEN_MAX]) -> TooBig {
    match ip_version(packet) {
        Some(4) => judge_v4(packet, mtu, answer),
        Some(6) => judge_v6(packet, len, mtu, answer),
        Some(_) | None => TooBig::Silent,
    }
}

fn judge_v4(packet: &[u8], mtu: usize, answer: &mut [u8; ANSWER_LEN_MAX]) -> TooBig {
    if packet.len() < ipv4::LEN_MIN {
        return TooBig::Silent;
    }
    let fragment = read_u16(packet, ipv4::FRAGMENT);
    if fragment & ipv4::DONT_FRAGMENT == 0 {
        return TooBig::Cut;
    }
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    let is_later_fragment = fragment & ipv4::OFFSET != 0;
    let is_error = packet[ipv4::PROTOCOL] == ICMP
        && packet.get(header_len).is_none_or(|kind| !is_query(*kind));
    let addresses = &packet[ipv4::SOURCE..ipv4::LEN_MIN];
    let destination = &addresses[4..];
    // RFC 1122, section 3.2.2: nothing about errors, later fragments, and what is not for one host or from one.
    if is_later_fragment
        || is_error
        || destination[0] >= 224
        || addresses[0] >= 224
        || addresses[..4] == [0; 4]
    {
        return TooBig::Silent;
    }

    let quote = &packet[..packet
        .len()
        .min(ANSWER_LEN_MAX_V4 - ipv4::LEN_MIN - ICMP_HEADER_LEN)];
    let len = ipv4::LEN_MIN + ICMP_HEADER_LEN + quote.len();
    let answer = &mut answer[..len];
    answer.fill(0);
    answer[0] = 0x45;
    write_u16(answer, ipv4::TOTAL_LEN, len as u16);
    answer[ipv4::TTL] = TTL;
    answer[ipv4::PROTOCOL] = ICMP;
    answer[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(destination);
    answer[ipv4::DESTINATION..ipv4::LEN_MIN].copy_from_slice(&addresses[..4]);
    let checksum = Sum::of(&answer[..ipv4::LEN_MIN]).checksum();
    write_u16(answer, ipv4::CHECKSUM, checksum);

    let icmp = &mut answer[ipv4::LEN_MIN..];
    icmp[..2].copy_from_slice(&FRAGMENTATION_NEEDED);
    write_u16(icmp, 6, u16::try_from(mtu).unwrap_or(u16::MAX));
    icmp[ICMP_HEADER_LEN..].copy_from_slice(quote);
    let checksum = Sum::of(icmp).checksum();
    write_u16(icmp, 2, checksum);
    TooBig::Answer(len)
}

fn judge_v6(packet: &[u8], len: usize, mtu: usize, answer: &mut [u8; ANSWER_LEN_MAX]) -> TooBig {
    if packet.len() < ipv6::LEN {
        return TooBig::Silent;
    }
    if len <= IPV6_MTU_MIN {
        return TooBig::Force;
    }
    let mtu = mtu.max(IPV6_MTU_MIN);
    let addresses = &packet[ipv6::SOURCE..ipv6::LEN];
    let (source, destination) = addresses.split_at(16);
    let is_error =
        packet[ipv6::NEXT_HEADER] == ICMPV6 && packet.get(ipv6::LEN).is_none_or(|kind| *kind < 128);
    // RFC 4443, section 2.4 (e): nothing about errors, nothing to nobody, and nothing in the name of many.
    if is_error || source == [0; 16] || source[0] == 0xff || destination[0] == 0xff {
        return TooBig::Silent;
    }

    let quote = &packet[..packet
        .len()
        .min(ANSWER_LEN_MAX - ipv6::LEN - ICMP_HEADER_LEN)];
    let icmp_len = ICMP_HEADER_LEN + quote.len();
    let len = ipv6::LEN + icmp_len;
    let answer = &mut answer[..len];
    answer.fill(0);
    answer[0] = 0x60;
    write_u16(answer, ipv6::PAYLOAD_LEN, icmp_len as u16);
    answer[ipv6::NEXT_HEADER] = ICMPV6;
    answer[ipv6::HOP_LIMIT] = TTL;
    answer[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(destination);
    answer[ipv6::DESTINATION..ipv6::LEN].copy_from_slice(source);

    let icmp = &mut answer[ipv6::LEN..];
    icmp[..2].copy_from_slice(&PACKET_TOO_BIG);
    write_u16(icmp, 6, u16::try_from(mtu).unwrap_or(u16::MAX));
    icmp[ICMP_HEADER_LEN..].copy_from_slice(quote);
    let pseudo = Sum::pseudo_header(addresses, ICMPV6, icmp_len as u16);
    let checksum = (pseudo + Sum::of(icmp)).checksum();
    write_u16(icmp, 2, checksum);
    TooBig::Answer(len)
}

/// Echo, timestamp, and information and mask requests and replies: the ICMP messages that are no errors.
fn is_query(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 13..=18)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, fragment: u16, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[0] = 0x45;
        write_u16(&mut packet, ipv4::TOTAL_LEN, len as u16);
        write_u16(&mut packet, ipv4::FRAGMENT, fragment);
        packet[ipv4::PROTOCOL] = protocol;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet
    }

    fn v6(next_header: u8, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[0] = 0x60;
        write_u16(&mut packet, ipv6::PAYLOAD_LEN, (len - ipv6::LEN) as u16);
        packet[ipv6::NEXT_HEADER] = next_header;
        packet[8] = 0xfd;
        packet[23] = 1;
        packet[24] = 0xfd;
        packet[39] = 2;
        packet
    }

    fn answer_to(packet: &[u8], mtu: usize) -> Result<Vec<u8>, TooBig> {
        let mut answer = [0xee; ANSWER_LEN_MAX];
        match judge(packet, packet.len(), mtu, &mut answer) {
            TooBig::Answer(len) => Ok(answer[..len].to_vec()),
            other @ (TooBig::Cut | TooBig::Force | TooBig::Silent) => Err(other),
        }
    }

    #[test]
    fn ipv4_hears_what_fits_in_576_bytes() {
        let packet = v4(6, ipv4::DONT_FRAGMENT, 1420);
        let answer = answer_to(&packet, 1220).unwrap();
        assert_eq!(answer.len(), 576);
        assert_eq!(read_u16(&answer, ipv4::TOTAL_LEN), 576);
        assert_eq!(answer[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(Sum::of(&answer[..20]).fold(), 0xffff);
        assert_eq!(Sum::of(&answer[20..]).fold(), 0xffff);
        assert_eq!(answer[20..22], FRAGMENTATION_NEEDED);
        assert_eq!(read_u16(&answer, 26), 1220);
        assert_eq!(answer[28..], packet[..548]);
    }

    #[test]
    fn ipv6_hears_what_fits_in_1280_bytes_and_never_less_than_its_minimum() {
        let packet = v6(6, 1420);
        for (mtu, said) in [(1380, 1380), (1200, 1280)] {
            let answer = answer_to(&packet, mtu).unwrap();
            assert_eq!(answer.len(), 1280);
            assert_eq!(answer[8..24], packet[24..40]);
            assert_eq!(answer[24..40], packet[8..24]);
            let pseudo = Sum::pseudo_header(&answer[8..40], ICMPV6, 1240);
            assert_eq!((pseudo + Sum::of(&answer[40..])).fold(), 0xffff);
            assert_eq!(answer[40..42], PACKET_TOO_BIG);
            assert_eq!(read_u16(&answer, 46), said);
            assert_eq!(answer[48..], packet[..1232]);
        }
    }

    #[test]
    fn what_may_be_cut_is_cut_and_what_has_to_pass_passes() {
        assert_eq!(answer_to(&v4(17, 0, 1420), 1220), Err(TooBig::Cut));
        // An IPv6 packet of the least MTU has to get through, whatever the path, and so have the packets of a
        // super-packet.
        assert_eq!(answer_to(&v6(17, 1280), 1220), Err(TooBig::Force));
        let mut answer = [0; ANSWER_LEN_MAX];
        let super_packet = v6(6, 60_000);
        assert_eq!(judge(&super_packet, 1280, 1220, &mut answer), TooBig::Force);
    }

    #[test]
    fn nobody_hears_about_errors_or_in_the_name_of_many() {
        let df = ipv4::DONT_FRAGMENT;
        let mut error = v4(ICMP, df, 1420);
        error[20] = 3;
        let mut echo = error.clone();
        echo[20] = 8;
        let mut to_many = v4(17, df, 1420);
        to_many[16] = 224;
        let mut from_nobody = v4(17, df, 1420);
        from_nobody[12..16].fill(0);
        let later = v4(17, df | 100, 1420);
        for packet in [&error, &to_many, &from_nobody, &later] {
            assert_eq!(answer_to(packet, 1220), Err(TooBig::Silent));
        }
        assert!(answer_to(&echo, 1220).is_ok());

        let mut error = v6(ICMPV6, 1420);
        error[40] = 2;
        let mut echo = error.clone();
        echo[40] = 128;
        let mut to_many = v6(17, 1420);
        to_many[24] = 0xff;
        let mut from_nobody = v6(17, 1420);
        from_nobody[8..24].fill(0);
        for packet in [&error, &to_many, &from_nobody] {
            assert_eq!(answer_to(packet, 1220), Err(TooBig::Silent));
        }
        assert!(answer_to(&echo, 1220).is_ok());
    }

    #[test]
    fn short_and_strange_packets_are_dropped() {
        for packet in [&[][..], &[0x45; 19], &[0x60; 39], &[0x70; 100]] {
            assert_eq!(answer_to(packet, 1220), Err(TooBig::Silent));
        }
        // A header that claims more than there is.
        let mut packet = v4(ICMP, ipv4::DONT_FRAGMENT, 20);
        packet[0] = 0x4f;
        assert_eq!(answer_to(&packet, 10), Err(TooBig::Silent));
    }
}
