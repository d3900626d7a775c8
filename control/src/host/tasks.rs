//! Tasks with an owner.

use std::cell::RefCell;

use tokio::task::JoinSet;

/// Tasks that end with their owner: dropping it aborts them.
#[derive(Debug, Default)]
pub(crate) struct TaskGroup(RefCell<JoinSet<()>>);

impl TaskGroup {
    /// Begins a task on this thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.0.borrow_mut();
        // Results of tasks that have ended would pile up otherwise.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task);
    }

    /// Aborts all tasks, and returns when none runs any more.
    pub(crate) async fn abort(&self) {
        let mut tasks = self.0.take();
        tasks.shutdown().await;
    }

    /// Waits until every task has ended by itself.
    pub(crate) async fn join(&self) {
        let tasks = self.0.take();
        tasks.join_all().await;
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::sync::Notify;
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn tasks_end_with_their_owner_or_by_themselves() {
        let test = async {
            let (group, held) = (TaskGroup::default(), Rc::new(()));
            for _ in 0..2 {
                let held = Rc::clone(&held);
                group.spawn(async move {
                    let _held = held;
                    std::future::pending().await
                });
            }
            group.abort().await;
            assert_eq!(
                Rc::strong_count(&held),
                1,
                "an aborted task is gone when abort returns"
            );
            let ended = Rc::new(Notify::new());
            let done = Rc::clone(&ended);
            group.spawn(async move { done.notify_one() });
            group.join().await;
            ended.notified().await;
        };
        LocalSet::new().run_until(test).await;
    }
}
