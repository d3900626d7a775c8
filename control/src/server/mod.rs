//! The management server: QUIC, one request a stream.
//!
//! There is one on the loopback interface, for root of this host, and, in a network, one for everybody whom the network
//! has certified.
//!
//! ```text
//!   endpoint ─▶ admission ─▶ connection ─▶ stream: read, authorise, carry out, answer
//!                                 └──────▶ relay: forward to another machine, or accept what one forwards
//! ```

mod admission;
mod audit;
mod authorise;
mod belief;
mod connection;
mod error;
mod follow;
mod frame;
mod relay;
mod stream;

use std::rc::Rc;
use std::time::Duration;

use quinn::{Endpoint, VarInt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::host::heartbeat::Heartbeat;
use crate::host::listener::STREAMS_MAX;
use crate::host::tasks::TaskGroup;
use crate::machine::Machine;
use admission::{Admission, CONNECTIONS_MAX, Decision};
use connection::refuse;
use stream::Responder;

/// How long the answer to the request that closes a server may take to arrive.
const RETIRE_WAIT: Duration = Duration::from_secs(2);
/// How long the last words may take to arrive.
const GOODBYE_WAIT: Duration = Duration::from_millis(500);
/// Requests at a time on all connections.
pub(crate) const REQUESTS_MAX: u32 = CONNECTIONS_MAX as u32 * STREAMS_MAX;

/// A server that runs; a handle of it. The last handle that is dropped ends it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    endpoint: Endpoint,
    heartbeat: Rc<Heartbeat>,
    task: Rc<TaskGroup>,
}

impl Server {
    /// Begins to answer callers whom `network` has certified. Each request that is under way holds a permit of
    /// `under_way`.
    pub(crate) fn start(
        machine: &Rc<Machine>,
        under_way: &Rc<Semaphore>,
        endpoint: Endpoint,
        network: String,
        name: &'static str,
    ) -> Self {
        let heartbeat = Heartbeat::new(name);
        let responder = Responder {
            machine: Rc::clone(machine),
            under_way: Rc::clone(under_way),
            admission: Admission::default(),
        };
        let task = TaskGroup::default();
        let serving = serve(responder, endpoint.clone(), network, Rc::clone(&heartbeat));
        task.spawn(serving);
        Self {
            endpoint,
            heartbeat,
            task: Rc::new(task),
        }
    }

    /// Whether it makes progress.
    pub(crate) fn heartbeat(&self) -> Rc<Heartbeat> {
        Rc::clone(&self.heartbeat)
    }

    /// Takes no new connections.
    pub(crate) fn refuse(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Takes no new connections, lets clients hear what they wait for, and ends when everything that they have asked is
    /// carried out.
    pub(crate) async fn retire(self) {
        self.drain().await;
        self.close().await;
        self.join().await;
    }

    /// Waits until everything is carried out that clients of a closed server have asked.
    pub(crate) async fn join(self) {
        self.task.join().await;
    }

    /// Takes no new connections, and lets clients hear what they wait for.
    pub(crate) async fn drain(&self) {
        self.refuse();
        // A client that stays for longer has nothing to wait for.
        let _ = tokio::time::timeout(RETIRE_WAIT, self.endpoint.wait_idle()).await;
    }

    /// Ends every connection.
    pub(crate) async fn close(&self) {
        self.endpoint
            .close(VarInt::from_u32(0), b"the daemon stops");
        // A client that does not hear it will notice.
        let _ = tokio::time::timeout(GOODBYE_WAIT, self.endpoint.wait_idle()).await;
    }
}

/// Answers clients until the endpoint is closed, and then ends what they have begun.
async fn serve(
    responder: Responder,
    endpoint: Endpoint,
    network: String,
    heartbeat: Rc<Heartbeat>,
) {
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            () = heartbeat.answer() => continue,
            Some(_ended) = connections.join_next() => continue,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            break;
        };
        let (address, validated) = (
            incoming.remote_address().ip(),
            incoming.remote_address_validated(),
        );
        let handshake = match responder.admission.admit(address, validated) {
            Decision::Accept(handshake) => handshake,
            Decision::Validate => {
                // A client that was asked to retry has validated its address, and is not asked again.
                let _ = incoming.retry();
                continue;
            }
            Decision::Refuse(full) => {
                let why = "the maximum is reached";
                refuse(&responder.machine, full.cause, address, why);
                incoming.refuse();
                continue;
            }
        };
        let (responder, network) = (responder.clone(), network.clone());
        connections.spawn_local(async move {
            let serving = connection::serve(&responder, incoming, handshake, &network);
            if let Err(error) = Box::pin(serving).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    // The port is free when this handle and the connections are gone.
    drop(endpoint);
    connections.join_all().await;
}
