//! How much memory rows take that are in no file yet, and who waits when it is too much.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::super::{database::Inner, version::DatabaseVersion};
use crate::error::{Error, ErrorKind, Result};

/// The part of the memory that rows without files may take before writers wait, as a divisor. A quarter of it is
/// enough for a flush.
const HOT_SHARE: u64 = 4;
/// How long a writer waits for a flush at a time when memory is full.
const ROOM_WAIT: Duration = Duration::from_millis(100);

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

    fn exceed(&self, rows: u64, bytes: u64) -> bool {
        self.rows.load(Ordering::Relaxed) >= rows || self.bytes.load(Ordering::Relaxed) >= bytes
    }
}

impl Inner {
    /// Waits while memory is full of rows that are not in files.
    ///
    /// # Errors
    /// `DiskFull` or `Resource`, with the reason, if they cannot be stored.
    pub(crate) fn wait_for_room(&self) -> Result<()> {
        let (rows, bytes) = (8 * self.settings.flush_rows as u64, self.settings.memory_bytes as u64 / HOT_SHARE);
        while self.settings.background && self.hot.exceed(rows, bytes) {
            let failure = self.signals.wait_for_flush(ROOM_WAIT);
            self.check_writable()?;
            if let Some((kind, failure)) = failure {
                let message = "memory is full of rows that could not be stored in files";
                let kind = if kind == ErrorKind::DiskFull { kind } else { ErrorKind::Resource };
                return Err(Error::new(kind, format!("{message} ('{}'): {failure}", self.url)));
            }
        }
        Ok(())
    }

    /// A commit added rows.
    pub(crate) fn added(&self, rows: u64, bytes: u64) {
        let before = self.needs_flush();
        self.hot.rows.fetch_add(rows, Ordering::Relaxed);
        self.hot.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.settings.background && !before && self.needs_flush() {
            self.signals.wake();
        }
    }

    /// Whether hot rows should become files.
    pub(crate) fn needs_flush(&self) -> bool {
        let bytes = self.settings.memory_bytes as u64 / (4 * HOT_SHARE);
        self.hot.exceed(self.settings.flush_rows as u64, bytes.max(1))
    }

    pub(crate) fn flushed(&self) {
        self.signals.flushed();
    }
}
