//! How many rows are in memory and in no file.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::version::DatabaseVersion;

/// Rows that are in memory and in no file.
#[derive(Debug, Default)]
pub(crate) struct HotRows {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl HotRows {
    /// Counts those of a version.
    pub(crate) fn set(&self, version: &DatabaseVersion) {
        let shards = || version.tables.values().flat_map(|table| &table.shards);
        self.rows.store(shards().map(|shard| shard.hot_rows()).sum(), Ordering::Relaxed);
        self.bytes.store(shards().map(|shard| shard.hot_bytes()).sum(), Ordering::Relaxed);
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn exceed(&self, rows: u64, bytes: u64) -> bool {
        self.rows.load(Ordering::Relaxed) >= rows || self.bytes.load(Ordering::Relaxed) >= bytes
    }

    /// There are so many more.
    pub(super) fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
