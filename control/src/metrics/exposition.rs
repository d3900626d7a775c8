//! The page of metrics: `GET /metrics` over HTTP/1.1, Prometheus' text format 0.0.4.
//!
//! The responder implements only what the page needs of HTTP: each connection has one request, a bounded head and a
//! deadline, and there are as many connections at a time as workers.

use std::fmt::{Display, Write as _};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::host::error::HostError;

/// Bytes of a request up to its empty line; what Prometheus sends takes about 300.
const HEAD_LEN_MAX: usize = 8 << 10;
/// For all of a request and its answer; Prometheus gives up after ten seconds by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens for scrapes.
///
/// # Errors
/// If the address is in use, or is not this host's.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, HostError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|cause| HostError::Listen {
        address,
        purpose: "for metrics",
        cause,
        flag: "--metrics-listen",
    })
}

/// Answers scrapes with a page, if there is a listener. Never returns.
pub(crate) async fn serve<E: Display>(
    listener: Option<TcpListener>,
    page: impl AsyncFn() -> Result<String, E>,
) {
    match listener {
        Some(listener) => answer_all(&listener, &page).await,
        None => std::future::pending().await,
    }
}

/// Appends a metric with all its samples.
pub(crate) fn family(
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

/// Appends a metric with a single sample and no labels.
pub(crate) fn gauge(text: &mut String, name: &str, help: &str, value: u64) {
    family(text, name, "gauge", help, [(String::new(), value)]);
}

/// Four workers are four connections; further ones wait in the backlog.
async fn answer_all<E: Display>(
    listener: &TcpListener,
    page: &impl AsyncFn() -> Result<String, E>,
) {
    let worker = async || loop {
        answer_next(listener, page).await;
    };
    tokio::join!(worker(), worker(), worker(), worker());
}

async fn answer_next<E: Display>(
    listener: &TcpListener,
    page: &impl AsyncFn() -> Result<String, E>,
) {
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

async fn answer<E: Display>(
    mut stream: TcpStream,
    page: &impl AsyncFn() -> Result<String, E>,
) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let (status, body) = match asked(&head) {
        Ok(()) => match page().await {
            Ok(text) => ("200 OK", text),
            Err(error) => ("503 Service Unavailable", format!("{error}\n")),
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

/// Reads up to the empty line, the end, or the bound.
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
    use super::*;

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
        let page = async || Ok::<_, io::Error>("page\n".to_owned());
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

    #[test]
    fn a_family_is_introduced_once_and_has_its_samples_behind_it() {
        let mut text = String::new();
        let labels = |shard: u32| format!("{{shard=\"{shard}\"}}");
        family(
            &mut text,
            "a_total",
            "counter",
            "Some.",
            (0..2).map(|it| (labels(it), u64::MAX)),
        );
        gauge(&mut text, "b", "Others.", 0);
        family(&mut text, "c", "gauge", "None now.", []);
        assert_eq!(crate::testkit::assert_page(&text), 3);
        assert!(
            text.contains("a_total{shard=\"1\"} 18446744073709551615\n"),
            "{text}"
        );
        assert!(text.contains("\nb 0\n"), "{text}");
    }

    /// Sends this in pieces, and reads the answer.
    async fn exchange(at: SocketAddr, pieces: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        for piece in pieces {
            stream.write_all(piece).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_made_says_why_and_the_next_scrape_is_answered() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let at = listener.local_addr().unwrap();
        let broken = std::cell::Cell::new(true);
        let page = async || {
            if broken.replace(false) {
                return Err(io::Error::other("the data plane does not answer"));
            }
            Ok("page\n".to_owned())
        };
        let get: [&[u8]; 2] = [b"GET /met", b"rics HTTP/1.1\r\n\r\n"];
        let scrapes = async {
            let bad = exchange(at, &[b"\xff\xfe /metrics HTTP/1.1\r\n\r\n"]).await;
            assert!(bad.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{bad}");
            assert!(exchange(at, &[]).await.starts_with("HTTP/1.1 400 "));
            let failed = exchange(at, &get).await;
            assert!(
                failed.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
                "{failed}"
            );
            assert!(
                failed.ends_with("\r\n\r\nthe data plane does not answer\n"),
                "{failed}"
            );
            let answer = exchange(at, &get).await;
            assert!(
                answer.contains("version=0.0.4") && answer.ends_with("\r\n\r\npage\n"),
                "{answer}"
            );
        };
        tokio::select! {
            () = serve(Some(listener), page) => unreachable!(),
            () = scrapes => {}
        }
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_its_flag() {
        let first = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let taken = first.local_addr().unwrap();
        let refused = bind(taken).await.unwrap_err().to_string();
        assert!(
            refused.contains(&taken.to_string()) && refused.contains("--metrics-listen"),
            "{refused}"
        );
    }
}
