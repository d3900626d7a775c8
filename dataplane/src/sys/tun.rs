//! The TUN device (Documentation/networking/tuntap.rst), opened with a vnet header and offloads.
//!
//! # Safety
//!
//! Five ioctls, each with a pointer to a value on the stack or with a plain integer.
#![expect(unsafe_code, reason = "ioctl(2)")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::bpf::Program;
use super::errno::check;

/// The device that makes TUN interfaces.
const DEVICE: &str = "/dev/net/tun";
/// Longest name of an interface, without the final zero (uapi/linux/if.h).
pub(crate) const NAME_LEN_MAX: usize = libc::IFNAMSIZ - 1;

/// Fail if the interface exists (uapi/linux/if_tun.h).
const IFF_TUN_EXCL: i32 = 0x8000;
/// Say the name and the flags.
const TUNGETIFF: libc::Ioctl = 0x8004_54d2_u32 as libc::Ioctl;
/// Let a program choose the queue of every packet.
const TUNSETSTEERINGEBPF: libc::Ioctl = 0x8004_54e0_u32 as libc::Ioctl;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;
/// Our vnet header has no `num_buffers`.
const VNET_HEADER_LEN: libc::c_int = 10;

/// The traffic that the kernel gives and takes in large pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TunOffloads {
    /// TCP super-packets.
    pub tcp: bool,
    /// UDP super-packets (Linux 6.2 and later).
    pub udp: bool,
}

/// A queue of an open TUN interface, which goes away with the last of them.
#[derive(Debug)]
pub(crate) struct Tun {
    file: File,
    offloads: TunOffloads,
}

/// Why an interface could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name is empty, too long, or has a character that no interface may have.
    #[error(
        "'{0}' is no name for an interface: use 1 to {NAME_LEN_MAX} characters without '/', ':' or spaces"
    )]
    Name(String),
    /// No device node.
    #[error(
        "{DEVICE} is missing: load the 'tun' module (modprobe tun) or pass the device into the container"
    )]
    NoDevice,
    /// Not allowed.
    #[error("not allowed to create the interface '{0}': run as root or with CAP_NET_ADMIN")]
    NotPermitted(String),
    /// Taken.
    #[error(
        "an interface '{0}' exists already: choose another name or remove it with 'ip link del {0}'"
    )]
    Exists(String),
    /// Anything else.
    #[error("creating the interface '{name}' failed: {source}")]
    Other {
        /// The name.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Tun {
    /// Makes the interface `name` with so many queues.
    ///
    /// # Errors
    /// [`TunError`], which names the cause and the mend. Nothing is left behind.
    pub(crate) fn create(name: &str, offload: bool, queues: usize) -> Result<Vec<Self>, TunError> {
        if !is_valid_name(name) {
            return Err(TunError::Name(name.to_owned()));
        }
        let shared = if queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
        let mut tuns = vec![Self::open(name, offload, shared | IFF_TUN_EXCL)?];
        for _ in 1..queues {
            tuns.push(Self::open(name, offload, shared)?);
        }
        Ok(tuns)
    }

    /// Takes the queues of the interface `name`, all of them, from a process that has ended. What is queued in them
    /// stays.
    ///
    /// # Errors
    /// `InvalidInput` if one is a queue of another interface or of one that was made otherwise, `EBADFD` if the
    /// interface has been removed.
    pub(crate) fn adopt(queues: Vec<OwnedFd>, name: &str, offload: bool) -> io::Result<Vec<Self>> {
        let shared = if queues.len() > 1 {
            libc::IFF_MULTI_QUEUE
        } else {
            0
        };
        let expected = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | shared;
        let adopt = |queue: OwnedFd| {
            let file = File::from(queue);
            let (found, flags) = identify(&file)?;
            if found != name || flags != expected {
                let what = format!("it is '{found}' with flags {flags:#x}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            let offloads = set_up(&file, offload)?;
            Ok(Self { file, offloads })
        };
        queues.into_iter().map(adopt).collect()
    }

    fn open(name: &str, offload: bool, flags: libc::c_int) -> Result<Self, TunError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(DEVICE)
            .map_err(|error| explain_open(name, error))?;
        attach(&file, name, flags).map_err(|error| explain_attach(name, error))?;
        let offloads = set_up(&file, offload).map_err(|source| TunError::Other {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self { file, offloads })
    }

    /// The offloads that the kernel granted.
    pub(crate) const fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// Has `program` choose the queue of every packet that is sent through the interface, whichever queue this is.
    ///
    /// # Errors
    /// `EINVAL` on a kernel without it (before 4.16).
    pub(crate) fn steer(&self, program: &Program) -> io::Result<()> {
        let fd = program.as_fd().as_raw_fd();
        // SAFETY: the kernel reads one `int` behind a pointer that outlives the call, and takes a reference of its own.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETSTEERINGEBPF, &raw const fd) };
        check(result as isize).map(drop)
    }

    /// Reads one packet with its vnet header, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one packet with its vnet header.
    ///
    /// # Errors
    /// `EINVAL` if the kernel does not like the header, `EIO` if the interface is down.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// As the kernel's `dev_valid_name`; '%' would make it a template.
fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name != "."
        && name != ".."
        && !name
            .contains(|c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || !c.is_ascii())
}

fn attach(file: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | flags;
    // The flags are a `short` in C as well: the highest bit is IFF_TUN_EXCL.
    request.ifr_ifru.ifru_flags = (flags as u16).cast_signed();
    // SAFETY: the kernel reads and writes one `ifreq` behind a pointer that outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(result as isize).map(|_| ())
}

/// The name of the interface that this is a queue of, and the flags with which it was made.
fn identify(file: &File) -> io::Result<(String, libc::c_int)> {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `ifreq` behind a pointer that outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNGETIFF, &raw mut request) };
    check(result as isize)?;
    let name = request.ifr_name.map(i8::cast_unsigned);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    // SAFETY: the kernel has written the flags, and any bits are a `short`.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // The kernel adds some of its own.
    let of_ours = libc::IFF_TUN
        | libc::IFF_TAP
        | libc::IFF_NO_PI
        | libc::IFF_VNET_HDR
        | libc::IFF_MULTI_QUEUE;
    let flags = libc::c_int::from(flags.cast_unsigned()) & of_ours;
    Ok((String::from_utf8_lossy(name).into_owned(), flags))
}

fn set_up(file: &File, offload: bool) -> io::Result<TunOffloads> {
    let len = VNET_HEADER_LEN;
    // SAFETY: the kernel reads one `int` behind a pointer that outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) };
    check(result as isize)?;
    if !offload {
        return Ok(TunOffloads::default());
    }
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    if set_offload(file, tcp | TUN_F_USO4 | TUN_F_USO6).is_ok() {
        return Ok(TunOffloads {
            tcp: true,
            udp: true,
        });
    }
    let tcp = set_offload(file, tcp).is_ok();
    Ok(TunOffloads { tcp, udp: false })
}

fn set_offload(file: &File, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
    check(result as isize).map(|_| ())
}

fn explain_open(name: &str, error: io::Error) -> TunError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDevice,
        Some(libc::EPERM | libc::EACCES) => TunError::NotPermitted(name.to_owned()),
        _ => TunError::Other {
            name: name.to_owned(),
            source: error,
        },
    }
}

fn explain_attach(name: &str, error: io::Error) -> TunError {
    match error.raw_os_error() {
        Some(libc::EPERM) => TunError::NotPermitted(name.to_owned()),
        // EINVAL: the name belongs to an interface that is no TUN.
        Some(libc::EBUSY | libc::EINVAL | libc::EEXIST) => TunError::Exists(name.to_owned()),
        _ => TunError::Other {
            name: name.to_owned(),
            source: error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "wg%d",
            "sixteencharacter",
            "ä",
        ] {
            assert!(
                matches!(Tun::create(name, true, 1), Err(TunError::Name(_))),
                "{name}"
            );
        }
        assert!(is_valid_name("ployz0"));
        assert!(is_valid_name("fifteencharact0"));
    }
}
