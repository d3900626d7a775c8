//! Leftovers that must not outlive the harness: namespaces, the programs in them, and control sockets.
//!
//! Every namespace is called `ployz-bench-<pid>-...`, so a run that was killed outright is cleaned
//! up by the next one. Whatever runs inside such a namespace was started by us.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{console, priority, process};

pub(crate) const PREFIX: &str = "ployz-bench-";

static NAMESPACES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static SOCKETS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Cleans up on SIGINT, SIGTERM and SIGHUP. Handlers and not a signal mask, which children would
/// inherit: they could not be asked to end.
pub(crate) fn watch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let watch = move || {
        let Some(signal) = signals.forever().next() else {
            return;
        };
        console::progress(&format!("stopped by signal {signal}, cleaning up"));
        sweep();
        priority::restore();
        std::process::exit(130);
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(watch)?;
    Ok(())
}

pub(crate) fn note_namespace(name: &str) {
    NAMESPACES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(name.to_owned());
}

pub(crate) fn note_socket(path: &Path) {
    SOCKETS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(path.to_owned());
}

pub(crate) fn remove_socket(path: &Path) {
    let _ = std::fs::remove_file(path);
    SOCKETS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(path);
}

/// Ends what runs in a namespace of ours and deletes it.
pub(crate) fn remove_namespace(name: &str) {
    delete(name);
    NAMESPACES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(name);
}

/// Removes everything that is still there.
pub(crate) fn sweep() {
    let names = NAMESPACES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    names.iter().for_each(|name| delete(name));
    let sockets = SOCKETS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    for path in &sockets {
        let _ = std::fs::remove_file(path);
    }
}

/// Removes the namespaces of harnesses that are no longer alive.
pub(crate) fn remove_stale() -> Result<()> {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let owner = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            console::progress(&format!("removing {name}, left by a run that was killed"));
            delete(&name);
        }
    }
    Ok(())
}

fn delete(name: &str) {
    let inside = Command::new("ip").args(["netns", "pids", name]).output();
    let inside = inside.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for pid in inside
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
    {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = process::run(
        Command::new("ip").args(["netns", "del", name]),
        process::SHORT,
    );
}
