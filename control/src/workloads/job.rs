//! The job of a runtime, and helpers that all runtimes share.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use ployz_api::InstanceId;
use ployz_core::InstanceRecord;

/// The directory of instances, within the data directory.
pub(super) const DIRECTORY: &str = "workloads";
/// Bytes of a log in an answer, which has 1 MiB: escaped in JSON they are at worst six times as long.
pub(super) const LOGS_LEN_MAX: usize = 128 << 10;

/// An instance to run.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) record: &'a InstanceRecord,
    /// Directories of its volumes, and their mount points.
    pub(super) volumes: Vec<(PathBuf, &'a str)>,
    /// The user that it runs as, in a sandbox; none if it is privileged. Containers have users of their own.
    pub(super) user: Option<u32>,
    /// This machine's address in the overlay.
    pub(super) address: Ipv4Addr,
    /// The subnet of containers' addresses.
    pub(super) subnet: Ipv4Net,
}

impl Job<'_> {
    /// Its environment, which must not get into a command line or a log.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let env = self.record.spec.env.iter();
        env.map(|(name, value)| (name.as_str(), value.expose()))
    }
}

/// The directory of an instance, within the data directory.
pub(super) fn directory(id: InstanceId) -> String {
    format!("{DIRECTORY}/{id}")
}

/// The last lines of a text, none of which is longer than an answer allows.
pub(super) fn last_lines(text: &str, lines: u32) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    let first = all.len().saturating_sub(lines as usize);
    all[first..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_as_many_as_are_wanted_and_there_are() {
        let lines = |text: &str, count| last_lines(text, count).join("|");
        assert_eq!(lines("a\nb\nc\n", 2), "b|c");
        assert_eq!(
            lines("a\nb\nc", 2),
            "b|c",
            "the last line is not complete yet"
        );
        assert_eq!(lines("a\nb", 9), "a|b");
        assert_eq!(lines("a\n\n", 2), "a|");
        assert_eq!(
            (lines("", 2), lines("a", 0)),
            (String::new(), String::new())
        );
    }
}
