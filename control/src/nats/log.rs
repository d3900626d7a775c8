//! Refused clients in the server's log: the server has no counter for them.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// Bytes that are read at a time; a log that grows faster is a flood of the same lines.
const READ_MAX: u64 = 256 * 1024;

/// A log, and the position up to which it has been read.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    offset: u64,
}

impl Log {
    /// Reads a log from its end on: a former daemon has counted what was written before.
    pub(crate) fn from_now_on(path: PathBuf) -> Self {
        let offset = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, offset }
    }

    /// The refusals among the complete new lines. A log that cannot be read has none.
    pub(crate) fn refusals(&mut self) -> Vec<String> {
        let text = self.new_lines().unwrap_or_default();
        text.lines()
            .filter_map(refusal)
            .map(str::to_owned)
            .collect()
    }

    fn new_lines(&mut self) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        // The server has begun a new log.
        if file.metadata()?.len() < self.offset {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(READ_MAX).read_to_end(&mut bytes)?;
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        bytes.truncate(whole);
        self.offset += u64::try_from(whole).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// `[pid] date time [ERR] address - cid:7 - … Publish Violation - …`: what comes after the level.
fn refusal(line: &str) -> Option<&str> {
    const SIGNS: [&str; 4] = [
        "Violation",
        "authentication error",
        "authorization error",
        "TLS handshake error",
    ];
    let (_, said) = line.split_once("[ERR] ")?;
    SIGNS.iter().any(|sign| said.contains(sign)).then_some(said)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const REFUSED: &str = "[1] 2026/01/01 00:00:00.0 [ERR] 10.101.1.1:1 - cid:7 - Publish Violation - Nkey \"U\", Subject \"a\"\n";
    const OTHER: &str = "[1] 2026/01/01 00:00:00.0 [INF] Server is ready, Violation or not\n";

    #[test]
    fn refusals_are_read_once_and_also_from_a_new_log() {
        let path = std::env::temp_dir().join(format!("ployz-log-{}", std::process::id()));
        let write = |text: &str| {
            let mut file = File::options()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        write(REFUSED);
        let mut log = Log::from_now_on(path.clone());
        assert!(log.refusals().is_empty());
        write(OTHER);
        write(REFUSED);
        write(&REFUSED[..60]);
        assert_eq!(log.refusals().len(), 1);
        write(&REFUSED[60..]);
        let said = log.refusals();
        assert!(
            said.len() == 1 && said[0].starts_with("10.101.1.1:1"),
            "{said:?}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(log.refusals().is_empty());
        write(REFUSED);
        assert_eq!(log.refusals().len(), 1);
        std::fs::remove_file(&path).unwrap();
    }
}
