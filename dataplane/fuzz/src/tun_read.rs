//! What the TUN hands over, cut into packets, and those packets joined again.

use ployz_dataplane::offload::{Capabilities, Coalescer, Segments, VnetHeader};

use super::input::Input;
use super::packets::{self, Builder};

const BUFFERS: usize = 4;

/// Reads; a megabyte altogether.
const STEPS_MAX: usize = 16;

/// Several reads, each raw or built; all that they are cut into is coalesced, written, and cut again.
pub fn tun_read(data: &[u8]) {
    let mut input = Input::new(data);
    let mut builder = Builder::default();
    let capabilities = input.byte();
    let mut coalescer = Coalescer::new(
        Capabilities {
            tcp: capabilities & 1 == 0,
            udp: capabilities & 2 == 0,
        },
        BUFFERS,
    );
    let (mut committed, mut written) = (Vec::new(), Vec::new());
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let read = match input.byte() % 4 {
            0 => input.string().to_vec(),
            1 => whole(builder.packet(&mut input, 1500)),
            _ => builder.tun_read(&mut input),
        };
        for packet in cut(&read) {
            commit(&mut coalescer, &packet, &mut written);
            committed.push(packet);
        }
        if input.byte().is_multiple_of(4) {
            coalescer.flush();
        }
    }
    coalescer.flush();
    take_writes(&mut coalescer, &mut written);
    assert_eq!(coalescer.buffers_free(), BUFFERS, "no buffer gets lost");
    compare(&committed, &written);
}

/// A packet that needs nothing, as the kernel reads it and as we write it.
fn whole(packet: Vec<u8>) -> Vec<u8> {
    [VnetHeader::Whole.to_bytes().to_vec(), packet].concat()
}

/// Cuts a read, and checks what is true of any read.
fn cut(read: &[u8]) -> Vec<Vec<u8>> {
    let mut buffer = read.to_vec();
    let Ok(mut segments) = Segments::from_read(&mut buffer) else {
        return Vec::new();
    };
    let (count, len_max) = (segments.remaining(), segments.packet_len_max());
    let mut all = Vec::new();
    while let Some(packet) = segments.next_packet() {
        assert!(packet.len() <= len_max);
        all.push(packet.to_vec());
    }
    assert_eq!(all.len(), count);
    if let Ok(VnetHeader::Super { transport, .. }) = VnetHeader::parse(read) {
        check_cut(&read[VnetHeader::LEN..], transport.into(), &all);
    }
    all
}

/// The packets carry the super-packet's payload, and are right if the super-packet was.
fn check_cut(super_packet: &[u8], transport_at: usize, all: &[Vec<u8>]) {
    let is_tcp = packets::is_tcp(super_packet);
    let header_len = transport_at
        + if is_tcp {
            usize::from(super_packet[transport_at + 12] >> 4) * 4
        } else {
            8
        };
    let payloads: Vec<u8> = all
        .iter()
        .flat_map(|it| &it[header_len..])
        .copied()
        .collect();
    assert!(payloads == super_packet[header_len..]);
    // Only a plain header says by itself what the pseudo-header is.
    if packets::transport_at(super_packet) != Some(transport_at) {
        return;
    }
    let checksum_at = transport_at + if is_tcp { 16 } else { 6 };
    let partial = packets::pseudo_sum(super_packet, super_packet.len() - transport_at);
    let is_right = packets::word(super_packet, checksum_at) == partial;
    for packet in all.iter().filter(|_| is_right) {
        assert_eq!(packets::transport_at(packet), Some(transport_at));
        assert_eq!(packets::transport_sum(packet, transport_at), 0xffff);
    }
}

fn commit(coalescer: &mut Coalescer, packet: &[u8], written: &mut Vec<Vec<u8>>) {
    if coalescer.buffers_free() == 0 {
        coalescer.flush();
    }
    take_writes(coalescer, written);
    let is_taken = coalescer.push(packet);
    assert!(is_taken || packet.len() > 65_535, "a free buffer has room");
}

fn take_writes(coalescer: &mut Coalescer, written: &mut Vec<Vec<u8>>) {
    while let Some(buffer) = coalescer.pop_ready() {
        written.push(buffer.as_bytes().to_vec());
        coalescer.recycle(buffer);
    }
}

/// Coalescing is invisible.
pub(crate) fn compare(committed: &[Vec<u8>], written: &[Vec<u8>]) {
    let mut arrived = Vec::new();
    for write in written {
        let mut write = write.clone();
        let mut segments = Segments::from_read(&mut write).expect("we write what we can read");
        while let Some(packet) = segments.next_packet() {
            arrived.push(packet.to_vec());
        }
    }
    let committed = committed.iter().map(Vec::as_slice);
    assert_eq!(
        packets::epochs(arrived.iter().map(Vec::as_slice)),
        packets::epochs(committed.filter(|it| (1..=65_535).contains(&it.len()))),
    );
}
