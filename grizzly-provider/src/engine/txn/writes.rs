//! What a transaction has written so far: rows in segments of its own, rows it ended, keys it holds. All of it is
//! persistent, so a savepoint is a copy of a few pointers.

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt64Array},
    datatypes::{DataType, Field, Schema, UInt64Type},
    record_batch::RecordBatch,
};
use imbl::OrdMap;

use super::{
    super::{
        bulk::BulkLoad,
        catalog::{CatalogChange, TableDef},
        core::Inner,
        made::FileStamps,
        mvcc::{row_set::TableRows, tombstones::Tombstones},
        segment::{CHUNK_ROWS, Charge, cold::ColdSegment, meta::OVERLAY},
        shard::hot::HotSegment,
        stamps::Stamps,
        version::{DatabaseVersion, SegmentData, Stamp, TableVersion, UNCOMMITTED, apply},
    },
    outcome::unique_violation,
};
use crate::{
    access::{Csn, RowId},
    batch::{batch_bytes, without_waste},
    error::{Error, ErrorKind, Result},
};

/// Rows per table and transaction that go through the log; beyond, rows go straight to segment files.
pub(crate) const BULK_ROWS: u64 = 65_536;
/// The same in bytes: what a transaction holds in memory and the log takes in one record.
const BULK_BYTES: u64 = 32 << 20;

/// The part of the memory that rows on their way into files may take in one transaction, as a divisor.
const HELD_SHARE: usize = 4;
/// They may take so much however little there is.
const SMALL_LOAD: usize = 4 << 20;

/// The state of a transaction.
#[derive(Debug)]
pub(crate) struct Writes {
    /// The database as the transaction sees it.
    pub(crate) working: DatabaseVersion,
    pub(crate) tables: OrdMap<u64, TableWrites>,
    /// What it changes in the catalog, in order.
    pub(crate) definitions: Vec<CatalogChange>,
    /// Files of tables that it wrote to and then dropped.
    abandoned: Vec<Arc<ColdSegment>>,
    savepoints: Vec<Savepoint>,
    bulk: HashMap<Load, BulkLoad>,
    /// The share of the memory budget that they take.
    charge: Option<Charge>,
    /// Counts batches that went on their way into files.
    loaded: u64,
    /// Why some of what was written is not there: half of a write was done when it failed.
    broken: Option<String>,
}

/// A state to return to.
#[derive(Debug, Clone)]
struct Savepoint {
    working: DatabaseVersion,
    tables: OrdMap<u64, TableWrites>,
    definitions: usize,
    abandoned: usize,
}

/// Rows that become one file: those of one shard of one table, either all new or all with versions of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Load {
    table: u64,
    shard: u32,
    versioned: bool,
}

/// What was written to one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableWrites {
    /// Committed rows that this transaction ends.
    pub(crate) ended: TableRows,
    /// Rows in overlay segments, ended ones included.
    pub(crate) overlay_rows: u64,
    /// Their bytes, about.
    overlay_bytes: u64,
    /// Segments this transaction wrote to storage, each with its shard.
    pub(crate) attached: OrdMap<u32, u32>,
    /// Primary keys of overlay rows.
    keys: OrdMap<Vec<u8>, RowId>,
    /// Where the next batch goes in a table without a placement rule.
    next_shard: u32,
}

impl Writes {
    pub(crate) fn new(working: DatabaseVersion) -> Self {
        Self {
            working,
            tables: OrdMap::new(),
            definitions: Vec::new(),
            abandoned: Vec::new(),
            savepoints: Vec::new(),
            bulk: HashMap::new(),
            charge: None,
            loaded: 0,
            broken: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.bulk.is_empty() && self.definitions.is_empty()
    }

    /// An error if a write was left half done: then only returning to a savepoint from before it helps.
    pub(crate) fn check_whole(&self) -> Result<()> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(Error::new(
                ErrorKind::TransactionAborted,
                format!("a write of this transaction failed, so that it cannot commit: {why}"),
            )),
        }
    }

    /// Notes that a write failed of which a part may have been done.
    fn noted<T>(&mut self, written: Result<T>) -> Result<T> {
        if let Err(error) = &written {
            self.broken.get_or_insert_with(|| error.to_string());
        }
        written
    }

    /// Makes a change of the catalog, which is seen by the transaction alone until it commits.
    pub(crate) fn define(&mut self, change: CatalogChange) -> Result<()> {
        if let CatalogChange::DropTable { table } = &change {
            self.bulk.retain(|load, _| load.table != *table);
            if let (Some(writes), Some(dropped)) = (self.tables.remove(table), self.working.tables.get(table)) {
                let own = writes.attached.keys().filter_map(|id| dropped.segment(*id)?.cold().cloned());
                self.abandoned.extend(own);
            }
        }
        apply::define(&mut self.working, &change, UNCOMMITTED)?;
        self.definitions.push(change);
        Ok(())
    }

    /// Whether rows are being encoded, or about `rows` of them were written to one table.
    pub(crate) fn is_large(&self, rows: usize) -> bool {
        let many = |table: &TableWrites| {
            table.overlay_rows >= rows as u64 || table.ended.len() >= rows || !table.attached.is_empty()
        };
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
        let bytes = batch_bytes(&rows) as u64;
        let (held_rows, held_bytes) =
            self.tables.get(&id).map_or((0, 0), |writes| (writes.overlay_rows, writes.overlay_bytes));
        let many = held_rows + count > BULK_ROWS || held_bytes + bytes > BULK_BYTES;
        let loading = self.bulk.keys().any(|load| load.table == id);
        let bulk = loading || many;
        let parts = self.place(&table, &rows, versions)?;
        self.atomically(|writes| {
            for (shard, rows, versions) in parts {
                match bulk {
                    true => writes.load(db, &table, shard, &rows, &versions)?,
                    false => writes.overlay(&table, shard, &rows, &versions)?,
                }
            }
            Ok(count)
        })
    }

    /// Does all of a write or nothing. Rows that were on their way into a file cannot be taken back: if they were all or
    /// some, is not known then, and the transaction cannot commit.
    fn atomically<T>(&mut self, write: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (working, tables, loaded) = (self.working.clone(), self.tables.clone(), self.loaded);
        let written = write(self);
        if written.is_err() {
            if self.loaded != loaded {
                return self.noted(written);
            }
            (self.working, self.tables) = (working, tables);
        }
        written
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

    fn load(
        &mut self,
        db: &Inner,
        table: &TableVersion,
        shard: u32,
        rows: &RecordBatch,
        versions: &Stamps,
    ) -> Result<()> {
        self.loaded += 1;
        let versioned = !matches!(versions, Stamps::All(1));
        let at = Load { table: table.def.id, shard, versioned };
        let stamps = FileStamps { created: false, versions: versioned };
        let load = match self.bulk.entry(at) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(BulkLoad::with_stamps(&table.def, stamps)?)
            }
        };
        let stamped = versioned.then(|| with_column(rows, versions.column(0..rows.num_rows()))).transpose()?;
        load.push(&table.codecs, stamped.as_ref().unwrap_or(rows))?;
        if load.is_full() {
            self.finish_load(db, at)?;
        }
        self.make_room(db)
    }

    /// Ends the largest load early where this transaction, or all that counts against the memory, takes too much of it.
    fn make_room(&mut self, db: &Inner) -> Result<()> {
        let budget = db.settings.memory_bytes;
        loop {
            let held: usize = self.bulk.values().map(BulkLoad::nbytes).sum();
            self.charge = (held > 0).then(|| db.files.cache.charge(held));
            let crowded = held > SMALL_LOAD && db.files.cache.stats().charged > budget as u64 / 2;
            if held <= budget / HELD_SHARE && !crowded {
                return Ok(());
            }
            let largest = self.bulk.iter().max_by_key(|(load, held)| (held.nbytes(), **load)).map(|(load, _)| *load);
            let Some(largest) = largest else { return Ok(()) };
            self.finish_load(db, largest)?;
        }
    }

    fn finish_load(&mut self, db: &Inner, at: Load) -> Result<()> {
        let Some(load) = self.bulk.remove(&at) else { return Ok(()) };
        let version = self.working.change_table(at.table, UNCOMMITTED)?;
        let segment = load.finish(db, version)?;
        let writes = self.tables.entry(at.table).or_default();
        writes.attached.insert(segment.meta.id, at.shard);
        version.shard_mut(at.shard)?.push(SegmentData::Cold(segment), Tombstones::default());
        Ok(())
    }

    /// Turns rows in memory into files where they are many, so that neither memory nor the log's record grows with
    /// the number of statements. Their ids change. Half of what fits is many: else each small statement behind the
    /// last one that fits would be a file.
    pub(crate) fn spill(&mut self, db: &Inner) -> Result<()> {
        let spilled = self.spill_now(db);
        self.noted(spilled)
    }

    fn spill_now(&mut self, db: &Inner) -> Result<()> {
        let large =
            |writes: &TableWrites| writes.overlay_rows >= BULK_ROWS / 2 || writes.overlay_bytes >= BULK_BYTES / 2;
        let tables: Vec<u64> = self.tables.iter().filter(|(_, writes)| large(writes)).map(|(id, _)| *id).collect();
        for id in tables {
            let table = Arc::clone(self.working.table(id)?);
            for (shard, segment) in table.segments().filter(|(_, segment)| segment.id() >= OVERLAY) {
                let SegmentData::Hot(hot) = &segment.data else { continue };
                for chunk in &hot.chunks {
                    let live = segment.tombstones.live(chunk.first_row, chunk.rows(), UNCOMMITTED);
                    let (rows, versions) = chunk.kept(live)?;
                    self.load(db, &table, shard, &rows, &versions)?;
                }
            }
            let version = self.working.change_table(id, UNCOMMITTED)?;
            for shard in 0..table.def.shards {
                version.shard_mut(shard)?.segments.retain(|segment| segment.id() < OVERLAY);
            }
            let writes = self.tables.entry(id).or_default();
            (writes.overlay_rows, writes.overlay_bytes, writes.keys) = (0, 0, OrdMap::new());
        }
        self.settle(db)
    }

    /// Brings all rows into `working`.
    pub(crate) fn settle(&mut self, db: &Inner) -> Result<()> {
        let mut loads: Vec<_> = self.bulk.keys().copied().collect();
        loads.sort_unstable();
        let finished = loads.into_iter().try_for_each(|load| self.finish_load(db, load));
        self.charge = None;
        self.noted(finished)
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
        writes.overlay_bytes += batch_bytes(rows) as u64;
        Ok(())
    }

    /// Ends rows, committed ones or the transaction's own.
    pub(crate) fn delete(&mut self, table: &str, rows: &[RowId]) -> Result<u64> {
        self.atomically(|writes| writes.end(table, rows))
    }

    fn end(&mut self, table: &str, rows: &[RowId]) -> Result<u64> {
        let id = self.working.catalog.table(table)?.id;
        let version = self.working.change_table(id, UNCOMMITTED)?;
        let writes = self.tables.entry(id).or_default();
        for rows in rows.chunk_by(|a, b| a.segment() == b.segment()) {
            let (first, number) = (rows[0], rows[0].segment());
            let segment = version.segment_mut(number);
            let segment = segment.ok_or_else(|| Error::invalid(format!("table '{table}' has no row {}", first.0)))?;
            let committed = number < OVERLAY && !writes.attached.contains_key(&number);
            for row in rows {
                if row.row() >= segment.rows() {
                    return Err(Error::invalid(format!("table '{table}' has no row {}", row.0)));
                }
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
        let versions = next_versions(version, rows)?;
        self.atomically(|writes| {
            writes.end(table, rows)?;
            writes.insert(db, table, new, Some(&versions))
        })
    }

    /// The transaction's own row with this primary key.
    pub(crate) fn own_row(&self, table: u64, key: &[u8]) -> Option<RowId> {
        let row = *self.tables.get(&table)?.keys.get(key)?;
        let segment = self.working.tables.get(&table)?.segment(row.segment())?;
        segment.tombstones.get(row.row()).is_none().then_some(row)
    }

    pub(crate) fn savepoint(&mut self, db: &Inner) -> Result<usize> {
        self.settle(db)?;
        self.spill(db)?;
        let (working, tables) = (self.working.clone(), self.tables.clone());
        let (definitions, abandoned) = (self.definitions.len(), self.abandoned.len());
        self.savepoints.push(Savepoint { working, tables, definitions, abandoned });
        Ok(self.savepoints.len() - 1)
    }

    pub(crate) fn rollback_to(&mut self, savepoint: usize) -> Result<()> {
        let kept = self.savepoints.get(savepoint).cloned();
        let Savepoint { working, tables, definitions, abandoned } = kept.ok_or_else(|| no_savepoint(savepoint))?;
        self.savepoints.truncate(savepoint + 1);
        self.bulk.clear();
        self.charge = None;
        self.discard_attached(&tables);
        (self.working, self.tables) = (working, tables);
        self.definitions.truncate(definitions);
        for segment in self.abandoned.drain(abandoned..) {
            // One from before the savepoint is in its table again.
            let kept = self.tables.values().any(|writes| writes.attached.contains_key(&segment.meta.id));
            if !kept {
                segment.mark_obsolete();
            }
        }
        self.broken = None;
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

    /// Lets go of the files of tables that it dropped again.
    pub(crate) fn discard_abandoned(&self) {
        self.abandoned.iter().for_each(|segment| segment.mark_obsolete());
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

/// The versions that rows get when they are replaced. Stamps are decoded once per chunk, not per row.
fn next_versions(table: &TableVersion, rows: &[RowId]) -> Result<Vec<u64>> {
    let mut versions = Vec::with_capacity(rows.len());
    let chunk = |row: &RowId| (row.segment(), row.row() as usize / CHUNK_ROWS);
    for rows in rows.chunk_by(|a, b| chunk(a) == chunk(b)) {
        let segment = table.segment(rows[0].segment());
        let missing = |row: RowId| Error::invalid(format!("table '{}' has no row {}", table.def.name, row.0));
        let segment = segment.ok_or_else(|| missing(rows[0]))?;
        let mut known: Option<(Range<u32>, Stamps)> = None;
        for row in rows {
            if row.row() >= segment.rows() {
                return Err(missing(*row));
            }
            let (range, stamps) = match known.take().filter(|(range, _)| range.contains(&row.row())) {
                Some(known) => known,
                None => segment.stamps_of(row.row(), Stamp::Version)?,
            };
            versions.push(stamps.get((row.row() - range.start) as usize) + 1);
            known = Some((range, stamps));
        }
    }
    Ok(versions)
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
    // A batch that they were cut from would go to the log with them.
    Ok(RecordBatch::try_new(Arc::clone(schema), without_waste(rows).columns().to_vec())?)
}

fn with_versions(rows: &RecordBatch, versions: &[u64]) -> Result<RecordBatch> {
    with_column(rows, Arc::new(UInt64Array::from(versions.to_vec())))
}

/// The rows with their versions as a last column.
fn with_column(rows: &RecordBatch, versions: ArrayRef) -> Result<RecordBatch> {
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__row_version", DataType::UInt64, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(versions);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
