//! Results of queries, kept for when the same query comes again.
//!
//! A result is found by the optimized plan, the session's settings and the last change of every table that it reads.
//! So a kept result is right by its name alone: a commit gives its tables another name, and nothing expires. Only
//! plans that mean the same at any time are asked for here, which are those that sessions keep (`plan_cache`): what
//! the optimizer made of `now()` could no longer be told from a constant.
//!
//! What is kept stays below the budget. Where there is no room, that goes first which is the cheapest to compute again
//! for the room it takes and the times it was used (GreedyDual-Size-Frequency, Cherkasova 1998).

mod compact;
mod eligible;
mod exec;
mod explain;
mod keeping;
mod question;
mod shelf;
mod tables;

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::config::ConfigOptions;
use parking_lot::Mutex;

pub(crate) use exec::ResultCacheExec;
pub(crate) use explain::{explain, may_be_kept};
use question::Question;
use shelf::{Kept, Shelf};
pub(crate) use tables::register;

use crate::{Grizzly, access::Csn, batch::without_waste};

/// One result may take one in so many bytes of the budget.
const LARGEST_SHARE: u64 = 8;
/// Results that are being collected may together take one in so many bytes of the budget; the rest is for kept ones.
const COLLECTING_SHARE: u64 = 4;
/// How many different settings of sessions are told apart before numbers are given out anew.
const SETTINGS: usize = 1024;

/// The kept results of one database, shared by its sessions.
#[derive(Debug)]
pub(crate) struct ResultCache {
    budget: u64,
    shelf: Mutex<Shelf>,
    /// Bytes of results that are being collected.
    collecting: AtomicU64,
    settings: Mutex<Numbers>,
}

/// Numbers for the settings that sessions have.
#[derive(Debug, Default)]
struct Numbers {
    numbers: HashMap<String, u64>,
    next: u64,
}

impl ResultCache {
    /// The cache of `db`, unless its settings turn it off.
    pub(crate) fn of(db: &Grizzly) -> Option<Arc<Self>> {
        let budget = db.result_cache_bytes() as u64;
        (budget > 0).then(|| db.extension(|| Self::new(budget)))
    }

    fn new(budget: u64) -> Self {
        let shelf = Mutex::new(Shelf::new(budget - budget / COLLECTING_SHARE));
        Self { budget, shelf, collecting: AtomicU64::new(0), settings: Mutex::default() }
    }

    /// The result of `question` where its tables were last changed by `changes`, if it is kept.
    fn find(&self, question: &Question, changes: &[Csn], schema: &SchemaRef) -> Option<Arc<[RecordBatch]>> {
        self.shelf.lock().find(question, changes, schema)
    }

    /// The number of these settings: two sessions have the same only if they have the same settings.
    fn number_of(&self, options: &ConfigOptions) -> u64 {
        let mut text = String::with_capacity(16 * 1024);
        for entry in options.entries() {
            // Writing into a string cannot fail.
            let _ = write!(text, "{:?}={:?};", entry.key, entry.value);
        }
        let mut settings = self.settings.lock();
        let Numbers { numbers, next } = &mut *settings;
        if numbers.len() >= SETTINGS {
            numbers.clear();
        }
        *numbers.entry(text).or_insert_with(|| {
            *next += 1;
            *next
        })
    }
}

/// What one session has of the cache.
#[derive(Debug)]
pub(crate) struct SessionResults {
    cache: Arc<ResultCache>,
    /// The settings seen last, and their number. They cannot change in place while this shares them.
    settings: Mutex<Option<(Arc<ConfigOptions>, u64)>>,
}

impl SessionResults {
    /// For a session of `db`, unless the database keeps no results.
    pub(crate) fn of(db: &Grizzly) -> Option<Self> {
        ResultCache::of(db).map(|cache| Self { cache, settings: Mutex::default() })
    }

    fn number_of(&self, options: &Arc<ConfigOptions>) -> u64 {
        let mut seen = self.settings.lock();
        if let Some((known, number)) = seen.as_ref()
            && Arc::ptr_eq(known, options)
        {
            return *number;
        }
        let number = self.cache.number_of(options);
        *seen = Some((Arc::clone(options), number));
        number
    }
}

/// A result that is being collected. Dropping it forgets what has come so far.
#[derive(Debug)]
struct Collecting {
    cache: Arc<ResultCache>,
    batches: Vec<RecordBatch>,
    bytes: u64,
}

impl Collecting {
    fn new(cache: &Arc<ResultCache>) -> Self {
        Self { cache: Arc::clone(cache), batches: Vec::new(), bytes: 0 }
    }

    /// Adds what came next; `None` if that is too much to keep.
    fn with(mut self, batch: &RecordBatch) -> Option<Self> {
        let batch = without_waste(batch);
        let bytes = batch.get_array_memory_size() as u64;
        self.bytes += bytes;
        let all = self.cache.collecting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.batches.push(batch);
        let budget = self.cache.budget;
        (self.bytes <= budget / LARGEST_SHARE && all <= budget / COLLECTING_SHARE).then_some(self)
    }

    /// Keeps it: the whole result of `question`, which took `took` to compute.
    fn keep(mut self, question: &Question, changes: Vec<Csn>, schema: SchemaRef, tables: String, took: Duration) {
        let Ok(batches) = compact::joined(&schema, std::mem::take(&mut self.batches)) else { return };
        let Ok((question, weight)) = question.to_keep() else { return };
        let kept = Kept::new(changes, schema, batches, weight, tables, took);
        if kept.bytes() <= self.cache.budget / LARGEST_SHARE {
            self.cache.shelf.lock().keep(Arc::new(question), kept);
        }
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        self.cache.collecting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
