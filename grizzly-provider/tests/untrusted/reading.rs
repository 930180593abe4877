//! Opening a database, verifying it, and reading all of it in every way; and what must come of that.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int64Type;
use grizzly_provider::access::{AccessPath, ColumnTest, CompareOp, KeyRange, Predicate, ScanRequest};
use grizzly_provider::{ErrorKind, Grizzly, Result, Snapshot};
use serde_json::Value;

use crate::database::{Files, Kind, build, settings};
use crate::forge::{checksum_of_list, checksummed, forge};
use crate::harness::{Choices, damage, holds, took};

/// What a database holds: each table's rows by key.
type Contents = Vec<(String, RecordBatch)>;

/// A database as it should be, and one like it whose bytes differ.
pub(crate) struct Sound {
    pub(crate) files: Files,
    other: Files,
    contents: Contents,
    /// Bytes of its rows, and what reading all of it takes.
    input: usize,
}

fn prepare(files: Files, other: Files) -> Sound {
    let content = || {
        let db = open(&files).expect("it is sound");
        let problems = db.verify().expect("it can be verified").problems;
        assert!(problems.is_empty(), "{problems:?}");
        let (contents, same) = answers(&db).expect("it can be read");
        assert!(same, "its own answers differ");
        contents
    };
    drop(content());
    let (contents, bytes) = took(content);
    Sound { input: files.bytes() + bytes, contents, files, other }
}

pub(crate) fn open(files: &Files) -> Result<Grizzly> {
    Grizzly::builder("memory://").settings(settings()).storage(files.storage()).open()
}

fn scan(snapshot: &Snapshot, table: &str, request: &ScanRequest) -> Result<RecordBatch> {
    let scan = snapshot.table(table)?.scan(request)?;
    let mut batches = Vec::new();
    for morsel in scan.morsels() {
        batches.extend(scan.read(morsel, None)?);
    }
    Ok(concat_batches(&scan.schema(), &batches)?)
}

/// By the first column.
fn sorted(batch: &RecordBatch) -> Result<RecordBatch> {
    let ids = batch.column(0).as_primitive_opt::<Int64Type>().map(|ids| ids.values().to_vec()).unwrap_or_default();
    let mut rows: Vec<u32> = (0..).take(batch.num_rows()).collect();
    rows.sort_by_key(|row| ids.get(*row as usize));
    Ok(take_record_batch(batch, &UInt32Array::from(rows))?)
}

fn contents(snapshot: &Snapshot) -> Result<Contents> {
    let mut contents = Vec::new();
    for schema in snapshot.schema_names() {
        for table in snapshot.table_names(&schema) {
            let name = format!("{schema}.{table}");
            let width = snapshot.table(&name)?.schema().fields().len();
            let request = ScanRequest { projection: (0..width).collect(), ..ScanRequest::default() };
            contents.push((name.clone(), sorted(&scan(snapshot, &name, &request)?)?));
            // Also what has ended, with commits and versions.
            let request = ScanRequest { projection: (0..width + 5).collect(), all_versions: true, ..request };
            drop(scan(snapshot, &name, &request)?);
        }
    }
    Ok(contents)
}

/// What it holds, and whether all ways to the same rows lead to the same rows.
fn answers(db: &Grizzly) -> Result<(Contents, bool)> {
    let snapshot = db.snapshot();
    let mut same = true;
    let contents = contents(&snapshot)?;
    for (name, all) in &contents {
        let table = snapshot.table(name)?;
        drop((table.statistics(), table.shards(), table.exact_bounds(0)));
        same &= table.row_count() == all.num_rows() as u64;
        let Some(ids) = all.columns().first().and_then(|ids| ids.as_primitive_opt::<Int64Type>()) else { continue };
        for column in 0..all.num_columns() {
            if let Some((_, _, values)) = table.exact_bounds(column) {
                same &= values == (all.num_rows() - all.column(column).logical_null_count()) as u64;
            }
        }
        for row in (0..all.num_rows()).step_by(all.num_rows() / 8 + 1) {
            let key: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![ids.value(row)]))];
            same &= db.get(name, &key)?.is_some_and(|found| found == all.slice(row, 1));
        }
        for column in 0..all.num_columns().min(2) {
            let values = all.column(column).as_primitive_opt::<Int64Type>();
            let Some(value) = values.and_then(|values| values.iter().flatten().nth(values.len() / 2)) else { continue };
            same &= found(&snapshot, name, all, column, value)?;
        }
    }
    Ok((contents, same))
}

/// Whether the rows with this value, or a smaller one, are found by zone maps, encodings and indexes.
fn found(snapshot: &Snapshot, name: &str, all: &RecordBatch, column: usize, value: i64) -> Result<bool> {
    let table = snapshot.table(name)?;
    let literal: ArrayRef = Arc::new(Int64Array::from(vec![value]));
    let values = all.column(column).as_primitive::<Int64Type>();
    let mut same = true;
    for op in [CompareOp::Eq, CompareOp::LtEq] {
        let fits = |found: i64| if op == CompareOp::Eq { found == value } else { found <= value };
        let expected = values.iter().flatten().filter(|found| fits(*found)).count();
        let test = ColumnTest::Compare { op, value: Arc::clone(&literal) };
        let predicate = Some(Predicate::Test { column, test });
        let request = ScanRequest { projection: vec![0, column], predicate, ..ScanRequest::default() };
        same &= scan(snapshot, name, &request)?.num_rows() == expected;
        let index = if column == 0 { "primary" } else { "by_group" };
        if op == CompareOp::Eq && table.indexes().iter().any(|known| known.name.as_ref() == index) {
            let lower = table.index_key(index, std::slice::from_ref(&literal))?;
            let upper = table.index_key(index, &[Arc::new(Int64Array::from(vec![value + 1]))])?;
            let ranges =
                [KeyRange { lower: std::ops::Bound::Included(lower), upper: std::ops::Bound::Excluded(upper) }];
            std::hint::black_box(table.estimate_index_rows(index, &ranges, None));
            let access = AccessPath::Index { index: index.into(), ranges: ranges.into() };
            same &= scan(snapshot, name, &ScanRequest { access, ..request })?.num_rows() == expected;
        }
    }
    Ok(same)
}

/// Reads a database of which one file is not what was written. Unless that was `forged` with its checksums, it must be
/// noticed, or nothing be different.
pub(crate) fn read_everything(sound: &Sound, files: &Files, forged: bool, write: bool) {
    let storage = files.storage();
    holds(sound.input + files.bytes(), || {
        let db = Grizzly::builder("memory://").settings(settings()).storage(storage).open();
        let db = match db {
            Ok(db) => db,
            Err(error) => return assert_ne!(error.kind(), ErrorKind::Internal, "{error}"),
        };
        let verified = db.verify();
        let says_sound = verified.as_ref().is_ok_and(|report| report.problems.is_empty());
        match answers(&db) {
            _ if !says_sound => {}
            Ok((read, same)) => {
                assert!(same, "its answers differ, and nothing is wrong with it");
                assert!(forged || read == sound.contents, "other rows, and nothing is wrong");
            }
            Err(error) => assert_eq!(error.to_string(), "", "nothing is wrong with it"),
        }
        // What can be read can be written. Encoding takes longer than all the rest.
        if write {
            drop(db.flush());
        }
        drop(db.close());
    });
}

pub(crate) fn small() -> &'static Sound {
    static SMALL: OnceLock<Sound> = OnceLock::new();
    SMALL.get_or_init(|| of_size(50))
}

fn large() -> &'static Sound {
    static LARGE: OnceLock<Sound> = OnceLock::new();
    LARGE.get_or_init(|| of_size(700))
}

fn of_size(size: i64) -> Sound {
    let built = |shift| build(shift, size).expect("memory takes it");
    prepare(built(0), built(5))
}

/// A database with one damaged file of this kind.
pub(crate) fn damaged(kind: Kind, case: &[u8]) {
    // Few rows are encoded in few ways, and fill one block of an index.
    let sound = match kind {
        Kind::Segment | Kind::Run => large(),
        _ => small(),
    };
    one_damaged(sound, kind, &mut Choices::new(case), false);
}

fn one_damaged(sound: &Sound, kind: Kind, choices: &mut Choices<'_>, unnamed: bool) {
    let paths = sound.files.paths(kind);
    let at = choices.below(paths.len());
    let path = &paths[at];
    let others = sound.other.paths(kind);
    let other = others.get(at).and_then(|path| sound.other.0.get(path)).cloned().unwrap_or_default();
    let mut files = sound.files.clone();
    let bytes = sound.files.0[path].clone();
    let how = choices.byte();
    let mut forged = how >= 64 || unnamed;
    let new = match how {
        0..4 => choices.rest().to_vec(),
        4..60 => {
            let mut bytes = bytes;
            damage(&mut bytes, &other, choices);
            bytes
        }
        // Another name, or another file of this database under this name.
        60..64 => {
            let swapped = files.0.insert(paths[choices.below(paths.len())].clone(), bytes.clone());
            swapped.unwrap_or(bytes)
        }
        _ => match forge(kind, &bytes, &other, choices) {
            Some(bytes) => bytes,
            None => return,
        },
    };
    // What one process leaves for others, and older manifests, may be missing.
    forged |= matches!(kind, Kind::Word | Kind::Manifest) && new.is_empty();
    if forged {
        name(&mut files, kind, path, &new);
    }
    files.0.insert(path.clone(), new);
    read_everything(sound, &files, forged, choices.byte() % 16 == 1);
}

/// Has the manifests say that this is the file that was written.
fn name(files: &mut Files, kind: Kind, path: &str, bytes: &[u8]) {
    for manifest in files.paths(Kind::Manifest) {
        let text = files.0[&manifest].clone();
        let Ok(mut json) = serde_json::from_slice::<Value>(&text[..text.len() - 9]) else { continue };
        let tables = json["tables"].as_object_mut().into_iter().flat_map(|tables| tables.values_mut());
        let shards = tables.filter_map(Value::as_array_mut).flatten().filter_map(Value::as_array_mut);
        for entry in shards.flatten() {
            let segment = format!("data/{:08x}.", entry["id"].as_u64().unwrap_or_default());
            match kind {
                Kind::Ended if entry["tombstones"] == *path => {
                    entry["tombstones_crc"] = checksum_of_list(bytes).into();
                }
                Kind::Segment if path.starts_with(&segment) => entry["file_bytes"] = bytes.len().into(),
                _ => {}
            }
        }
        files.0.insert(manifest, checksummed(json.to_string().as_bytes()));
    }
}

/// Files of format 1, which do not say what they are.
pub(crate) fn earlier(case: &[u8]) {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    let sound = SOUND.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1");
        let files = Files::of_folder(&folder);
        prepare(files.clone(), files)
    });
    let mut choices = Choices::new(case);
    let kinds = [Kind::Manifest, Kind::Segment, Kind::Run, Kind::Ended, Kind::Log];
    // One may stand for another, and what is missing at the end of the log is not missed.
    one_damaged(sound, kinds[choices.below(kinds.len())], &mut choices, true);
}
