//! A peer that is who it says it is, and hostile: whatever it seals reaches the TUN only as crypto-routing, the
//! packet's own lengths, and ECN allow. The other way round, whatever is read from the TUN arrives as it was.
//!
//! ```text
//!   victim (1)  10.0.0.1, fd00::1     peers: 2 with 10.0.0.2/32, 10.1.0.0/16, fd00::2/128; 3 with 10.1.1.0/24
//!   peer   (2)  takes everything from the victim
//! ```

use std::net::IpAddr;

use ployz_dataplane::offload::VnetHeader;
use ployz_engine::Ecn;

use super::hosts::{Speaker, Victim, connect, drops, peer};
use super::input::Input;
use super::packets::{Builder, word};
use super::tun_read::compare;

const VICTIM: u8 = 1;
const PEER: u8 = 2;

/// Enough for every kind of neighbour, few enough for many runs a second.
const STEPS_MAX: usize = 64;

/// A run of packets from the peer and from the TUN.
pub fn inner_packet(data: &[u8]) {
    let peers = vec![
        peer(PEER, &["10.0.0.2/32", "10.1.0.0/16", "fd00::2/128"]),
        peer(3, &["10.1.1.0/24", "10.0.0.0/24"]),
    ];
    let mut victim = Victim::new(VICTIM, peers);
    let mut speaker = Speaker::new(PEER, VICTIM);
    connect(&mut victim, &mut speaker, VICTIM);
    let mut input = Input::new(data);
    let mut builder = Builder::default();
    let (mut expected, mut written) = (Vec::new(), Vec::new());
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.byte() % 8 {
            0 => hostile(&mut victim, &mut speaker, &mut input, &mut expected),
            1 => to_the_network(&mut victim, &mut speaker, input.string(), &mut written),
            2 => {
                let packet = builder.packet(&mut input, 1500);
                to_the_network(&mut victim, &mut speaker, &packet, &mut written);
            }
            3 => written.extend(victim.end_turn().1),
            kind => {
                let ecn = if kind == 4 {
                    Ecn::from_bits(input.byte())
                } else {
                    Ecn::NotEct
                };
                let mut packet = builder.packet(&mut input, 1500);
                packet.resize(packet.len() + usize::from(input.byte() % 16), 0);
                sealed(&mut victim, &mut speaker, &packet, ecn, &mut expected);
            }
        }
    }
    written.extend(victim.end_turn().1);
    compare(&expected, &written);
}

fn hostile(
    victim: &mut Victim,
    speaker: &mut Speaker,
    input: &mut Input<'_>,
    expected: &mut Vec<Vec<u8>>,
) {
    let ecn = Ecn::from_bits(input.byte());
    sealed(victim, speaker, input.string(), ecn, expected);
}

/// The peer seals `content`; the datagram arrives with `ecn` on it.
fn sealed(
    victim: &mut Victim,
    speaker: &mut Speaker,
    content: &[u8],
    ecn: Ecn,
    expected: &mut Vec<Vec<u8>>,
) {
    let before = drops(&victim.snapshot());
    let (at, datagrams) = (speaker.at, speaker.say(victim.now, content));
    assert_eq!(datagrams.len(), 1, "there is a session");
    victim.receive(at, &datagrams[0], ecn, None);
    let delivery = delivery(content, ecn);
    let dropped = delivery.is_none() && !content.is_empty();
    assert_eq!(drops(&victim.snapshot()) - before, u64::from(dropped));
    expected.extend(delivery);
}

/// What the TUN gets of a packet from the peer.
fn delivery(content: &[u8], outer: Ecn) -> Option<Vec<u8>> {
    let (least, len, source) = match content.first()? >> 4 {
        4 if content.len() >= 20 => {
            let source: [u8; 4] = content[12..16].try_into().expect("four bytes");
            (20, usize::from(word(content, 2)), IpAddr::from(source))
        }
        6 if content.len() >= 40 => {
            let source: [u8; 16] = content[8..24].try_into().expect("sixteen bytes");
            (40, 40 + usize::from(word(content, 4)), IpAddr::from(source))
        }
        _ => return None,
    };
    if !(least..=content.len()).contains(&len) || !is_the_peers(source) {
        return None;
    }
    let mut packet = content[..len].to_vec();
    mark(&mut packet, outer).then_some(packet)
}

fn is_the_peers(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => match source.octets() {
            [10, 0, 0, 2] => true,
            [10, 1, 1, _] => false,
            [10, 1, ..] => true,
            _ => false,
        },
        IpAddr::V6(source) => source.segments() == [0xfd00, 0, 0, 0, 0, 0, 0, 2],
    }
}

/// RFC 6040, figure 4, as a table; false if the packet has to go.
fn mark(packet: &mut [u8], outer: Ecn) -> bool {
    const DROP: u8 = 4;
    // Rows: inner Not-ECT, ECT(1), ECT(0), CE. Columns: the same for the outer header.
    const FIGURE_4: [[u8; 4]; 4] = [[0, 0, 0, DROP], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
    let shift = if packet[0] >> 4 == 4 { 0 } else { 4 };
    let inner = packet[1] >> shift & 3;
    let combined = FIGURE_4[usize::from(inner)][usize::from(outer.bits())];
    if combined == DROP {
        return false;
    }
    let before = word(packet, 0);
    packet[1] = packet[1] & !(3 << shift) | combined << shift;
    if shift == 0 && combined != inner {
        // RFC 1624, equation 3.
        let terms = [!word(packet, 10), !before, word(packet, 0)];
        let sum: u32 = terms.into_iter().map(u32::from).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    true
}

/// A packet is read from the TUN; if it is the peer's, it arrives there, padded at most.
fn to_the_network(
    victim: &mut Victim,
    speaker: &mut Speaker,
    packet: &[u8],
    written: &mut Vec<Vec<u8>>,
) {
    written.extend(victim.end_turn().1);
    let before = drops(&victim.snapshot());
    victim.tun_read(&[&VnetHeader::Whole.to_bytes(), packet].concat());
    let (datagrams, _) = victim.end_turn();
    let (at, mut arrived) = (speaker.at, Vec::new());
    for datagram in datagrams.iter().filter(|it| it.to == at) {
        let (_, packets) = speaker.hear(victim.now, VICTIM, &datagram.bytes);
        arrived.extend(packets);
    }
    let is_routed = drops(&victim.snapshot()) == before;
    let destination = match packet.first().map_or(0, |first| first >> 4) {
        4 if packet.len() >= 20 => <[u8; 4]>::try_from(&packet[16..20]).ok().map(IpAddr::from),
        6 if packet.len() >= 40 => <[u8; 16]>::try_from(&packet[24..40]).ok().map(IpAddr::from),
        _ => None,
    };
    if !destination.is_some_and(is_the_peers) {
        assert!(arrived.is_empty() && datagrams.iter().all(|it| it.to != at));
        return;
    }
    assert!(is_routed, "a packet for the peer is not dropped");
    // What the other end makes of it is the other end's affair, but a packet that it takes is the one that we sent.
    assert!(arrived.len() <= 1);
    for arrived in arrived {
        assert!(packet.starts_with(&arrived) || arrived.starts_with(packet));
    }
}
