//! Asks a daemon over QUIC.

mod answers;
mod dial;
mod error;
mod facts;
mod key_exchange;
mod trust;

use std::time::Duration;

use tokio::time::Instant;

use crate::credential::Credential;
use crate::request::Request;
use crate::response::Response;
use crate::token::Token;

pub use answers::Answers;
pub use dial::{Between, Relayed, Session, connect, connect_to};
pub use error::ClientError;
pub use facts::{CERTIFICATE_SECS, Facts};
pub use key_exchange::{key_exchanges, provider};
pub use trust::Peer;

/// How long to leave a busy daemon alone, at first and at most. A full house of strangers is through within a second.
const BUSY_WAIT_MIN: Duration = Duration::from_millis(100);
const BUSY_WAIT_MAX: Duration = Duration::from_millis(500);

/// Asks with a credential, at its endpoints in their order, and waits up to `patience` for the answer of the first that
/// is there.
///
/// # Errors
/// [`ClientError`].
pub async fn ask(
    credential: &Credential,
    request: &Request,
    patience: Duration,
) -> Result<Response, ClientError> {
    until_heard(patience, move |deadline| async move {
        let session = connect(credential, deadline).await?;
        let asking = async { session.open(request).await?.only().await };
        let response = asking.await;
        session.close().await;
        response
    })
    .await
}

/// As [`ask`], but another machine answers: the daemon that is dialled relays everything, and can neither read
/// nor change it.
///
/// # Errors
/// [`ClientError`].
pub async fn ask_through(
    credential: &Credential,
    relayed: Relayed<'_>,
    request: &Request,
    patience: Duration,
) -> Result<Response, ClientError> {
    until_heard(patience, move |deadline| async move {
        let session = connect(credential, deadline).await?;
        let asking = async {
            match session.relay(&relayed, request).await? {
                Ok(answers) => answers.only().await,
                Err(refusal) => Ok(*refusal),
            }
        };
        let response = asking.await;
        session.close().await;
        response
    })
    .await
}

/// As [`ask`], or [`ask_through`] with a destination, for a request that has many answers. Patience ends with the
/// beginning of the first one.
///
/// # Errors
/// [`ClientError`].
pub async fn follow(
    credential: &Credential,
    relayed: Option<Relayed<'_>>,
    request: &Request,
    patience: Duration,
) -> Result<Following, ClientError> {
    until_heard(patience, move |deadline| async move {
        let session = connect(credential, deadline).await?;
        match begin(&session, relayed.as_ref(), request).await {
            Ok((answers, first)) => Ok(Following {
                answers,
                first,
                session,
            }),
            Err(error) => {
                session.close().await;
                Err(error)
            }
        }
    })
    .await
}

/// Asks, and waits for the first answer.
async fn begin(
    session: &Session,
    relayed: Option<&Relayed<'_>>,
    request: &Request,
) -> Result<(Option<Answers>, Option<Response>), ClientError> {
    let answers = match relayed {
        None => Ok(session.open(request).await?),
        Some(relayed) => session.relay(relayed, request).await?,
    };
    match answers {
        Ok(mut answers) => {
            let first = answers.next().await?;
            Ok((Some(answers), first))
        }
        Err(refusal) => Ok((None, Some(*refusal))),
    }
}

/// Answers that come as long as there are any.
#[derive(Debug)]
pub struct Following {
    answers: Option<Answers>,
    first: Option<Response>,
    session: Session,
}

impl Following {
    /// Ends it before its end.
    pub async fn close(self) {
        self.session.close().await;
    }

    /// The next one; `None` after the last.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<Response>, ClientError> {
        match (self.first.take(), &mut self.answers) {
            (Some(first), _) => Ok(Some(first)),
            (None, Some(answers)) => answers.next().await,
            (None, None) => Ok(None),
        }
    }
}

/// Asks as a stranger whom an invite tells whom to trust.
///
/// # Errors
/// [`ClientError`].
pub async fn ask_invited(
    token: &Token,
    request: &Request,
    patience: Duration,
) -> Result<Response, ClientError> {
    until_heard(patience, move |deadline| async move {
        let session = dial::connect_invited(token, deadline).await?;
        let response = session.open(request).await?.only().await;
        session.close().await;
        response
    })
    .await
}

/// Asks again while the daemon is there and has no room.
async fn until_heard<T, A: Future<Output = Result<T, ClientError>>>(
    patience: Duration,
    asking: impl Fn(Instant) -> A,
) -> Result<T, ClientError> {
    let deadline = deadline(patience);
    let trying = async {
        let mut wait = BUSY_WAIT_MIN;
        loop {
            match asking(deadline).await {
                Err(ClientError::Busy(_)) if Instant::now() + wait < deadline => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BUSY_WAIT_MAX);
                }
                heard => return heard,
            }
        }
    };
    tokio::time::timeout_at(deadline, trying)
        .await
        .unwrap_or(Err(ClientError::TimedOut(patience)))
}

/// When patience ends. A span beyond every clock is an hour: no request takes longer.
fn deadline(patience: Duration) -> Instant {
    const PATIENCE_MAX: Duration = Duration::from_secs(3600);
    Instant::now() + patience.min(PATIENCE_MAX)
}
