//! What a transaction has written so far: rows in segments of its own, rows it ended, keys it holds. All of it is
//! persistent, so a savepoint is a copy of a few pointers.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt64Array},
    datatypes::{DataType, Field, Schema, UInt64Type},
    record_batch::RecordBatch,
};
use imbl::{OrdMap, OrdSet};

use super::{
    super::{
        bulk::BulkLoad,
        catalog::TableDef,
        database::Inner,
        mvcc::tombstones::Tombstones,
        shard::hot::HotSegment,
        stamps::Stamps,
        version::{DatabaseVersion, OVERLAY, SegmentData, TableVersion, UNCOMMITTED},
    },
    transaction::unique_violation,
};
use crate::{
    access::{Csn, RowId},
    error::{Error, ErrorKind, Result},
};

/// Rows per table and transaction that go through the log; beyond, rows go straight to segment files.
pub(crate) const BULK_ROWS: u64 = 65_536;

/// The state of a transaction.
#[derive(Debug)]
pub(crate) struct Writes {
    /// The database as the transaction sees it.
    pub(crate) working: DatabaseVersion,
    pub(crate) tables: OrdMap<u64, TableWrites>,
    savepoints: Vec<(DatabaseVersion, OrdMap<u64, TableWrites>)>,
    bulk: HashMap<(u64, u32), BulkLoad>,
}

/// What was written to one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableWrites {
    /// Committed rows that this transaction ends.
    pub(crate) ended: OrdSet<RowId>,
    /// Rows in overlay segments, ended ones included.
    pub(crate) overlay_rows: u64,
    /// Segments this transaction wrote to storage, each with its shard.
    pub(crate) attached: OrdMap<u32, u32>,
    /// Primary keys of overlay rows.
    keys: OrdMap<Vec<u8>, RowId>,
    /// Where the next batch goes in a table without a placement rule.
    next_shard: u32,
}

impl Writes {
    pub(crate) fn new(working: DatabaseVersion) -> Self {
        Self { working, tables: OrdMap::new(), savepoints: Vec::new(), bulk: HashMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.bulk.is_empty()
    }

    /// Whether rows are being encoded, or about `rows` of them were written to one table.
    pub(crate) fn is_large(&self, rows: usize) -> bool {
        let many = |table: &TableWrites| table.overlay_rows >= rows as u64 || table.ended.len() >= rows;
        !self.bulk.is_empty() || self.tables.values().any(many)
    }

    /// Adds rows; `versions` of `None` means new rows.
    pub(crate) fn insert(
        &mut self,
        db: &Inner,
        table: &str,
        rows: &RecordBatch,
        versions: Option<&[u64]>,
    ) -> Result<u64> {
        let id = self.working.catalog.table(table)?.id;
        let table = Arc::clone(self.working.table(id)?);
        let rows = conform(&table.def, rows)?;
        let count = rows.num_rows() as u64;
        let written = self.tables.get(&id).map_or(0, |writes| writes.overlay_rows);
        let bulk = versions.is_none() && written + count > BULK_ROWS;
        for (shard, rows, versions) in self.place(&table, &rows, versions)? {
            if bulk {
                self.load(db, &table, shard, &rows)?;
            } else {
                self.overlay(&table, shard, &rows, &versions)?;
            }
        }
        Ok(count)
    }

    /// Splits rows by shard, each part with the versions of its rows.
    fn place(
        &mut self,
        table: &TableVersion,
        rows: &RecordBatch,
        versions: Option<&[u64]>,
    ) -> Result<Vec<(u32, RecordBatch, Stamps)>> {
        let Some(router) = &table.codecs.router else {
            let writes = self.tables.entry(table.def.id).or_default();
            let shard = writes.next_shard % table.def.shards;
            writes.next_shard += 1;
            let versions = versions.map_or(Stamps::All(1), |versions| Stamps::Each(versions.into()));
            return Ok(vec![(shard, rows.clone(), versions)]);
        };
        let Some(versions) = versions else {
            return Ok(router.split(rows)?.into_iter().map(|(shard, rows)| (shard, rows, Stamps::All(1))).collect());
        };
        let stamped = with_versions(rows, versions)?;
        let parts = router.split(&stamped)?.into_iter().map(|(shard, part)| {
            let width = part.num_columns() - 1;
            let versions = part.column(width).as_primitive::<UInt64Type>().values().as_ref().into();
            let columns: Vec<_> = (0..width).collect();
            Ok((shard, part.project(&columns)?, Stamps::Each(versions)))
        });
        parts.collect()
    }

    fn load(&mut self, db: &Inner, table: &TableVersion, shard: u32, rows: &RecordBatch) -> Result<()> {
        let load = match self.bulk.entry((table.def.id, shard)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(BulkLoad::new(&table.def)?),
        };
        load.push(&table.codecs, rows)?;
        if load.is_full() {
            self.finish_load(db, table.def.id, shard)?;
        }
        Ok(())
    }

    fn finish_load(&mut self, db: &Inner, table: u64, shard: u32) -> Result<()> {
        let Some(load) = self.bulk.remove(&(table, shard)) else { return Ok(()) };
        let version = self.working.change_table(table, UNCOMMITTED)?;
        let segment = load.finish(db, version)?;
        let writes = self.tables.entry(table).or_default();
        writes.attached.insert(segment.meta.id, shard);
        version.shard_mut(shard)?.push(SegmentData::Cold(segment), Tombstones::default());
        Ok(())
    }

    /// Brings all rows into `working`.
    pub(crate) fn settle(&mut self, db: &Inner) -> Result<()> {
        let mut loads: Vec<_> = self.bulk.keys().copied().collect();
        loads.sort_unstable();
        loads.into_iter().try_for_each(|(table, shard)| self.finish_load(db, table, shard))
    }

    fn overlay(&mut self, table: &TableVersion, shard: u32, rows: &RecordBatch, versions: &Stamps) -> Result<()> {
        let id = OVERLAY + shard;
        let keys = match table.codecs.primary() {
            Some((index, encoder)) => {
                let columns: Vec<ArrayRef> =
                    index.columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
                Some((encoder, encoder.encode_columns(&columns)?))
            }
            None => None,
        };
        let version = self.working.change_table(table.def.id, UNCOMMITTED)?;
        if version.segment(id).is_none() {
            version.shard_mut(shard)?.push_hot(HotSegment::new(id, std::iter::empty()));
        }
        let segment = version.segment_mut(id).ok_or_else(|| Error::internal("a transaction lost its rows"))?;
        let tombstones = segment.tombstones.clone();
        let SegmentData::Hot(hot) = &mut segment.data else {
            return Err(Error::internal("a transaction's own rows are not in memory"));
        };
        let first = hot.rows;
        let writes = self.tables.entry(table.def.id).or_default();
        let mut held = writes.keys.clone();
        if let Some((encoder, keys)) = keys {
            for (row, key) in (first..).zip(keys.iter()) {
                let before = held.insert(key.to_vec(), RowId::new(id, row));
                if before.is_some_and(|before| tombstones.get(before.row()).is_none()) {
                    return Err(unique_violation(&table.def, super::super::catalog::PRIMARY, &encoder.display(key)));
                }
            }
        }
        hot.append(rows, 0, versions)?;
        writes.keys = held;
        writes.overlay_rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Ends rows, committed ones or the transaction's own.
    pub(crate) fn delete(&mut self, table: &str, rows: &[RowId]) -> Result<u64> {
        let id = self.working.catalog.table(table)?.id;
        let version = self.working.change_table(id, UNCOMMITTED)?;
        let writes = self.tables.entry(id).or_default();
        for rows in rows.chunk_by(|a, b| a.segment() == b.segment()) {
            let (first, number) = (rows[0], rows[0].segment());
            let segment = version.segment_mut(number);
            let segment = segment.ok_or_else(|| Error::invalid(format!("table '{table}' has no row {}", first.0)))?;
            let committed = number < OVERLAY && !writes.attached.contains_key(&number);
            for row in rows {
                if !segment.tombstones.insert(row.row(), Csn(0)) {
                    return Err(Error::invalid(format!("a statement changes row {} of table '{table}' twice", row.0)));
                }
                if committed {
                    writes.ended.insert(*row);
                }
            }
        }
        Ok(rows.len() as u64)
    }

    /// Replaces rows.
    pub(crate) fn update(&mut self, db: &Inner, table: &str, rows: &[RowId], new: &RecordBatch) -> Result<u64> {
        if rows.len() != new.num_rows() {
            return Err(Error::invalid(format!("{} rows cannot replace {} rows", new.num_rows(), rows.len())));
        }
        let version = self.working.table_named(table)?;
        let versions = rows.iter().map(|row| {
            let segment = version.segment(row.segment());
            let segment = segment.ok_or_else(|| Error::invalid(format!("table '{table}' has no row {}", row.0)))?;
            Ok(segment.row_version(row.row())? + 1)
        });
        let versions = versions.collect::<Result<Vec<_>>>()?;
        self.delete(table, rows)?;
        self.insert(db, table, new, Some(&versions))
    }

    /// The transaction's own row with this primary key.
    pub(crate) fn own_row(&self, table: u64, key: &[u8]) -> Option<RowId> {
        let row = *self.tables.get(&table)?.keys.get(key)?;
        let segment = self.working.tables.get(&table)?.segment(row.segment())?;
        segment.tombstones.get(row.row()).is_none().then_some(row)
    }

    pub(crate) fn savepoint(&mut self, db: &Inner) -> Result<usize> {
        self.settle(db)?;
        self.savepoints.push((self.working.clone(), self.tables.clone()));
        Ok(self.savepoints.len() - 1)
    }

    pub(crate) fn rollback_to(&mut self, savepoint: usize) -> Result<()> {
        let kept = self.savepoints.get(savepoint).cloned();
        let (working, tables) = kept.ok_or_else(|| no_savepoint(savepoint))?;
        self.savepoints.truncate(savepoint + 1);
        self.bulk.clear();
        self.discard_attached(&tables);
        (self.working, self.tables) = (working, tables);
        Ok(())
    }

    /// Forgets a savepoint and all later ones.
    pub(crate) fn release(&mut self, savepoint: usize) -> Result<()> {
        if savepoint >= self.savepoints.len() {
            return Err(no_savepoint(savepoint));
        }
        self.savepoints.truncate(savepoint);
        Ok(())
    }

    pub(crate) fn savepoints(&self) -> usize {
        self.savepoints.len()
    }

    /// Lets go of the files of segments that are not in `kept`.
    pub(crate) fn discard_attached(&self, kept: &OrdMap<u64, TableWrites>) {
        for (id, writes) in &self.tables {
            let kept = kept.get(id).map(|writes| &writes.attached);
            let Some(table) = self.working.tables.get(id) else { continue };
            let gone = |segment: &&u32| kept.is_none_or(|kept| !kept.contains_key(*segment));
            for segment in writes.attached.keys().filter(gone) {
                if let Some(cold) = table.segment(*segment).and_then(|segment| segment.cold()) {
                    cold.mark_obsolete();
                }
            }
        }
    }
}

fn no_savepoint(savepoint: usize) -> Error {
    Error::invalid(format!("savepoint {savepoint} does not exist"))
}

/// The rows as the table's schema wants them, or what is wrong with them.
fn conform(table: &TableDef, rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = &table.schema;
    if rows.num_columns() != schema.fields().len() {
        return Err(Error::invalid(format!(
            "table '{}' has {} columns, not {}",
            table.name,
            schema.fields().len(),
            rows.num_columns()
        )));
    }
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        if field.data_type() != column.data_type() {
            return Err(Error::invalid(format!(
                "column '{}' of table '{}' has type {}, not {}",
                field.name(),
                table.name,
                field.data_type(),
                column.data_type()
            )));
        }
        if !field.is_nullable() && column.logical_null_count() > 0 {
            return Err(Error::new(
                ErrorKind::NotNullViolation,
                format!("column '{}' of table '{}' must not be NULL", field.name(), table.name),
            ));
        }
    }
    let columns = rows.columns().iter().map(own_strings).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// A string view column without the buffers of the batch it was cut from, which would go to the log with it.
fn own_strings(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => {
            let views = column.as_string_view();
            let held: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
            if held > 2 * views.total_buffer_bytes_used() { Arc::new(views.gc()) } else { Arc::clone(column) }
        }
        DataType::BinaryView => {
            let views = column.as_binary_view();
            let held: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
            if held > 2 * views.total_buffer_bytes_used() { Arc::new(views.gc()) } else { Arc::clone(column) }
        }
        _ => Arc::clone(column),
    }
}

fn with_versions(rows: &RecordBatch, versions: &[u64]) -> Result<RecordBatch> {
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__row_version", DataType::UInt64, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from(versions.to_vec())));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
