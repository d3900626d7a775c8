//! The answers to one request.

use std::fmt;
use std::io;

use quinn::{ConnectionError, VarInt};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::error::ClientError;
use crate::frame::{HEARTBEAT, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, body_len, encode};
use crate::request::Request;
use crate::response::Response;
use crate::text;
use crate::{BUSY, NO_MEMBER};

/// TLS alerts travel as transport errors from here on (RFC 9001, section 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// A reason for the end of a connection is a sentence.
const REASON_LEN_MAX: usize = 256;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The answers to one request. Dropping it ends the request.
pub struct Answers {
    stream: Box<dyn Stream>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Answers {
    pub(super) async fn to(
        mut stream: Box<dyn Stream>,
        request: &Request,
    ) -> Result<Self, ClientError> {
        write(&mut stream, request).await?;
        stream.shutdown().await.map_err(broken)?;
        Ok(Self { stream })
    }

    /// The next one; `None` after the last.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<Response>, ClientError> {
        read(&mut self.stream).await
    }

    /// The one answer to a request that has one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn only(mut self) -> Result<Response, ClientError> {
        let response = self.next().await?;
        response.ok_or_else(|| ClientError::Broken("the daemon closed the connection".to_owned()))
    }
}

pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    request: &Request,
) -> Result<(), ClientError> {
    let frame = encode(request, REQUEST_LEN_MAX).map_err(|e| ClientError::Broken(e.to_string()))?;
    stream.write_all(&frame).await.map_err(broken)
}

/// A frame with something in it; `None` if the stream ends before it.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Response>, ClientError> {
    let mut header = HEARTBEAT;
    while header == HEARTBEAT {
        match stream.read_exact(&mut header).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read.map_err(broken)?,
        };
    }
    let too_long = |error: crate::FrameError| ClientError::Broken(error.to_string());
    let mut body = vec![0; body_len(header, RESPONSE_LEN_MAX).map_err(too_long)?];
    stream.read_exact(&mut body).await.map_err(broken)?;
    let parsed = Response::parse(&body);
    parsed
        .map(Some)
        .map_err(|e| ClientError::Broken(text::line(&e.to_string()).into_owned()))
}

/// A server looks at a certificate after the client's side of the handshake is over, and counts strangers then: how it
/// ends the connection is the answer.
pub(super) fn broken(error: io::Error) -> ClientError {
    said(&error)
        .unwrap_or_else(|| ClientError::Broken(text::bounded(&error.to_string(), REASON_LEN_MAX)))
}

/// The reason that the other side gave for closing the connection, if it concerns this client.
fn said(error: &io::Error) -> Option<ClientError> {
    let mut cause: &(dyn std::error::Error + 'static) = error.get_ref()?;
    loop {
        if let Some(end) = cause.downcast_ref::<ConnectionError>() {
            if let ConnectionError::ConnectionClosed(close) = end
                && CRYPTO_ERRORS.contains(&u64::from(close.error_code))
            {
                return Some(ClientError::Refused(close.error_code.to_string()));
            }
            if let ConnectionError::ApplicationClosed(close) = end
                && close.error_code == VarInt::from_u32(NO_MEMBER)
            {
                let reason = text::bounded(&String::from_utf8_lossy(&close.reason), REASON_LEN_MAX);
                return Some(ClientError::Refused(reason));
            }
            if let ConnectionError::ApplicationClosed(close) = end
                && close.error_code == VarInt::from_u32(BUSY)
            {
                return Some(ClientError::Busy(text::bounded(
                    &end.to_string(),
                    REASON_LEN_MAX,
                )));
            }
        }
        if let Some(rustls::Error::AlertReceived(alert)) = cause.downcast_ref() {
            return Some(ClientError::Refused(format!("{alert:?}")));
        }
        cause = cause.source()?;
    }
}

/// As [`broken`], of a whole connection.
pub(super) fn closed(error: ConnectionError) -> ClientError {
    broken(io::Error::other(error))
}
