//! The liveness of a loop of the daemon: the watchdog asks, and the loop answers wherever it waits.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// The liveness check of one loop: the watchdog's questions and the loop's answers.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    name: &'static str,
    asked: Notify,
    answered: Notify,
    answers: Cell<u64>,
}

impl Heartbeat {
    /// A heartbeat of a loop that has this name.
    pub(crate) fn new(name: &'static str) -> Rc<Self> {
        Rc::new(Self {
            name,
            asked: Notify::new(),
            answered: Notify::new(),
            answers: Cell::new(0),
        })
    }

    /// The name of the loop.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// For the loop: answers the next question. The loop awaits this wherever it waits.
    pub(crate) async fn answer(&self) {
        self.asked.notified().await;
        self.answers.set(self.answers.get() + 1);
        self.answered.notify_one();
    }

    /// For the watchdog: asks, and waits for the answer. A late answer to an earlier question does not count.
    pub(crate) async fn check(&self) {
        let before = self.answers.get();
        self.asked.notify_one();
        while self.answers.get() == before {
            self.answered.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_turns_is_felt_and_one_that_hangs_is_not() {
        let heartbeat = Heartbeat::new("a loop");
        for _ in 0..2 {
            tokio::join!(heartbeat.answer(), heartbeat.check());
        }
        let felt = tokio::time::timeout(PATIENCE, heartbeat.check()).await;
        assert!(felt.is_err(), "no answer");
        heartbeat.answer().await;
        let felt = tokio::time::timeout(PATIENCE, heartbeat.check()).await;
        assert!(felt.is_err(), "the late answer was to another question");
    }
}
