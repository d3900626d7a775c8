//! One request and its answer, whatever carries them: read, authorise, carry out, answer.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ployz_api::{Code, EVENTS_LIMIT_MAX, Failure, Outcome, Payload, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::host::clock;
use crate::host::tls::Caller;
use crate::machine::Machine;
use crate::requests::{self, Asker};
use crate::server::admission::Admission;
use crate::server::audit::Attempt;
use crate::server::authorise::authorise;
use crate::server::belief::disbelieved;
use crate::server::error::StreamError;
use crate::server::follow;
use crate::server::frame::{read, send};

/// More than everything that founding waits for, each with a deadline of its own, so that it is never cut off halfway.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// Results of a request with many that wait to be sent.
const RESULTS_MAX: usize = 1;

/// What answers requests: the machine, and a semaphore of which every request that is under way holds a permit until
/// its answer has arrived. A daemon that stops waits for all of them; how many there can be is bounded by connections
/// and streams.
#[derive(Clone, Debug)]
pub(super) struct Responder {
    pub(super) machine: Rc<Machine>,
    pub(super) under_way: Rc<Semaphore>,
    pub(super) admission: Admission,
}

impl Responder {
    /// Answers the one request of a stream.
    pub(super) async fn answer(
        &self,
        caller: &Caller,
        address: IpAddr,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), StreamError> {
        let request = self.receive(caller, stream).await;
        let _under_way = self.begin(&request).await;
        self.reply(caller, address, request, stream).await
    }

    /// To be held until the answer has arrived. A client that follows events is not waited for.
    pub(super) async fn begin(
        &self,
        request: &Result<Request, Failure>,
    ) -> Option<SemaphorePermit<'_>> {
        match request {
            Err(_) | Ok(Request::Events { follow: true, .. }) => None,
            // It is never closed.
            Ok(_) => self.under_way.acquire().await.ok(),
        }
    }

    /// Reads a request, and refuses it if the caller may not make it.
    pub(super) async fn receive(
        &self,
        caller: &Caller,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Request, Failure> {
        let request = read(stream).await?;
        authorise(self.machine.network().as_deref(), caller, &request)?;
        Ok(request)
    }

    /// Carries out a request that is the caller's to make, and sends what came of it.
    pub(super) async fn reply(
        &self,
        caller: &Caller,
        address: IpAddr,
        request: Result<Request, Failure>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), StreamError> {
        let outcome = match request {
            Ok(Request::Events {
                follow: true,
                limit,
                machine,
            }) => {
                let limit = limit.min(EVENTS_LIMIT_MAX);
                let (here, admission, of) = (&self.machine, &self.admission, machine.as_deref());
                let followed = follow::follow(here, admission, caller, of, limit, stream);
                Box::pin(followed).await?.map(|()| None)
            }
            Ok(Request::MachineRtt { machines, count }) => {
                let (results, received) = mpsc::channel(RESULTS_MAX);
                let measuring = requests::stream_rtt(&self.machine, &machines, count, results);
                let network = self.machine.network();
                tokio::select! {
                    sent = send_each(Box::pin(measuring), received, stream) => sent?.map(|()| None),
                    failure = disbelieved(network.as_deref(), caller) => Err(failure),
                }
            }
            Ok(request) => self.carry_out(caller, address, request).await.map(Some),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &outcome {
            self.count_refusal(caller, address, failure);
        }
        match outcome {
            Ok(None) => {}
            Ok(Some(success)) => send(stream, &Response::from(Ok(success))).await?,
            Err(failure) => send(stream, &Response::from(Err(failure))).await?,
        }
        Ok(stream.shutdown().await?)
    }

    async fn carry_out(&self, caller: &Caller, address: IpAddr, request: Request) -> Outcome {
        let attempt = Attempt::of(&request);
        let asker = Asker::new(caller, address);
        let carrying_out = requests::carry_out(Rc::clone(&self.machine), asker, request);
        let outcome = tokio::time::timeout(ANSWER_WAIT, Box::pin(carrying_out))
            .await
            .unwrap_or_else(|_| {
                let message = format!("the request was not completed within {ANSWER_WAIT:?}");
                Err(Failure::new(Code::Timeout, message))
            });
        if let Some(attempt) = attempt {
            attempt.record(&self.machine, caller, &outcome).await;
        }
        outcome
    }

    fn count_refusal(&self, caller: &Caller, address: IpAddr, failure: &Failure) {
        let who = format!("{} {} at {address}", caller.role.name(), caller.subject);
        let (code, now) = (failure.code.to_string(), clock::now().instant);
        self.machine.refusals.note(&code, who, failure, now);
    }
}

/// Sends each result as it comes, until there are no more.
async fn send_each(
    mut work: impl Future<Output = Result<(), Failure>> + Unpin,
    mut results: mpsc::Receiver<Payload>,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Result<(), Failure>, StreamError> {
    let mut outcome = None;
    loop {
        tokio::select! {
            result = results.recv() => match (result, outcome.take()) {
                (Some(payload), ended) => {
                    outcome = ended;
                    let response = Response::from(Outcome::Ok(payload.into()));
                    send(stream, &response).await?;
                }
                (None, Some(ended)) => return Ok(ended),
                (None, None) => return Ok(work.await),
            },
            ended = &mut work, if outcome.is_none() => outcome = Some(ended),
        }
    }
}
