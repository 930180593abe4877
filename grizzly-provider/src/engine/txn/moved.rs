//! Where merges have moved rows, for transactions that began before.

use std::{collections::HashMap, sync::Arc};

use crate::access::RowId;

/// Where compaction put the rows of segments that are gone, by old segment.
#[derive(Debug, Default, Clone)]
pub(crate) struct MovedRows {
    segments: HashMap<u32, Moved>,
}

/// Where the rows of one segment went, and which compaction moved them.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub(crate) compaction: u64,
    /// The new segment, if any row was left.
    pub(crate) to: Option<u32>,
    /// New row numbers by old ones, [`GONE`] for rows that were removed.
    pub(crate) rows: Arc<[u32]>,
}

/// Stands for a row that a compaction removed.
pub(crate) const GONE: u32 = u32::MAX;

impl MovedRows {
    pub(crate) fn add(&mut self, segment: u32, moved: Moved) {
        self.segments.insert(segment, moved);
    }

    /// Forgets moves that every snapshot has seen, with `oldest` the fewest compactions that one has seen which is
    /// alive or can still be taken. A merge that is not published yet is none that a new snapshot has seen.
    pub(crate) fn forget(&mut self, oldest: u64) {
        self.segments.retain(|_, moved| oldest < moved.compaction);
    }

    /// Whether rows of a segment were moved.
    pub(crate) fn has(&self, segment: u32) -> bool {
        self.segments.contains_key(&segment)
    }

    /// Where a row is now.
    pub(crate) fn current(&self, mut row: RowId) -> Option<RowId> {
        while let Some(moved) = self.segments.get(&row.segment()) {
            let place = moved.rows.get(row.row() as usize).filter(|place| **place != GONE)?;
            row = RowId::new(moved.to?, *place);
        }
        Some(row)
    }
}
