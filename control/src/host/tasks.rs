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

    /// What one task does to itself is not the others' end, nor the owner's.
    #[tokio::test]
    async fn a_task_that_panics_ends_alone() {
        let test = async {
            let (group, held) = (TaskGroup::default(), Rc::new(()));
            let other = Rc::clone(&held);
            group.spawn(async move {
                let _held = other;
                std::future::pending().await
            });
            let ended = Rc::new(Notify::new());
            let unwinding = Rc::clone(&ended);
            group.spawn(async move {
                struct AtTheEnd(Rc<Notify>);
                impl Drop for AtTheEnd {
                    fn drop(&mut self) {
                        self.0.notify_one();
                    }
                }
                let _at_the_end = AtTheEnd(unwinding);
                panic!("as a test has it");
            });
            ended.notified().await;
            let done = Rc::clone(&ended);
            group.spawn(async move { done.notify_one() });
            ended.notified().await;
            assert_eq!(Rc::strong_count(&held), 2, "the other one still runs");
            group.abort().await;
            assert_eq!(Rc::strong_count(&held), 1);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn tasks_are_gone_with_a_group_that_is_dropped_and_a_group_can_be_used_again() {
        let test = async {
            let held = Rc::new(());
            let group = TaskGroup::default();
            for round in 0..2 {
                let other = Rc::clone(&held);
                group.spawn(async move {
                    let _held = other;
                    std::future::pending().await
                });
                assert_eq!(Rc::strong_count(&held), 2, "round {round}");
                group.abort().await;
                assert_eq!(Rc::strong_count(&held), 1, "round {round}");
            }
            group.join().await;
            let other = Rc::clone(&held);
            group.spawn(async move {
                let _held = other;
                std::future::pending().await
            });
            drop(group);
            while Rc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        };
        LocalSet::new().run_until(test).await;
    }
}
