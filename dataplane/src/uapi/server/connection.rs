//! The connection of a client: requests in, answers out, one after the other.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::info;
use zeroize::Zeroizing;

use crate::uapi::interface::{Interface, InterfaceError};
use crate::uapi::parse::{MAX_LINE, ParseError, Request, RequestParser};
use crate::uapi::{literal, render};

/// A client that neither sends nor reads for this long is let go, so that eight idle ones do not keep `wg` out for
/// ever.
const IDLE: Duration = Duration::from_secs(10);

/// Answers a client until it leaves or falls silent.
pub(super) async fn serve(mut stream: UnixStream, interface: &impl Interface) -> io::Result<()> {
    let mut lines = Lines::new();
    let mut parser = RequestParser::new(literal::interface_index);
    loop {
        while let Some(line) = lines.next_line() {
            if let Some(request) = parser.line(line) {
                let answer = answer(request, interface).await;
                send(&mut stream, answer.as_bytes()).await?;
            }
        }
        if timeout(IDLE, stream.read(lines.space()))
            .await?
            .map(|read| lines.filled(read))?
            == 0
        {
            return Ok(());
        }
    }
}

async fn answer(
    request: Result<Request, ParseError>,
    interface: &impl Interface,
) -> Zeroizing<String> {
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            info!(operation = ?error.operation, %error, "uapi request refused");
            return render::refusal(error.operation, error.mistake.errno());
        }
    };
    let operation = request.operation();
    match perform(request, interface).await {
        Ok(answer) => answer,
        Err(error) => {
            info!(?operation, %error, errno = %error.errno, "uapi request failed");
            render::refusal(Some(operation), error.errno)
        }
    }
}

async fn perform(
    request: Request,
    interface: &impl Interface,
) -> Result<Zeroizing<String>, InterfaceError> {
    match request {
        Request::Get => interface
            .describe()
            .await
            .map(|described| render::description(&described)),
        Request::Set(update) => interface.apply(update).await.map(|()| render::applied()),
        Request::Measure(count) => interface.measure(count).await.map(|()| render::applied()),
        Request::Status => {
            let lines = interface.status().await?;
            Ok(render::status(
                lines
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            ))
        }
    }
}

async fn send(stream: &mut UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match timeout(IDLE, stream.write(bytes)).await?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Splits what arrives into lines. The buffer holds keys, so it stays in one place and is wiped.
struct Lines {
    buffer: Zeroizing<Box<[u8]>>,
    start: usize,
    end: usize,
    /// The rest of a line that was too long.
    skipping: bool,
}

// A line that fills the buffer is one that the parser refuses.
const _: () = assert!(Lines::CAPACITY > MAX_LINE);

impl Lines {
    /// A request of 8 MiB in 128 reads.
    const CAPACITY: usize = 64 << 10;

    fn new() -> Self {
        Self {
            buffer: Zeroizing::new(vec![0; Self::CAPACITY].into()),
            start: 0,
            end: 0,
            skipping: false,
        }
    }

    /// The next line without its end, if all of it is here. Of a line without end, what fits into the buffer.
    fn next_line(&mut self) -> Option<&[u8]> {
        loop {
            let start = self.start;
            let Some(len) = self.buffer[start..self.end]
                .iter()
                .position(|&byte| byte == b'\n')
            else {
                return self.endless_line();
            };
            self.start += len + 1;
            if !std::mem::take(&mut self.skipping) {
                return Some(&self.buffer[start..start + len]);
            }
        }
    }

    fn endless_line(&mut self) -> Option<&[u8]> {
        if self.end - self.start < Self::CAPACITY {
            return None;
        }
        (self.start, self.end) = (0, 0);
        let first = !std::mem::replace(&mut self.skipping, true);
        first.then_some(&self.buffer[..])
    }

    /// The room to read into; never empty once [`Self::next_line`] has returned `None`.
    fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    fn filled(&mut self, bytes: usize) -> usize {
        self.end += bytes;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(lines: &mut Lines, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        while !bytes.is_empty() {
            let space = lines.space();
            let n = space.len().min(bytes.len());
            assert!(n > 0, "no space to read into");
            space[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            lines.filled(n);
            while let Some(line) = lines.next_line() {
                seen.push(line.to_vec());
            }
        }
        seen
    }

    #[test]
    fn lines_survive_any_fragmentation() {
        let mut lines = Lines::new();
        let mut seen = Vec::new();
        for chunk in ["se", "t=1\nfwm", "ark=1\n", "\n", "get=1\n\n"] {
            seen.extend(feed(&mut lines, chunk.as_bytes()));
        }
        assert_eq!(seen, [&b"set=1"[..], b"fwmark=1", b"", b"get=1", b""]);
    }

    #[test]
    fn an_endless_line_is_one_line() {
        let mut text = vec![b'x'; 3 * Lines::CAPACITY + 7];
        text.extend_from_slice(b"\n\nget=1\n\n");
        let seen = feed(&mut Lines::new(), &text);
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[0].len(), Lines::CAPACITY);
        assert_eq!(&seen[1..], [&b""[..], b"get=1", b""]);
    }

    #[test]
    fn a_line_as_long_as_the_buffer_does_not_stall() {
        for extra in [0, 1] {
            let mut text = vec![b'x'; Lines::CAPACITY - 1 + extra];
            text.extend_from_slice(b"\nnext\n");
            let seen = feed(&mut Lines::new(), &text);
            assert_eq!(seen.len(), 2, "{extra}");
            assert_eq!(seen[1], b"next");
        }
    }
}
