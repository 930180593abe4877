//! Whether a transaction may commit on top of everything that was committed since it began: first committer wins,
//! by row and by unique key.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    super::{
        catalog::IndexDef,
        index::{IndexRun, for_each_common_key},
        key::{KeyEncoder, Keys},
        lookup, rows,
        version::{DatabaseVersion, OVERLAY, Segment, SegmentData, TableVersion},
    },
    transaction::{Conflict, unique_violation},
};
use crate::{
    access::{Csn, RowId},
    error::{Error, Result},
};

/// Where compaction put the rows of segments that are gone: old segment -> (new row or none) by old row number.
#[derive(Debug, Default, Clone)]
pub(crate) struct MovedRows {
    segments: HashMap<u32, Moved>,
}

/// Where the rows of one segment went, and which compaction moved them.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub(crate) compaction: u64,
    pub(crate) rows: Arc<Vec<Option<RowId>>>,
}

impl MovedRows {
    pub(crate) fn add(&mut self, segment: u32, moved: Moved) {
        self.segments.insert(segment, moved);
    }

    /// Forgets moves that every living snapshot has seen.
    pub(crate) fn forget(&mut self, oldest: Option<u64>) {
        self.segments.retain(|_, moved| oldest.is_some_and(|oldest| oldest < moved.compaction));
    }

    /// Where a row is now.
    pub(crate) fn current(&self, mut row: RowId) -> Option<RowId> {
        while let Some(moved) = self.segments.get(&row.segment()) {
            row = (*moved.rows.get(row.row() as usize)?)?;
        }
        Some(row)
    }
}

/// Checks that no row in `ended` was ended by somebody else, and returns where those rows are now.
pub(crate) fn check_rows(
    pending: &TableVersion,
    base: &TableVersion,
    moved: &MovedRows,
    ended: impl Iterator<Item = RowId>,
) -> Result<Result<Vec<RowId>, Conflict>> {
    let mut current = Vec::new();
    for row in ended {
        let now = moved.current(row);
        let committed = match now {
            Some(now) => pending.ended(now),
            None => Some(Csn(0)),
        };
        match (now, committed) {
            (Some(now), None) => current.push(now),
            (_, committed) => {
                let key = describe_row(base, row)?;
                let committed = committed.unwrap_or_default();
                return Ok(Err(Conflict { table: pending.def.display_name(), key, committed }));
            }
        }
    }
    Ok(Ok(current))
}

/// The primary key of a row as SQL would write it, or its number where the table has none.
fn describe_row(table: &TableVersion, row: RowId) -> Result<String> {
    let (Some((index, encoder)), Some(segment)) = (table.codecs.primary(), table.segment(row.segment())) else {
        return Ok(format!("row {}", row.0));
    };
    let columns = rows::take_columns(table, &index.columns, &[(segment, &[row.row()])])?;
    let keys = encoder.encode_columns(&columns)?;
    Ok(encoder.display(keys.get(0)))
}

/// New keys of one unique index and where they would go.
pub(crate) struct NewKeys<'a> {
    pub(crate) index: &'a IndexDef,
    pub(crate) encoder: &'a KeyEncoder,
    /// The shard that holds all rows with these keys, if placement says so.
    pub(crate) shard: Option<u32>,
}

impl NewKeys<'_> {
    /// Checks that no live row of `pending`, other than those in `ended`, has one of `keys`. A row that was
    /// committed after `snapshot` is a conflict; an older one is a violation of the constraint.
    pub(crate) fn check(
        &self,
        pending: &TableVersion,
        ended: &HashSet<RowId>,
        keys: &Keys,
        snapshot: Csn,
    ) -> Result<Option<Conflict>> {
        for key in keys.iter().filter(|key| !self.encoder.has_null(key)) {
            let mut clash = None;
            lookup::live_rows(pending, self.index, key, self.shard, |segment, row| {
                if ended.contains(&row) {
                    return Ok(true);
                }
                clash = Some(segment.created(row.row())?);
                Ok(false)
            })?;
            if let Some(created) = clash {
                return self.clash(pending, key, created, snapshot).map(Some);
            }
        }
        Ok(None)
    }

    /// The same for a whole run, merged with the runs of the segments that `skip` does not name.
    pub(crate) fn check_run(
        &self,
        pending: &TableVersion,
        ended: &HashSet<RowId>,
        run: &IndexRun,
        skip: &HashSet<u32>,
        snapshot: Csn,
    ) -> Result<Option<Conflict>> {
        let segments = pending.segments().filter(|(shard, segment)| {
            self.shard.is_none_or(|only| only == *shard) && !skip.contains(&segment.id()) && segment.id() < OVERLAY
        });
        for (_, segment) in segments {
            let other = run_of(pending, segment, self.index, self.encoder)?;
            let mut clash: Option<(Vec<u8>, u32)> = None;
            for_each_common_key(run, &other, &mut |key, _, row| {
                let live = segment.tombstones.get(row).is_none() && !ended.contains(&RowId::new(segment.id(), row));
                if live && !self.encoder.has_null(key) {
                    clash = Some((key.to_vec(), row));
                    return std::ops::ControlFlow::Break(());
                }
                std::ops::ControlFlow::Continue(())
            });
            if let Some((key, row)) = clash {
                return self.clash(pending, &key, segment.created(row)?, snapshot).map(Some);
            }
        }
        Ok(None)
    }

    fn clash(&self, table: &TableVersion, key: &[u8], created: Csn, snapshot: Csn) -> Result<Conflict> {
        let key = self.encoder.display(key);
        if created <= snapshot {
            return Err(unique_violation(&table.def, &self.index.name, &key));
        }
        Ok(Conflict { table: table.def.display_name(), key, committed: created })
    }
}

/// The run of an index over a segment, made on the spot where there is none.
pub(crate) fn run_of(
    table: &TableVersion,
    segment: &Segment,
    index: &IndexDef,
    encoder: &KeyEncoder,
) -> Result<Arc<IndexRun>> {
    let stored = match &segment.data {
        SegmentData::Cold(cold) => cold.run(index.id)?,
        SegmentData::Hot(hot) => hot.run(index.id).map(Arc::new),
    };
    match stored {
        Some(run) => Ok(run),
        None => {
            let _ = encoder;
            Ok(Arc::new(IndexRun::build(&rows::segment_keys(table, segment, index)?, None)))
        }
    }
}

/// Checks keys of several sets of new rows of one transaction against each other.
pub(crate) fn check_own(
    table: &TableVersion,
    index: &IndexDef,
    encoder: &KeyEncoder,
    runs: &[Arc<IndexRun>],
) -> Result<()> {
    let violation = |key: &[u8]| unique_violation(&table.def, &index.name, &encoder.display(key));
    for (at, run) in runs.iter().enumerate() {
        if let Some(key) = run.first_duplicate().filter(|key| !encoder.has_null(key)) {
            return Err(violation(&key));
        }
        for other in &runs[at + 1..] {
            let mut clash = None;
            for_each_common_key(run, other, &mut |key, _, _| {
                if encoder.has_null(key) {
                    return std::ops::ControlFlow::Continue(());
                }
                clash = Some(key.to_vec());
                std::ops::ControlFlow::Break(())
            });
            if let Some(key) = clash {
                return Err(violation(&key));
            }
        }
    }
    Ok(())
}

/// The table that a transaction wrote to, as it is now.
pub(crate) fn still_there(pending: &DatabaseVersion, table: u64, name: &str) -> Result<Arc<TableVersion>> {
    let found = pending.tables.get(&table).cloned();
    found.ok_or_else(|| Error::not_found(format!("table '{name}' was dropped while the transaction ran")))
}
