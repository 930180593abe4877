//! What checkpoints have written so far: which is the last, and what is on storage of those that failed.

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use grizzly_wal::{
    Storage,
    world::{self, Mutex},
};

use super::{
    super::{made::MadeSegment, segment::cold::ColdSegment, version::Segment},
    tombstone_file::{self, ListFile},
};
use crate::error::{Error, Result};

/// Which checkpoint is the last, and which list of ended rows each segment has on storage.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    inner: Mutex<CheckpointState>,
}

#[derive(Debug, Default)]
struct CheckpointState {
    number: u64,
    /// When the last one began.
    began: Option<Instant>,
    /// The list of each segment.
    tombstones: BTreeMap<u32, ListFile>,
    /// Files of hot segments that were written by checkpoints that failed. The manifest of one may be on storage all the
    /// same, so that the next takes these, and never writes others under their names.
    files: BTreeMap<u32, Arc<ColdSegment>>,
    /// Such files that could not be stored, as far as is known: they may arrive yet.
    made: BTreeMap<u32, Box<MadeSegment>>,
}

impl Checkpoints {
    /// Continues behind a manifest.
    pub(crate) fn resume(&self, number: u64, tombstones: BTreeMap<u32, ListFile>) {
        *self.inner.lock() = CheckpointState { number, tombstones, ..CheckpointState::default() };
    }

    /// The next number. It is not used again even if the checkpoint fails: its manifest and its lists may be on
    /// storage all the same.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.inner.lock();
        state.number += 1;
        state.began = Some(world::instant());
        state.number
    }

    /// Whether none has begun since the one of this number.
    pub(super) fn is_last(&self, number: u64) -> bool {
        self.inner.lock().number == number
    }

    /// The file of a hot segment, if it was written before.
    pub(super) fn file(&self, segment: u32) -> Option<Arc<ColdSegment>> {
        self.inner.lock().files.get(&segment).cloned()
    }

    /// A file that was made for a hot segment and not stored.
    pub(super) fn made(&self, segment: u32) -> Option<Box<MadeSegment>> {
        self.inner.lock().made.remove(&segment)
    }

    /// Keeps a file that could not be stored, and passes on why.
    pub(super) fn not_stored(&self, segment: u32, made: Box<MadeSegment>, error: Error) -> Error {
        self.inner.lock().made.insert(segment, made);
        error
    }

    pub(super) fn keep(&self, segment: u32, file: &Arc<ColdSegment>) {
        self.inner.lock().files.insert(segment, Arc::clone(file));
    }

    /// All files that were written have taken the place of their segments; returns them.
    pub(super) fn adopted(&self) -> BTreeMap<u32, Arc<ColdSegment>> {
        let mut state = self.inner.lock();
        state.made.clear();
        mem::take(&mut state.files)
    }

    /// Whether none has begun for so long.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.inner.lock().began.is_none_or(|began| world::since(began) >= age)
    }

    /// The list of a segment's ended rows, written now if they have changed: by the checkpoint `number` of the epoch `writer`.
    pub(super) fn list(
        &self,
        storage: &Arc<dyn Storage>,
        (number, writer): (u64, u64),
        segment: &Segment,
        cold: &ColdSegment,
    ) -> Result<Option<ListFile>> {
        let ended = &segment.tombstones;
        if ended.is_empty() {
            return Ok(None);
        }
        let mut state = self.inner.lock();
        if let Some(list) = state.tombstones.get(&segment.id()).filter(|list| list.rows == ended.len()) {
            return Ok(Some(list.clone()));
        }
        let (path, label) = (cold.meta.list_path(number, writer), cold.list_label(number, writer));
        let list = tombstone_file::write(storage, path, &label, ended)?;
        state.tombstones.insert(segment.id(), list.clone());
        Ok(Some(list))
    }
}
