//! Index runs in memory. Each segment holds those of its own; together they keep to a share of the memory budget: beyond
//! it those go that were not asked for lately, and are read again when they are. Of a run that went its least and its
//! greatest key stay, so that who looks for others does not read it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use grizzly_wal::world::{Mutex, RwLock};

use super::{super::index::IndexRun, Charge, ChunkCache, hash::mix};
use crate::access::KeyRange;

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
    /// When room was made the last time.
    made_room: AtomicU64,
    bytes: AtomicU64,
}

/// The runs of one segment, by index.
#[derive(Debug)]
pub(crate) struct SegmentRuns {
    cache: Arc<ChunkCache>,
    runs: RwLock<HashMap<u32, Known>>,
}

/// What is known of the run of an index.
#[derive(Debug)]
enum Known {
    /// There is none, and the segment must be scanned.
    Missing,
    Held(HeldRun),
    /// It is on storage. Its least and its greatest key.
    Stored(Box<[u8]>, Box<[u8]>),
}

/// A run in memory, and the share of the memory budget that it takes.
#[derive(Debug)]
struct HeldRun {
    run: Arc<IndexRun>,
    /// When it was last asked for, by [`AllRuns::clock`].
    used: AtomicU64,
    charge: Charge,
}

/// A run that may go.
struct Candidate<'a> {
    segment: &'a SegmentRuns,
    index: u32,
    used: u64,
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

    /// Keeps to the share of `budget`. First those go that nobody asked for since room was made the last time, the oldest
    /// first; of the others any: where all are asked for again and again in turn, the oldest would be the next.
    pub(super) fn make_room(&self, budget: u64) {
        let most = budget / SHARE.1 * SHARE.0;
        if self.bytes() <= most {
            return;
        }
        let segments: Vec<_> = self.segments.lock().iter().filter_map(Weak::upgrade).collect();
        let now = self.clock.load(Ordering::Relaxed);
        let before = self.made_room.swap(now, Ordering::Relaxed);
        let mut candidates: Vec<_> = segments.iter().flat_map(|segment| segment.candidates()).collect();
        // The newest stays, however large it is.
        let newest = candidates.iter().map(|candidate| candidate.used).max();
        candidates.retain(|candidate| Some(candidate.used) != newest);
        candidates.sort_unstable_by_key(|candidate| match candidate.used <= before {
            true => (false, candidate.used),
            false => (true, mix(candidate.used ^ now)),
        });
        for candidate in candidates {
            if self.bytes() <= most - most / FREED {
                break;
            }
            candidate.segment.evict(candidate.index);
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

    /// The run of an index, if it is in memory: `Some(None)` if it is known that there is none.
    pub(crate) fn get(&self, index: u32) -> Option<Option<Arc<IndexRun>>> {
        match self.runs.read().get(&index)? {
            Known::Missing => Some(None),
            Known::Stored(..) => None,
            Known::Held(held) => {
                let now = self.cache.runs().clock.load(Ordering::Relaxed);
                // Threads that ask for one run at once do not take its line of the processor's cache from each other.
                if held.used.load(Ordering::Relaxed) != now {
                    held.used.store(now, Ordering::Relaxed);
                }
                Some(Some(Arc::clone(&held.run)))
            }
        }
    }

    /// Whether a run that is not in memory may have a key in one of the ranges.
    pub(crate) fn may_have(&self, index: u32, ranges: &[KeyRange]) -> bool {
        match self.runs.read().get(&index) {
            Some(Known::Stored(least, greatest)) => ranges.iter().any(|range| range.meets(least, greatest)),
            _ => true,
        }
    }

    /// Holds what was read. Where several threads read it at once, the first to come back decides what is held; a run that
    /// was dropped meanwhile is not there.
    pub(crate) fn hold_read(&self, index: u32, run: Option<IndexRun>) -> Option<Arc<IndexRun>> {
        let read = run.map_or(Known::Missing, |run| Known::Held(self.held(run)));
        let mut runs = self.runs.write();
        let known = match runs.remove(&index) {
            Some(known @ (Known::Held(_) | Known::Missing)) => known,
            Some(Known::Stored(..)) | None => read,
        };
        let run = match &known {
            Known::Held(held) => Some(Arc::clone(&held.run)),
            Known::Missing | Known::Stored(..) => None,
        };
        runs.insert(index, known);
        drop(runs);
        self.cache.make_room_for_runs();
        run
    }

    /// Holds a run that was made.
    pub(crate) fn hold(&self, index: u32, run: IndexRun) {
        let held = self.held(run);
        self.runs.write().insert(index, Known::Held(held));
        self.cache.make_room_for_runs();
    }

    fn held(&self, run: IndexRun) -> HeldRun {
        let (all, bytes) = (self.cache.runs(), run.nbytes());
        all.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let used = all.clock.fetch_add(1, Ordering::Relaxed) + 1;
        HeldRun { run: Arc::new(run), used: AtomicU64::new(used), charge: self.cache.charge(bytes) }
    }

    /// Lets go of a run, to have it read again. What is known not to be there stays so.
    pub(crate) fn forget(&self, index: u32) {
        self.runs.write().retain(|known, run| *known != index || matches!(run, Known::Missing));
    }

    /// Lets go of all runs. Whoever asks for one has it read again.
    pub(crate) fn let_go(&self) {
        self.runs.write().retain(|_, run| matches!(run, Known::Missing));
    }

    /// Looks again, when next asked, for runs that were not there.
    pub(crate) fn forget_missing(&self) {
        self.runs.write().retain(|_, run| !matches!(run, Known::Missing));
    }

    /// Lets go of the run of an index for good: it counts as not there from now on.
    pub(crate) fn drop_run(&self, index: u32) {
        self.runs.write().insert(index, Known::Missing);
    }

    /// The same for the runs of all indexes but those that are `known`; returns which those were.
    pub(crate) fn drop_unknown(&self, known: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut runs = self.runs.write();
        let there = runs.iter_mut().filter(|(index, run)| !matches!(run, Known::Missing) && !known(**index));
        there
            .map(|(index, run)| {
                *run = Known::Missing;
                *index
            })
            .collect()
    }

    fn candidates(&self) -> Vec<Candidate<'_>> {
        let runs = self.runs.read();
        let held = runs.iter().filter_map(|(index, run)| match run {
            Known::Held(held) => Some((*index, held)),
            Known::Missing | Known::Stored(..) => None,
        });
        let candidate = |(index, held): (u32, &HeldRun)| {
            let used = held.used.load(Ordering::Relaxed);
            Candidate { segment: self, index, used }
        };
        held.map(candidate).collect()
    }

    /// Lets go of a run, all but its bounds.
    fn evict(&self, index: u32) {
        let mut runs = self.runs.write();
        let Some(Known::Held(held)) = runs.get(&index) else { return };
        let Some((least, greatest)) = held.run.bounds() else { return };
        let stored = Known::Stored(least.into(), greatest.into());
        let evicted = runs.insert(index, stored);
        drop(runs);
        drop(evicted);
    }
}

impl Drop for HeldRun {
    fn drop(&mut self) {
        self.charge.cache().runs().bytes.fetch_sub(self.charge.bytes(), Ordering::Relaxed);
    }
}
