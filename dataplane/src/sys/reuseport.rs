//! Several UDP sockets on one port: which of them a datagram is for (SO_REUSEPORT, socket(7)).
//!
//! ```text
//!   data, cookie reply       the socket that the highest byte of the receiver index names
//!   initiation, response     the same, if data follows it in one piece; else the first socket
//!   anything else            the first socket
//! ```
//!
//! GRO joins datagrams of one sender before a socket is chosen, and a shorter one may end the piece. Data that came
//! behind a handshake message has to take the way of all other data, or it would be overtaken.
//!
//! # Safety
//!
//! One `setsockopt`, with a program that outlives the call.
#![expect(unsafe_code, reason = "SO_ATTACH_REUSEPORT_CBPF has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX,
    BPF_MOD, BPF_RET, sock_filter, sock_fprog,
};

use super::errno::check;

const INITIATION: u32 = 1;
const INITIATION_LEN: u32 = 148;
const RESPONSE: u32 = 2;
const RESPONSE_LEN: u32 = 92;
const COOKIE_REPLY: u32 = 3;
const DATA: u32 = 4;
/// The receiver index of data and cookie replies is at 4, in little-endian order.
const INDEX_HIGHEST_BYTE: u32 = 7;
const INSTRUCTIONS: usize = 14;

/// Steers what arrives for the group that `socket` is in, which has `sockets` members.
///
/// # Errors
/// `EINVAL` if it is in none.
pub(crate) fn steer(socket: BorrowedFd<'_>, sockets: u32) -> io::Result<()> {
    let mut instructions = program(sockets);
    let program = sock_fprog {
        len: INSTRUCTIONS as u16,
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: the kernel reads a `sock_fprog` and copies the `INSTRUCTIONS` instructions that it points to.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as libc::socklen_t,
        )
    };
    check(result as isize).map(drop)
}

/// Sees the payload of the first datagram and all that follow it in one piece. A load past the end ends the program
/// with zero: the first socket.
fn program(sockets: u32) -> [sock_filter; INSTRUCTIONS] {
    let first_byte = load(BPF_ABS, 0);
    [
        // X is where the message starts that decides.
        set_x(0),
        first_byte,
        skip_if(DATA, 8, 0),
        skip_if(COOKIE_REPLY, 7, 0),
        set_x(INITIATION_LEN),
        skip_if(INITIATION, 2, 0),
        set_x(RESPONSE_LEN),
        skip_if(RESPONSE, 0, 2),
        load(BPF_IND, 0),
        skip_if(DATA, 1, 0),
        answer(BPF_K, 0),
        load(BPF_IND, INDEX_HIGHEST_BYTE),
        statement(BPF_ALU | BPF_MOD | BPF_K, sockets),
        answer(BPF_A, 0),
    ]
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn load(mode: u32, at: u32) -> sock_filter {
    statement(BPF_LD | BPF_B | mode, at)
}

fn set_x(value: u32) -> sock_filter {
    statement(BPF_LDX | BPF_IMM, value)
}

fn answer(source: u32, value: u32) -> sock_filter {
    statement(BPF_RET | source, value)
}

/// Skips `then` instructions if the accumulator is `value`, and `otherwise` if not.
fn skip_if(value: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter {
        jt: then,
        jf: otherwise,
        ..statement(BPF_JMP | BPF_JEQ | BPF_K, value)
    }
}
