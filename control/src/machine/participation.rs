//! Commands to the composition root, which enters and leaves networks. It owns everything that runs for a network, so
//! requests and services send it commands instead of doing that themselves.

use ployz_api::{Code, Failure};
use quinn::Endpoint;
use tokio::sync::{mpsc, oneshot};

use crate::host::membership::Membership;
use crate::network::Storage;
use crate::store::Store;

/// Commands that wait for the root. Only requests that hold the entering guard, a removal and a change of the store's
/// holders send one.
const COMMANDS_MAX: usize = 8;

/// Everything that is needed to run a network, made before the machine enters it. What is left to do can fail only
/// with the disk.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) membership: Membership,
    pub(crate) store: Store,
    /// The server of the store, where this machine holds it.
    pub(crate) storage: Option<Storage>,
    /// The endpoint of the management server.
    pub(crate) management: Endpoint,
}

/// A change of the network that this machine takes part in.
#[derive(Debug)]
pub(crate) enum Command {
    /// Enter a network that was just founded or joined.
    Enter(Box<Entry>),
    /// Take part in the network of this membership, which it has been a member of.
    TakePart(Box<Membership>),
    /// Take part anew with what `network.json` says by now, while the data plane goes on.
    Reenter,
    /// Leave the network; its files stay.
    Leave,
    /// Leave once the client has the answer, and delete the files of the network.
    Retire,
}

/// A command, and where its outcome goes.
#[derive(Debug)]
pub(crate) struct Participation {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<Result<(), Failure>>,
}

/// The channel to the composition root.
#[derive(Clone, Debug)]
pub(crate) struct Root(mpsc::Sender<Participation>);

impl Root {
    /// The two ends: one for the machine's context, the other for the root.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Participation>) {
        let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
        (Self(sender), receiver)
    }

    /// Sends a command and waits until it is carried out.
    pub(crate) async fn ask(&self, command: Command) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send(Participation { command, reply }).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Sends a command that is carried out after the request that asks for it has been answered.
    pub(crate) fn ask_later(&self, command: Command) -> Result<(), Failure> {
        let (reply, _) = oneshot::channel();
        let sent = self.0.try_send(Participation { command, reply });
        sent.map_err(|_| stopping())
    }
}

fn stopping() -> Failure {
    Failure::new(Code::Internal, "the daemon is stopping")
}
