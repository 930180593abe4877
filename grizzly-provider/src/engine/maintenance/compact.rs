//! Merging segments of a shard into one, without the rows that ended before the retention window.
//!
//! Rows move, so transactions that began before keep working: the commit path finds moved rows through
//! [`super::super::txn::conflict::MovedRows`], and rows that end while the merge runs end in the new segment too.

use std::{collections::HashSet, sync::Arc};

use super::super::{
    bulk::{BulkLoad, FileStamps, SEGMENT_ROWS},
    database::Inner,
    mvcc::tombstones::Tombstones,
    redo::{KIND_REPLACE, Replace, encode_json},
    segment::cold::{ColdSegment, file_schema},
    txn::{
        commit::{self, Logged},
        conflict::Moved,
    },
    version::{Segment, SegmentData, TableVersion},
};
use crate::{
    access::{Csn, RowId},
    error::{Error, Result},
};
use arrow::{array::RecordBatch, buffer::BooleanBuffer};
use grizzly_wal::NewRecord;

/// Segments of one shard in one class of sizes before they are merged.
const MERGE_AT: usize = 4;
/// Share of a segment's rows that must be removable before it is rewritten alone.
const REWRITE_AT: f64 = 0.2;

/// What a merge of some segments yields.
struct Merged {
    segment: Option<Arc<ColdSegment>>,
    ended: Tombstones,
    /// For each old segment, where its rows are now.
    moved: Vec<(u32, Vec<Option<RowId>>)>,
    removed_rows: u64,
}

/// Merges what is worth it in every table; `all` merges every shard into one segment.
pub(crate) fn compact(db: &Inner, only: Option<u64>, all: bool) -> Result<()> {
    let _one_at_a_time = db.checkpoint.lock();
    let version = Arc::clone(&db.commit.lock().version);
    let horizon = db.horizon();
    for (id, table) in version.tables.iter().filter(|(id, _)| only.is_none_or(|only| only == **id)) {
        for (number, shard) in (0_u32..).zip(&table.shards) {
            let candidates = match all {
                true => shard.segments.iter().filter(|segment| segment.cold().is_some()).cloned().collect(),
                false => worthwhile(&shard.segments, horizon),
            };
            if candidates.is_empty() || (candidates.len() == 1 && removable(&candidates[0], horizon) == 0) {
                continue;
            }
            replace(db, *id, table, number, &candidates, horizon)?;
        }
    }
    Ok(())
}

/// Segments worth merging: enough small ones, or one with many rows to remove.
fn worthwhile(segments: &[Arc<Segment>], horizon: Csn) -> Vec<Arc<Segment>> {
    let cold = segments.iter().filter(|segment| segment.cold().is_some());
    let class = |segment: &Segment| (segment.rows().max(1) / 16_384).max(1).ilog(4);
    let small: Vec<_> = cold.clone().filter(|segment| (segment.rows() as usize) < SEGMENT_ROWS / 2).collect();
    for size in 0..8 {
        let alike: Vec<_> = small.iter().filter(|segment| class(segment) == size).map(|s| Arc::clone(s)).collect();
        if alike.len() >= MERGE_AT {
            return alike;
        }
    }
    let wasteful =
        |segment: &&Arc<Segment>| f64::from(removable(segment, horizon)) > REWRITE_AT * f64::from(segment.rows());
    cold.clone().find(wasteful).map(Arc::clone).into_iter().collect()
}

fn removable(segment: &Segment, horizon: Csn) -> u32 {
    segment.tombstones.len_at(horizon)
}

fn replace(db: &Inner, id: u64, table: &TableVersion, shard: u32, old: &[Arc<Segment>], horizon: Csn) -> Result<()> {
    let merged = merge(db, table, old, horizon)?;
    let logged = publish(db, id, shard, old, &merged, horizon);
    let Ok(Some(logged)) = logged else {
        if let Some(segment) = &merged.segment {
            segment.mark_obsolete();
        }
        return logged.map(drop);
    };
    logged.wait()?;
    db.obsolete.lock().extend(old.iter().filter_map(|segment| segment.cold().cloned()));
    tracing::info!(
        table = table.def.name,
        shard,
        segments = old.len(),
        removed_rows = merged.removed_rows,
        "segments were merged"
    );
    Ok(())
}

fn merge(db: &Inner, table: &TableVersion, old: &[Arc<Segment>], horizon: Csn) -> Result<Merged> {
    let mut load = BulkLoad::with_stamps(&table.def, FileStamps::ALL)?;
    let mut merged = Merged { segment: None, ended: Tombstones::default(), moved: Vec::new(), removed_rows: 0 };
    let mut places: Vec<(u32, Vec<Option<u32>>)> = Vec::new();
    for segment in old {
        let Some(cold) = segment.cold() else { continue };
        let mut rows = Vec::with_capacity(segment.rows() as usize);
        for chunk in 0..cold.file.footer().chunks.len() {
            let first = load.rows() as u32;
            let (batch, kept) = kept_rows(table, segment, cold, chunk, horizon)?;
            let mut next = first;
            for (row, keep) in (rows.len() as u32..).zip(kept.iter()) {
                rows.push(keep.then_some(next));
                if keep {
                    if let Some(csn) = segment.tombstones.get(row) {
                        merged.ended.insert(next, csn);
                    }
                    next += 1;
                }
            }
            merged.removed_rows += (kept.len() - batch.num_rows()) as u64;
            if batch.num_rows() > 0 {
                load.push(&table.codecs, &batch)?;
            }
        }
        places.push((segment.id(), rows));
    }
    if load.rows() > 0 {
        merged.segment = Some(load.finish(db, table)?);
    }
    let new = merged.segment.as_ref().map(|segment| segment.meta.id);
    for (segment, rows) in places {
        let place = |row: Option<u32>| Some(RowId::new(new?, row?));
        merged.moved.push((segment, rows.into_iter().map(place).collect()));
    }
    Ok(merged)
}

/// The rows of a chunk that somebody may still read, with their stamps, and which they are.
fn kept_rows(
    table: &TableVersion,
    segment: &Segment,
    cold: &ColdSegment,
    chunk: usize,
    horizon: Csn,
) -> Result<(RecordBatch, BooleanBuffer)> {
    let meta = &cold.file.footer().chunks[chunk];
    let (first, rows) = (meta.first_row as u32, meta.rows as usize);
    let kept = BooleanBuffer::collect_bool(rows, |row| {
        segment.tombstones.get(first + row as u32).is_none_or(|csn| csn > horizon)
    });
    let mut columns = Vec::new();
    for (number, field) in table.def.schema.fields().iter().enumerate() {
        columns.push(cold.file.column(chunk, number)?.filter(field, &kept)?);
    }
    let survivors: Vec<usize> = kept.set_indices().collect();
    columns.push(cold.created(chunk)?.column(survivors.iter().copied()));
    columns.push(cold.versions(chunk)?.column(survivors.iter().copied()));
    let schema = file_schema(&table.def.schema, true, true);
    Ok((RecordBatch::try_new(schema, columns)?, kept))
}

/// Exchanges the segments; `None` if the table is gone.
fn publish(
    db: &Inner,
    id: u64,
    shard: u32,
    old: &[Arc<Segment>],
    merged: &Merged,
    horizon: Csn,
) -> Result<Option<Logged>> {
    let mut state = db.commit.lock();
    db.check_writable()?;
    let mut next = state.version.as_ref().clone();
    if !next.tables.contains_key(&id) {
        return Ok(None);
    }
    let removed: HashSet<u32> = old.iter().map(|segment| segment.id()).collect();
    let ended = late_tombstones(next.table(id)?, old, merged);
    let table = next.table_mut(id)?;
    exchange(table, shard, &removed, merged.segment.clone(), ended.clone())?;
    next.compactions += 1;
    if merged.removed_rows > 0 {
        next.history_from = next.history_from.max(horizon);
    }
    let compaction = next.compactions;
    let record = Replace {
        table: id,
        shard,
        removed: removed.into_iter().collect(),
        added: merged.segment.as_ref().map(|segment| segment.meta.clone()),
        ended: ended.iter().map(|(row, csn)| (row, csn.0)).collect(),
        history_from: next.history_from.0,
    };
    let record = NewRecord { txn: 0, commit_ts: next.csn.0, kind: KIND_REPLACE, payload: encode_json(&record)? };
    let logged = commit::append(db, &mut state, next, record, || ())?;
    for (segment, rows) in &merged.moved {
        state.moved.add(*segment, Moved { compaction, rows: Arc::new(rows.clone()) });
    }
    state.moved.forget(db.snapshots.oldest(&db.publisher));
    if let Some(segment) = &merged.segment {
        db.pins.note(logged.lsn, segment.meta.key());
    }
    Ok(Some(logged))
}

/// The ended rows of the new segment: those known when the merge began, and those that ended since.
fn late_tombstones(now: &TableVersion, old: &[Arc<Segment>], merged: &Merged) -> Tombstones {
    let mut ended = merged.ended.clone();
    for (before, (_, rows)) in old.iter().zip(&merged.moved) {
        let Some(after) = now.segment(before.id()) else { continue };
        if after.tombstones.len() == before.tombstones.len() {
            continue;
        }
        for (row, csn) in after.tombstones.iter().filter(|(row, _)| before.tombstones.get(*row).is_none()) {
            if let Some(Some(moved)) = rows.get(row as usize) {
                ended.insert(moved.row(), csn);
            }
        }
    }
    ended
}

/// Puts `added` in the place of the segments `removed`.
pub(crate) fn exchange(
    table: &mut TableVersion,
    shard: u32,
    removed: &HashSet<u32>,
    added: Option<Arc<ColdSegment>>,
    ended: Tombstones,
) -> Result<()> {
    let name = table.def.name.clone();
    let shard = table.shard_mut(shard)?;
    let at = shard.segments.iter().position(|segment| removed.contains(&segment.id()));
    let there = shard.segments.iter().filter(|segment| removed.contains(&segment.id())).count();
    let at = at.filter(|_| there == removed.len());
    let at = at.ok_or_else(|| Error::corrupt(format!("segments of table '{name}' vanished under a merge")))?;
    shard.segments.retain(|segment| !removed.contains(&segment.id()));
    if let Some(added) = added {
        let segment = Segment { data: SegmentData::Cold(added), tombstones: ended };
        shard.segments.insert(at.min(shard.segments.len()), Arc::new(segment));
    }
    Ok(())
}
