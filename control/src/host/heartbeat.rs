//! Whether a loop of the daemon still turns: the watchdog asks, and the loop answers wherever it waits.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// The question to a loop whether it still turns, and its answers.
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

    /// What the loop is called.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// For the loop: answers, once somebody asks. To be waited for wherever the loop waits.
    pub(crate) async fn answer(&self) {
        self.asked.notified().await;
        self.answers.set(self.answers.get() + 1);
        self.answered.notify_one();
    }

    /// Asks, and waits for the answer. A beat that came too late for whoever asked before counts for nothing.
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
        assert!(felt.is_err(), "nobody answered");
        heartbeat.answer().await;
        let felt = tokio::time::timeout(PATIENCE, heartbeat.check()).await;
        assert!(felt.is_err(), "the late answer was to another question");
    }
}
