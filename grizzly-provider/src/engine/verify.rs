//! Proof that what is stored is what was written: checksums, decodability, and indexes against rows.

use std::{collections::HashMap, sync::Arc};

use arrow::array::Array;
use grizzly_wal::{Known, Lsn};

use super::{
    backup::pins::Pins,
    cluster::lease,
    core::Inner,
    index::IndexRun,
    manifest::{LOG_DIR, Manifest},
    rows,
    segment::meta::DATA_DIR,
    txn::conflict,
    version::{Segment, SegmentData, TableVersion},
};
use crate::error::Result;

/// What [`crate::Grizzly::verify`] looked at, and what it found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Tables.
    pub tables: u64,
    /// Segment files read from storage.
    pub segments: u64,
    /// Column chunks whose checksum was compared and that were decoded.
    pub chunks: u64,
    /// Index entries that were compared with the rows.
    pub index_entries: u64,
    /// Records of the log.
    pub log_records: u64,
    /// Where the log ends within a record, naming file and byte: what a crash leaves. Nothing acknowledged is missing
    /// there, though damage to the last records before a crash looks the same. Empty after a proper close.
    pub torn: Vec<String>,
    /// What is wrong, one line each, naming file and place; empty if all is well.
    pub problems: Vec<String>,
}

pub(super) fn verify(db: &Inner) -> Result<VerifyReport> {
    db.check_open()?;
    let version = db.publisher.current();
    let mut report = VerifyReport { torn: db.torn.lock().clone(), ..VerifyReport::default() };
    verify_records(db, &mut report)?;
    let sizes: HashMap<String, u64> =
        db.storage.list(DATA_DIR)?.into_iter().map(|file| (file.path, file.size)).collect();
    for table in version.tables.values() {
        report.tables += 1;
        for (shard, segment) in table.segments() {
            verify_segment(table, segment, &sizes, &mut report);
            for (index, _) in &table.codecs.keys {
                if let Err(error) = verify_index(table, segment, index.id, &mut report) {
                    let (name, id) = (&table.def.name, segment.id());
                    report
                        .problems
                        .push(format!("table '{name}' shard {shard} segment {id} index '{}': {error}", index.name));
                }
            }
            verify_not_null(table, segment, &mut report);
        }
        verify_unique(table, &mut report);
    }
    Ok(report)
}

/// NOT NULL columns without NULLs, in rows that have ended, too.
fn verify_not_null(table: &TableVersion, segment: &Segment, report: &mut VerifyReport) {
    for (column, field) in table.def.schema.fields().iter().enumerate().filter(|(_, field)| !field.is_nullable()) {
        let nulls: u64 = match &segment.data {
            SegmentData::Cold(cold) => cold.file.footer().columns.get(column).map_or(0, |summary| summary.nulls),
            SegmentData::Hot(hot) => {
                hot.chunks.iter().map(|chunk| chunk.batch.column(column).logical_null_count() as u64).sum()
            }
        };
        if nulls > 0 {
            let (table, segment) = (table.def.display_name(), segment.id());
            let column = field.name();
            report.problems.push(format!(
                "table '{table}' segment {segment}: column '{column}' is NOT NULL and has {nulls} NULLs"
            ));
        }
    }
}

/// No two live rows with one key in a unique index.
fn verify_unique(table: &TableVersion, report: &mut VerifyReport) {
    for (index, encoder) in table.codecs.keys.iter().filter(|(index, _)| index.unique) {
        let runs = table
            .segments()
            .map(|(_, segment)| Ok((conflict::run_of(table, segment, index)?, segment.tombstones.clone())));
        let checked =
            runs.collect::<Result<Vec<_>>>().and_then(|runs| conflict::check_own(table, index, encoder, &runs));
        report.problems.extend(checked.err().map(|error| error.to_string()));
    }
}

/// Manifests, positions of backups, and the log.
fn verify_records(db: &Inner, report: &mut VerifyReport) -> Result<()> {
    report.problems.extend(Manifest::verify(&db.storage)?);
    report.problems.extend(Pins::verify(&db.storage, db.identity)?);
    report.problems.extend(lease::verify(db.storage.as_ref(), db.identity)?);
    // One that cannot be read is among the problems already.
    let Ok(Some(manifest)) = Manifest::load(&db.storage) else { return Ok(()) };
    if manifest.database != db.identity {
        let (found, ours) = (manifest.database, db.identity);
        report.problems.push(format!("the newest manifest is that of database {found}, and this is {ours}"));
    } else {
        let needed = Lsn(manifest.replay_from);
        let wanted = db.pins.keep_from(needed, db.settings.backup_window);
        let log = grizzly_wal::check_log(&db.storage, LOG_DIR, needed, wanted, known_log(db, &manifest))?;
        report.log_records = log.records;
        let known = db.torn.lock().clone();
        report.torn.extend(log.torn.into_iter().filter(|torn| !known.contains(torn)));
        report.problems.extend(log.problem);
    }
    verify_ended(db, &manifest, report);
    Ok(())
}

/// What must be in the log: what the manifest, the lease and the log itself say was durable.
fn known_log(db: &Inner, manifest: &Manifest) -> Known {
    let known = manifest.known_log();
    // A lease that cannot be read is among the problems already.
    let known = lease::known_log(db.storage.as_ref(), db.identity).map_or(known, |leased| known.and(leased));
    // One that failed ends where the next one begins, which is not read here.
    let log = db.wal.load_full().filter(|log| log.poisoned().is_none());
    log.map_or(known, |log| known.and(log.known()))
}

/// The lists of ended rows that the checkpoint names.
fn verify_ended(db: &Inner, manifest: &Manifest, report: &mut VerifyReport) {
    let version = db.publisher.current();
    for (id, shards) in &manifest.tables {
        for entry in shards.iter().flatten() {
            let table = version.tables.get(id);
            let cold = table.and_then(|table| table.segment(entry.meta.id)).and_then(|segment| segment.cold());
            let (Some(cold), Some(path)) = (cold, &entry.tombstones) else { continue };
            let Err(error) = entry.read_list(&db.storage, path, cold) else { continue };
            // A newer list may have replaced it meanwhile.
            let replaced = Manifest::newest(&db.storage).is_ok_and(|newest| newest != manifest.number);
            if !replaced {
                report.problems.push(error.to_string());
            }
        }
    }
}

/// Every byte of a segment's file, which has as many as were written.
fn verify_segment(table: &TableVersion, segment: &Segment, sizes: &HashMap<String, u64>, report: &mut VerifyReport) {
    let SegmentData::Cold(cold) = &segment.data else { return };
    report.segments += 1;
    let (path, written) = (cold.meta.path(), cold.meta.file_bytes);
    // One that is not listed was made a moment ago, or reading it fails below.
    if let Some(size) = sizes.get(&path).filter(|size| **size != written) {
        report
            .problems
            .push(format!("table '{}': {path} has {size} bytes, but {written} were written", table.def.name));
    }
    match cold.file.verify() {
        Ok(file) => {
            report.chunks += file.blobs;
            report
                .problems
                .extend(file.problems.iter().map(|problem| format!("table '{}': {problem}", table.def.name)));
        }
        Err(error) => report.problems.push(format!("table '{}': {error}", table.def.name)),
    }
}

/// Compares an index with a run made afresh from the rows.
fn verify_index(table: &TableVersion, segment: &Segment, index: u32, report: &mut VerifyReport) -> Result<()> {
    let stored = match &segment.data {
        SegmentData::Cold(cold) => {
            cold.forget_run(index);
            cold.run(index)?
        }
        SegmentData::Hot(hot) => hot.run(index).map(Arc::new),
    };
    let Some(stored) = stored else { return Ok(()) };
    let Some((def, encoder)) = table.codecs.keys.iter().find(|(def, _)| def.id == index) else { return Ok(()) };
    let expected = rows::segment_run(table, segment, def)?;
    report.index_entries += expected.len() as u64;
    let collect = |run: &IndexRun| {
        let mut entries: Vec<(Vec<u8>, u32)> = Vec::with_capacity(run.len());
        run.for_each(&super::key::KeyRange::full(), &mut |key, row| {
            entries.push((key.to_vec(), row));
            std::ops::ControlFlow::Continue(())
        });
        entries
    };
    let (stored, mut expected) = (collect(&stored), collect(&expected));
    expected.sort_unstable();
    let differing = stored.iter().zip(&expected).find(|(stored, expected)| stored != expected);
    if let Some((_, (key, row))) = differing {
        report.problems.push(format!(
            "table '{}' segment {} index '{}' differs from the rows at key {} row {row}",
            table.def.name,
            segment.id(),
            def.name,
            encoder.display(key)
        ));
    } else if stored.len() != expected.len() {
        report.problems.push(format!(
            "table '{}' segment {} index '{}' has {} entries for {} rows",
            table.def.name,
            segment.id(),
            def.name,
            stored.len(),
            expected.len()
        ));
    }
    Ok(())
}
