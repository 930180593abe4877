//! Work for a statement, planning among it, in a task of its own: who waits for it can be told that it was cancelled, or
//! that its time is up, while it computes.

use std::{fmt::Display, time::Duration};

use grizzly_provider::{Error, ErrorKind, adapter::Interrupt};
use tokio::time::Instant;
use tonic::Status;

use super::{sessions::Session, stream::CancelSwitch};
use crate::error::status;

/// When a statement must be done, and how long it may take in all.
pub(crate) type Deadline = Option<(Instant, Duration)>;

/// How long a statement may take: for planning, then for running, and not for the time between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimit {
    limit: Option<Duration>,
    spent: Duration,
}

impl TimeLimit {
    /// A limit of which nothing is spent.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit, spent: Duration::ZERO }
    }

    /// What is left after `spent`.
    pub(crate) fn after(self, spent: Duration) -> Self {
        Self { spent: self.spent + spent, ..self }
    }

    /// When a statement that goes on now must be done.
    pub(crate) fn deadline(self) -> Deadline {
        self.limit.map(|limit| (Instant::now() + limit.saturating_sub(self.spent), limit))
    }
}

/// Stops the statement when whoever waits for it is gone.
struct StopOnDrop(Interrupt);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What `work` yields; or the reason why it was stopped, which aborts the session's open transaction. Nothing is stopped
/// that has begun to commit: it may be durable at any moment, and the answer waits for it, however late that is.
///
/// Dropping this stops the work, too.
pub(crate) async fn attended<T: Send + 'static>(
    session: &Session,
    switch: &CancelSwitch,
    deadline: Deadline,
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let interrupt = Interrupt::default();
    let mut task = tokio::spawn(interrupt.watch(work));
    let stopping = StopOnDrop(interrupt);
    let ended = tokio::select! {
        biased;
        reason = switch.stopped(deadline) => {
            if stopping.0.stop() {
                session.stopped();
                return Err(reason);
            }
            task.await
        }
        ended = &mut task => ended,
    };
    ended.map_err(|error| failed_unexpectedly(&error))?.map_err(|stopped| status(&stopped))?
}

/// The answer where a statement, or the task that ran it, panicked.
pub(crate) fn failed_unexpectedly(error: &impl Display) -> Status {
    let message = format!("the statement failed unexpectedly: {error}");
    status(&Error::new(ErrorKind::Internal, message))
}
