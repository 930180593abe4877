//! Work that keeps a thread busy for a while. On a runtime with several threads the others take over what this one
//! would have served: a server that loads rows goes on answering, pings of other nodes among it.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{CommitOutcome, Result, Transaction};

/// Batches of so many rows are worth it.
pub(super) const MANY_ROWS: usize = 1024;

/// Does `work` on this thread, of which nothing else is expected meanwhile.
pub(super) fn busy<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

tokio::task_local! {
    static NOTICE: Arc<AtomicBool>;
}

/// Tells whether a statement has begun to commit. From then on it must be awaited: dropped, it may be committed all
/// the same, and whoever is told that it was cancelled is told wrong.
///
/// ```
/// # async fn run(statement: impl Future<Output = ()>) {
/// let commits = grizzly_provider::adapter::CommitNotice::default();
/// let running = commits.watch(statement);
/// tokio::pin!(running);
/// if tokio::time::timeout(std::time::Duration::from_secs(1), &mut running).await.is_err() && commits.has_begun() {
///     running.await;
/// }
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct CommitNotice(Arc<AtomicBool>);

impl CommitNotice {
    /// Runs a statement and notices its commit.
    pub fn watch<F: Future>(&self, statement: F) -> impl Future<Output = F::Output> + use<F> {
        NOTICE.scope(Arc::clone(&self.0), statement)
    }

    /// Whether it has begun to commit. Ask while the statement's future is not being polled.
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Commits.
pub(super) async fn commit(transaction: Transaction) -> Result<CommitOutcome> {
    // Nobody watches outside a server.
    let _ = NOTICE.try_with(|notice| notice.store(true, Ordering::Release));
    if transaction.is_large(MANY_ROWS) { busy(|| transaction.commit()) } else { transaction.commit_async().await }
}
