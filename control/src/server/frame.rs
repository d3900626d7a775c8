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
