//! Brings every packet that is sent through the TUN to the queue of the shard that its peer is at home in.
//!
//! The kernel's own choice would follow the flows and move them between queues while packets of theirs wait in one, and
//! knows nothing of peers. So it is made by a program that looks the destination up in the same prefixes that the
//! engines have, kept in a map next to them.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use ployz_engine::Steer;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::inbox::COMMANDS_MAX;
use crate::sys::bpf::{PrefixMap, Program};
use crate::sys::tun::Tun;

/// Prefixes that can be steered. Memory is taken as they come, about 100 bytes each.
const PREFIXES_MAX: u32 = 1 << 20;

/// `struct bpf_lpm_trie_key`: bits that count, then a word that tells the families apart, then the address.
const KEY_LEN: usize = 4 + 4 + 16;
const FAMILY_BITS: u8 = 32;

/// The map that the program looks up, as long as an interface has several shards.
#[derive(Debug)]
pub(crate) struct Steering {
    map: PrefixMap<KEY_LEN>,
    sender: Sender<Vec<Steer>>,
    changes: RefCell<Receiver<Vec<Steer>>>,
}

impl Steering {
    /// A map without prefixes, which no program looks at yet.
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF.
    pub(crate) fn new() -> io::Result<Self> {
        let map = PrefixMap::create(PREFIXES_MAX)?;
        // One for each command that can wait.
        let (sender, changes) = channel(COMMANDS_MAX);
        Ok(Self {
            map,
            sender,
            changes: RefCell::new(changes),
        })
    }

    /// Steers all packets of the interface that `tun` is a queue of; to the first, where no prefix is known.
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF.
    pub(crate) fn attach(&self, tun: &Tun) -> io::Result<()> {
        // The program keeps the map, and the interface the program.
        tun.steer(&Program::load(&program(self.map.raw_fd()))?)
    }

    /// The channel for the handshake shard's changes, in their order.
    pub(crate) const fn sender(&self) -> &Sender<Vec<Steer>> {
        &self.sender
    }

    /// Takes over what the handshake shard has said.
    ///
    /// # Errors
    /// `ENOSPC` beyond a million prefixes; the rest is taken over nevertheless.
    pub(crate) fn follow(&self) -> io::Result<()> {
        let mut outcome = Ok(());
        while let Ok(changes) = self.changes.borrow_mut().try_recv() {
            let taken = self.take_over(changes);
            outcome = outcome.and(taken);
        }
        outcome
    }

    /// Steers as these say.
    ///
    /// # Errors
    /// As [`Steering::follow`].
    pub(crate) fn take_over(&self, changes: Vec<Steer>) -> io::Result<()> {
        let results = changes.into_iter().map(|change| self.steer(change));
        results.fold(Ok(()), io::Result::and)
    }

    fn steer(&self, change: Steer) -> io::Result<()> {
        let key = key(change.prefix);
        match change.shard {
            Some(shard) => self.map.insert(&key, shard as u32),
            None => match self.map.remove(&key) {
                // Given and taken within one update.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            },
        }
    }
}

fn key(prefix: IpNet) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    let bits = u32::from(FAMILY_BITS + prefix.prefix_len());
    key[..4].copy_from_slice(&bits.to_ne_bytes());
    match prefix.network() {
        IpAddr::V4(address) => {
            key[4..8].copy_from_slice(&4_u32.to_ne_bytes());
            key[8..12].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            key[4..8].copy_from_slice(&6_u32.to_ne_bytes());
            key[8..].copy_from_slice(&address.octets());
        }
    }
    key
}

/// So far: the bytes of an instruction are in another order elsewhere.
const _: () = assert!(cfg!(target_endian = "little"));

const INSTRUCTIONS: usize = 28;

/// Answers with the shard of a packet's destination, or the first. In the machine language of
/// Documentation/bpf/standardization/instruction-set.rst; a packet starts with its IP header.
fn program(map: i32) -> [u64; INSTRUCTIONS] {
    let (r0, r1, r2, r3, r4, context, stack) = (0, 1, 2, 3, 4, 6, 10);
    let (key, family, address) = (-24, -20, -16);
    let [map_low, map_high] = set_map(r1, map);
    [
        set_to(context, r1),
        load_first_byte(),
        shift_right(r0, 4),
        store(key, i32::from(FAMILY_BITS) + 128),
        store_register(family, r0),
        store_double(address, 0),
        store_double(address + 8, 0),
        // Where the destination is in the packet, and how long.
        set(r2, 16),
        set(r4, 4),
        skip_if(r0, 4, 3),
        set(r2, 24),
        set(r4, 16),
        skip_unless(r0, 6, 13),
        set_to(r1, context),
        set_to(r3, stack),
        add(r3, i32::from(address)),
        call(SKB_LOAD_BYTES),
        skip_unless(r0, 0, 8),
        map_low,
        map_high,
        set_to(r2, stack),
        add(r2, i32::from(key)),
        call(MAP_LOOKUP_ELEMENT),
        skip_if(r0, 0, 1),
        load(r0, r0),
        exit(),
        set(r0, 0),
        exit(),
    ]
}

/// Functions of the kernel (uapi/linux/bpf.h).
const MAP_LOOKUP_ELEMENT: i32 = 1;
const SKB_LOAD_BYTES: i32 = 26;
/// The register that points behind the stack.
const STACK: u8 = 10;

fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    u64::from_le_bytes([code, from << 4 | to, low, high, a, b, c, d])
}

fn set(register: u8, value: i32) -> u64 {
    instruction(0xb7, register, 0, 0, value)
}

fn set_to(register: u8, other: u8) -> u64 {
    instruction(0xbf, register, other, 0, 0)
}

/// Of two slots, the second of which holds nothing of a map's number.
fn set_map(register: u8, map: i32) -> [u64; 2] {
    const IS_MAP: u8 = 1;
    [
        instruction(0x18, register, IS_MAP, 0, map),
        instruction(0, 0, 0, 0, 0),
    ]
}

fn add(register: u8, value: i32) -> u64 {
    instruction(0x07, register, 0, 0, value)
}

fn shift_right(register: u8, bits: i32) -> u64 {
    instruction(0x77, register, 0, 0, bits)
}

/// The first byte of the packet, into register 0.
fn load_first_byte() -> u64 {
    instruction(0x30, 0, 0, 0, 0)
}

fn load(register: u8, pointer: u8) -> u64 {
    instruction(0x61, register, pointer, 0, 0)
}

fn store(at: i16, value: i32) -> u64 {
    instruction(0x62, STACK, 0, at, value)
}

fn store_double(at: i16, value: i32) -> u64 {
    instruction(0x7a, STACK, 0, at, value)
}

fn store_register(at: i16, register: u8) -> u64 {
    instruction(0x63, STACK, register, at, 0)
}

fn skip_if(register: u8, value: i32, instructions: i16) -> u64 {
    instruction(0x15, register, 0, instructions, value)
}

fn skip_unless(register: u8, value: i32, instructions: i16) -> u64 {
    instruction(0x55, register, 0, instructions, value)
}

fn call(function: i32) -> u64 {
    instruction(0x85, 0, 0, 0, function)
}

fn exit() -> u64 {
    instruction(0x95, 0, 0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_are_apart_and_prefixes_are_of_the_address() {
        let of = |prefix: &str| key(prefix.parse().unwrap());
        let mut v4 = [0; KEY_LEN];
        v4[0] = 32 + 8;
        v4[4] = 4;
        v4[8] = 10;
        assert_eq!(of("10.1.2.3/8"), v4);
        assert_eq!(of("0.0.0.0/0")[..8], [32, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(of("::/0")[..8], [32, 0, 0, 0, 6, 0, 0, 0]);
        let v6 = of("fd00::7/128");
        assert_eq!(v6[..5], [160, 0, 0, 0, 6]);
        assert_eq!((v6[8], v6[23]), (0xfd, 7));
    }
}
