//! When a version becomes visible: in commit order, once the log has it.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
};

use arc_swap::ArcSwap;
use grizzly_wal::{
    Lsn,
    world::{Mutex, MutexGuard},
};

use super::super::version::DatabaseVersion;
use crate::access::Csn;

/// The version that readers get, and those that wait for the log.
#[derive(Debug)]
pub(crate) struct Publisher {
    current: ArcSwap<DatabaseVersion>,
    waiting: Mutex<Waiting>,
}

/// Versions that the log is not yet known to have, and how far it is.
#[derive(Debug, Default)]
struct Waiting {
    durable: Lsn,
    versions: VecDeque<(Lsn, Arc<DatabaseVersion>)>,
}

impl Publisher {
    pub(crate) fn new(version: DatabaseVersion) -> Self {
        Self { current: ArcSwap::from_pointee(version), waiting: Mutex::default() }
    }

    /// What readers see now.
    pub(crate) fn current(&self) -> Arc<DatabaseVersion> {
        self.current.load_full()
    }

    /// Makes a version visible as soon as the log is durable up to `lsn`, which may be now: the log thread does not
    /// wait for whoever appends. Calls come in commit order.
    pub(crate) fn enqueue(&self, lsn: Lsn, version: Arc<DatabaseVersion>) {
        let mut waiting = self.waiting.lock();
        if lsn <= waiting.durable {
            let before = self.current.swap(version);
            release(waiting, before);
        } else {
            waiting.versions.push_back((lsn, version));
        }
    }

    /// Makes a version visible at once; earlier ones that still wait are contained in it.
    pub(crate) fn publish_now(&self, version: Arc<DatabaseVersion>) {
        let mut waiting = self.waiting.lock();
        let before = (mem::take(&mut waiting.versions), self.current.swap(version));
        release(waiting, before);
    }

    /// The same, for a database that goes on with another log: of that nothing is known to be durable yet.
    pub(crate) fn restart(&self, version: Arc<DatabaseVersion>) {
        let mut waiting = self.waiting.lock();
        let before = (mem::take(&mut *waiting), self.current.swap(version));
        release(waiting, before);
    }

    /// The log is durable up to `lsn`: the latest version that it covers becomes visible.
    pub(crate) fn durable(&self, lsn: Lsn) {
        let mut waiting = self.waiting.lock();
        waiting.durable = waiting.durable.max(lsn);
        let covered = waiting.versions.partition_point(|(needed, _)| *needed <= lsn);
        let mut covered: Vec<_> = waiting.versions.drain(..covered).collect();
        if let Some((_, version)) = covered.pop() {
            let before = self.current.swap(version);
            release(waiting, (covered, before));
        }
    }
}

/// Unlocks, and only then drops versions: of one that nobody else holds its rows and their live indexes go, which takes
/// long, and commits wait for this lock.
fn release<T>(waiting: MutexGuard<'_, Waiting>, before: T) {
    drop(waiting);
    drop(before);
}

/// Which snapshots are alive, by the number of compactions they have seen, which says what compaction must keep for them,
/// and by the last commit that they know of. Neither number ever sinks.
#[derive(Debug, Default)]
pub(crate) struct SnapshotRegistry {
    alive: Mutex<BTreeMap<(u64, Csn), usize>>,
}

/// Keeps a snapshot registered while it lives.
#[derive(Debug)]
pub(crate) struct SnapshotGuard {
    registry: Arc<SnapshotRegistry>,
    place: (u64, Csn),
}

impl SnapshotRegistry {
    /// The version that readers get now, registered before anybody may forget what its reader needs.
    pub(crate) fn take(self: &Arc<Self>, publisher: &Publisher) -> (Arc<DatabaseVersion>, SnapshotGuard) {
        let mut alive = self.alive.lock();
        let version = publisher.current();
        let place = (version.compactions, version.csn);
        *alive.entry(place).or_default() += 1;
        drop(alive);
        let guard = SnapshotGuard { registry: Arc::clone(self), place };
        (version, guard)
    }

    /// The fewest compactions that a snapshot has seen which is alive, or taken from now on.
    pub(crate) fn oldest(&self, publisher: &Publisher) -> u64 {
        let alive = self.alive.lock();
        let current = publisher.current().compactions;
        alive.keys().next().map_or(current, |(oldest, _)| current.min(*oldest))
    }

    /// How many are alive, and the last commit that the oldest of them knows of.
    pub(crate) fn alive(&self) -> (usize, Option<Csn>) {
        let alive = self.alive.lock();
        (alive.values().sum(), alive.keys().next().map(|(_, csn)| *csn))
    }
}

impl Drop for SnapshotGuard {
    fn drop(&mut self) {
        let mut alive = self.registry.alive.lock();
        if let Some(count) = alive.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                alive.remove(&self.place);
            }
        }
    }
}
