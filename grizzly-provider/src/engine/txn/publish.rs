//! When a version becomes visible: in commit order, once the log has it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use arc_swap::ArcSwap;
use grizzly_wal::Lsn;
use parking_lot::Mutex;

use super::super::version::DatabaseVersion;

/// The version that readers get, and those that wait for the log.
#[derive(Debug)]
pub(crate) struct Publisher {
    current: ArcSwap<DatabaseVersion>,
    waiting: Mutex<VecDeque<(Lsn, Arc<DatabaseVersion>)>>,
}

impl Publisher {
    pub(crate) fn new(version: DatabaseVersion) -> Self {
        Self { current: ArcSwap::from_pointee(version), waiting: Mutex::default() }
    }

    /// What readers see now.
    pub(crate) fn current(&self) -> Arc<DatabaseVersion> {
        self.current.load_full()
    }

    /// Makes a version visible as soon as the log is durable up to `lsn`. Calls come in commit order.
    pub(crate) fn enqueue(&self, lsn: Lsn, version: Arc<DatabaseVersion>) {
        self.waiting.lock().push_back((lsn, version));
    }

    /// Takes back the version that was to wait for `lsn`, which the log refused.
    pub(crate) fn withdraw(&self, lsn: Lsn) {
        self.waiting.lock().retain(|(needed, _)| *needed != lsn);
    }

    /// Makes a version visible at once; earlier ones that still wait are contained in it.
    pub(crate) fn publish_now(&self, version: Arc<DatabaseVersion>) {
        let mut waiting = self.waiting.lock();
        waiting.clear();
        self.current.store(version);
    }

    /// The log is durable up to `lsn`: the latest version that it covers becomes visible.
    pub(crate) fn durable(&self, lsn: Lsn) {
        let mut waiting = self.waiting.lock();
        let covered = waiting.partition_point(|(needed, _)| *needed <= lsn);
        if let Some((_, version)) = waiting.drain(..covered).next_back() {
            self.current.store(version);
        }
    }
}

/// Which snapshots are alive, by the number of compactions they have seen: what compaction must keep for them.
#[derive(Debug, Default)]
pub(crate) struct SnapshotRegistry {
    alive: Mutex<BTreeMap<u64, usize>>,
}

/// Keeps a snapshot registered while it lives.
#[derive(Debug)]
pub(crate) struct SnapshotGuard {
    registry: Arc<SnapshotRegistry>,
    compactions: u64,
}

impl SnapshotRegistry {
    pub(crate) fn register(self: &Arc<Self>, compactions: u64) -> SnapshotGuard {
        *self.alive.lock().entry(compactions).or_default() += 1;
        SnapshotGuard { registry: Arc::clone(self), compactions }
    }

    /// The fewest compactions that a living snapshot has seen.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.alive.lock().keys().next().copied()
    }
}

impl Drop for SnapshotGuard {
    fn drop(&mut self) {
        let mut alive = self.registry.alive.lock();
        if let Some(count) = alive.get_mut(&self.compactions) {
            *count -= 1;
            if *count == 0 {
                alive.remove(&self.compactions);
            }
        }
    }
}
