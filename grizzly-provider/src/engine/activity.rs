//! What an open database is busy with.

use std::sync::atomic::Ordering;

use super::core::Grizzly;
use crate::access::Csn;

/// What is going on at one moment. Plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The last commit that readers see.
    pub newest_commit: Csn,
    /// Transactions that are open, those of single statements included.
    pub transactions: usize,
    /// Snapshots that are in use, by transactions, queries and kept readers.
    pub snapshots: usize,
    /// The newest commit that the oldest of them knows of. Rows and files that it may need are kept.
    pub oldest_snapshot: Option<Csn>,
    /// Bytes of rows that are in memory and in the log, and in no file yet.
    pub hot_bytes: u64,
    /// Bytes of encoded chunks that are kept in memory.
    pub chunk_bytes: u64,
    /// Bytes of index runs that are kept in memory.
    pub index_bytes: u64,
}

impl Grizzly {
    /// What is going on now.
    ///
    /// ```
    /// use grizzly_provider::Grizzly;
    ///
    /// let db = Grizzly::open("memory://")?;
    /// let transaction = db.begin()?;
    /// assert_eq!(db.activity().transactions, 1);
    /// drop(transaction);
    /// assert_eq!(db.activity().oldest_snapshot, None);
    /// # Ok::<(), grizzly_provider::Error>(())
    /// ```
    pub fn activity(&self) -> Activity {
        let inner = &self.inner;
        let cached = inner.files.cache.stats();
        let (snapshots, oldest_snapshot) = inner.snapshots.alive();
        Activity {
            newest_commit: inner.publisher.current().csn,
            transactions: inner.transactions.load(Ordering::Relaxed),
            snapshots,
            oldest_snapshot,
            hot_bytes: inner.hot.bytes(),
            chunk_bytes: cached.bytes,
            index_bytes: cached.runs,
        }
    }
}
