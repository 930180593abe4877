//! Work that keeps a thread busy for a while. On a runtime with several threads the others take over what this one
//! would have served: a server that loads rows goes on answering, pings of other nodes among it.

use std::{future::Future, pin::pin};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Batches of so many rows are worth it.
pub(super) const MANY_ROWS: usize = 1024;

/// Does `work` on this thread, of which nothing else is expected meanwhile.
pub(super) fn busy<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Awaits `work`, which computes for long without yielding, as planning does: on a runtime with several threads, other
/// tasks go on meanwhile.
///
/// ```
/// # async fn run(frame: datafusion::dataframe::DataFrame) -> datafusion::error::Result<()> {
/// let plan = grizzly_provider::adapter::unhurried(frame.create_physical_plan()).await?;
/// # Ok(())
/// # }
/// ```
pub async fn unhurried<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    std::future::poll_fn(|context| busy(|| work.as_mut().poll(context))).await
}
