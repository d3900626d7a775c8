//! How a story is told: once per backend, on a stage of its own.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::{Backend, Contender, Stage, netns};

/// Stories measure throughput and change settings of the whole machine: one at a time in each process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How a test ends.
pub type Outcome = Result<()>;

/// Runs a story and, should it fail, shows what its daemons wrote.
///
/// Another implementation than `ployzd` has no backends; it is told the story once.
pub fn tell(backend: Backend, story: fn(&Stage) -> Result<()>) -> Result<()> {
    let contender = Contender::under_test(backend)?;
    if !contender.is_ployzd() && backend == Backend::Epoll {
        return Ok(());
    }
    tell_with(contender, story)
}

/// As [`tell`], on an implementation that the story chooses itself.
pub fn tell_with(contender: Contender, story: impl FnOnce(&Stage) -> Result<()>) -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    netns::sweep();
    let stage = Stage::new(contender)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| story(&stage)));
    if !matches!(outcome, Ok(Ok(()))) {
        stage.show_logs();
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Declares one test per I/O backend for a story of type `fn(&Stage) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! story {
    ($story:path) => {
        #[test]
        fn io_uring() -> $crate::Outcome {
            $crate::tell($crate::Backend::IoUring, $story)
        }

        #[test]
        fn epoll() -> $crate::Outcome {
            $crate::tell($crate::Backend::Epoll, $story)
        }
    };
}
