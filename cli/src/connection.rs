//! The daemon that is asked: that of a context, or the local one, with the credential that it leaves for root.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use ployz_api::client::{ClientError, ask, ask_through};
use ployz_api::{
    Code, Credential, Destination, Failure, LOCAL_CREDENTIAL_FILE, MEMBER_CREDENTIAL_FILE, Name,
    Outcome, Request,
};

use crate::arguments::ConnectionArguments;
use crate::contexts::{self, Contexts, LOCAL};

/// Whom to ask, and how long to wait.
#[derive(Debug)]
pub(crate) struct Connection {
    arguments: ConnectionArguments,
}

/// How to get to whom.
struct Way {
    /// Of whom is asked, or passes on.
    credential: Credential,
    /// As whom a machine knows us that is asked through another, where that differs.
    known_as: Option<Credential>,
    destination: Option<Destination>,
}

impl Connection {
    pub(crate) const fn new(arguments: ConnectionArguments) -> Self {
        Self { arguments }
    }

    /// Whether there is a daemon to ask: one of a context, or one that has left a credential where we look for it.
    pub(crate) fn has_daemon(&self) -> bool {
        !matches!(self.context(), Ok(None)) || self.local(LOCAL_CREDENTIAL_FILE).exists()
    }

    /// Where contexts are kept.
    pub(crate) fn contexts_path(&self) -> Result<PathBuf, Failure> {
        contexts::path(self.arguments.config.as_deref())
    }

    /// The endpoints of `--connect`, their names resolved.
    pub(crate) fn endpoints(&self) -> Result<Vec<SocketAddr>, Failure> {
        let mut endpoints = Vec::new();
        for host in &self.arguments.connect {
            let resolved = host.0.to_socket_addrs().map_err(|error| {
                Failure::new(Code::DaemonUnreachable, format!("{}: {error}", host.0))
            })?;
            endpoints.extend(resolved);
        }
        Ok(endpoints)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&self, request: &Request) -> Outcome {
        let way = self.way(request)?;
        let patience = self.arguments.timeout;
        let known_as = way.known_as.as_ref().unwrap_or(&way.credential);
        let response = block_on(async {
            match &way.destination {
                None => ask(&way.credential, request, patience).await,
                Some(destination) => {
                    ask_through(&way.credential, known_as, destination, request, patience).await
                }
            }
        });
        response
            .map_err(|error| self.unanswered(&error))
            .and_then(Outcome::from)
    }

    fn way(&self, request: &Request) -> Result<Way, Failure> {
        let on = self.arguments.on.clone().map(Destination::Machine);
        if let Some(name) = self.context()? {
            let mut credential = Contexts::read(&self.contexts_path()?)?.take(&name)?;
            if !self.arguments.connect.is_empty() {
                credential.endpoints = self.endpoints()?;
            }
            let needs_coordinator = request.operation().needs_coordinator();
            return Ok(Way {
                credential,
                known_as: None,
                destination: on.or_else(|| needs_coordinator.then_some(Destination::Coordinator)),
            });
        }
        if !self.arguments.connect.is_empty() {
            let message = "--connect says where, but no context says as whom";
            return Err(Failure::new(Code::InvalidArgument, message)
                .hint("ployzctl context import <file>, then --context <name>"));
        }
        let read = |file| read(&self.local(file)).map_err(|failure| failure.hint(self.start_it()));
        Ok(Way {
            credential: read(LOCAL_CREDENTIAL_FILE)?,
            known_as: on
                .is_some()
                .then(|| read(MEMBER_CREDENTIAL_FILE))
                .transpose()?,
            destination: on,
        })
    }

    /// The one that is named, or else the current one; none for the local daemon.
    fn context(&self) -> Result<Option<Name>, Failure> {
        let name = match &self.arguments.context {
            Some(name) => Some(name.clone()),
            None => match self.contexts_path() {
                Ok(path) => Contexts::read(&path)?.current,
                // Without a home there are no contexts, and the local daemon needs none.
                Err(_) => None,
            },
        };
        Ok(name.filter(|name| name.as_str() != LOCAL))
    }

    fn local(&self, file: &str) -> PathBuf {
        self.arguments.data_dir.join(file)
    }

    fn unanswered(&self, error: &ClientError) -> Failure {
        let code = match error {
            ClientError::TimedOut(_) => Code::Timeout,
            ClientError::Refused(_) => Code::Forbidden,
            ClientError::Unreachable(_) | ClientError::Credential(_) | ClientError::Broken(_) => {
                Code::DaemonUnreachable
            }
        };
        let hint = match (code, self.context()) {
            (Code::Forbidden, _) => {
                "ployzctl credential create, on a machine that holds the store".to_owned()
            }
            (_, Ok(Some(name))) => format!("ployzctl context show {name}"),
            _ => self.start_it(),
        };
        Failure::new(code, error.to_string()).hint(hint)
    }

    fn start_it(&self) -> String {
        format!(
            "ployzd run --data-dir {}",
            self.arguments.data_dir.display()
        )
    }
}

fn read(path: &Path) -> Result<Credential, Failure> {
    let unreachable = |cause: String| Failure::new(Code::DaemonUnreachable, cause);
    let text = std::fs::read(path).map_err(|error| {
        let shown = path.display();
        if error.kind() == ErrorKind::NotFound {
            unreachable(format!("no daemon runs here: there is no {shown}"))
        } else if error.kind() == ErrorKind::PermissionDenied {
            let message = format!("{shown} is not yours to read: run it as root");
            Failure::new(Code::Forbidden, message)
        } else {
            unreachable(format!("{shown}: {error}"))
        }
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| unreachable(format!("{} is damaged: {error}", path.display())))
}

#[expect(
    clippy::expect_used,
    reason = "a runtime needs nothing but descriptors"
)]
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}
