//! Whether a transaction may commit on top of everything that was committed since it began: first committer wins,
//! by row and by unique key.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use super::{
    super::{
        catalog::IndexDef,
        index::{IndexRun, for_each_common_key},
        key::{KeyEncoder, Keys},
        lookup,
        mvcc::tombstones::Tombstones,
        rows,
        version::{DatabaseVersion, OVERLAY, RowState, Segment, SegmentData, TableVersion},
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

    /// Forgets moves that every snapshot has seen, with `oldest` the fewest compactions that one has seen which is
    /// alive or can still be taken. A merge that is not published yet is none that a new snapshot has seen.
    pub(crate) fn forget(&mut self, oldest: u64) {
        self.segments.retain(|_, moved| oldest < moved.compaction);
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
        let committed = match now.map_or(RowState::Missing, |now| pending.row_state(now)) {
            RowState::Live => {
                current.extend(now);
                continue;
            }
            RowState::Ended(csn) => csn,
            // Removed with its segment: it had ended, or the segment left by a way that is not known here.
            RowState::Missing => Csn(0),
        };
        let key = describe_row(base, row)?;
        return Ok(Err(Conflict { table: pending.def.display_name(), key, committed }));
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

    /// The same for a whole run, merged with the runs of the segments that `skip` does not name. Rows in `own_ended`
    /// are of no account: the transaction ended them itself.
    pub(crate) fn check_run(
        &self,
        pending: &TableVersion,
        ended: &HashSet<RowId>,
        (run, own_ended): (&IndexRun, &Tombstones),
        skip: &HashSet<u32>,
        snapshot: Csn,
    ) -> Result<Option<Conflict>> {
        let segments = pending.segments().filter(|(shard, segment)| {
            self.shard.is_none_or(|only| only == *shard) && !skip.contains(&segment.id()) && segment.id() < OVERLAY
        });
        for (_, segment) in segments {
            let other = run_of(pending, segment, self.index)?;
            let mut clash: Option<(Vec<u8>, u32)> = None;
            for_each_common_key(run, &other, &mut |key, own, rows| {
                if self.encoder.has_null(key) || !own.iter().any(|row| own_ended.get(*row).is_none()) {
                    return ControlFlow::Continue(());
                }
                let live = rows.iter().copied().find(|row| {
                    segment.tombstones.get(*row).is_none() && !ended.contains(&RowId::new(segment.id(), *row))
                });
                clash = live.map(|row| (key.to_vec(), row));
                if clash.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
pub(crate) fn run_of(table: &TableVersion, segment: &Segment, index: &IndexDef) -> Result<Arc<IndexRun>> {
    let stored = match &segment.data {
        SegmentData::Cold(cold) => cold.run(index.id)?,
        SegmentData::Hot(hot) => hot.run(index.id).map(Arc::new),
    };
    match stored {
        Some(run) => Ok(run),
        None => Ok(Arc::new(IndexRun::build(&rows::segment_keys(table, segment, index)?, None))),
    }
}

/// Checks keys of several sets of new rows of one transaction against each other. With each go the rows of it that
/// the transaction ended again.
pub(crate) fn check_own(
    table: &TableVersion,
    index: &IndexDef,
    encoder: &KeyEncoder,
    runs: &[(Arc<IndexRun>, Tombstones)],
) -> Result<()> {
    check_first(table, index, encoder, runs, runs.len())
}

/// The same for the first `count` sets, among each other and against all others.
pub(crate) fn check_first(
    table: &TableVersion,
    index: &IndexDef,
    encoder: &KeyEncoder,
    runs: &[(Arc<IndexRun>, Tombstones)],
    count: usize,
) -> Result<()> {
    let violation = |key: &[u8]| unique_violation(&table.def, &index.name, &encoder.display(key));
    for (at, (run, ended)) in runs.iter().enumerate().take(count) {
        let live = |row| ended.get(row).is_none();
        if let Some(key) = run.first_live_duplicate(|key| !encoder.has_null(key), live) {
            return Err(violation(&key));
        }
        for (other, other_ended) in &runs[at + 1..] {
            if let Some(key) = common_live_key(encoder, (run, ended), (other, other_ended)) {
                return Err(violation(&key));
            }
        }
    }
    Ok(())
}

/// A key without NULLs that live rows of both runs have.
fn common_live_key(
    encoder: &KeyEncoder,
    (left, left_ended): (&IndexRun, &Tombstones),
    (right, right_ended): (&IndexRun, &Tombstones),
) -> Option<Vec<u8>> {
    let mut clash = None;
    for_each_common_key(left, right, &mut |key, l, r| {
        let live = |rows: &[u32], ended: &Tombstones| rows.iter().any(|row| ended.get(*row).is_none());
        if encoder.has_null(key) || !live(l, left_ended) || !live(r, right_ended) {
            return ControlFlow::Continue(());
        }
        clash = Some(key.to_vec());
        ControlFlow::Break(())
    });
    clash
}

/// The table that a transaction wrote to, as it is now.
pub(crate) fn still_there(pending: &DatabaseVersion, table: u64, name: &str) -> Result<Arc<TableVersion>> {
    let found = pending.tables.get(&table).cloned();
    found.ok_or_else(|| Error::not_found(format!("table '{name}' was dropped while the transaction ran")))
}
