//! How far each host is: said on stderr, and to the network, where others can see it.

use std::cell::RefCell;
use std::time::Duration;

use ployz_api::{Code, Failure, LEASE_SECS, Name, OperationId, Payload, ProvisionReport, Request};
use tokio::sync::mpsc;

use super::stage::Stage;
use crate::arguments::Target;
use crate::connection::Connection;
use crate::outcome::unexpected;
use crate::printer::Notes;

/// Three of these may be lost before the work counts as dead.
const ALIVE_INTERVAL: Duration = Duration::from_secs(LEASE_SECS / 4);
/// Hosts that say something while the network is told of something else wait, each with one report.
const REPORTS: usize = 1;

/// The account of one piece of work.
#[derive(Debug)]
pub(crate) struct Ledger {
    notes: Notes,
    /// None while there is no network to tell.
    channel: Option<Channel>,
    warnings: RefCell<Vec<String>>,
}

#[derive(Debug)]
struct Channel {
    operation: OperationId,
    reports: mpsc::Sender<ProvisionReport>,
}

/// Tells the network, one report at a time, so that they are in order.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    connection: &'a Connection,
    operation: OperationId,
    reports: mpsc::Receiver<ProvisionReport>,
}

impl Ledger {
    /// A ledger that only the operator sees.
    pub(crate) fn private(notes: Notes) -> Self {
        Self {
            notes,
            channel: None,
            warnings: RefCell::default(),
        }
    }

    /// Opens a ledger in the network, which has to be the wanted one; the second value reports to it.
    pub(crate) async fn open<'a>(
        connection: &'a Connection,
        network: &Name,
        targets: &[Target],
    ) -> Result<(Self, Reporter<'a>), Failure> {
        let begin = ProvisionReport::Begin {
            network: network.clone(),
            targets: targets.iter().map(ToString::to_string).collect(),
        };
        let answer = connection.asked(&Request::Provision(begin)).await?;
        let Some(Payload::Operation(row)) = answer.payload else {
            return Err(unexpected());
        };
        let operation = row.operation_id;
        let (sender, receiver) = mpsc::channel(REPORTS);
        let ledger = Self {
            channel: Some(Channel {
                operation,
                reports: sender,
            }),
            ..Self::private(connection.notes())
        };
        let reporter = Reporter {
            connection,
            operation,
            reports: receiver,
        };
        Ok((ledger, reporter))
    }

    /// Which work it is of.
    pub(crate) fn operation(&self) -> Option<OperationId> {
        self.channel.as_ref().map(|channel| channel.operation)
    }

    /// A host enters a stage.
    pub(crate) async fn stage(&self, target: &Target, stage: Stage) {
        self.notes.stage(target, stage.name());
        self.report(|operation_id| ProvisionReport::Stage {
            operation_id,
            target: target.to_string(),
            stage: stage.to_string(),
        })
        .await;
    }

    /// A host is at something that takes its time.
    pub(crate) fn detail(&self, target: &Target, what: &str) {
        self.notes.stage(target, what);
    }

    /// Something is to be known, and nothing has failed.
    pub(crate) fn warn(&self, target: &Target, what: &str) {
        self.notes.stage(target, &format!("warning: {what}"));
        self.warnings.borrow_mut().push(format!("{target}: {what}"));
    }

    /// A host is done with.
    pub(crate) async fn ended(&self, target: &Target, failure: Option<&Failure>) {
        let text = failure.map_or("done", |failure| failure.message.as_str());
        self.notes.stage(target, text);
        self.report(|operation_id| ProvisionReport::Ended {
            operation_id,
            target: target.to_string(),
            cause: failure.map(|failure| failure.message.clone()),
        })
        .await;
    }

    /// All hosts are done with. What there is to be known besides.
    pub(crate) async fn close(self, failure: Option<&Failure>) -> Vec<String> {
        self.report(|operation_id| ProvisionReport::End {
            operation_id,
            code: failure.map_or(Code::Ok, |failure| failure.code),
            message: failure.map_or_else(String::new, |failure| failure.message.clone()),
        })
        .await;
        self.warnings.into_inner()
    }

    async fn report(&self, report: impl FnOnce(OperationId) -> ProvisionReport) {
        if let Some(channel) = &self.channel {
            // The reporter ends only after this ledger.
            let _sent = channel.reports.send(report(channel.operation)).await;
        }
    }
}

impl Reporter<'_> {
    /// Tells whatever is reported, and while nothing is, that the work goes on. Ends when the ledger is closed. A
    /// network that cannot be told does not keep the work from going on; why it was not, if so.
    pub(crate) async fn run(mut self) -> Option<Failure> {
        let mut lost = None;
        let alive = || ProvisionReport::Alive {
            operation_id: self.operation,
        };
        loop {
            let report = match tokio::time::timeout(ALIVE_INTERVAL, self.reports.recv()).await {
                Ok(Some(report)) => report,
                Ok(None) => return lost,
                Err(_) => alive(),
            };
            if let Err(failure) = self.connection.asked(&Request::Provision(report)).await {
                lost = lost.or(Some(failure));
            }
        }
    }
}
