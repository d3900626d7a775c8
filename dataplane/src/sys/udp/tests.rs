use std::io::ErrorKind;
use std::net::UdpSocket;

use super::*;

#[test]
fn both_families_share_a_port_and_a_taken_one_is_refused() {
    for shards in [1, 3] {
        let all = UdpSockets::bind_all(0, 0, true, shards).unwrap();
        let port = all[0].port();
        assert_ne!(port, 0);
        assert!(all.iter().all(|sockets| sockets.port() == port));
        for others in [1, 3] {
            let refused = UdpSockets::bind_all(port, 0, true, others);
            assert_eq!(refused.unwrap_err(), Errno::EADDRINUSE);
        }
        let remote = "192.0.2.1:1".parse().unwrap();
        let fd = all[0].for_remote(remote).map(|fd| fd.as_raw_fd());
        assert_eq!(fd, Some(all[0].v4().as_raw_fd()));
    }
}

/// A message of a type that is for a receiver index, at 4, with this highest byte.
fn message(kind: u8, highest_byte: u8, len: usize) -> Vec<u8> {
    let mut message = vec![0xee; len];
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message[7] = highest_byte;
    message
}

/// A socket that sends everything at one time, in segments of this length.
fn sender(segment_len: i32) -> UdpSocket {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    set_option(
        sender.as_fd(),
        libc::SOL_UDP,
        libc::UDP_SEGMENT,
        segment_len,
    )
    .unwrap();
    sender
}

#[test]
fn every_datagram_comes_to_its_shard() {
    const SHARDS: u8 = 3;
    let all = UdpSockets::bind_all(0, 0, true, usize::from(SHARDS)).unwrap();
    let port = all[0].port();
    let receivers: Vec<UdpSocket> = all.into_iter().map(|it| it.v4.into()).collect();
    let deliver = |segment_len: i32, bytes: &[u8]| {
        let to = ("127.0.0.1", port);
        sender(segment_len).send_to(bytes, to).unwrap();
        // Over loopback a datagram is there when the sender returns.
        let heard = |receiver: &UdpSocket| match receiver.recv(&mut [0; 4096]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            result => result.is_ok(),
        };
        receivers.iter().map(heard).collect::<Vec<_>>()
    };
    let only = |shard: u8| -> Vec<bool> { (0..SHARDS).map(|it| it == shard).collect() };
    for byte in [0, 1, 2, 3, 0x7f, 0xff] {
        let home = only(byte % SHARDS);
        let data = message(4, byte, 80);
        assert_eq!(deliver(0, &data), home, "data");
        assert_eq!(deliver(0, &message(3, byte, 64)), home, "a cookie");
        assert_eq!(deliver(0, &message(1, byte, 148)), only(0), "an initiation");
        assert_eq!(deliver(0, &message(2, byte, 92)), only(0), "a response");
        assert_eq!(deliver(0, &message(9, byte, 100)), only(0), "anything else");
        assert_eq!(deliver(0, &[4, 0, 0]), only(0), "what is cut off");
        for (kind, len) in [(1, 148), (2, 92)] {
            let both = [message(kind, 0, len), data.clone()].concat();
            assert_eq!(deliver(len as i32, &both), home, "data behind a handshake");
        }
    }
}

/// What came while nobody was there is there for who comes after; another port is not taken for ours.
#[test]
fn sockets_are_adopted_with_what_waits_in_them() {
    for shards in [1, 3] {
        let former = UdpSockets::bind_all(0, 0, true, shards).unwrap();
        let port = former[0].port();
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let keep = || -> Vec<_> {
            let pairs = former.iter();
            pairs.map(|it| (copy(it.v4()), it.v6().map(copy))).collect()
        };
        assert_eq!(former[0].first_arrival(), None);
        sender(0).send_to(b"anything", ("127.0.0.1", port)).unwrap();
        let refused = UdpSockets::adopt_all(keep(), port ^ 1, 0, true);
        assert_eq!(refused.unwrap_err(), Errno::EADDRNOTAVAIL);
        let pipe = io::pipe().unwrap().0;
        let refused = UdpSockets::adopt_all(vec![(pipe.into(), None)], port, 0, true);
        assert_eq!(refused.unwrap_err(), Errno::ENOTSOCK);
        let kept = keep();
        drop(former);
        let adopted = match UdpSockets::adopt_all(kept, port, 0, true) {
            // Without CAP_NET_ADMIN no socket takes a mark: a developer's account does without what follows.
            Err(Errno::EPERM) => return,
            adopted => adopted.unwrap(),
        };
        assert!(adopted.iter().all(|sockets| sockets.port() == port));
        assert!(adopted[0].first_arrival().is_some());
        let first: UdpSocket = adopted.into_iter().next().unwrap().v4.into();
        assert_eq!(first.recv(&mut [0; 64]).unwrap(), 8);
    }
}
