//! Tables, rows and readers that the tests share.

use std::{fs, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringViewArray},
    compute::concat_batches,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use grizzly_provider::{
    Grizzly, Result, Settings, Snapshot,
    access::{Predicate, RowId, ScanRequest, SystemColumn, TableDefinition},
    storage::Storage,
};

use super::gate::Gate;

/// `id BIGINT PRIMARY KEY, grp BIGINT, name VARCHAR`.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("grp", DataType::Int64, true),
        Field::new("name", DataType::Utf8View, true),
    ]))
}

pub(crate) fn definition(name: &str, shards: u32) -> TableDefinition {
    TableDefinition {
        schema_name: "public".into(),
        name: name.into(),
        schema: schema(),
        primary_key: vec!["id".into()],
        shards,
        shard_by: vec![],
        defaults: vec![],
        indexes: vec![],
    }
}

/// Settings under which nothing happens unless a test asks for it.
pub(crate) fn manual() -> Settings {
    Settings { background: false, ..Settings::default() }
}

/// A private database in memory with one table `t`.
pub(crate) fn database(shards: u32) -> Result<Grizzly> {
    let db = Grizzly::builder("memory://").settings(manual()).open()?;
    db.create_table(definition("t", shards), false)?;
    Ok(db)
}

/// The same behind a gate, and the storage behind that.
pub(crate) fn gated() -> Result<(Grizzly, Gate, Arc<dyn Storage>)> {
    let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
    let gate = Gate::new(Arc::clone(&storage));
    let db = Grizzly::builder("memory://").settings(manual()).storage(Arc::new(gate.clone())).open()?;
    db.create_table(definition("t", 1), false)?;
    Ok((db, gate, storage))
}

/// Rows `(id, grp, "name-{id}")`.
pub(crate) fn rows(values: impl IntoIterator<Item = (i64, i64)>) -> RecordBatch {
    let (ids, groups): (Vec<i64>, Vec<i64>) = values.into_iter().unzip();
    let names: StringViewArray = ids.iter().map(|id| Some(format!("name-{id}-and-some-more-text"))).collect();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(ids)), Arc::new(Int64Array::from(groups)), Arc::new(names)];
    RecordBatch::try_new(schema(), columns).expect("the columns fit the schema")
}

pub(crate) fn key(id: i64) -> [ArrayRef; 1] {
    [Arc::new(Int64Array::from(vec![id]))]
}

/// All batches of a request.
pub(crate) fn scan(snapshot: &Snapshot, table: &str, request: &ScanRequest) -> Result<RecordBatch> {
    let scan = snapshot.table(table)?.scan(request)?;
    let mut batches = Vec::new();
    for morsel in scan.morsels() {
        batches.extend(scan.read(morsel, None)?);
    }
    Ok(concat_batches(&scan.schema(), &batches)?)
}

/// `(id, grp)` of the rows that match, by id.
pub(crate) fn pairs(snapshot: &Snapshot, table: &str, predicate: Option<Predicate>) -> Result<Vec<(i64, i64)>> {
    let request = ScanRequest { projection: vec![0, 1], predicate, ..ScanRequest::default() };
    let batch = scan(snapshot, table, &request)?;
    let (ids, groups) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
    let mut pairs: Vec<(i64, i64)> = (0..ids.len()).map(|row| (ids.value(row), groups.value(row))).collect();
    pairs.sort_unstable();
    Ok(pairs)
}

/// `(id, row_version, row id)` of all visible rows, by id.
pub(crate) fn versions(snapshot: &Snapshot, table: &str) -> Result<Vec<(i64, u64, RowId)>> {
    let width = schema().fields().len();
    let projection = vec![0, width + SystemColumn::RowVersion as usize, width + SystemColumn::RowId as usize];
    let batch = scan(snapshot, table, &ScanRequest { projection, ..ScanRequest::default() })?;
    let ids = batch.column(0).as_primitive::<Int64Type>();
    let versions = batch.column(1).as_primitive::<arrow::datatypes::UInt64Type>();
    let places = batch.column(2).as_primitive::<arrow::datatypes::UInt64Type>();
    let mut all: Vec<_> =
        (0..ids.len()).map(|row| (ids.value(row), versions.value(row), RowId(places.value(row)))).collect();
    all.sort_unstable();
    Ok(all)
}

/// A folder with all that is in it, somewhere else.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("it is a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("it can be copied")),
        }
    }
}
