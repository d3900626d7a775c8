//! Frames on a stream: a request that is read in time, and answers that are taken in time.

use std::time::Duration;

use ployz_api::{
    Code, Failure, HEADER_LEN, HEARTBEAT, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, Request, Response,
    body_len, encode,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::server::error::StreamError;

/// A request of [`REQUEST_LEN_MAX`] at 26 KB/s.
pub(super) const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// An answer of [`RESPONSE_LEN_MAX`] at 35 KB/s.
const SEND_WAIT: Duration = Duration::from_secs(30);

/// Reads a request.
///
/// # Errors
/// `TIMEOUT`, or `INVALID_ARGUMENT` if it is none that this version knows.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Failure> {
    tokio::time::timeout(REQUEST_WAIT, read_frame(stream))
        .await
        .unwrap_or_else(|_| {
            let message = "the request did not arrive in time";
            Err(Failure::new(Code::Timeout, message))
        })
}

/// Sends an answer.
pub(super) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    response: &Response,
) -> Result<(), StreamError> {
    send_frame(stream, &encode(response, RESPONSE_LEN_MAX)?).await
}

/// Sends that there is nothing new. Nothing else tells whether the client still listens.
pub(super) async fn send_heartbeat(
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<(), StreamError> {
    send_frame(stream, &HEARTBEAT).await
}

async fn send_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
) -> Result<(), StreamError> {
    let sending = async {
        stream.write_all(frame).await?;
        stream.flush().await
    };
    let sent = tokio::time::timeout(SEND_WAIT, sending).await;
    let late = |_| StreamError::TimedOut {
        omission: "did not take the answer",
        patience: SEND_WAIT,
    };
    Ok(sent.map_err(late)??)
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Failure> {
    let refused = |cause: String| Failure::new(Code::InvalidArgument, cause);
    let mut header = [0; HEADER_LEN];
    let read = stream.read_exact(&mut header).await;
    read.map_err(|error| refused(error.to_string()))?;
    let len = body_len(header, REQUEST_LEN_MAX).map_err(|error| refused(error.to_string()))?;
    let mut body = zeroize::Zeroizing::new(vec![0; len]);
    let read = stream.read_exact(&mut body).await;
    read.map_err(|error| refused(error.to_string()))?;
    serde_json::from_slice(&body).map_err(|error| {
        refused(format!(
            "ployzd {} does not support this request: {error}",
            ployz_install::own_version()
        ))
    })
}

#[cfg(test)]
mod tests {
    use ployz_api::Outcome;
    use tokio::time::Instant;

    use super::*;

    fn nothing() -> Response {
        let success = ployz_api::Success {
            message: String::new(),
            payload: None,
        };
        Outcome::Ok(success).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_is_waited_for_so_long_and_no_longer() {
        let request = encode(&Request::Status, REQUEST_LEN_MAX).unwrap();
        for len in [0, HEADER_LEN - 1, HEADER_LEN, request.len() - 1] {
            let (mut here, mut there) = tokio::io::duplex(1_024);
            there.write_all(&request[..len]).await.unwrap();
            let begin = Instant::now();
            let refused = read(&mut here).await.unwrap_err();
            assert_eq!(
                (refused.code, begin.elapsed()),
                (Code::Timeout, REQUEST_WAIT),
                "{len} bytes"
            );
        }
        // One that comes byte by byte, and in time, is a request.
        let (mut here, mut there) = tokio::io::duplex(1);
        let sending = async {
            for byte in &request {
                tokio::time::sleep(Duration::from_millis(100)).await;
                there.write_all(&[*byte]).await.unwrap();
            }
        };
        let (read, ()) = tokio::join!(read(&mut here), sending);
        assert!(matches!(read, Ok(Request::Status)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_given_up() {
        let (mut here, there) = tokio::io::duplex(8);
        let begin = Instant::now();
        let late = send(&mut here, &nothing()).await.unwrap_err();
        assert!(matches!(late, StreamError::TimedOut { .. }), "{late}");
        assert_eq!(begin.elapsed(), SEND_WAIT);
        drop(there);
        let gone = send(&mut here, &nothing()).await.unwrap_err();
        assert!(matches!(gone, StreamError::Stream(_)), "{gone}");
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_not_begun() {
        let (mut here, mut there) = tokio::io::duplex(1_024);
        let long = Response {
            message: "m".repeat(RESPONSE_LEN_MAX),
            ..nothing()
        };
        let refused = send(&mut here, &long).await.unwrap_err();
        assert!(matches!(refused, StreamError::Frame(_)), "{refused}");
        drop(here);
        let mut sent = Vec::new();
        there.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"", "or the client would wait for the rest");
    }
}
