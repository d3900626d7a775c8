//! The stage of one story: its names, its files, and its logs.

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, process};

use anyhow::Result;

use crate::Contender;

/// How much of a daemon's log a failed story shows.
const LOG_LINES: usize = 60;

#[derive(Debug)]
pub struct Stage {
    contender: Contender,
    directory: PathBuf,
    names: Cell<u32>,
    logs: RefCell<Vec<PathBuf>>,
}

impl Stage {
    pub(crate) fn new(contender: Contender) -> Result<Self> {
        let directory = env::temp_dir().join(format!("ployz-stage-{}", process::id()));
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir(&directory)?;
        // Workloads run as users of their own and pass through it to their volumes, without a list of what is here.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711))?;
        Ok(Self {
            contender,
            directory,
            names: Cell::new(0),
            logs: RefCell::default(),
        })
    }

    /// The implementation that this story is about.
    #[must_use]
    pub fn contender(&self) -> Contender {
        self.contender
    }

    /// A number that no other call of this process gets.
    pub fn number(&self) -> u32 {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }

    /// An interface name that is free on the whole machine: namespaces share `/var/run/wireguard`.
    pub fn interface(&self) -> String {
        format!("pz{:x}n{}", process::id(), self.number())
    }

    /// Writes a file that only root can read and that goes with the stage.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("{}-{name}", self.number()));
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// A place that is not there yet, for a directory that goes with the stage.
    pub fn place(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}-{name}", self.number()))
    }

    /// A log file that is shown if the story fails.
    pub fn log(&self, name: &str) -> PathBuf {
        let path = self.directory.join(format!("{}-{name}.log", self.number()));
        self.logs.borrow_mut().push(path.clone());
        path
    }

    /// Prints the end of every log.
    #[expect(clippy::print_stderr, reason = "the account of a failed test")]
    pub(crate) fn show_logs(&self) {
        for path in self.logs.borrow().iter() {
            let text = tail(path);
            if !text.is_empty() {
                eprintln!("--- {}\n{text}", path.display());
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _already_gone = fs::remove_dir_all(&self.directory);
    }
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
