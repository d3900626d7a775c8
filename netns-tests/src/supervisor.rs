//! systemd's part towards a daemon's descriptors: kept on its word, and passed to the next process (sd_notify(3),
//! `FDSTORE=1`; sd_listen_fds(3)).

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::command::words;

/// How soon it notices that it is to end.
const POLL: Duration = Duration::from_millis(20);
/// Above every number that a process is passed descriptors as.
const NUMBER_MIN: i32 = 100;

/// Whoever keeps the descriptors of one daemon. What it keeps is closed with it.
#[derive(Debug)]
pub struct Supervisor {
    place: PathBuf,
    kept: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
    ends: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Listens at a place that is not there yet.
    pub fn new(place: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(place)?;
        socket.set_read_timeout(Some(POLL))?;
        let (kept, ends) = (
            Arc::<Mutex<BTreeMap<_, _>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (store, end) = (Arc::clone(&kept), Arc::clone(&ends));
        let listener = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                heed(&socket, &store);
            }
        });
        Ok(Self {
            place: place.to_owned(),
            kept,
            ends,
            listener: Some(listener),
        })
    }

    /// The names of what it keeps.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keys().cloned().collect()
    }

    /// Lets go of everything, as systemd does when a unit has been stopped.
    pub fn let_go(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clear();
    }

    /// Starts something whose command line begins with this, which passes what is kept now: a shell that gives each
    /// descriptor its number, says for whom they are, and becomes that process.
    pub fn start<T>(&self, start: impl FnOnce(Vec<String>) -> Result<T>) -> Result<T> {
        let passed = self.inherit(FdFlags::empty())?;
        let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
        let mut prefix = words(&format!("env NOTIFY_SOCKET={}", self.place.display()));
        if !names.is_empty() {
            let (count, names) = (names.len(), names.join(":"));
            prefix.extend(words(&format!("LISTEN_FDS={count} LISTEN_FDNAMES={names}")));
        }
        prefix.extend(words("bash -c"));
        let numbers: String = (3..)
            .zip(&passed)
            .map(|(number, (_, fd))| format!("{number}<&{fd} {fd}<&- "))
            .collect();
        let script = format!("exec {numbers}\nLISTEN_PID=$$ exec \"$@\"");
        prefix.extend([script, "bash".to_owned()]);
        let outcome = start(prefix);
        self.inherit(FdFlags::CLOEXEC)?;
        outcome
    }

    /// Has what is kept be inherited by whoever is started, or not: names and numbers. There is never a second copy,
    /// which would keep what the daemon has had us let go of.
    fn inherit(&self, flags: FdFlags) -> Result<Vec<(String, i32)>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let set = kept.iter().map(|(name, fd)| {
            fcntl_setfd(fd, flags)?;
            Ok((name.clone(), fd.as_raw_fd()))
        });
        set.collect()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ended = self.listener.take().map(JoinHandle::join);
    }
}

/// Takes one message, if there is one.
fn heed(socket: &UnixDatagram, kept: &Mutex<BTreeMap<String, OwnedFd>>) {
    let mut bytes = [0; 512];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let Ok(message) = recvmsg(
        socket,
        &mut buffers,
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    ) else {
        return;
    };
    let fd = ancillary.drain().find_map(|message| {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fds.next()
        } else {
            None
        }
    });
    let text = String::from_utf8_lossy(&bytes[..message.bytes]).into_owned();
    let has = |word: &str| text.lines().any(|line| line == word);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    match (name, fd) {
        (Some(name), Some(fd)) if has("FDSTORE=1") => {
            let copy = fcntl_dupfd_cloexec(&fd, NUMBER_MIN);
            kept.extend(copy.map(|copy| (name.to_owned(), copy)));
        }
        (Some(name), None) if has("FDSTOREREMOVE=1") => {
            kept.remove(name);
        }
        _ => {}
    }
}
