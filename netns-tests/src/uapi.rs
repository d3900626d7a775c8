//! The cross-platform userspace protocol, spoken by hand.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const DIRECTORY: &str = "/var/run/wireguard";

/// A get of a thousand peers with 130,000 allowed IPs has to fit.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Uapi {
    path: PathBuf,
}

impl Uapi {
    #[must_use]
    pub fn new(interface: &str) -> Self {
        Self {
            path: PathBuf::from(DIRECTORY).join(format!("{interface}.sock")),
        }
    }

    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Everything that the daemon says about its configuration.
    pub fn get(&self) -> Result<Vec<(String, String)>> {
        self.ask("get=1\n\n")
    }

    /// Applies `lines` and yields the magnitude of the errno.
    ///
    /// The sign is the implementations' own affair (boringtun answers 22 where wireguard-go answers -22);
    /// what an operator sees of it is checked on the `wg` tool's message.
    pub fn set(&self, lines: &str) -> Result<i32> {
        let answer = self.exchange(&format!("set=1\n{lines}\n\n"))?;
        errno(&pairs(&answer)?)
    }

    /// ployzd's own addition: what it is doing, as counters.
    pub fn status(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.ask("status=1\n\n")?.into_iter().collect())
    }

    /// Sends `request` as it is and reads up to the empty line that ends an answer, or to the end.
    pub fn exchange(&self, request: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.path)
            .with_context(|| format!("connect to {}", self.path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut chunk = vec![0; 65536];
        while !answer.ends_with(b"\n\n") {
            let read = stream.read(&mut chunk).context("read the answer")?;
            if read == 0 {
                break;
            }
            answer.extend_from_slice(&chunk[..read]);
        }
        Ok(String::from_utf8(answer)?)
    }

    fn ask(&self, request: &str) -> Result<Vec<(String, String)>> {
        let answer = pairs(&self.exchange(request)?)?;
        let errno = errno(&answer)?;
        ensure!(errno == 0, "{request:?} was answered with errno {errno}");
        Ok(answer)
    }
}

fn pairs(answer: &str) -> Result<Vec<(String, String)>> {
    answer
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| match line.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => bail!("{line:?} is not key=value"),
        })
        .collect()
}

fn errno(answer: &[(String, String)]) -> Result<i32> {
    let (key, value) = answer.last().context("no answer at all")?;
    ensure!(
        key == "errno",
        "the answer ends with {key}={value}, not with errno"
    );
    Ok(value.parse::<i32>()?.abs())
}
