//! The daemon that is asked: that of a context, or the local one, with the credential that it leaves for root.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ployz_api::client::{Between, ClientError, Following, Relayed, ask, ask_through, follow};
use ployz_api::{
    Answerer, Code, Credential, Destination, Failure, LOCAL_CREDENTIAL_FILE,
    MEMBER_CREDENTIAL_FILE, MachineId, Name, Outcome, Payload, Request, Response,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::global::ConnectionArguments;
use crate::contexts::{self, Contexts, LOCAL};
use crate::printer::Notes;

/// Nearly every request is answered by then.
const PROGRESS_WAIT: Duration = Duration::from_secs(1);

/// The daemon to ask, and the time to wait for it.
#[derive(Debug)]
pub(crate) struct Connection {
    arguments: ConnectionArguments,
    notes: Notes,
}

/// The route to the daemon that answers.
#[derive(Clone)]
struct Route {
    /// The credential for the daemon that is dialled.
    credential: Rc<Credential>,
    /// The credential for a machine that is asked through another one, where it differs.
    known_as: Option<Rc<Credential>>,
    destination: Option<Destination>,
    /// Whose word counts for which machine that is.
    between: Between,
}

impl Route {
    /// Whether the machine is named by what may be the beginning of its id or name, to a daemon that others run.
    fn names_machine_in_part(&self) -> bool {
        match &self.destination {
            Some(Destination::Machine(wanted)) => {
                self.between == Between::Untrusted && wanted.parse::<MachineId>().is_err()
            }
            Some(Destination::Coordinator) | None => false,
        }
    }

    fn relayed(&self) -> Option<Relayed<'_>> {
        self.destination.as_ref().map(|destination| Relayed {
            known_as: self.known_as.as_ref().unwrap_or(&self.credential),
            destination,
            between: self.between,
        })
    }
}

impl Connection {
    pub(crate) const fn new(arguments: ConnectionArguments, notes: Notes) -> Self {
        Self { arguments, notes }
    }

    /// Waits; returns false on an interrupt.
    pub(crate) fn pause(&self, span: Duration) -> bool {
        block_on(async { tokio::time::timeout(span, interrupted()).await.is_err() })
    }

    /// The time that the operator is willing to wait.
    pub(crate) const fn patience(&self) -> Duration {
        self.arguments.timeout
    }

    /// Tells whether there is a daemon to ask: that of a context, or a local one that has left its credential.
    pub(crate) fn has_daemon(&self) -> bool {
        !matches!(self.context(), Ok(None)) || self.local(LOCAL_CREDENTIAL_FILE).exists()
    }

    /// The path of the file with the contexts.
    pub(crate) fn contexts_path(&self) -> Result<PathBuf, Failure> {
        contexts::path(self.arguments.config.as_deref())
    }

    /// The notes that may go to stderr meanwhile.
    pub(crate) const fn notes(&self) -> Notes {
        self.notes
    }

    /// The endpoints of `--connect`, their names resolved.
    pub(crate) fn endpoints(&self) -> Result<Vec<SocketAddr>, Failure> {
        block_on(self.resolved())
    }

    async fn resolved(&self) -> Result<Vec<SocketAddr>, Failure> {
        let mut endpoints = Vec::new();
        for endpoint in &self.arguments.connect {
            let host = endpoint.as_str();
            let failed = |error: &dyn std::fmt::Display| {
                Failure::new(Code::DaemonUnreachable, format!("{host}: {error}"))
            };
            let resolving = tokio::net::lookup_host(host);
            let resolved = tokio::time::timeout(self.arguments.timeout, resolving).await;
            let resolved = resolved.map_err(|error| failed(&error))?;
            endpoints.extend(resolved.map_err(|error| failed(&error))?);
        }
        Ok(endpoints)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&self, request: &Request) -> Outcome {
        block_on(self.waiting(self.asked(request)))
    }

    /// As [`Self::ask`], of a machine that has to answer itself.
    pub(crate) fn ask_of(&self, destination: Destination, request: &Request) -> Outcome {
        block_on(self.waiting(async {
            let route = self.route(request, Some(destination)).await?;
            self.asked_by(&route, request).await
        }))
    }

    /// The same among other things that are waited for.
    pub(crate) async fn asked(&self, request: &Request) -> Outcome {
        self.asked_by(&self.route(request, None).await?, request)
            .await
    }

    async fn asked_by(&self, route: &Route, request: &Request) -> Outcome {
        let answer = match self.asked_once(route, request).await {
            Err(ClientError::WrongMachine(_)) if route.names_machine_in_part() => {
                let exact = self.resolve(route).await?;
                self.asked_once(&exact, request).await
            }
            answer => answer,
        };
        answer
            .map_err(|error| self.unanswered(&error))
            .and_then(Outcome::from)
    }

    async fn asked_once(&self, route: &Route, request: &Request) -> Result<Response, ClientError> {
        let patience = self.arguments.timeout;
        match route.relayed() {
            None => ask(&route.credential, request, patience).await,
            Some(relayed) => ask_through(&route.credential, relayed, request, patience).await,
        }
    }

    /// The route to the one machine that is meant, by its id: a machine that holds the store says which one that is,
    /// and not the machine between.
    async fn resolve(&self, route: &Route) -> Result<Route, Failure> {
        let Some(Destination::Machine(wanted)) = &route.destination else {
            return Ok(route.clone());
        };
        let to_holder = Route {
            destination: Some(Destination::Coordinator),
            ..route.clone()
        };
        let inspect = Request::MachineInspect {
            machine: wanted.clone(),
        };
        let answer = self.asked_once(&to_holder, &inspect).await;
        let answer = answer.map_err(|error| self.unanswered(&error))?;
        let Some(Payload::MachineInspect(found)) = Outcome::from(answer)?.payload else {
            let message = "the machine that holds the store sent an unexpected answer";
            return Err(Failure::new(Code::Internal, message));
        };
        Ok(Route {
            destination: Some(Destination::Machine(found.machine.id.to_string())),
            ..route.clone()
        })
    }

    /// Asks, and hands over every answer as it comes, until an interrupt. An end by the daemon is a failure.
    pub(crate) fn follow(
        &self,
        request: &Request,
        each: impl FnMut(Outcome),
    ) -> Result<(), Failure> {
        match self.stream(request, each)? {
            End::Interrupted => Ok(()),
            End::Complete => {
                let message = "the daemon ended the stream";
                Err(Failure::new(Code::DaemonUnreachable, message).hint("run the command again"))
            }
        }
    }

    /// Asks, and hands over all answers as they come.
    pub(crate) fn gather(
        &self,
        request: &Request,
        each: impl FnMut(Outcome),
    ) -> Result<(), Failure> {
        match self.stream(request, each)? {
            End::Complete => Ok(()),
            End::Interrupted => Err(Failure::new(Code::Timeout, "interrupted")),
        }
    }

    fn stream(&self, request: &Request, mut each: impl FnMut(Outcome)) -> Result<End, Failure> {
        let mut route = block_on(self.route(request, None))?;
        if route.names_machine_in_part() {
            route = block_on(self.resolve(&route))?;
        }
        let patience = self.arguments.timeout;
        let followed = block_on(async {
            let following = follow(&route.credential, route.relayed(), request, patience);
            let mut following = following.await?;
            let end = until_the_end(&mut following, &mut each).await;
            following.close().await;
            end
        });
        followed.unwrap_or_else(|error| Err(self.unanswered(&error)))
    }

    /// Reports progress on stderr, unless that is switched off.
    pub(crate) fn progress(&self, text: &str) {
        self.notes.progress(text);
    }

    /// Waits for the answer, and reports that on stderr after a while.
    async fn waiting<T>(&self, asking: impl Future<Output = T>) -> T {
        let mut asking = pin!(asking);
        tokio::select! {
            answer = &mut asking => answer,
            () = tokio::time::sleep(PROGRESS_WAIT) => {
                self.notes.progress("waiting for the daemon's answer");
                asking.await
            }
        }
    }

    async fn route(&self, request: &Request, of: Option<Destination>) -> Result<Route, Failure> {
        let route = self.find_route(request, of).await?;
        self.notes.verbose(&format!(
            "asking {:?} for {:?}{}",
            route.credential.endpoints,
            request.operation(),
            route
                .destination
                .as_ref()
                .map(|destination| format!(" of {destination:?}"))
                .unwrap_or_default()
        ));
        Ok(route)
    }

    async fn find_route(
        &self,
        request: &Request,
        of: Option<Destination>,
    ) -> Result<Route, Failure> {
        let on = of.or_else(|| self.arguments.on.clone().map(Destination::Machine));
        if let Some(name) = self.context()? {
            let mut credential = Contexts::read(&self.contexts_path()?)?.take(&name)?;
            if !self.arguments.connect.is_empty() {
                credential.endpoints = self.resolved().await?;
            }
            let needs_coordinator = request.operation().row().answered_by == Answerer::Holder;
            return Ok(Route {
                credential: Rc::new(credential),
                known_as: None,
                destination: on.or_else(|| needs_coordinator.then_some(Destination::Coordinator)),
                between: Between::Untrusted,
            });
        }
        if !self.arguments.connect.is_empty() {
            let message = "--connect needs a context: it gives an address but no credential";
            return Err(Failure::new(Code::InvalidArgument, message)
                .hint("ployzctl context import <file>, then add --context <name>"));
        }
        let read = |file| {
            let read = read(&self.local(file)).map(Rc::new);
            read.map_err(|failure| failure.hint(self.start_it()))
        };
        Ok(Route {
            credential: read(LOCAL_CREDENTIAL_FILE)?,
            known_as: on
                .is_some()
                .then(|| read(MEMBER_CREDENTIAL_FILE))
                .transpose()?,
            destination: on,
            between: Between::Trusted,
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
            ClientError::Busy(_) => Code::Busy,
            ClientError::Refused(_) => Code::Forbidden,
            ClientError::Unreachable(_)
            | ClientError::Credential(_)
            | ClientError::Broken(_)
            | ClientError::WrongMachine(_) => Code::DaemonUnreachable,
        };
        let hint = match (code, self.context()) {
            (Code::Forbidden, _) => {
                "create a credential on a machine that holds the store: ployzctl credential create"
                    .to_owned()
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

/// Waits for SIGINT or SIGTERM, so that there is time to say goodbye.
async fn interrupted() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

/// Why there are no more answers.
enum End {
    Complete,
    Interrupted,
}

/// Hands over answers until the last one, or an interrupt.
async fn until_the_end(
    following: &mut Following,
    each: &mut impl FnMut(Outcome),
) -> Result<Result<End, Failure>, ClientError> {
    let mut interrupt = pin!(interrupted());
    loop {
        let response = tokio::select! {
            response = following.next() => response?,
            () = &mut interrupt => return Ok(Ok(End::Interrupted)),
        };
        match response.map(Outcome::from) {
            Some(Ok(answer)) => each(Ok(answer)),
            Some(Err(failure)) => return Ok(Err(failure)),
            None => return Ok(Ok(End::Complete)),
        }
    }
}

fn read(path: &Path) -> Result<Credential, Failure> {
    let unreachable = |cause: String| Failure::new(Code::DaemonUnreachable, cause);
    let text = std::fs::read(path).map_err(|error| {
        let shown = path.display();
        if error.kind() == ErrorKind::NotFound {
            unreachable(format!(
                "no daemon is running on this machine: {shown} does not exist"
            ))
        } else if error.kind() == ErrorKind::PermissionDenied {
            let message = format!("no permission to read {shown}: run this as root");
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
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let value = runtime.block_on(future);
    // A name that is still being looked up must not delay the end.
    runtime.shutdown_background();
    value
}
