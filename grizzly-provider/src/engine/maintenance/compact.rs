//! Merging segments of a shard into one, without the rows that ended before the retention window.
//!
//! Rows move, so transactions that began before keep working: the commit path finds moved rows through
//! [`super::super::txn::moved::MovedRows`], and rows that end while the merge runs end in the new segment too.

use std::sync::Arc;

use super::{
    super::{
        bulk::BulkLoad,
        catalog::IndexDef,
        clock::horizon,
        core::Inner,
        made::FileStamps,
        mvcc::tombstones::Tombstones,
        redo::{Change, Replace},
        rows,
        segment::{cold::ColdSegment, meta::file_schema},
        txn::{
            moved::{GONE, Moved},
            order::Logged,
        },
        version::{Segment, SegmentData, TableVersion, apply::apply},
    },
    choice::{self, Limits, Size},
};
use crate::{access::Csn, error::Result};
use arrow::{array::RecordBatch, buffer::BooleanBuffer};

/// What a merge of some segments yields.
struct Merged {
    segment: Option<Arc<ColdSegment>>,
    ended: Tombstones,
    /// For each old segment, where its rows are in the new one.
    places: Vec<(u32, Arc<[u32]>)>,
    removed_rows: u64,
}

/// Merges all segments of a table that gain by it, in bounded steps.
pub(crate) fn compact_table(db: &Inner, id: u64) -> Result<()> {
    let _one_at_a_time = db.checkpoint.lock();
    let version = Arc::clone(&db.commit.lock().version);
    let Some(table) = version.tables.get(&id) else { return Ok(()) };
    let (horizon, limits) = (horizon(db.settings.retention), Limits::new(db.settings.memory_bytes));
    for (number, shard) in (0_u32..).zip(&table.shards) {
        let cold = stored(&shard.segments);
        for chosen in choice::all(&sizes(&cold, horizon), &limits) {
            replace(db, table, number, &picked(&cold, &chosen), horizon)?;
        }
    }
    Ok(())
}

/// Does one merge if one is worth it; says whether there was, as more may be worth it then.
pub(crate) fn step(db: &Inner) -> Result<bool> {
    let _one_at_a_time = db.checkpoint.lock();
    let version = Arc::clone(&db.commit.lock().version);
    let (horizon, limits) = (horizon(db.settings.retention), Limits::new(db.settings.memory_bytes));
    for table in version.tables.values() {
        for (number, shard) in (0_u32..).zip(&table.shards) {
            let cold = stored(&shard.segments);
            let chosen = choice::worthwhile(&sizes(&cold, horizon), &limits);
            if !chosen.is_empty() {
                return replace(db, table, number, &picked(&cold, &chosen), horizon).map(|()| true);
            }
        }
    }
    Ok(false)
}

fn stored(segments: &[Arc<Segment>]) -> Vec<&Arc<Segment>> {
    segments.iter().filter(|segment| segment.cold().is_some()).collect()
}

fn sizes(segments: &[&Arc<Segment>], horizon: Csn) -> Vec<Size> {
    let size = |segment: &&Arc<Segment>| Size {
        rows: u64::from(segment.rows()),
        bytes: segment.cold().map_or(0, |cold| cold.meta.file_bytes),
        removable: u64::from(segment.tombstones.len_at(horizon)),
    };
    segments.iter().map(size).collect()
}

fn picked(segments: &[&Arc<Segment>], chosen: &[usize]) -> Vec<Arc<Segment>> {
    chosen.iter().map(|at| Arc::clone(segments[*at])).collect()
}

fn replace(db: &Inner, table: &TableVersion, shard: u32, old: &[Arc<Segment>], horizon: Csn) -> Result<()> {
    let merged = merge(db, table, old, horizon)?;
    let logged = put_in_place(db, table, shard, old, &merged, horizon);
    let Ok(Some(logged)) = logged else {
        if let Some(segment) = &merged.segment {
            segment.mark_obsolete();
        }
        return logged.map(drop);
    };
    logged.wait()?;
    db.retire(old.iter().filter_map(|segment| segment.cold().cloned()));
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
    let mut merged = Merged { segment: None, ended: Tombstones::default(), places: Vec::new(), removed_rows: 0 };
    // Together: rows of many commits lie side by side, and those of one become bits only if they are told at once.
    let mut ended = Vec::new();
    for segment in old {
        let Some(cold) = segment.cold() else { continue };
        let mut rows = Vec::with_capacity(segment.rows() as usize);
        for chunk in 0..cold.file.footer().chunks.len() {
            let first = load.rows() as u32;
            let (batch, kept) = kept_rows(table, segment, cold, chunk, horizon)?;
            let mut next = first;
            for (row, keep) in (rows.len() as u32..).zip(kept.iter()) {
                rows.push(if keep { next } else { GONE });
                if keep {
                    if let Some(csn) = segment.tombstones.get(row) {
                        ended.push((next, csn));
                    }
                    next += 1;
                }
            }
            merged.removed_rows += (kept.len() - batch.num_rows()) as u64;
            if batch.num_rows() > 0 {
                load.push(&table.codecs, &batch)?;
            }
        }
        merged.places.push((segment.id(), rows.into()));
    }
    merged.ended = ended.into_iter().collect();
    if load.rows() > 0 {
        merged.segment = Some(load.finish(db, table)?);
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

/// What came of the attempt to exchange segments.
enum Exchanged {
    /// The table is gone.
    Gone,
    /// The table has an index by now that the new segment has no run of.
    Lacks(Arc<TableVersion>, IndexDef),
    Logged(Logged),
}

/// Exchanges the segments; `None` if the table is gone. Indexes that are created while rows are merged get their runs before:
/// to look for a key in a segment without a run takes a commit as long as to read it.
fn put_in_place(
    db: &Inner,
    table: &TableVersion,
    shard: u32,
    old: &[Arc<Segment>],
    merged: &Merged,
    horizon: Csn,
) -> Result<Option<Logged>> {
    let mut runs: Vec<u32> = table.def.indexes.iter().map(|index| index.id).collect();
    loop {
        let (now, index) = match publish(db, table.def.id, shard, old, merged, horizon, &runs)? {
            Exchanged::Gone => return Ok(None),
            Exchanged::Logged(logged) => return Ok(Some(logged)),
            Exchanged::Lacks(now, index) => (now, index),
        };
        if let Some(segment) = &merged.segment {
            let whole = Segment { data: SegmentData::Cold(Arc::clone(segment)), tombstones: Tombstones::default() };
            segment.add_run(index.id, rows::segment_run(&now, &whole, &index)?)?;
        }
        runs.push(index.id);
    }
}

/// Exchanges the segments, if the new one has the `runs` of all indexes.
fn publish(
    db: &Inner,
    id: u64,
    shard: u32,
    old: &[Arc<Segment>],
    merged: &Merged,
    horizon: Csn,
    runs: &[u32],
) -> Result<Exchanged> {
    let mut state = db.commit.lock();
    db.check_writable()?;
    let mut next = state.version.as_ref().clone();
    let Some(table) = next.tables.get(&id) else { return Ok(Exchanged::Gone) };
    if let Some(index) = table.def.indexes.iter().find(|index| !runs.contains(&index.id)) {
        return Ok(Exchanged::Lacks(Arc::clone(table), index.clone()));
    }
    let history_from = if merged.removed_rows > 0 { next.history_from.max(horizon) } else { next.history_from };
    let change = Change::Replace(Replace {
        table: id,
        shard,
        removed: old.iter().map(|segment| segment.id()).collect(),
        added: merged.segment.as_ref().map(|segment| segment.meta.clone()),
        listed: Vec::new(),
        ended: late_tombstones(table, old, merged),
        history_from: history_from.0,
        file: merged.segment.clone(),
    });
    // A merge changes no row, so its number is that of the commit before it.
    let csn = next.csn;
    apply(&mut next, &change, csn, &db.files)?;
    let compaction = next.compactions;
    let logged = db.append(&mut state, next, change.record(0, csn)?, || ())?;
    for (from, rows) in &merged.places {
        let to = merged.segment.as_ref().map(|segment| segment.meta.id);
        state.moved.add(*from, Moved { compaction, to, rows: Arc::clone(rows) });
    }
    state.forget_moves(&db.snapshots, &db.publisher);
    if let Some(segment) = &merged.segment {
        db.files.drop_unknown_runs(&state.version.table(id)?.def, segment);
        db.pins.note(logged.lsn, segment.meta.key());
    }
    Ok(Exchanged::Logged(logged))
}

/// The ended rows of the new segment: those known when the merge began, and those that ended since.
fn late_tombstones(now: &TableVersion, old: &[Arc<Segment>], merged: &Merged) -> Tombstones {
    let mut ended = merged.ended.clone();
    for (before, (_, rows)) in old.iter().zip(&merged.places) {
        let Some(after) = now.segment(before.id()) else { continue };
        for (row, csn) in after.tombstones.since(&before.tombstones) {
            if let Some(place) = rows.get(row as usize).filter(|place| **place != GONE) {
                ended.insert(*place, csn);
            }
        }
    }
    ended
}
