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
        consent::{Consent, Given},
        index::{IndexRun, for_each_common_key},
        key::{KeyEncoder, KeyRange, Keys},
        mvcc::{row_set::TableRows, tombstones::Tombstones},
        rows,
        segment::{
            cold::{ColdSegment, Found},
            meta::OVERLAY,
        },
        version::{DatabaseVersion, RowState, Segment, SegmentData, TableVersion},
    },
    moved::MovedRows,
    outcome::{Conflict, unique_violation},
};
use crate::{
    access::{Csn, RowId},
    error::{Error, Result},
};

/// Checks that no row in `ended` was ended by somebody else, and returns where those rows are now.
pub(crate) fn check_rows(
    pending: &TableVersion,
    base: &TableVersion,
    moved: &MovedRows,
    ended: &TableRows,
) -> Result<Result<TableRows, Conflict>> {
    let conflict = |row: RowId, committed| {
        let key = describe_row(base, row)?;
        Ok(Err(Conflict { table: pending.def.display_name(), key, committed }))
    };
    let mut current = TableRows::default();
    for (number, rows) in ended.segments() {
        if moved.has(number) {
            for row in rows.iter().map(|row| RowId::new(number, row)) {
                let now = moved.current(row);
                match now.map_or(RowState::Missing, |now| pending.row_state(now)) {
                    RowState::Live => current.extend(now),
                    RowState::Ended(csn) => return conflict(row, csn),
                    // Removed with its segment: it had ended, or the segment left by a way that is not known here.
                    RowState::Missing => return conflict(row, Csn(0)),
                }
            }
            continue;
        }
        let there = |segment: &&Arc<Segment>| rows.last().is_none_or(|last| last < segment.rows());
        let segment = pending.segment(number).filter(there);
        let Some(segment) = segment else {
            return conflict(RowId::new(number, rows.iter().next().unwrap_or_default()), Csn(0));
        };
        if let Some((row, csn)) = segment.tombstones.first_of(rows) {
            return conflict(RowId::new(number, row), csn);
        }
        current.add(number, rows);
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

/// How many rows of each segment new keys were compared with. Rows do not come back, so they need not be again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Compared(HashMap<u32, u32>);

impl Compared {
    /// All rows of a version of the table were.
    pub(crate) fn with_all(table: &TableVersion) -> Self {
        Self(table.segments().map(|(_, segment)| (segment.id(), segment.rows())).collect())
    }

    /// How many rows there are that were not.
    pub(crate) fn missing(&self, table: &TableVersion) -> u64 {
        table.segments().filter_map(|(_, segment)| Some(u64::from(segment.rows() - self.first_new(segment)?))).sum()
    }

    /// The first row of a segment that was not.
    fn first_new(&self, segment: &Segment) -> Option<u32> {
        let compared = self.0.get(&segment.id()).copied().unwrap_or(0);
        Some(compared).filter(|compared| *compared < segment.rows())
    }
}

/// The first of some keys with a row among those that `lookup` has for it that is accepted, and that row.
fn first_of<'k>(
    keys: impl Iterator<Item = &'k [u8]>,
    accepts: impl Fn(u32) -> bool,
    lookup: impl Fn(&[u8], &mut Vec<u32>),
) -> Option<(Vec<u8>, u32)> {
    let mut rows = Vec::new();
    for key in keys {
        rows.clear();
        lookup(key, &mut rows);
        if let Some(row) = rows.iter().copied().find(|row| accepts(*row)) {
            return Some((key.to_vec(), row));
        }
    }
    None
}

/// New keys of one unique index and where they would go.
pub(crate) struct NewKeys<'a> {
    pub(crate) index: &'a IndexDef,
    pub(crate) encoder: &'a KeyEncoder,
    /// The shard that holds all rows with these keys, if placement says so.
    pub(crate) shard: Option<u32>,
    /// Rows that are of no account: the transaction ends them.
    pub(crate) ended: &'a TableRows,
    pub(crate) compared: &'a Compared,
    /// A row that was committed after this is a conflict; an older one is a violation of the constraint.
    pub(crate) snapshot: Csn,
}

impl NewKeys<'_> {
    /// Committed segments that may have the keys, the newest first, each with its first row that was not compared yet.
    fn others<'t>(&self, pending: &'t TableVersion) -> Vec<(&'t Segment, u32)> {
        let shards = pending.shards.iter().zip(0_u32..);
        let shards = shards.filter(|(_, number)| self.shard.is_none_or(|only| only == *number));
        let segments = shards.flat_map(|(shard, _)| shard.segments.iter().rev());
        let segments = segments.filter(|segment| segment.id() < OVERLAY && segment.has_live());
        segments.filter_map(|segment| Some((segment.as_ref(), self.compared.first_new(segment)?))).collect()
    }

    /// Checks that no live row of `pending` has one of `keys`.
    pub(crate) fn check(&self, pending: &TableVersion, keys: &Keys) -> Result<Option<Conflict>> {
        let others = self.others(pending);
        if others.is_empty() {
            return Ok(None);
        }
        let real = || keys.iter().filter(|key| !self.encoder.has_null(key));
        let Some((least, greatest)) = real().min().zip(real().max()) else { return Ok(None) };
        let span = KeyRange::closed(least, greatest);
        // Segment by segment: a run that does not stay in memory is read once for all keys.
        for (segment, first) in others {
            let in_the_way = |row| row >= first && self.is_in_the_way(segment, row);
            let clash = match self.found(segment, &span)? {
                Found::Nothing => None,
                Found::Run(run) => first_of(real(), in_the_way, |key, rows| run.lookup(&KeyRange::point(key), rows)),
                Found::NoRun => match segment.hot().and_then(|hot| Some((hot.index(self.index.id)?, hot.rows))) {
                    Some((live, end)) => {
                        first_of(real(), in_the_way, |key, rows| live.lookup(&KeyRange::point(key), end, rows))
                    }
                    None => {
                        let wanted: HashSet<&[u8]> = real().collect();
                        rows::find_keys(pending, segment, self.index, &wanted, in_the_way)?
                    }
                },
            };
            if let Some((key, row)) = clash {
                return self.clash(pending, &key, segment.created(row)?).map(Some);
            }
        }
        Ok(None)
    }

    /// What a segment has for keys in `span`; of one that is in memory that is not known beforehand.
    fn found(&self, segment: &Segment, span: &KeyRange) -> Result<Found> {
        let within = |cold: &ColdSegment| cold.run_with(self.index.id, std::slice::from_ref(span));
        segment.cold().map_or(Ok(Found::NoRun), |cold| within(cold))
    }

    /// The same for a whole run, which is asked for if there is anything to compare it with. Rows in `own_ended` are of no
    /// account: the transaction ended them itself.
    pub(crate) fn check_run(
        &self,
        pending: &TableVersion,
        run: impl FnOnce() -> Result<Arc<IndexRun>>,
        own_ended: &Tombstones,
    ) -> Result<Option<Conflict>> {
        let others = self.others(pending);
        if others.is_empty() {
            return Ok(None);
        }
        let run = run()?;
        let Some((least, greatest)) = run.bounds() else { return Ok(None) };
        let span = KeyRange::closed(least, greatest);
        for (segment, first) in others {
            let clash = match first {
                0 => match self.found(segment, &span)? {
                    Found::Nothing => None,
                    Found::Run(other) => self.common_key(&run, own_ended, segment, &other),
                    Found::NoRun => {
                        let other = run_of(pending, segment, self.index)?;
                        self.common_key(&run, own_ended, segment, &other)
                    }
                },
                _ => self.key_behind(&run, own_ended, pending, segment, first)?,
            };
            if let Some((key, row)) = clash {
                return self.clash(pending, &key, segment.created(row)?).map(Some);
            }
        }
        Ok(None)
    }

    /// A key of a run that a live row of a segment has, and that row.
    fn common_key(
        &self,
        run: &IndexRun,
        own_ended: &Tombstones,
        segment: &Segment,
        other: &IndexRun,
    ) -> Option<(Vec<u8>, u32)> {
        let mut clash = None;
        for_each_common_key(run, other, &mut |key, own, rows| {
            if self.encoder.has_null(key) || !own.iter().any(|row| own_ended.get(*row).is_none()) {
                return ControlFlow::Continue(());
            }
            let row = rows.iter().copied().find(|row| self.is_in_the_way(segment, *row));
            clash = row.map(|row| (key.to_vec(), row));
            if clash.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        clash
    }

    /// The same for the rows of a segment from `first` on, which are few.
    fn key_behind(
        &self,
        run: &IndexRun,
        own_ended: &Tombstones,
        table: &TableVersion,
        segment: &Segment,
        first: u32,
    ) -> Result<Option<(Vec<u8>, u32)>> {
        let mut own = Vec::new();
        for part in rows::key_columns(table, segment, self.index) {
            let (number, columns) = part?;
            let skipped = first.saturating_sub(number) as usize;
            let rows = columns.first().map_or(0, |column| column.len());
            if skipped >= rows {
                continue;
            }
            let columns: Vec<_> = columns.iter().map(|column| column.slice(skipped, rows - skipped)).collect();
            let keys = self.encoder.encode_columns(&columns)?;
            for (row, key) in (number + skipped as u32..).zip(keys.iter()) {
                own.clear();
                run.lookup(&KeyRange::point(key), &mut own);
                let clashes = own.iter().any(|own| own_ended.get(*own).is_none()) && self.is_in_the_way(segment, row);
                if clashes && !self.encoder.has_null(key) {
                    return Ok(Some((key.to_vec(), row)));
                }
            }
        }
        Ok(None)
    }

    fn is_in_the_way(&self, segment: &Segment, row: u32) -> bool {
        segment.tombstones.get(row).is_none() && !self.ended.contains(RowId::new(segment.id(), row))
    }

    fn clash(&self, table: &TableVersion, key: &[u8], created: Csn) -> Result<Conflict> {
        let key = self.encoder.display(key);
        if created <= self.snapshot {
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
        None => Ok(Arc::new(rows::segment_run(table, segment, index)?)),
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
    check_first(table, index, encoder, runs, runs.len(), &Given)
}

/// The same for the first `count` sets, among each other and against all others, as long as `consent` is given.
pub(crate) fn check_first(
    table: &TableVersion,
    index: &IndexDef,
    encoder: &KeyEncoder,
    runs: &[(Arc<IndexRun>, Tombstones)],
    count: usize,
    consent: &dyn Consent,
) -> Result<()> {
    let violation = |key: &[u8]| unique_violation(&table.def, &index.name, &encoder.display(key));
    for (at, (run, ended)) in runs.iter().enumerate().take(count) {
        let live = |row| ended.get(row).is_none();
        if let Some(key) = run.first_live_duplicate(|key| !encoder.has_null(key), live) {
            return Err(violation(&key));
        }
        for (other, other_ended) in &runs[at + 1..] {
            consent.go_on()?;
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
