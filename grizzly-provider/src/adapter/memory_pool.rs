//! Memory for queries. DataFusion's greedy pool gives all there is to whoever asks first; a sort that comes later cannot
//! even take in its first batch, and fails although it could spill. Its fair pool divides what there is by the number of
//! operators, most of which need nothing.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::{
    error::{DataFusionError, Result},
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size},
};

/// The consumer of decoded rows that a scan has not handed on yet.
pub(super) const SCAN: &str = "GrizzlyScanExec";

/// Gives memory to whoever asks, but the last of it only to operators that hold little: an operator that can spill does so
/// when three quarters are used, one that cannot is refused when nine tenths are, and what is left is for the first
/// batches of others.
///
/// ```
/// use std::sync::Arc;
/// use datafusion::execution::runtime_env::RuntimeEnvBuilder;
/// use grizzly_provider::adapter::SpillingPool;
///
/// let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(SpillingPool::new(256 << 20))).build_arc()?;
/// # Ok::<(), datafusion::error::DataFusionError>(())
/// ```
#[derive(Debug)]
pub struct SpillingPool {
    size: usize,
    used: AtomicUsize,
    /// What scans hold. A scan cannot do with less, so it is not refused, and takes nothing from operators.
    decoded: AtomicUsize,
}

impl SpillingPool {
    /// A pool of `size` bytes.
    pub fn new(size: usize) -> Self {
        Self { size, used: AtomicUsize::new(0), decoded: AtomicUsize::new(0) }
    }

    /// The pool behind `pool`, if it is one of these.
    pub fn of(pool: &Arc<dyn MemoryPool>) -> Option<&Self> {
        let pool: &dyn Any = pool.as_ref();
        pool.downcast_ref()
    }

    /// The share of its bytes that scans hold beside it: rows that were decoded and that nobody has taken yet.
    pub fn decoded_share(&self) -> f64 {
        self.decoded.load(Ordering::Relaxed) as f64 / self.size.max(1) as f64
    }

    /// Its bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    fn counter(&self, reservation: &MemoryReservation) -> &AtomicUsize {
        if reservation.consumer().name() == SCAN { &self.decoded } else { &self.used }
    }

    /// How much may be used after an operator took more.
    fn bound(&self, reservation: &MemoryReservation) -> usize {
        if reservation.consumer().name().starts_with("RepartitionExec") {
            // What it spills, DataFusion 55 may wait for without end: two inputs write two files, and the reader of the
            // first waits for its end. It holds little, as it stops where nobody takes its rows.
            usize::MAX
        } else if reservation.size() < self.size / 32 {
            self.size
        } else if reservation.consumer().can_spill() {
            self.size / 4 * 3
        } else {
            self.size / 10 * 9
        }
    }
}

/// How much each sort should keep for its merge (`datafusion.execution.sort_spill_reservation_bytes`) where queries have so
/// much memory: no more than `usual`, and little enough for the many sorts of a plan.
pub fn merge_reservation(memory: MemoryLimit, usual: usize) -> usize {
    match memory {
        MemoryLimit::Finite(bytes) => usual.min(bytes / 64),
        _ => usual,
    }
}

impl MemoryPool for SpillingPool {
    fn name(&self) -> &str {
        "spilling"
    }

    fn register(&self, _consumer: &MemoryConsumer) {}

    fn unregister(&self, _consumer: &MemoryConsumer) {}

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.counter(reservation).fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.counter(reservation).fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let bound = self.bound(reservation);
        let within = |used: usize| used.checked_add(additional).filter(|used| *used <= bound);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            Ok(_) => Ok(()),
            Err(used) => Err(DataFusionError::ResourcesExhausted(format!(
                "{} holds {} and asks for {} more; queries use {} of {}",
                reservation.consumer().name(),
                human_readable_size(reservation.size()),
                human_readable_size(additional),
                human_readable_size(used),
                human_readable_size(self.size)
            ))),
        }
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.size)
    }
}

impl std::fmt::Display for SpillingPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let used = human_readable_size(self.reserved());
        write!(f, "{}(used: {used}, size: {})", self.name(), human_readable_size(self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_much_leaves_room_for_who_holds_little() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SpillingPool::new(1_000));
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        let join = MemoryConsumer::new("join").register(&pool);
        sort.try_grow(700).expect("there is enough");
        assert!(sort.try_grow(100).is_err(), "it can spill");
        join.try_grow(200).expect("it holds nothing yet");
        assert!(join.try_grow(50).is_err(), "nine tenths are used");
        let other = MemoryConsumer::new("other").with_can_spill(true).register(&pool);
        other.try_grow(100).expect("its first batch");
        assert!(other.try_grow(1).is_err());
        drop(sort);
        join.try_grow(500).expect("there is room again");
        assert_eq!(pool.reserved(), 800);
        let scan = MemoryConsumer::new(SCAN).register(&pool);
        scan.grow(500);
        assert_eq!(pool.reserved(), 800, "operators have what they had");
        assert_eq!(SpillingPool::of(&pool).map(SpillingPool::decoded_share), Some(0.5));
        drop(scan);
        assert_eq!(SpillingPool::of(&pool).map(SpillingPool::decoded_share), Some(0.0));
    }
}
