//! Work that keeps a thread busy for a while. On a runtime with several threads the others take over what this one
//! would have served: a server that loads rows goes on answering, pings of other nodes among it.

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

/// Commits.
pub(super) async fn commit(transaction: Transaction) -> Result<CommitOutcome> {
    if transaction.is_large(MANY_ROWS) { busy(|| transaction.commit()) } else { transaction.commit_async().await }
}
