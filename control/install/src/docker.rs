//! The check for a container engine.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ployz_api::{Code, Failure};

/// Docker's, and the one of Podman that is compatible with it.
const SOCKETS: [&str; 2] = ["run/docker.sock", "run/podman/podman.sock"];
/// The engine answers a ping at once.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
const ANSWER_LEN_MAX: u64 = 4 << 10;

/// Asks for an answer, below a root directory.
pub(crate) fn check(root: &Path) -> Result<(), Failure> {
    let mut causes = Vec::new();
    for socket in SOCKETS {
        match ping(&root.join(socket)) {
            Ok(()) => return Ok(()),
            Err(error) => causes.push(format!("/{socket}: {error}")),
        }
    }
    let message = format!(
        "no Docker Engine answers on this machine ({})",
        causes.join("; ")
    );
    Err(Failure::new(Code::InstallFailed, message)
        .hint("install Docker (apt install docker.io), or use --runtime host"))
}

/// `GET /_ping` (Docker Engine API).
fn ping(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_LEN_MAX).read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1);
    if status != Some("200") {
        let line = answer.lines().next().unwrap_or_default();
        return Err(io::Error::other(format!("unexpected answer {line:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::testkit::TestDirectory;

    #[test]
    fn an_engine_that_answers_is_one_and_silence_or_a_refusal_is_none() {
        let place = TestDirectory::new();
        let run = place.directory("run");
        assert!(check(place.path()).unwrap_err().hint.is_some());
        for (answer, is_one) in [
            ("HTTP/1.0 200 OK\r\n\r\nOK", true),
            ("HTTP/1.0 500 Oh\r\n\r\n", false),
            ("", false),
        ] {
            let socket = run.join("docker.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            let answering = std::thread::spawn(move || {
                let (mut end, _) = listener.accept().unwrap();
                let _question = end.read(&mut [0; 256]).unwrap();
                end.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(check(place.path()).is_ok(), is_one, "{answer:?}");
            answering.join().unwrap();
            std::fs::remove_file(&socket).unwrap();
        }
    }
}
