//! The daemon that is asked: the local one, with the credential that it leaves for root.

use std::io::ErrorKind;
use std::path::Path;

use ployz_api::client::{ClientError, ask};
use ployz_api::{Code, Credential, Failure, LOCAL_CREDENTIAL_FILE, Outcome, Request};

use crate::arguments::ConnectionArguments;

/// Whom to ask, and how long to wait.
#[derive(Debug)]
pub(crate) struct Connection {
    arguments: ConnectionArguments,
}

impl Connection {
    pub(crate) const fn new(arguments: ConnectionArguments) -> Self {
        Self { arguments }
    }

    /// Whether a daemon has ever left a credential where we look for it.
    pub(crate) fn has_daemon(&self) -> bool {
        self.credential_path().exists()
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&self, request: &Request) -> Outcome {
        let path = self.credential_path();
        let credential = read(&path).map_err(|failure| failure.hint(self.start_it()))?;
        let patience = self.arguments.timeout;
        let response = block_on(ask(&credential, request, patience)).map_err(|error| {
            let code = match &error {
                ClientError::TimedOut(_) => Code::Timeout,
                ClientError::Busy(_) => Code::Busy,
                ClientError::Unreachable(_)
                | ClientError::Credential(_)
                | ClientError::Broken(_) => Code::DaemonUnreachable,
            };
            Failure::new(code, error.to_string()).hint(self.start_it())
        })?;
        response.into()
    }

    fn credential_path(&self) -> std::path::PathBuf {
        self.arguments.data_dir.join(LOCAL_CREDENTIAL_FILE)
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
