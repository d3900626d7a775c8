//! Retries of requests that no server took.
//!
//! For every machine that is added or removed, nats-server reloads its settings, and meanwhile answers requests to
//! JetStream with "no responders". Such a request has had no effect, so it may be sent again.

use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind, RequestError};
use async_nats::jetstream::stream::{
    DirectGetError, DirectGetErrorKind, RawMessageError, RawMessageErrorKind,
};
use async_nats::jetstream::{self, context};
use async_nats::{RequestErrorKind, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};

/// The wait before a retry: a server with 200 users reloads its settings in some 10 ms.
pub(crate) const AGAIN_WAIT: Duration = Duration::from_millis(25);

/// Asks until a server takes the request; `None` if there is no answer within `patience`.
pub(super) async fn ask<T, E: Error + 'static>(
    patience: Duration,
    question: impl AsyncFn() -> Result<T, E>,
) -> Option<Result<T, E>> {
    let deadline = Instant::now() + patience;
    let asking = async {
        loop {
            match question().await {
                Err(error) if is_unanswered(&error) && Instant::now() + AGAIN_WAIT < deadline => {
                    sleep(AGAIN_WAIT).await;
                }
                answer => return answer,
            }
        }
    };
    timeout_at(deadline, asking).await.ok()
}

/// Whether an error, or one of its causes, is "no responders".
fn is_unanswered(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if is_no_responders(error) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether an error is "no responders", for which each module of the client has a kind of its own.
fn is_no_responders(error: &(dyn Error + 'static)) -> bool {
    let asked = error.downcast_ref::<RequestError>();
    let asked_plainly = error.downcast_ref::<async_nats::RequestError>();
    let published = error.downcast_ref::<PublishError>();
    let read = error.downcast_ref::<DirectGetError>();
    let answered = error.downcast_ref::<jetstream::Error>();
    let read_raw = error.downcast_ref::<RawMessageError>();
    asked.is_some_and(|it| it.kind() == context::RequestErrorKind::NoResponders)
        || asked_plainly.is_some_and(|it| it.kind() == RequestErrorKind::NoResponders)
        || published.is_some_and(|it| it.kind() == PublishErrorKind::StreamNotFound)
        || read.is_some_and(|it| {
            matches!(it.kind(), DirectGetErrorKind::ErrorResponse(StatusCode::NO_RESPONDERS, _))
        })
        || read_raw.is_some_and(|it| match it.kind() {
            RawMessageErrorKind::JetStream(error) => is_no_responders(&error),
            RawMessageErrorKind::NoMessageFound
            | RawMessageErrorKind::InvalidSubject
            | RawMessageErrorKind::Other => false,
        })
        // JetStream answers that it is not ready for this account.
        || answered.is_some_and(|it| it.code() == usize::from(StatusCode::NO_RESPONDERS.as_u16()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use async_nats::jetstream::kv::{EntryError, EntryErrorKind, UpdateError, UpdateErrorKind};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn no_responders() -> EntryError {
        let status = StatusCode::NO_RESPONDERS;
        let kind = DirectGetErrorKind::ErrorResponse(status, String::new());
        EntryError::with_source(EntryErrorKind::Other, DirectGetError::new(kind))
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_nobody_took_is_asked_again() {
        let asked = Cell::new(0);
        let answer = ask(PATIENCE, async || {
            asked.set(asked.get() + 1);
            if asked.get() < 3 {
                Err(no_responders())
            } else {
                Ok(7)
            }
        });
        assert!(matches!(answer.await, Some(Ok(7))));
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_no_store_is_not_asked_for_ever() {
        let begin = Instant::now();
        let answer = ask(PATIENCE, async || Err::<(), _>(no_responders())).await;
        assert!(matches!(answer, Some(Err(_))));
        assert!(begin.elapsed() < PATIENCE);
        let silence = ask(PATIENCE, async || {
            std::future::pending::<Result<(), EntryError>>().await
        });
        assert!(silence.await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_is_not_asked_again() {
        for refused in [
            UpdateError::new(UpdateErrorKind::WrongLastRevision),
            UpdateError::new(UpdateErrorKind::TimedOut),
            UpdateError::with_source(
                UpdateErrorKind::Other,
                PublishError::new(PublishErrorKind::BrokenPipe),
            ),
        ] {
            assert!(!is_unanswered(&refused), "{refused}");
        }
        let missing = PublishError::new(PublishErrorKind::StreamNotFound);
        let unpublished = UpdateError::with_source(UpdateErrorKind::Other, missing);
        assert!(is_unanswered(&unpublished));
        let unasked = RequestError::new(context::RequestErrorKind::NoResponders);
        assert!(is_unanswered(&unasked));
    }
}
