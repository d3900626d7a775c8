//! bpf(2): one kind of map and one kind of program, which is all that steering takes.
//!
//! # Safety
//!
//! One system call, with a command number and the attributes that belong to it. Addresses within attributes are of
//! values that the caller of [`bpf`] borrows for longer than the call; the kernel keeps none of them.
#![expect(unsafe_code, reason = "bpf(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::errno::check;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_PROG_LOAD: libc::c_int = 5;

const BPF_MAP_TYPE_LPM_TRIE: u32 = 11;
/// Longest-prefix maps must have it: memory is taken as entries come.
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_ANY: u64 = 0;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
/// No function that we call asks for a particular one.
const LICENSE: &std::ffi::CStr = c"Apache-2.0 OR MIT";

/// The beginning of `union bpf_attr` for each command (uapi/linux/bpf.h); the kernel takes what is left out as zero.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapElement {
    map_fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instructions_count: u32,
    instructions: u64,
    license: u64,
}

/// A map from prefixes to numbers, looked up by longest match. A key is the length of its prefix, in bits, as a native
/// `u32`, and then the bits.
#[derive(Debug)]
pub(crate) struct PrefixMap<const KEY_LEN: usize>(OwnedFd);

impl<const KEY_LEN: usize> PrefixMap<KEY_LEN> {
    /// An empty map.
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF, `ENOSYS` or `EINVAL` on a kernel without it.
    pub(crate) fn create(entries_max: u32) -> io::Result<Self> {
        let attributes = MapCreate {
            map_type: BPF_MAP_TYPE_LPM_TRIE,
            key_size: KEY_LEN as u32,
            value_size: size_of::<u32>() as u32,
            max_entries: entries_max,
            map_flags: BPF_F_NO_PREALLOC,
        };
        bpf_open(BPF_MAP_CREATE, &attributes).map(Self)
    }

    /// Adds a key or changes its value.
    ///
    /// # Errors
    /// `ENOSPC` if the map is full, `ENOMEM`.
    pub(crate) fn insert(&self, key: &[u8; KEY_LEN], value: u32) -> io::Result<()> {
        let element = self.element(key, &raw const value as u64);
        bpf(BPF_MAP_UPDATE_ELEM, &element).map(drop)
    }

    /// Takes a key away.
    ///
    /// # Errors
    /// `ENOENT` if it is not there.
    pub(crate) fn remove(&self, key: &[u8; KEY_LEN]) -> io::Result<()> {
        bpf(BPF_MAP_DELETE_ELEM, &self.element(key, 0)).map(drop)
    }

    /// Its number, for a program that looks something up in it.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn element(&self, key: &[u8; KEY_LEN], value: u64) -> MapElement {
        MapElement {
            // 32 bits and padding that must be zero.
            map_fd: self.0.as_raw_fd() as u64,
            key: key.as_ptr() as u64,
            value,
            flags: BPF_ANY,
        }
    }
}

/// A program that the kernel has verified.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

impl Program {
    /// Loads a program that is run on a packet and answers with a number.
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF, `EINVAL` or `EACCES` if the verifier does not like it.
    pub(crate) fn load(instructions: &[u64]) -> io::Result<Self> {
        let attributes = ProgramLoad {
            program_type: BPF_PROG_TYPE_SOCKET_FILTER,
            instructions_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
        };
        bpf_open(BPF_PROG_LOAD, &attributes).map(Self)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn bpf_open<A>(command: libc::c_int, attributes: &A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: both commands that open something answer with a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn bpf<A>(command: libc::c_int, attributes: &A) -> io::Result<usize> {
    let attributes: *const A = attributes;
    // SAFETY: the kernel reads `size_of::<A>()` bytes of attributes, and through the addresses in them a key of the
    // map's length, a value of four bytes, the instructions or the license; all outlive the call, and nothing is
    // written.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<A>()) };
    check(result as isize)
}
