//! How far the log is durable, who waits for it, and whether it failed.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::Lsn;
use crate::world::{Condvar, Mutex};

/// Shared by the log thread, which advances it, and everybody who waits.
#[derive(Debug)]
pub(crate) struct Progress {
    durable: AtomicU64,
    /// Why no more records become durable: the first failure, or the close.
    ended: OnceLock<End>,
    waiting: Mutex<Waiting>,
    advanced: Condvar,
}

#[derive(Debug)]
enum End {
    /// What is stored of records that are not durable is unknown.
    Failed(Error),
    /// Nothing is.
    TakenBack(Error),
    Closed,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Tasks by the record they wait for; the second number tells those of one record apart.
    tasks: BTreeMap<(Lsn, u64), Waker>,
    next_task: u64,
    threads: usize,
}

impl Progress {
    pub(crate) fn new(durable: Lsn) -> Self {
        let durable = AtomicU64::new(durable.0);
        Self { durable, ended: OnceLock::new(), waiting: Mutex::default(), advanced: Condvar::new() }
    }

    /// The last record that is durable.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Everything up to `lsn` is durable now.
    pub(crate) fn advance(&self, lsn: Lsn) {
        self.durable.store(lsn.0, Ordering::Release);
        let mut waiting = self.waiting.lock();
        let later = waiting.tasks.split_off(&(lsn.next(), 0));
        let ready = std::mem::replace(&mut waiting.tasks, later);
        let threads = waiting.threads > 0;
        drop(waiting);
        self.wake(threads, ready);
    }

    /// The first failure ends the log for good.
    pub(crate) fn fail(&self, error: Error) {
        self.end(End::Failed(error));
    }

    /// The same, where nothing of what was not durable is stored.
    pub(crate) fn take_back(&self, error: Error) {
        self.end(End::TakenBack(error));
    }

    /// Whether the log failed so that it can go on in another file, as if what was not durable had never come.
    pub(crate) fn is_taken_back(&self) -> bool {
        matches!(self.ended.get(), Some(End::TakenBack(_)))
    }

    /// No more records will come.
    pub(crate) fn close(&self) {
        self.end(End::Closed);
    }

    fn end(&self, end: End) {
        // Only the first end counts.
        let _ = self.ended.set(end);
        let mut waiting = self.waiting.lock();
        let all = std::mem::take(&mut waiting.tasks);
        let threads = waiting.threads > 0;
        drop(waiting);
        self.wake(threads, all);
    }

    /// Called without the lock: a waker may run code of its own.
    fn wake(&self, threads: bool, tasks: BTreeMap<(Lsn, u64), Waker>) {
        if threads {
            self.advanced.notify_all();
        }
        tasks.into_values().for_each(Waker::wake);
    }

    /// The first failure, if there was one.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match self.ended.get() {
            Some(End::Failed(error) | End::TakenBack(error)) => Some(error),
            _ => None,
        }
    }

    /// The error for a call that comes too late, if this log has ended.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.ended.get().map(|end| match end {
            End::Closed => Error::new(ErrorKind::Closed, "the log is closed"),
            End::TakenBack(cause) => {
                let kind = if cause.kind() == ErrorKind::Full { ErrorKind::Full } else { ErrorKind::Io };
                let message = format!("nothing was written: {}", cause.message());
                Error::new(kind, message).with_source(cause.clone())
            }
            End::Failed(cause) => {
                let message = format!("the log takes no more records since it failed: {cause}");
                Error::new(ErrorKind::Poisoned, message).with_source(cause.clone())
            }
        })
    }

    /// The outcome for a record, if it is known.
    fn outcome(&self, lsn: Lsn) -> Option<Result<()>> {
        if self.durable() >= lsn {
            return Some(Ok(()));
        }
        self.refusal().map(Err)
    }

    /// Blocks the calling thread until `lsn` is durable or never will be.
    pub(crate) fn wait(&self, lsn: Lsn) -> Result<()> {
        if let Some(outcome) = self.outcome(lsn) {
            return outcome;
        }
        let mut waiting = self.waiting.lock();
        waiting.threads += 1;
        let outcome = loop {
            // Looked at under the lock: the log thread stores first and takes the lock then.
            if let Some(outcome) = self.outcome(lsn) {
                break outcome;
            }
            self.advanced.wait(&mut waiting);
        };
        waiting.threads -= 1;
        outcome
    }
}

/// Resolves when a record is durable, or with the error that prevents it. Made by
/// [`Wal::durable`](crate::Wal::durable); needs no particular runtime, and dropping it is fine.
pub struct Durable {
    progress: Arc<Progress>,
    lsn: Lsn,
    /// The entry among the waiting tasks, from the first poll that had to wait.
    task: Option<u64>,
    refused: Option<Error>,
}

impl Durable {
    pub(crate) fn new(progress: Arc<Progress>, lsn: Lsn) -> Self {
        Self { progress, lsn, task: None, refused: None }
    }

    pub(crate) fn refused(progress: Arc<Progress>, error: Error) -> Self {
        Self { progress, lsn: Lsn::default(), task: None, refused: Some(error) }
    }
}

impl Future for Durable {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Err(error));
        }
        if let Some(outcome) = self.progress.outcome(self.lsn) {
            return Poll::Ready(outcome);
        }
        let this = &mut *self;
        let mut waiting = this.progress.waiting.lock();
        if let Some(outcome) = this.progress.outcome(this.lsn) {
            return Poll::Ready(outcome);
        }
        let task = *this.task.get_or_insert_with(|| {
            waiting.next_task += 1;
            waiting.next_task
        });
        waiting.tasks.insert((this.lsn, task), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        if let Some(task) = self.task {
            self.progress.waiting.lock().tasks.remove(&(self.lsn, task));
        }
    }
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable").field("lsn", &self.lsn).finish_non_exhaustive()
    }
}
