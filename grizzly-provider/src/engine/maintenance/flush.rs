//! A checkpoint: hot rows become segment files, and the log before it can go.
//!
//! Sealing takes the commit lock for a moment; writing the files does not. Rows keep their segment and row numbers,
//! so transactions that are open meanwhile notice nothing.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use arrow::array::{ArrayRef, RecordBatch};
use grizzly_wal::{Lsn, Wal};

use super::{
    super::{
        alone::begin::begin_to_write,
        bulk::make_segment,
        catalog::IndexDef,
        core::Inner,
        index::IndexRun,
        made::MadeSegment,
        manifest::{FORMAT, LogEnd, Manifest, SegmentEntry},
        rows,
        segment::{cold::ColdSegment, meta::file_schema},
        shard::hot::HotSegment,
        version::{DatabaseVersion, Segment, SegmentData, TableVersion},
    },
    collect,
};
use crate::error::Result;

/// A hot segment that a checkpoint turns into a file.
struct Sealed {
    table: u64,
    segment: u32,
}

/// Writes everything committed so far to segment files and a manifest, and cuts the log that no backup needs.
pub(crate) fn checkpoint(db: &Inner) -> Result<()> {
    begin_to_write(db);
    let one_at_a_time = db.checkpoint.lock();
    db.check_writable()?;
    let log = db.log()?;
    let (version, sealed, replay_from) = seal(db, &log)?;
    // What goes into files must not be ahead of the log: a commit whose sync fails was never there.
    log.wait_split(replay_from)?;
    if replay_from.0 > 1 {
        log.wait_durable(Lsn(replay_from.0 - 1))?;
    }
    let mut files = BTreeMap::new();
    for Sealed { table, segment } in &sealed {
        let table = version.table(*table)?;
        if let Some(hot) = table.segment(*segment).and_then(|segment| segment.hot()) {
            let file = db.checkpoints.file(*segment);
            let file = file.map_or_else(|| write_hot(db, table, hot), |file| add_missing_runs(&file, table, hot))?;
            files.insert(*segment, file);
        }
    }
    let number = db.checkpoints.begin();
    let keep_from = db.pins.keep_from(replay_from, db.settings.backup_window);
    let manifest = manifest(db, &version, &files, keep_from..replay_from, log.known().into(), number)?;
    manifest.store(&db.storage)?;
    // Stored while this was the writer, it is the one that any other begins with. Only then what it does not name
    // may go, however late that happens.
    db.check_lease()?;
    db.pins.forget_before(keep_from);
    adopt(db, &log, &sealed, &files)?;
    // What an attempt before this has written of tables that are gone by now.
    db.retire(db.checkpoints.adopted().into_iter().filter(|(id, _)| !files.contains_key(id)).map(|(_, file)| file));
    db.signals.flushed();
    drop(one_at_a_time);
    // It is done. What is superfluous now the next one removes if this does not.
    if let Err(error) = remove_superfluous(db, &log, keep_from, &manifest) {
        tracing::warn!(%error, url = db.url, "what a checkpoint has replaced cannot be removed; the next one tries again");
    }
    Ok(())
}

/// After a checkpoint, and not under its lock: a log that was kept for long may be many objects.
fn remove_superfluous(db: &Inner, log: &Wal, keep_from: Lsn, manifest: &Manifest) -> Result<()> {
    log.truncate_before(keep_from)?;
    Manifest::prune(&db.storage)?;
    let _one_at_a_time = db.checkpoint.lock();
    // Another one may have come meanwhile, and named what this one does not.
    if db.checkpoints.is_last(manifest.number) { collect::release_obsolete(db, manifest) } else { Ok(()) }
}

/// Ends all growing segments, and the log file as soon as it can be; returns the version at that moment. Commits that come
/// meanwhile do not wait for the new file.
fn seal(db: &Inner, log: &Wal) -> Result<(Arc<DatabaseVersion>, Vec<Sealed>, Lsn)> {
    let mut state = db.commit.lock();
    let mut next = state.version.as_ref().clone();
    let mut sealed = Vec::new();
    let tables: Vec<u64> = next.tables.keys().copied().collect();
    for id in tables {
        let has_hot = next.table(id)?.segments().any(|(_, segment)| segment.hot().is_some());
        let hot = if has_hot { next.table_mut(id)?.seal() } else { Vec::new() };
        sealed.extend(hot.into_iter().map(|segment| Sealed { table: id, segment }));
    }
    let replay_from = log.split()?;
    state.version = Arc::new(next);
    Ok((Arc::clone(&state.version), sealed, replay_from))
}

fn write_hot(db: &Inner, table: &TableVersion, hot: &HotSegment) -> Result<Arc<ColdSegment>> {
    let made = db.checkpoints.made(hot.id).map_or_else(|| make_hot(db, table, hot), |made| Ok(*made))?;
    let segment = made.put(&db.files, table).map_err(|(made, error)| db.checkpoints.not_stored(hot.id, made, error))?;
    db.checkpoints.keep(hot.id, &segment);
    for (index, _) in &table.codecs.keys {
        segment.add_run(index.id, hot_run(table, hot, index)?)?;
    }
    Ok(segment)
}

fn make_hot(db: &Inner, table: &TableVersion, hot: &HotSegment) -> Result<MadeSegment> {
    let schema = file_schema(&table.def.schema, true, true);
    let batches = hot.chunks.iter().map(|chunk| {
        let mut columns: Vec<ArrayRef> = chunk.batch.columns().to_vec();
        columns.push(chunk.created.column(0..chunk.rows()));
        columns.push(chunk.versions.column(0..chunk.rows()));
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    });
    make_segment(db, table, hot.id, batches)
}

/// A file that a checkpoint before has written, with runs of indexes that were created since.
fn add_missing_runs(file: &Arc<ColdSegment>, table: &TableVersion, hot: &HotSegment) -> Result<Arc<ColdSegment>> {
    for (index, _) in &table.codecs.keys {
        if file.run(index.id)?.is_none() {
            file.add_run(index.id, hot_run(table, hot, index)?)?;
        }
    }
    Ok(Arc::clone(file))
}

fn hot_run(table: &TableVersion, hot: &HotSegment, index: &IndexDef) -> Result<IndexRun> {
    match hot.run(index.id) {
        Some(run) => Ok(run),
        None => {
            let whole = Segment { data: SegmentData::Hot(hot.clone()), tombstones: Default::default() };
            rows::segment_run(table, &whole, index)
        }
    }
}

fn manifest(
    db: &Inner,
    version: &DatabaseVersion,
    files: &BTreeMap<u32, Arc<ColdSegment>>,
    kept: Range<Lsn>,
    log: LogEnd,
    number: u64,
) -> Result<Manifest> {
    let writer = db.file_epoch()?;
    let mut tables = BTreeMap::new();
    for (id, table) in &version.tables {
        let mut shards = Vec::new();
        for shard in &table.shards {
            let mut entries = Vec::new();
            for segment in &shard.segments {
                let Some(cold) = segment.cold().or_else(|| files.get(&segment.id())) else { continue };
                let list = db.checkpoints.list(&db.storage, (number, writer), segment, cold)?;
                let (tombstones, tombstones_crc) = list.map(|list| (list.path, list.crc)).unzip();
                entries.push(SegmentEntry { meta: cold.meta.clone(), tombstones, tombstones_crc });
            }
            shards.push(entries);
        }
        tables.insert(*id, shards);
    }
    Ok(Manifest {
        format: FORMAT,
        database: db.identity,
        number,
        epoch: db.epoch.load(Ordering::Acquire),
        csn: version.csn.0,
        history_from: version.history_from.0,
        replay_from: kept.end.0,
        next_segment: db.peek_segment_id(),
        catalog: version.catalog.as_ref().clone(),
        tables,
        named_by_log: db.pins.named_in(kept),
        log: Some(log),
    })
}

/// Puts the files in the place of the hot segments, with the rows that have ended meanwhile.
fn adopt(db: &Inner, log: &Wal, sealed: &[Sealed], files: &BTreeMap<u32, Arc<ColdSegment>>) -> Result<()> {
    let mut state = db.commit.lock();
    let mut next = state.version.as_ref().clone();
    for Sealed { table, segment } in sealed {
        let Some(file) = files.get(segment) else { continue };
        if !next.tables.contains_key(table) {
            // Dropped meanwhile: the manifest just stored names the file, and the next one will not.
            db.retire([Arc::clone(file)]);
            continue;
        }
        let table = next.table_mut(*table)?;
        db.files.drop_unknown_runs(&table.def, file);
        if let Some(segment) = table.segment_mut(*segment) {
            segment.data = SegmentData::Cold(Arc::clone(file));
        }
    }
    db.republish(log, &mut state, next);
    Ok(())
}
