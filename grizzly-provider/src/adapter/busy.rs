//! Work that keeps a thread busy for a while. On a runtime with several threads the others take over what this one
//! would have served: a server that loads rows goes on answering, pings of other nodes among it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
};

/// Batches of so many rows are worth it.
pub(super) const MANY_ROWS: usize = 1024;

/// Does `work` on this thread, of which nothing else is expected meanwhile.
pub(super) fn busy<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// How many tasks compute in place of a thread at a time: each takes another thread to go on with the rest, with memory of
/// its own, and a thousand clients that leave at once shall not make a thousand.
const PLANNERS: usize = 32;

static PLANNING: Semaphore = Semaphore::const_new(PLANNERS);

/// The same for joins, of which each may take seconds: whoever plans does not wait for them.
const JOINERS: usize = 16;

static JOINING: Semaphore = Semaphore::const_new(JOINERS);

tokio::task_local! {
    /// Set for what is polled in place already.
    static IN_PLACE: ();
}

/// Awaits `work`, which computes for long without yielding, as planning does: on a runtime with several threads, other
/// tasks go on meanwhile. If many do so at a time, others wait, and hold up no thread.
///
/// ```
/// # async fn run(frame: datafusion::dataframe::DataFrame) -> datafusion::error::Result<()> {
/// let plan = grizzly_provider::adapter::unhurried(frame.create_physical_plan()).await?;
/// # Ok(())
/// # }
/// ```
pub async fn unhurried<F: Future>(work: F) -> F::Output {
    in_place(&PLANNING, work).await
}

/// The same for a step of a join.
pub(super) async fn unhurried_join<F: Future>(work: F) -> F::Output {
    in_place(&JOINING, work).await
}

async fn in_place<F: Future>(permits: &Semaphore, work: F) -> F::Output {
    if IN_PLACE.try_with(|()| ()).is_ok() {
        return work.await;
    }
    let mut work = pin!(IN_PLACE.scope((), work));
    loop {
        // Only for as long as it computes: what waits for rows or a lock holds nobody up. It is never closed.
        let permit = permits.acquire().await;
        let polled = poll_fn(|context| Poll::Ready(busy(|| work.as_mut().poll(context)))).await;
        drop(permit);
        match polled {
            Poll::Ready(output) => return output,
            Poll::Pending => woken().await,
        }
    }
}

/// Waits for whoever the task's waker was given to.
async fn woken() {
    let mut has_waited = false;
    poll_fn(|_| match std::mem::replace(&mut has_waited, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_at_a_time_take_turns_and_all_come_to_an_end() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let work = || async {
            for _ in 0..3 {
                assert!(RUNNING.fetch_add(1, Ordering::SeqCst) < PLANNERS);
                std::thread::sleep(std::time::Duration::from_millis(1));
                RUNNING.fetch_sub(1, Ordering::SeqCst);
                // Within itself it does not wait for itself.
                unhurried(tokio::task::yield_now()).await;
            }
            7
        };
        let tasks: Vec<_> = (0..200).map(|_| tokio::spawn(unhurried(work()))).collect();
        for task in tasks {
            assert_eq!(task.await.expect("it does not panic"), 7);
        }
    }
}
