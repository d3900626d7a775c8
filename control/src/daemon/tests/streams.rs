//! Clients that send something else than they should, or nothing, or go away.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use ployz_api::{
    ALPN, CertificateName, Code, Credential, HEADER_LEN, Outcome, REQUEST_LEN_MAX,
    RESPONSE_LEN_MAX, Request, Response, encode,
};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};

use super::cluster::{Cluster, Host, payload, refused};
use super::server::label;
use crate::host::listener::STREAMS_MAX;
use crate::host::tls::{Presence, store_client};
use crate::server::REQUESTS_MAX;
use crate::testkit::{PATIENCE, run, wait_until};

/// A connection that any bytes can be sent on. The endpoint is held until it is over.
pub(super) struct Raw {
    pub(super) connection: Connection,
    _endpoint: Endpoint,
}

impl Raw {
    pub(super) async fn connect(credential: &Credential) -> Self {
        let mut tls = store_client(Presence {
            ca_pem: &credential.ca_pem,
            certificate_pem: &credential.certificate_pem,
            key_pem: credential.key_pem.expose(),
            strangers: false,
        })
        .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let quic = QuicClientConfig::try_from(tls).unwrap();
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        let name = CertificateName::any_machine(&credential.network);
        let config = ClientConfig::new(Arc::new(quic));
        let connecting = endpoint.connect_with(config, credential.endpoints[0], &name);
        Self {
            connection: connecting.unwrap().await.unwrap(),
            _endpoint: endpoint,
        }
    }

    /// Sends this and nothing more, and hears the answer.
    async fn ask(&self, bytes: &[u8]) -> Outcome {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        // The server may have answered, and stopped to read, before all has been sent.
        let _stopped = send.write_all(bytes).await;
        let _stopped = send.finish();
        answer(receive).await
    }
}

async fn answer(mut receive: RecvStream) -> Outcome {
    let all = receive.read_to_end(HEADER_LEN + RESPONSE_LEN_MAX).await;
    let all = all.unwrap();
    let response: Response = serde_json::from_slice(&all[HEADER_LEN..]).unwrap();
    response.into()
}

fn frame(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&len[..], body].concat()
}

fn all_are_free(host: &Host) -> bool {
    host.requests.available_permits() == REQUESTS_MAX as usize
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let raw = Raw::connect(&host.credential()).await;
        let too_long = u32::try_from(REQUEST_LEN_MAX + 1).unwrap().to_be_bytes();
        let longest = frame(&vec![b' '; REQUEST_LEN_MAX]);
        let cut = [&10_u32.to_be_bytes()[..], b"{\"re"].concat();
        let cases: [(&[u8], &str); 14] = [
            (&too_long, "the frame has 65537 bytes; 65536 are allowed"),
            (&[0xff; 4], "the frame has 4294967295 bytes"),
            (&longest, "does not support this request"),
            (&cut, "eof"),
            (&[0, 0], "eof"),
            (b"", "eof"),
            (&frame(b""), "does not support this request"),
            (&frame(b"not JSON"), "does not support this request"),
            (&frame(&[0xff; 64]), "does not support this request"),
            (&frame(b"null"), "does not support this request"),
            (&frame(b"{\"request\":\"teleport\"}"), "unknown variant `teleport`"),
            (
                &frame(b"{\"request\":\"invite-list\",\"all\":true,\"since\":1}"),
                "unknown field `since`",
            ),
            (&frame(b"{\"request\":\"invite-list\"}"), "missing field `all`"),
            (
                &frame(b"{\"request\":\"machine-label\",\"machine\":\"m1\",\"labels\":{\"a b\":\"c\"}}"),
                "'a b' is not a label",
            ),
        ];
        let count = cases.len() as u64;
        for (bytes, words) in cases {
            refused(raw.ask(bytes).await, Code::InvalidArgument, words);
        }
        let status = encode(&Request::Status, REQUEST_LEN_MAX).unwrap();
        let status = payload!(raw.ask(&status).await, Status);
        assert_eq!(
            status.refused["INVALID_ARGUMENT"], count,
            "each of them was counted"
        );
        wait_until("all requests to be over", PATIENCE, || all_are_free(host)).await;
    });
}

/// A deep nest of arrays must end in a refusal, and not in the stack.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_request_that_is_nested_without_end_is_refused() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let raw = Raw::connect(&cluster.hosts[0].credential()).await;
        let nest = b"[".repeat(REQUEST_LEN_MAX - 64);
        let body = [b"{\"request\":\"machine-rtt\",\"machines\":", &nest[..]].concat();
        refused(
            raw.ask(&frame(&body)).await,
            Code::InvalidArgument,
            "recursion limit",
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_connection_has_sixteen_streams_and_the_next_one_waits_for_some_of_them() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let raw = Raw::connect(&host.credential()).await;
        let status = encode(&Request::Status, REQUEST_LEN_MAX).unwrap();
        let mut streams: Vec<(SendStream, RecvStream)> = Vec::new();
        for _ in 0..STREAMS_MAX {
            let (mut send, receive) = raw.connection.open_bi().await.unwrap();
            send.write_all(&status[..HEADER_LEN + 2]).await.unwrap();
            streams.push((send, receive));
        }
        assert!(raw.connection.open_bi().now_or_never().is_none());
        // Others have connections of their own, and are answered.
        host.ask_remotely(&Request::Status).await.unwrap();
        // The transport tells of free streams once there are more than an eighth of them.
        for (mut send, receive) in streams.drain(..4) {
            send.write_all(&status[HEADER_LEN + 2..]).await.unwrap();
            send.finish().unwrap();
            answer(receive).await.unwrap();
        }
        let next = tokio::time::timeout(PATIENCE, raw.connection.open_bi());
        next.await.unwrap().unwrap();
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_client_that_goes_midway_leaves_nothing_held_and_a_change_of_its_is_carried_out() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let status = encode(&Request::Status, REQUEST_LEN_MAX).unwrap();
        // Halves of requests, and whole ones whose answers nobody takes.
        for len in [1, HEADER_LEN, status.len() - 1, status.len()] {
            let raw = Raw::connect(&host.credential()).await;
            for _ in 0..STREAMS_MAX {
                let (mut send, _unread) = raw.connection.open_bi().await.unwrap();
                send.write_all(&status[..len]).await.unwrap();
            }
            raw.connection.close(0_u32.into(), b"");
        }
        let raw = Raw::connect(&host.credential()).await;
        let change = encode(&label("m1"), REQUEST_LEN_MAX).unwrap();
        let (mut send, _unread) = raw.connection.open_bi().await.unwrap();
        send.write_all(&change).await.unwrap();
        let network = host.machine.network().unwrap();
        let is_labelled = || {
            let view = network.view();
            view.machine(host.id())
                .is_some_and(|it| it.labels.contains_key("a"))
        };
        wait_until("the change to be under way", PATIENCE, || {
            !all_are_free(host) || is_labelled()
        })
        .await;
        raw.connection.close(0_u32.into(), b"");
        wait_until("the change to be made", PATIENCE, is_labelled).await;
        wait_until("all requests to be over", PATIENCE, || all_are_free(host)).await;
        host.ask_remotely(&Request::Status).await.unwrap();
    });
}

/// A machine of another network, or a certificate of this one for nobody that it knows.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_certificate_of_another_network_opens_nothing() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let other = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let foreign = other.hosts[0].credential();
        let shown = Credential {
            endpoints: vec![host.machine.config.listen],
            network: host.credential().network,
            ca_pem: host.credential().ca_pem,
            ..foreign
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let session = ployz_api::client::connect(&shown, deadline).await;
        let answer = match session {
            Ok(session) => match session.open(&Request::Status).await {
                Ok(answers) => answers.only().await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        assert!(answer.is_err(), "{answer:?}");
        wait_until("the refusal to be counted", PATIENCE, || {
            host.machine.refusals.counts().contains_key("handshake")
        })
        .await;
    });
}
