//! How a statement is stopped from outside: while it is planned, which nothing else would end, and not once it commits.

use std::future::Future;

use tokio::sync::watch;

use super::busy::{MANY_ROWS, busy};
use crate::{CommitOutcome, Consent, Error, ErrorKind, Result, Transaction};

tokio::task_local! {
    static RUNNING: Interrupt;
}

/// Stops a statement that runs under it, unless that has begun to commit. From then on it must be awaited: it may be
/// committed whatever happens, and whoever is told that it was cancelled would be told wrong.
///
/// ```
/// # async fn run(statement: impl Future<Output = ()> + Send + 'static) {
/// let interrupt = grizzly_provider::adapter::Interrupt::default();
/// let mut running = tokio::spawn(interrupt.watch(statement));
/// let in_time = tokio::time::timeout(std::time::Duration::from_secs(1), &mut running).await;
/// if in_time.is_err() && !interrupt.stop() {
///     running.await.expect("it does not panic").expect("it commits");
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Sender<Phase>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// A commit has begun, of this statement or of an earlier one of the same text.
    Committing,
    Stopped,
}

impl Default for Interrupt {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }
}

impl Interrupt {
    /// Runs a statement, or a part of one. Stopped, it ends with an error of kind `Cancelled`: at once where it waits, and
    /// between two steps where it is being planned.
    pub fn watch<F: Future>(&self, statement: F) -> impl Future<Output = Result<F::Output>> + use<F> {
        let mut phase = self.0.subscribe();
        RUNNING.scope(self.clone(), async move {
            tokio::select! {
                biased;
                Ok(_) = phase.wait_for(|phase| *phase == Phase::Stopped) => Err(cancelled()),
                ended = statement => Ok(ended),
            }
        })
    }

    /// Stops the statement. `false` if it is too late, because a commit has begun; then its end must be awaited.
    pub fn stop(&self) -> bool {
        self.0.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Stopped;
            }
            running
        });
        *self.0.borrow() == Phase::Stopped
    }

    /// An error of kind `Cancelled` if the statement was stopped; else it cannot be stopped any more.
    fn begin_commit(&self) -> Result<()> {
        self.0.send_if_modified(|phase| {
            if *phase == Phase::Running {
                *phase = Phase::Committing;
            }
            false
        });
        self.check()
    }

    fn check(&self) -> Result<()> {
        if *self.0.borrow() == Phase::Stopped { Err(cancelled()) } else { Ok(()) }
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the statement was cancelled")
}

/// An error of kind `Cancelled` if the running statement was stopped.
pub(super) fn check() -> Result<()> {
    // Outside a server nobody may be watching.
    RUNNING.try_with(Interrupt::check).unwrap_or(Ok(()))
}

/// For what commits, here or elsewhere, in a way of its own: the running statement cannot be stopped any more, and its end
/// is awaited. Outside of [`Interrupt::watch`] nobody stops it, and this does nothing.
///
/// # Errors
/// `Cancelled` if it was stopped before.
pub fn begin_commit() -> Result<()> {
    RUNNING.try_with(Interrupt::begin_commit).unwrap_or(Ok(()))
}

/// The consent of whoever watches the running statement: it can be stopped until the log is all that is left to write.
pub(super) struct Watched;

impl Consent for Watched {
    fn go_on(&self) -> Result<()> {
        check()
    }

    fn commit(&self) -> Result<()> {
        begin_commit()
    }
}

/// Commits, unless the running statement was stopped.
pub(super) async fn commit(transaction: Transaction) -> Result<CommitOutcome> {
    if transaction.is_large(MANY_ROWS) {
        busy(|| transaction.commit_with(&Watched))
    } else {
        transaction.commit_async_with(Watched).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_stopped_and_what_commits_is_not() {
        let interrupt = Interrupt::default();
        let waiting = tokio::spawn(interrupt.watch(std::future::pending::<()>()));
        assert!(interrupt.stop());
        let ended = waiting.await.expect("it does not panic");
        assert_eq!(ended.expect_err("it never ends").kind(), ErrorKind::Cancelled);

        let interrupt = Interrupt::default();
        interrupt.watch(async { begin_commit() }).await.expect("nobody stopped it").expect("it may commit");
        assert!(!interrupt.stop());
    }

    #[tokio::test]
    async fn what_was_stopped_does_not_begin_to_commit() {
        let interrupt = Interrupt::default();
        let stopped = interrupt.clone();
        let ended = interrupt.watch(async move {
            assert!(stopped.stop());
            begin_commit()
        });
        let refused = ended.await.expect("it does not wait").expect_err("it was stopped");
        assert_eq!(refused.kind(), ErrorKind::Cancelled);
    }
}
