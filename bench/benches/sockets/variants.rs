//! The four variants.

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};

use crate::{BURST, BURSTS, Cost};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Variant {
    Calls,
    Batches,
    Tokio,
    TokioUring,
}

impl Variant {
    pub(crate) const ALL: [Self; 4] = [Self::Calls, Self::Batches, Self::Tokio, Self::TokioUring];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Batches => "batches",
            Self::Tokio => "tokio",
            Self::TokioUring => "tokio-uring",
        }
    }

    pub(crate) fn run(self, size: usize) -> Cost {
        let (sender, receiver) = sockets();
        match self {
            Self::Calls => calls(&sender, &receiver, size),
            Self::Batches => batches(&sender, &receiver, size),
            Self::Tokio => tokio(sender, receiver, size),
            Self::TokioUring => tokio_uring(sender, receiver, size),
        }
    }
}

/// Adds the time since `started` to `total`.
fn lap(total: &mut Duration, started: &mut Instant) {
    let now = clock();
    *total += now - *started;
    *started = now;
}

fn cost(send: Duration, receive: Duration) -> Cost {
    let datagrams = u32::try_from(BURST * BURSTS).unwrap();
    Cost {
        send: send / datagrams,
        receive: receive / datagrams,
    }
}

fn calls(sender: &UdpSocket, receiver: &UdpSocket, size: usize) -> Cost {
    let (payload, mut buffer) = (vec![0; size], vec![0; 2_048]);
    let (mut send, mut receive, mut started) = (Duration::ZERO, Duration::ZERO, clock());
    for _ in 0..BURSTS {
        for _ in 0..BURST {
            sender.send(&payload).unwrap();
        }
        lap(&mut send, &mut started);
        for _ in 0..BURST {
            assert_eq!(receiver.recv(&mut buffer).unwrap(), size);
        }
        lap(&mut receive, &mut started);
    }
    cost(send, receive)
}

fn batches(sender: &UdpSocket, receiver: &UdpSocket, size: usize) -> Cost {
    let (payload, mut buffers) = (vec![0; size], vec![0; BURST * 2_048]);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BURST, None);
    let slices = [[IoSlice::new(&payload)]; BURST];
    let (mut send, mut receive) = (Duration::ZERO, Duration::ZERO);
    let flags = MsgFlags::empty();
    for _ in 0..BURSTS {
        // nix ties the lifetime of what is sent to that of the headers.
        let mut outgoing = MultiHeaders::<SockaddrIn>::preallocate(BURST, None);
        let mut started = clock();
        let fd = sender.as_raw_fd();
        let sent = sendmmsg(fd, &mut outgoing, &slices, [None; BURST], [], flags).unwrap();
        assert_eq!(sent.count(), BURST);
        lap(&mut send, &mut started);
        let rooms = buffers.chunks_exact_mut(2_048);
        let mut rooms: Vec<[IoSliceMut<'_>; 1]> =
            rooms.map(|room| [IoSliceMut::new(room)]).collect();
        let fd = receiver.as_raw_fd();
        let received = recvmmsg(fd, &mut headers, &mut rooms, flags, None).unwrap();
        assert_eq!(received.count(), BURST);
        lap(&mut receive, &mut started);
    }
    cost(send, receive)
}

fn tokio(sender: UdpSocket, receiver: UdpSocket, size: usize) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(async {
        sender.set_nonblocking(true).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = tokio::net::UdpSocket::from_std(sender).unwrap();
        let receiver = tokio::net::UdpSocket::from_std(receiver).unwrap();
        let (payload, mut buffer) = (vec![0; size], vec![0; 2_048]);
        let (mut send, mut receive, mut started) = (Duration::ZERO, Duration::ZERO, clock());
        for _ in 0..BURSTS {
            for _ in 0..BURST {
                sender.send(&payload).await.unwrap();
            }
            lap(&mut send, &mut started);
            for _ in 0..BURST {
                assert_eq!(receiver.recv(&mut buffer).await.unwrap(), size);
            }
            lap(&mut receive, &mut started);
        }
        cost(send, receive)
    })
}

/// Keeps one operation in flight at a time, as the API suggests.
fn tokio_uring(sender: UdpSocket, receiver: UdpSocket, size: usize) -> Cost {
    tokio_uring::start(async {
        let sender = tokio_uring::net::UdpSocket::from_std(sender);
        let receiver = tokio_uring::net::UdpSocket::from_std(receiver);
        let (mut payload, mut buffer) = (vec![0; size], vec![0; 2_048]);
        let (mut send, mut receive, mut started) = (Duration::ZERO, Duration::ZERO, clock());
        for _ in 0..BURSTS {
            for _ in 0..BURST {
                let (result, back) = sender.write(payload).submit().await;
                result.unwrap();
                payload = back;
            }
            lap(&mut send, &mut started);
            for _ in 0..BURST {
                let (result, back) = receiver.read(buffer).await;
                assert_eq!(result.unwrap(), size);
                buffer = back;
            }
            lap(&mut receive, &mut started);
        }
        cost(send, receive)
    })
}

/// A connected sender and a receiver with room for a burst.
fn sockets() -> (UdpSocket, UdpSocket) {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    setsockopt(&receiver, sockopt::RcvBuf, &(2 << 20)).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    (sender, receiver)
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn clock() -> Instant {
    Instant::now()
}
