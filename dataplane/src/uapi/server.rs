//! The Unix socket on which `wg` finds an interface.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

use super::interface::Interface;

mod connection;

/// The directory in which `wg` looks for interfaces that live in userspace.
pub const SOCKET_DIRECTORY: &str = "/var/run/wireguard";

/// Clients served at a time; further ones wait in the backlog. `wg` opens one connection a command. Each can hold one
/// request: 8 * 4 * `MAX_REQUEST` = 1 GiB, if eight clients of root's own choosing do their worst.
const CONNECTIONS_MAX: usize = 8;

/// Longest interface name, `IFNAMSIZ` without its zero.
const NAME_MAX: usize = 15;

/// Why there is no socket, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The name would not be a file of its own in the directory.
    #[error(
        "{0:?} is no name for an interface: use 1 to {NAME_MAX} characters without / and spaces"
    )]
    InvalidName(String),
    /// The directory is not there and cannot be made.
    #[error("cannot create {path}: {source}; run as root, or create it")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A process answers on the socket.
    #[error("{path} is served by another process; stop it, or choose another interface name")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is not ours to remove.
    #[error("{path} is in the way and is not a socket; remove it")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// Any other failure to make the socket.
    #[error("cannot listen on {path}: {source}; it takes write permission for its directory")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The socket cannot be watched or accepted from any longer.
    #[error("cannot serve {path} any longer: {source}")]
    Serve {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The listening socket of one interface; its file goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    file: FileId,
    listener: UnixListener,
    directory_events: pipe::Receiver,
}

impl Server {
    /// Listens on `<directory>/<interface>.sock`, for the owner of this process alone.
    ///
    /// A socket without a listener is replaced. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`ServerError`], with nothing left behind.
    pub async fn bind(directory: &Path, interface: &str) -> Result<Self, ServerError> {
        if !is_name(interface) {
            return Err(ServerError::InvalidName(interface.to_owned()));
        }
        create_directory(directory)?;
        let path = directory.join(format!("{interface}.sock"));
        remove_stale(&path).await?;
        let listening = listen(&path).map_err(|source| {
            // Another process was faster, between our looking and our binding.
            if source.kind() == io::ErrorKind::AddrInUse {
                return ServerError::InUse { path: path.clone() };
            }
            ServerError::Listen {
                path: path.clone(),
                source,
            }
        })?;
        Self::watched(directory, path.clone(), listening).map_err(|source| {
            // Whatever this fails with, the first failure is the one to report.
            let _ = fs::remove_file(&path);
            ServerError::Listen { path, source }
        })
    }

    /// Answers clients until the socket's file is removed, which is how one asks a userspace interface to end.
    ///
    /// Dropping the future lets go of all clients.
    ///
    /// # Errors
    /// [`ServerError::Serve`], after which there is nothing to accept from.
    pub async fn serve(&self, interface: &impl Interface) -> Result<(), ServerError> {
        let mut connections = FuturesUnordered::new();
        let failed = |source| ServerError::Serve {
            path: self.path.clone(),
            source,
        };
        let removed = self.removed();
        tokio::pin!(removed);
        loop {
            tokio::select! {
                accepted = self.accept(), if connections.len() < CONNECTIONS_MAX => {
                    connections.push(connection::serve(accepted, interface));
                }
                Some(ended) = connections.next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        debug!(%error, "uapi client lost");
                    }
                }
                removed = &mut removed => return removed.map_err(failed),
            }
        }
    }

    /// The socket's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn watched(directory: &Path, path: PathBuf, listening: StdUnixListener) -> io::Result<Self> {
        let file = FileId::of(&path)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(directory, changes)?;
        // An inotify descriptor is read like a pipe, and tokio's `AsyncFd` takes unsafe code to make.
        let directory_events = pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))?;
        Ok(Self {
            path,
            file,
            listener: UnixListener::from_std(listening)?,
            directory_events,
        })
    }

    /// The next client. A failure to accept one is no reason to stop: it is tried again a little later.
    async fn accept(&self) -> UnixStream {
        /// Long enough for descriptors to be closed, short enough for a user who waits for `wg`.
        const RETRY: Duration = Duration::from_millis(200);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    warn!(%error, path = %self.path.display(), "cannot accept a uapi client; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Ends when the file is no longer there, or no longer ours.
    async fn removed(&self) -> io::Result<()> {
        // What happened does not matter, only what the path says afterwards; the size is that of some events.
        let mut events = [0; 4096];
        while self.file.is_at(&self.path) {
            self.directory_events.readable().await?;
            match self.directory_events.try_read(&mut events) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.file.is_at(&self.path)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(%error, path = %self.path.display(), "cannot remove the uapi socket");
        }
    }
}

/// The identity of the file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn is_at(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|file| file == self)
    }
}

fn is_name(interface: &str) -> bool {
    let plain = |c: char| c != '/' && !c.is_whitespace() && !c.is_control();
    (1..=NAME_MAX).contains(&interface.len())
        && interface.chars().all(plain)
        && !matches!(interface, "." | "..")
}

/// Makes the last directory private; those above it are the system's.
fn create_directory(directory: &Path) -> Result<(), ServerError> {
    let created = match directory.parent() {
        Some(parent) => fs::create_dir_all(parent),
        None => Ok(()),
    };
    match created.and_then(|()| DirBuilder::new().mode(0o700).create(directory)) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(ServerError::Directory {
                path: directory.to_owned(),
                source,
            })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a socket without a listener, as a killed process leaves it behind.
async fn remove_stale(path: &Path) -> Result<(), ServerError> {
    let listen = |source| ServerError::Listen {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(listen(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ServerError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(listen)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It does not wait for a full backlog: that is an error, and a sign of life.
        Ok(_) | Err(_) => Err(ServerError::InUse {
            path: path.to_owned(),
        }),
    }
}

/// Made by hand for the sake of its mode: the file has that of the descriptor, so it is never open to others, whatever
/// the umask.
fn listen(path: &Path) -> io::Result<StdUnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::new(128)?)?;
    Ok(StdUnixListener::from(socket))
}

#[cfg(test)]
mod tests;
