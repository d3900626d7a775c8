//! What the data plane counts, as Prometheus reads it: `GET /metrics` over HTTP/1.1, text format 0.0.4.
//!
//! A responder of one page, with nothing of HTTP that the page does not need: one request a connection, a bounded head,
//! a deadline, and as many connections at a time as there are workers.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use ployz_dataplane::{Backend, Device};
use ployz_engine::{Batches, PeerSnapshot, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a request up to its empty line; what Prometheus sends takes about 300.
const HEAD_LEN_MAX: usize = 8 << 10;
/// For all of a request and its answer; Prometheus gives up after ten seconds by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens for scrapes.
///
/// # Errors
/// If the address is taken or not ours; says so in one line.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot listen on {address} for metrics: {error}; choose another --metrics-listen"
        )
    })
}

/// Answers scrapes of `device`. Never returns.
pub(crate) async fn serve(listener: TcpListener, device: &Device) {
    let page = async || {
        let (snapshot, udp_gso) = device.snapshot().await?;
        let state = State {
            backend: device.backend(),
            udp_gso,
            snapshot,
        };
        Ok(state.render(&Clocks::read()))
    };
    answer_all(&listener, &page).await;
}

/// What is shown.
struct State {
    backend: Backend,
    udp_gso: bool,
    snapshot: Snapshot,
}

/// The engine's clock and the wall clock, at one moment.
struct Clocks {
    now: Instant,
    unix_now: Duration,
}

impl Clocks {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge where handshakes get a date"
    )]
    fn read() -> Self {
        let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            now: Instant::now(),
            unix_now: unix_now.unwrap_or_default(),
        }
    }
}

impl State {
    fn render(&self, clocks: &Clocks) -> String {
        let mut text = String::new();
        let labels = format!(
            "{{version=\"{}\",backend=\"{}\"}}",
            env!("CARGO_PKG_VERSION"),
            self.backend.name()
        );
        family(
            &mut text,
            "ployz_info",
            "gauge",
            "What runs.",
            [(labels, 1)],
        );
        let gso = [(String::new(), u64::from(self.udp_gso))];
        let help = "1 while datagrams leave in batches (UDP GSO).";
        family(&mut text, "ployz_udp_gso", "gauge", help, gso);
        self.render_peers(&mut text, clocks);
        let drops = self.snapshot.drops.iter();
        let drops =
            drops.map(|(reason, count)| (format!("{{reason=\"{}\"}}", reason.key()), count));
        let help = "Packets and datagrams that were not passed on.";
        family(&mut text, "ployz_dropped_total", "counter", help, drops);
        text
    }

    fn render_peers(&self, text: &mut String, clocks: &Clocks) {
        let mut each = |name, kind, help, value: &dyn Fn(&PeerSnapshot) -> Option<u64>| {
            let samples = self.snapshot.peers.iter().filter_map(|peer| {
                // Base64 holds nothing that a label would have to escape.
                let labels = format!("{{public_key=\"{}\"}}", peer.public_key);
                value(peer).map(|value| (labels, value))
            });
            family(text, name, kind, help, samples);
        };
        let help = "Bytes of authenticated messages from the peer, headers included.";
        each("ployz_peer_rx_bytes_total", "counter", help, &|peer| {
            Some(peer.rx_bytes)
        });
        let help = "Bytes of messages to the peer, headers included.";
        each("ployz_peer_tx_bytes_total", "counter", help, &|peer| {
            Some(peer.tx_bytes)
        });
        let help = "When the last handshake was completed, since 1970; absent before the first.";
        each(
            "ployz_peer_last_handshake_timestamp_seconds",
            "gauge",
            help,
            &|peer| {
                let age = clocks.now.saturating_duration_since(peer.last_handshake?);
                Some(clocks.unix_now.saturating_sub(age).as_secs())
            },
        );
        let help = "Packets that wait for a handshake with the peer.";
        each("ployz_peer_staged_packets", "gauge", help, &|peer| {
            Some(peer.staged_packets as u64)
        });
        let help = "Longest IP packet that reaches the peer, outside the tunnel; absent before it was measured.";
        each("ployz_peer_path_mtu_bytes", "gauge", help, &|peer| {
            peer.path_mtu.map(|mtu| mtu as u64)
        });
        let help = "1 if batches reach the peer as they were sent, 0 if they do not and datagrams are sent one by one; absent before it was tested.";
        each(
            "ployz_peer_udp_gso",
            "gauge",
            help,
            &|peer| match peer.batches {
                Batches::Untested => None,
                Batches::Work => Some(1),
                Batches::Broken => Some(0),
            },
        );
    }
}

/// One metric with all its samples.
fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, u64)>,
) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// Four workers are four connections; further ones wait in the backlog.
async fn answer_all(listener: &TcpListener, page: &impl AsyncFn() -> anyhow::Result<String>) {
    let worker = async || loop {
        answer_next(listener, page).await;
    };
    tokio::join!(worker(), worker(), worker(), worker());
}

async fn answer_next(listener: &TcpListener, page: &impl AsyncFn() -> anyhow::Result<String>) {
    /// Long enough for descriptors to be closed.
    const RETRY: Duration = Duration::from_millis(200);
    match listener.accept().await {
        Ok((stream, _)) => match tokio::time::timeout(PATIENCE, answer(stream, page)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a scrape failed"),
            Err(_) => tracing::debug!("a scrape took too long"),
        },
        Err(error) => {
            tracing::debug!(%error, "cannot accept a scrape");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    page: &impl AsyncFn() -> anyhow::Result<String>,
) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let (status, body) = match asked(&head) {
        Ok(()) => match page().await {
            Ok(text) => ("200 OK", text),
            Err(error) => ("503 Service Unavailable", format!("{error:#}\n")),
        },
        Err(status) => (status, format!("{status}\n")),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads up to the empty line, the end, or as much as anybody may say.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    let mut limited = stream.take(HEAD_LEN_MAX as u64);
    while !is_whole(&head) && limited.read_buf(&mut head).await? > 0 {}
    Ok(head)
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|bytes| bytes == b"\r\n\r\n")
}

/// The status to answer with, unless the page is asked for.
fn asked(head: &[u8]) -> Result<(), &'static str> {
    const BAD_REQUEST: &str = "400 Bad Request";
    if !is_whole(head) {
        return Err(if head.len() < HEAD_LEN_MAX {
            BAD_REQUEST
        } else {
            "431 Request Header Fields Too Large"
        });
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| BAD_REQUEST)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD_REQUEST);
    };
    match (method, target.split('?').next()) {
        ("GET", Some("/metrics")) => Ok(()),
        (_, Some("/metrics")) => Err("405 Method Not Allowed"),
        _ => Err("404 Not Found"),
    }
}

#[cfg(test)]
mod tests {
    use ployz_engine::{Drop, Drops, PublicKey};

    use super::*;

    fn state(clocks: &Clocks) -> State {
        let mut drops = Drops::default();
        drops.count_many(Drop::Spoof, 3);
        let peer = |byte, last_handshake| PeerSnapshot {
            rx_bytes: 92,
            tx_bytes: u64::MAX,
            last_handshake,
            staged_packets: 2,
            path_mtu: (byte == 0).then_some(1_400),
            batches: if byte == 0 {
                Batches::Broken
            } else {
                Batches::Untested
            },
            ..PeerSnapshot::unheard(PublicKey::from_bytes([byte; 32]))
        };
        let peers = vec![peer(0, Some(clocks.now)), peer(0xff, None)];
        State {
            backend: Backend::IoUring,
            udp_gso: true,
            snapshot: Snapshot { peers, drops },
        }
    }

    #[test]
    fn every_family_has_its_type_and_its_samples() {
        let clocks = Clocks {
            unix_now: Duration::from_millis(1_700_000_000_999),
            ..Clocks::read()
        };
        let text = state(&clocks).render(&clocks);
        let zeros = format!("{{public_key=\"{}=\"}}", "A".repeat(43));
        for line in [
            format!(
                "ployz_info{{version=\"{}\",backend=\"io_uring\"}} 1",
                env!("CARGO_PKG_VERSION")
            ),
            "# TYPE ployz_dropped_total counter".to_owned(),
            "ployz_udp_gso 1".to_owned(),
            format!("ployz_peer_rx_bytes_total{zeros} 92"),
            format!("ployz_peer_tx_bytes_total{zeros} 18446744073709551615"),
            format!("ployz_peer_last_handshake_timestamp_seconds{zeros} 1700000000"),
            format!("ployz_peer_staged_packets{zeros} 2"),
            format!("ployz_peer_path_mtu_bytes{zeros} 1400"),
            format!("ployz_peer_udp_gso{zeros} 0"),
            "ployz_dropped_total{reason=\"spoof\"} 3".to_owned(),
            "ployz_dropped_total{reason=\"replay\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
        }
        let dates = text.matches("last_handshake_timestamp_seconds{").count();
        assert_eq!(dates, 1, "a peer without a handshake has no date");
        let mtus = text.matches("path_mtu_bytes{").count();
        assert_eq!(mtus, 1, "a path that was not measured has no MTU");
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn only_the_page_is_there() {
        let table = [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", Ok(())),
            (
                "POST /metrics HTTP/1.1\r\n\r\n",
                Err("405 Method Not Allowed"),
            ),
            ("GET / HTTP/1.1\r\n\r\n", Err("404 Not Found")),
            ("GET /metrics HTTP/2\r\n\r\n", Err("400 Bad Request")),
            ("GET /metrics\r\n\r\n", Err("400 Bad Request")),
            ("GET /metrics HTTP/1.1\r\n", Err("400 Bad Request")),
            ("", Err("400 Bad Request")),
        ];
        for (head, expected) in table {
            assert_eq!(asked(head.as_bytes()), expected, "{head:?}");
        }
        assert_eq!(
            asked(&[b'a'; HEAD_LEN_MAX]),
            Err("431 Request Header Fields Too Large")
        );
    }

    #[tokio::test]
    async fn idle_clients_do_not_keep_the_scraper_out() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let at = listener.local_addr().unwrap();
        let page = async || Ok("page\n".to_owned());
        let scrape = async {
            let idle = [TcpStream::connect(at).await, TcpStream::connect(at).await];
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            drop(idle);
            answer
        };
        tokio::select! {
            () = answer_all(&listener, &page) => unreachable!(),
            answer = scrape => {
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                assert!(answer.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\npage\n"), "{answer}");
            }
        }
    }
}
