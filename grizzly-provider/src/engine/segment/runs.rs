//! Index runs in memory. Each segment holds those of its own; together they keep to a share of the memory budget: beyond
//! it the runs that were not asked for the longest go, and are read again when they are.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use super::{super::index::IndexRun, Charge, ChunkCache};

/// Runs take at most so many bytes in this many of the budget.
const SHARE: (u64, u64) = (5, 8);
/// Where there is not enough room, this part of the share is made free, so that the next runs find some.
const FREED: u64 = 8;

/// All segments of a database that may hold runs.
#[derive(Debug, Default)]
pub(crate) struct AllRuns {
    segments: Mutex<Vec<Weak<SegmentRuns>>>,
    /// Counts the runs that were read or made.
    clock: AtomicU64,
    bytes: AtomicU64,
}

/// The runs of one segment, by index: `None` where there is none, and the segment must be scanned.
#[derive(Debug)]
pub(crate) struct SegmentRuns {
    cache: Arc<ChunkCache>,
    runs: RwLock<HashMap<u32, Option<HeldRun>>>,
}

/// A run in memory, and the share of the memory budget that it takes.
#[derive(Debug)]
struct HeldRun {
    run: Arc<IndexRun>,
    /// When it was last asked for, by [`AllRuns::clock`].
    used: AtomicU64,
    charge: Charge,
}

impl AllRuns {
    /// Bytes of all runs that are held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Room for the runs of one more segment.
    fn add(&self, runs: &Arc<SegmentRuns>) {
        let mut segments = self.segments.lock();
        // Those that are gone are looked for when their number may have doubled.
        if segments.len() == segments.capacity() {
            segments.retain(|segment| segment.strong_count() > 0);
        }
        segments.push(Arc::downgrade(runs));
    }

    /// Keeps to the share of `budget`.
    pub(super) fn make_room(&self, budget: u64) {
        let most = budget / SHARE.1 * SHARE.0;
        if self.bytes() <= most {
            return;
        }
        let segments: Vec<_> = self.segments.lock().iter().filter_map(Weak::upgrade).collect();
        let mut oldest: Vec<_> = segments.iter().flat_map(SegmentRuns::ages).collect();
        oldest.sort_unstable_by_key(|(used, ..)| *used);
        // The newest stays, however large it is.
        oldest.pop();
        for (_, segment, index) in oldest {
            if self.bytes() <= most - most / FREED {
                break;
            }
            segment.forget(index);
        }
    }
}

impl SegmentRuns {
    /// None that is known yet, of a segment whose chunks are in `cache`.
    pub(crate) fn new(cache: Arc<ChunkCache>) -> Arc<Self> {
        let runs = Arc::new(Self { cache, runs: RwLock::default() });
        runs.cache.runs().add(&runs);
        runs
    }

    /// What is known of the run of an index: `Some(None)` if there is none.
    pub(crate) fn get(&self, index: u32) -> Option<Option<Arc<IndexRun>>> {
        let runs = self.runs.read();
        let held = runs.get(&index)?.as_ref();
        Some(held.map(|held| {
            let now = self.cache.runs().clock.load(Ordering::Relaxed);
            // Threads that ask for one run at once do not take its line of the processor's cache from each other.
            if held.used.load(Ordering::Relaxed) != now {
                held.used.store(now, Ordering::Relaxed);
            }
            Arc::clone(&held.run)
        }))
    }

    /// Holds what was read. Where several threads read it at once, the first to come back decides what is held.
    pub(crate) fn hold_read(&self, index: u32, run: Option<IndexRun>) -> Option<Arc<IndexRun>> {
        let held = run.map(|run| self.held(run));
        let run = self.runs.write().entry(index).or_insert(held).as_ref().map(|held| Arc::clone(&held.run));
        self.cache.make_room_for_runs();
        run
    }

    /// Holds a run that was made.
    pub(crate) fn hold(&self, index: u32, run: IndexRun) {
        let held = self.held(run);
        self.runs.write().insert(index, Some(held));
        self.cache.make_room_for_runs();
    }

    fn held(&self, run: IndexRun) -> HeldRun {
        let (all, bytes) = (self.cache.runs(), run.nbytes());
        all.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let used = all.clock.fetch_add(1, Ordering::Relaxed) + 1;
        HeldRun { run: Arc::new(run), used: AtomicU64::new(used), charge: self.cache.charge(bytes) }
    }

    /// Lets go of a run. Whoever asks for it has it read again.
    pub(crate) fn forget(&self, index: u32) {
        self.runs.write().remove(&index);
    }

    /// Lets go of all runs. Whoever asks for one has it read again.
    pub(crate) fn let_go(&self) {
        self.runs.write().retain(|_, run| run.is_none());
    }

    /// Looks again, when next asked, for runs that were not there.
    pub(crate) fn forget_missing(&self) {
        self.runs.write().retain(|_, run| run.is_some());
    }

    /// Lets go of the run of an index for good: it counts as not there from now on.
    pub(crate) fn drop_run(&self, index: u32) {
        self.runs.write().insert(index, None);
    }

    /// The same for the runs in memory of all indexes but those that are `known`; returns which those were.
    pub(crate) fn drop_unknown(&self, known: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut runs = self.runs.write();
        let dropped = runs.iter_mut().filter(|(index, run)| run.is_some() && !known(**index));
        dropped
            .map(|(index, run)| {
                *run = None;
                *index
            })
            .collect()
    }

    /// Its runs with when they were last asked for.
    fn ages(self: &Arc<Self>) -> Vec<(u64, &Arc<Self>, u32)> {
        let runs = self.runs.read();
        let held = runs.iter().filter_map(|(index, run)| Some((*index, run.as_ref()?)));
        held.map(|(index, held)| (held.used.load(Ordering::Relaxed), self, index)).collect()
    }
}

impl Drop for HeldRun {
    fn drop(&mut self) {
        self.charge.cache().runs().bytes.fetch_sub(self.charge.bytes(), Ordering::Relaxed);
    }
}
