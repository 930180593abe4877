//! The memory of one attempt to answer a query: taken from the pool that all share, and counted, so that the next attempt
//! begins with what this one gives back.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use datafusion::{
    error::Result,
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
        runtime_env::RuntimeEnvBuilder,
    },
};
use tokio::sync::Notify;

use super::task_context;

/// How long a query waits for the memory of its first attempt. Tasks of an attempt end when they are next asked to yield.
const GIVEN_BACK: Duration = Duration::from_secs(10);

/// A pool of which one attempt takes its memory.
#[derive(Debug)]
pub(super) struct CountedPool {
    pool: Arc<dyn MemoryPool>,
    held: AtomicUsize,
    freed: Notify,
}

impl CountedPool {
    /// `context` with such a pool, and with batches of `batch_size` rows; and that pool.
    pub(super) fn within(context: &TaskContext, batch_size: usize) -> Result<(Arc<TaskContext>, Arc<Self>)> {
        let runtime = context.runtime_env();
        let pool = Arc::clone(&runtime.memory_pool);
        let counted = Arc::new(Self { pool, held: AtomicUsize::new(0), freed: Notify::new() });
        let runtime = RuntimeEnvBuilder::from_runtime_env(&runtime).with_memory_pool(Arc::clone(&counted) as _);
        let config = context.session_config().clone().with_batch_size(batch_size);
        Ok((task_context(context, config, runtime.build_arc()?), counted))
    }

    /// Waits until all is given back, but not for ever.
    pub(super) async fn given_back(&self) {
        let waited = tokio::time::timeout(GIVEN_BACK, async {
            loop {
                let freed = self.freed.notified();
                let mut freed = std::pin::pin!(freed);
                freed.as_mut().enable();
                if self.held.load(Ordering::Acquire) == 0 {
                    return;
                }
                freed.await;
            }
        });
        if waited.await.is_err() {
            let held = self.held.load(Ordering::Acquire);
            tracing::warn!(held, "a query that runs again still holds memory of its first attempt");
        }
    }
}

impl MemoryPool for CountedPool {
    fn name(&self) -> &str {
        self.pool.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.pool.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.pool.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
        self.held.fetch_add(additional, Ordering::AcqRel);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
        if self.held.fetch_sub(shrink, Ordering::AcqRel) == shrink {
            self.freed.notify_waiters();
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.pool.try_grow(reservation, additional)?;
        self.held.fetch_add(additional, Ordering::AcqRel);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.pool.memory_limit()
    }
}

impl fmt::Display for CountedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.fmt(f)
    }
}
