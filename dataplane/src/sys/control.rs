//! Control messages (cmsg(3)) as bytes, without unsafe: what the kernel says about a datagram that came, and what we
//! say about datagrams that go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ployz_engine::{Ecn, LocalAddress, WallNs};

/// `struct cmsghdr`: length (a word), level, type; data and the next header are aligned to a word.
const HEADER_LEN: usize = size_of::<usize>() + 2 * size_of::<i32>();

const fn space(data_len: usize) -> usize {
    (HEADER_LEN + data_len).next_multiple_of(size_of::<usize>())
}

/// `in_pktinfo` is 12 bytes, `in6_pktinfo` 20.
const PKTINFO_V4_LEN: usize = 12;
const PKTINFO_V6_LEN: usize = 20;

/// `scm_timestamping` is three `timespec`: of software, unused, of hardware.
const TIMESTAMPING_LEN: usize = 3 * 2 * size_of::<i64>();

/// Room for everything that is asked for on receive: packet info, TOS or traffic class, GRO size, time of arrival.
pub(crate) const RECEIVE_LEN: usize =
    space(PKTINFO_V6_LEN) + space(4) + space(4) + space(TIMESTAMPING_LEN);
/// Room for everything that is said on send: packet info, TOS or traffic class, segment size, a wish for a stamp.
pub(crate) const SEND_LEN: usize = space(PKTINFO_V6_LEN) + space(4) + space(2) + space(4);

/// What came with a datagram, or with several that GRO had joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Which of our addresses it was sent to.
    pub local: Option<LocalAddress>,
    /// ECN bits of the outer header.
    pub ecn: Ecn,
    /// Every datagram but the last has this length; `None` if there is only one.
    pub segment_len: Option<usize>,
    /// When the kernel had it from the driver.
    pub arrived: Option<WallNs>,
}

/// Reads the control messages of a receive. Unknown ones are skipped, a cut-off one ends the list.
pub(crate) fn decode(mut bytes: &[u8]) -> Received {
    let mut received = Received::default();
    while let Some((level, kind, data, rest)) = split(bytes) {
        bytes = rest;
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => received.local = pktinfo_v4(data),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => received.local = pktinfo_v6(data),
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                received.ecn = Ecn::from_bits(data.first().copied().unwrap_or(0));
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                received.segment_len = native_u32(data, 0)
                    .and_then(|len| usize::try_from(len).ok())
                    .filter(|len| *len > 0);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => received.arrived = wall_ns(data),
            _ => {}
        }
    }
    received
}

/// Reads what the error queue says of a departure: its key, and when it was.
pub(crate) fn decode_departure(mut bytes: &[u8]) -> Option<(u32, WallNs)> {
    let (mut key, mut at) = (None, None);
    while let Some((level, kind, data, rest)) = split(bytes) {
        bytes = rest;
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => at = wall_ns(data),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                key = stamp_key(data);
            }
            _ => {}
        }
    }
    key.zip(at)
}

/// `ee_data` of a `sock_extended_err` that is about a stamp (uapi/linux/errqueue.h).
fn stamp_key(data: &[u8]) -> Option<u32> {
    let origin = *data.get(4)?;
    (origin == libc::SO_EE_ORIGIN_TIMESTAMPING).then_some(native_u32(data, 12)?)
}

/// The stamp of the kernel, if there is one: the first `timespec` is not zero.
fn wall_ns(data: &[u8]) -> Option<WallNs> {
    let seconds = u64::from_ne_bytes(*data.first_chunk()?);
    let nanoseconds = u64::from_ne_bytes(*data.get(8..)?.first_chunk()?);
    let ns = seconds
        .checked_mul(1_000_000_000)?
        .checked_add(nanoseconds)?;
    (ns > 0).then_some(ns)
}

fn split(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let word = size_of::<usize>();
    let len = usize::from_ne_bytes(*bytes.first_chunk()?);
    let level = native_u32(bytes, word)?.cast_signed();
    let kind = native_u32(bytes, word + 4)?.cast_signed();
    let data = bytes.get(HEADER_LEN..len)?;
    let rest = bytes.get(len.next_multiple_of(word)..).unwrap_or(&[]);
    Some((level, kind, data, rest))
}

fn native_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn pktinfo_v4(data: &[u8]) -> Option<LocalAddress> {
    let interface_index = native_u32(data, 0)?;
    // ipi_spec_dst, the address that answers should come from, not ipi_addr, which may be a broadcast address.
    let octets: [u8; 4] = *data.get(4..)?.first_chunk()?;
    Some(LocalAddress {
        ip: IpAddr::V4(Ipv4Addr::from(octets)),
        interface_index,
    })
}

fn pktinfo_v6(data: &[u8]) -> Option<LocalAddress> {
    let octets: [u8; 16] = *data.first_chunk()?;
    let interface_index = native_u32(data, 16)?;
    Some(LocalAddress {
        ip: IpAddr::V6(Ipv6Addr::from(octets)),
        interface_index,
    })
}

/// What to say about datagrams that go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Send {
    /// The socket's family.
    pub ipv6: bool,
    /// The source address to use.
    pub local: Option<LocalAddress>,
    /// ECN bits for the outer header.
    pub ecn: Ecn,
    /// Cut the bytes into datagrams of this length (`UDP_SEGMENT`).
    pub segment_len: Option<u16>,
    /// Say when it left (`SOF_TIMESTAMPING_TX_SOFTWARE`).
    pub stamped: bool,
}

/// Writes the control messages of a send and returns how many bytes they take.
pub(crate) fn encode(send: Send, bytes: &mut [u8; SEND_LEN]) -> usize {
    let mut at = 0;
    match send.local.map(|local| (local.ip, local.interface_index)) {
        // The index stays zero: a source address does not pin the route, as in the kernel's WireGuard.
        Some((IpAddr::V4(ip), _)) => {
            let mut info = [0; PKTINFO_V4_LEN];
            info[4..8].copy_from_slice(&ip.octets());
            push(bytes, &mut at, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some((IpAddr::V6(ip), interface_index)) => {
            let mut info = [0; PKTINFO_V6_LEN];
            info[..16].copy_from_slice(&ip.octets());
            if ip.is_unicast_link_local() {
                info[16..].copy_from_slice(&interface_index.to_ne_bytes());
            }
            push(
                bytes,
                &mut at,
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                &info,
            );
        }
        None => {}
    }
    if send.ecn != Ecn::NotEct {
        let (level, kind) = if send.ipv6 {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        } else {
            (libc::IPPROTO_IP, libc::IP_TOS)
        };
        push(
            bytes,
            &mut at,
            level,
            kind,
            &i32::from(send.ecn.bits()).to_ne_bytes(),
        );
    }
    if let Some(segment_len) = send.segment_len {
        push(
            bytes,
            &mut at,
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            &segment_len.to_ne_bytes(),
        );
    }
    if send.stamped {
        let wish = libc::SOF_TIMESTAMPING_TX_SOFTWARE.to_ne_bytes();
        push(
            bytes,
            &mut at,
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPING,
            &wish,
        );
    }
    at
}

fn push(bytes: &mut [u8; SEND_LEN], at: &mut usize, level: i32, kind: i32, data: &[u8]) {
    let message = &mut bytes[*at..*at + space(data.len())];
    message.fill(0);
    let word = size_of::<usize>();
    message[..word].copy_from_slice(&(HEADER_LEN + data.len()).to_ne_bytes());
    message[word..word + 4].copy_from_slice(&level.to_ne_bytes());
    message[word + 4..HEADER_LEN].copy_from_slice(&kind.to_ne_bytes());
    message[HEADER_LEN..HEADER_LEN + data.len()].copy_from_slice(data);
    *at += message.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_can_be_read() {
        for (ipv6, ip) in [(false, "192.0.2.1"), (true, "2001:db8::1")] {
            let local = LocalAddress {
                ip: ip.parse().unwrap(),
                interface_index: 0,
            };
            let mut bytes = [0xff; SEND_LEN];
            let send = Send {
                ipv6,
                local: Some(local),
                ecn: Ecn::Ce,
                segment_len: Some(1452),
                stamped: true,
            };
            let len = encode(send, &mut bytes);
            assert!(len <= SEND_LEN);
            let read = decode(&bytes[..len]);
            assert_eq!((read.local, read.ecn), (Some(local), Ecn::Ce));
            for cut in 0..len {
                decode(&bytes[..cut]);
            }
        }
    }

    #[test]
    fn nothing_to_say_takes_no_bytes() {
        let send = Send {
            ipv6: false,
            local: None,
            ecn: Ecn::NotEct,
            segment_len: None,
            stamped: false,
        };
        assert_eq!(encode(send, &mut [0; SEND_LEN]), 0);
        assert_eq!(decode(&[]), Received::default());
    }

    #[test]
    fn hostile_lengths_end_the_list() {
        let mut bytes = [0; RECEIVE_LEN];
        for len in [0, 1, 15, 16, 17, usize::MAX, usize::MAX - 8] {
            bytes[..8].copy_from_slice(&len.to_ne_bytes());
            decode(&bytes);
            decode_departure(&bytes);
        }
    }

    #[test]
    fn a_time_is_read_wherever_it_is_cut() {
        let mut message = Vec::new();
        message.extend((HEADER_LEN + TIMESTAMPING_LEN).to_ne_bytes());
        message.extend(libc::SOL_SOCKET.to_ne_bytes());
        message.extend(libc::SCM_TIMESTAMPING.to_ne_bytes());
        message.extend([7_i64, 5, 0, 0, 0, 0].map(i64::to_ne_bytes).concat());
        assert_eq!(decode(&message).arrived, Some(7_000_000_005));
        for len in 0..message.len() {
            assert_eq!(decode(&message[..len]).arrived, None);
        }
        message[HEADER_LEN..].fill(0);
        assert_eq!(decode(&message).arrived, None, "the kernel had no stamp");
    }
}
