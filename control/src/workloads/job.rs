//! What a runtime is told to run, and what all of them share.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use ployz_api::InstanceId;
use ployz_core::InstanceRecord;

/// Instances lie here, within the data directory.
pub(super) const DIRECTORY: &str = "workloads";
/// Escaped in JSON, its worst is six times as long, and an answer has 1 MiB.
pub(super) const LOGS_LEN_MAX: usize = 128 << 10;

/// What is to be run.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) record: &'a InstanceRecord,
    /// Directories, and where it is to find them.
    pub(super) volumes: Vec<(PathBuf, &'a str)>,
    /// This machine's in the overlay.
    pub(super) address: Ipv4Addr,
    /// What containers have addresses of.
    pub(super) subnet: Ipv4Net,
}

impl Job<'_> {
    /// Its environment. Nothing here may get into a command line or a log.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let env = self.record.spec.env.iter();
        env.map(|(name, value)| (name.as_str(), value.expose()))
    }
}

/// Where everything of an instance is, within the data directory.
pub(super) fn directory(id: InstanceId) -> String {
    format!("{DIRECTORY}/{id}")
}

/// The last lines of a text, none of which is longer than an answer allows.
pub(super) fn last_lines(text: &str, lines: u32) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    let first = all.len().saturating_sub(lines as usize);
    all[first..].iter().map(|line| (*line).to_owned()).collect()
}
