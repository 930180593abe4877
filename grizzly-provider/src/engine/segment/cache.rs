//! Encoded chunks in memory, under one budget of bytes for all segments.
//!
//! Eviction is scan resistant: a chunk read once by a large scan does not push out chunks that are read again and again.
//! Index runs ([`super::runs`]) have a share of the same budget, and chunks get what they leave.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use grizzly_wal::world::{self, Mutex};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{EncodedColumn, Result, runs::AllRuns};

/// A chunk of one column of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChunkKey {
    /// The file: see [`ChunkCache::new_file`].
    pub(crate) file: u64,
    /// Column position.
    pub(crate) column: u32,
    /// Chunk position.
    pub(crate) chunk: u32,
}

/// Counters of a [`ChunkCache`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheStats {
    /// Chunks found in memory.
    pub(crate) hits: u64,
    /// Chunks read from storage.
    pub(crate) misses: u64,
    /// Bytes of chunks held now.
    pub(crate) bytes: u64,
    /// Bytes that are charged besides, those of index runs among them.
    pub(crate) charged: u64,
    /// Bytes of index runs.
    pub(crate) runs: u64,
    /// Chunks held now.
    pub(crate) chunks: u64,
    /// Bytes that may be held.
    pub(crate) budget: u64,
}

/// Encoded column chunks under a byte budget. Shared by all threads.
#[derive(Debug)]
pub(crate) struct ChunkCache {
    chunks: Cache<ChunkKey, EncodedColumn, Bytes>,
    budget: u64,
    /// Bytes that [`Charge`]s hold.
    charged: Mutex<u64>,
    /// Those of them that are for lists of ended rows.
    ended_rows: AtomicU64,
    runs: AllRuns,
    next_file: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Per entry: key, handle, the cache's own bookkeeping, and what is kept to read single values.
const ENTRY_BYTES: usize = 512;

/// Whatever is charged, chunks have one in so many bytes of the budget.
const LEAST_SHARE: u64 = 8;

/// What a typical blob weighs, to size the cache's tables.
const TYPICAL_BYTES: u64 = 64 * 1024;

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<ChunkKey, EncodedColumn> for Bytes {
    fn weight(&self, _: &ChunkKey, column: &EncodedColumn) -> u64 {
        (column.nbytes() + ENTRY_BYTES) as u64
    }
}

impl ChunkCache {
    /// A cache of at most `budget` bytes.
    pub(crate) fn new(budget: u64) -> Self {
        let items = usize::try_from(budget / TYPICAL_BYTES).unwrap_or(usize::MAX).clamp(64, 1 << 20);
        Self {
            chunks: Cache::with_weighter(items, budget, Bytes),
            budget,
            charged: Mutex::new(0),
            ended_rows: AtomicU64::new(0),
            runs: AllRuns::default(),
            next_file: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A number no other file of this cache has or had.
    pub(crate) fn new_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// The chunk, from memory or from `read`. Threads asking for the same chunk at the same time read it once.
    ///
    /// # Errors
    /// What `read` returns; nothing is kept then.
    pub(crate) fn get_or_read(
        &self,
        key: ChunkKey,
        read: impl FnOnce() -> Result<EncodedColumn>,
    ) -> Result<EncodedColumn> {
        if let Some(column) = self.chunks.get(&key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(column);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        if world::is_simulated() {
            // There threads must not wait for each other unseen.
            let column = read()?;
            self.chunks.insert(key, column.clone());
            return Ok(column);
        }
        self.chunks.get_or_insert_with(&key, read)
    }

    /// The chunk, if it is in memory.
    pub(crate) fn get(&self, key: ChunkKey) -> Option<EncodedColumn> {
        let found = self.chunks.get(&key);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a chunk that is already in memory, if there is room for it.
    pub(crate) fn keep(&self, key: ChunkKey, column: EncodedColumn) {
        self.chunks.insert(key, column);
    }

    /// The index runs that share its budget.
    pub(super) fn runs(&self) -> &AllRuns {
        &self.runs
    }

    /// Lets index runs go that take more than their share.
    pub(super) fn make_room_for_runs(&self) {
        self.runs.make_room(self.budget);
    }

    /// Forgets all chunks of these files.
    pub(crate) fn forget(&self, files: &HashSet<u64>) {
        self.chunks.retain(|key, _| !files.contains(&key.file));
    }

    /// What it holds and how well it did.
    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.chunks.weight(),
            charged: *self.charged.lock(),
            runs: self.runs.bytes(),
            chunks: self.chunks.len() as u64,
            budget: self.budget,
        }
    }

    /// Counts `bytes` that are held elsewhere against the budget: there is as much less room for chunks, but always
    /// some.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let charge = Charge { cache: Arc::clone(self), bytes: bytes as u64 };
        self.recharge(|charged| charged + charge.bytes);
        charge
    }

    /// Counts the bytes of all lists of ended rows against the budget, instead of those that were counted before.
    pub(crate) fn charge_ended_rows(&self, bytes: u64) {
        self.recharge(|charged| charged - self.ended_rows.swap(bytes, Ordering::Relaxed) + bytes);
    }

    fn recharge(&self, change: impl FnOnce(u64) -> u64) {
        let mut charged = self.charged.lock();
        *charged = change(*charged);
        self.chunks.set_capacity(self.budget.saturating_sub(*charged).max(self.budget / LEAST_SHARE));
    }
}

/// Bytes outside a cache that count against its budget, until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    cache: Arc<ChunkCache>,
    bytes: u64,
}

impl Charge {
    pub(super) fn cache(&self) -> &ChunkCache {
        &self.cache
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.cache.recharge(|charged| charged - self.bytes);
    }
}
