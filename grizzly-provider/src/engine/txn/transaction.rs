//! A transaction: a snapshot and the writes made on it.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use arrow::{array::ArrayRef, record_batch::RecordBatch};
use grizzly_wal::world::Mutex;

use super::{
    super::{
        catalog::{CatalogChange, TableDef},
        consent::{Consent, Given},
        core::Inner,
        lookup::{self, PrimaryKey, find_committed, primary_key},
        rows,
        snapshot::Snapshot,
    },
    commit::{self, Begun},
    order::Logged,
    outcome::{CommitOutcome, unique_violation},
    writes::Writes,
};
use crate::{
    access::{IfExists, RowId, TableDefinition},
    error::{Error, Result},
};

/// A transaction under snapshot isolation. Dropping it rolls back.
#[derive(Debug)]
pub struct Transaction {
    db: Arc<Inner>,
    id: u64,
    term: u64,
    base: Snapshot,
    writes: Mutex<Writes>,
    done: bool,
}

impl Transaction {
    pub(crate) fn new(db: Arc<Inner>, base: Snapshot) -> Self {
        let id = db.next_transaction_id();
        let writes = Mutex::new(Writes::new(base.version().as_ref().clone()));
        let term = base.term();
        db.transactions.fetch_add(1, Ordering::Relaxed);
        Self { db, id, term, base, writes, done: false }
    }

    /// A number for this transaction, unique while the database is open.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The snapshot it began with.
    pub fn base(&self) -> &Snapshot {
        &self.base
    }

    /// The database as the transaction sees it, its own writes so far included.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut writes = self.writes.lock();
        if writes.is_empty() {
            return Ok(self.base.clone());
        }
        writes.settle(&self.db)?;
        Ok(self.base.with_version(Arc::new(writes.working.clone())))
    }

    /// Creates a table, or one in the place of another, that is there for everybody when the transaction commits and
    /// never if it does not. Returns whether it did: `existing` says what happens where there is a table of the name.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for the schema, `Invalid` or `Unsupported` for the definition. The commit fails
    /// with `AlreadyExists` or `Conflict` if the name was given to another table, or the replaced one was dropped,
    /// meanwhile.
    pub fn create_table(&mut self, definition: TableDefinition, existing: IfExists) -> Result<bool> {
        self.db.check_writable()?;
        let name = format!("{}.{}", definition.schema_name, definition.name);
        let mut writes = self.writes.lock();
        let catalog = Arc::clone(&writes.working.catalog);
        let old = catalog.find_table(&name);
        if old.is_some() && existing == IfExists::Keep {
            return Ok(false);
        }
        let replaced = old.filter(|_| existing == IfExists::Replace);
        let replaced = replaced.map(|old| CatalogChange::DropTable { table: old.id });
        match &replaced {
            Some(change) => catalog.with(change).check_free(&name)?,
            None => catalog.check_free(&name)?,
        }
        let created = CatalogChange::CreateTable(TableDef::new(self.db.next_table_id(&catalog), definition)?);
        replaced.into_iter().chain([created]).try_for_each(|change| writes.define(change))?;
        Ok(true)
    }

    /// Adds rows (all columns of the table, in its order; types as in the table). Returns their number.
    /// Call it repeatedly for large amounts: rows are encoded as they come.
    pub fn insert(&mut self, table: &str, rows: RecordBatch) -> Result<u64> {
        self.db.check_writable()?;
        self.writes.lock().insert(&self.db, table, &rows, None)
    }

    /// Deletes rows by id. An id that this transaction already deleted is an error of kind `Invalid`.
    pub fn delete(&mut self, table: &str, rows: &[RowId]) -> Result<u64> {
        self.db.check_writable()?;
        self.writes.lock().delete(table, rows)
    }

    /// Replaces rows by id with `new` (same order, all columns); their row_version grows by one.
    pub fn update(&mut self, table: &str, rows: &[RowId], new: RecordBatch) -> Result<u64> {
        self.db.check_writable()?;
        self.writes.lock().update(&self.db, table, rows, &new)
    }

    /// The id and version of the live row with this primary key, as the transaction sees it.
    pub fn find(&self, table: &str, key: &[ArrayRef]) -> Result<Option<(RowId, u64)>> {
        let key = primary_key(self.writes.lock().working.table_named(table)?, key)?;
        self.find_key(table, &key)
    }

    fn find_key(&self, table: &str, key: &PrimaryKey) -> Result<Option<(RowId, u64)>> {
        let mut writes = self.writes.lock();
        writes.settle(&self.db)?;
        let version = writes.working.table_named(table)?;
        let row = match writes.own_row(version.def.id, &key.bytes) {
            Some(row) => Some(row),
            None => find_committed(version, key)?,
        };
        let Some(row) = row else { return Ok(None) };
        let segment = version.segment(row.segment()).ok_or_else(|| Error::internal("a row that was found is gone"))?;
        Ok(Some((row, segment.row_version(row.row())?)))
    }

    /// The live row with this primary key, as the transaction sees it.
    pub fn get(&self, table: &str, key: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        let Some((row, _)) = self.find(table, key)? else { return Ok(None) };
        let writes = self.writes.lock();
        let version = writes.working.table_named(table)?;
        let segment = version.segment(row.segment()).ok_or_else(|| Error::internal("a row that was found is gone"))?;
        Ok(Some(rows::take_rows(version, segment, &[row.row()])?))
    }

    /// Inserts rows or replaces those whose primary key exists. Of several rows with one key the last one stays, as if
    /// they had come one by one. Returns the number of rows given. Ids of the transaction's own rows from before are
    /// not valid beyond it, as beyond [`Transaction::savepoint`].
    pub fn put(&mut self, table: &str, batch: RecordBatch) -> Result<u64> {
        let mut writes = self.writes.lock();
        writes.spill(&self.db)?;
        let version = Arc::clone(writes.working.table_named(table)?);
        drop(writes);
        let key_columns = &version.def.primary_key;
        if key_columns.is_empty() {
            return Err(Error::invalid(format!("table '{table}' has no primary key to put rows by")));
        }
        if batch.num_columns() != version.def.schema.fields().len() {
            let columns = version.def.schema.fields().len();
            return Err(Error::invalid(format!("table '{table}' has {columns} columns, not {}", batch.num_columns())));
        }
        let key = |row| {
            let values: Vec<ArrayRef> = key_columns.iter().map(|column| batch.column(*column).slice(row, 1)).collect();
            primary_key(&version, &values)
        };
        let keys = (0..batch.num_rows()).map(key).collect::<Result<Vec<_>>>()?;
        let last: HashMap<&[u8], usize> = keys.iter().enumerate().map(|(row, key)| (&key.bytes[..], row)).collect();
        let (mut old, mut replaced, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
        for (row, key) in keys.iter().enumerate().filter(|(row, key)| last.get(&key.bytes[..]) == Some(row)) {
            match self.find_key(table, key)? {
                Some((id, _)) => {
                    old.push(id);
                    replaced.push(row as u32);
                }
                None => fresh.push(row as u32),
            }
        }
        let count = batch.num_rows() as u64;
        if fresh.len() == batch.num_rows() {
            return self.insert(table, batch);
        }
        if replaced.len() == batch.num_rows() {
            return self.update(table, &old, batch);
        }
        let pick = |rows: Vec<u32>| arrow::compute::take_record_batch(&batch, &arrow::array::UInt32Array::from(rows));
        if !replaced.is_empty() {
            self.update(table, &old, pick(replaced)?)?;
        }
        if !fresh.is_empty() {
            self.insert(table, pick(fresh)?)?;
        }
        Ok(count)
    }

    /// Checks that no key of `rows`, which this transaction has written to `table`, belongs to a committed row that
    /// it has not ended. A commit checks this too, and against what was committed meanwhile; here the statement that
    /// wrote the rows hears of it. An error of kind `UniqueViolation` names the key.
    pub fn check_unique(&self, table: &str, rows: &RecordBatch) -> Result<()> {
        let writes = self.writes.lock();
        let version = writes.working.table_named(table)?;
        let own = writes.tables.get(&version.def.id).map(|writes| &writes.attached);
        for (index, encoder) in version.codecs.keys.iter().filter(|(index, _)| index.unique) {
            let columns: Vec<_> = index.columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
            let keys = encoder.encode_columns(&columns)?;
            for key in keys.iter().filter(|key| !encoder.has_null(key)) {
                let mut taken = false;
                lookup::live_rows(version, index, key, None, |segment, _| {
                    taken = own.is_none_or(|own| !own.contains_key(&segment.id()));
                    Ok(!taken)
                })?;
                if taken {
                    return Err(unique_violation(&version.def, &index.name, &encoder.display(key)));
                }
            }
        }
        Ok(())
    }

    /// Marks the present state, to return to with [`Transaction::rollback_to`]. Ids of the transaction's own rows are
    /// not valid beyond it: many of them become a file here.
    pub fn savepoint(&mut self) -> Result<usize> {
        self.writes.lock().savepoint(&self.db)
    }

    /// Undoes everything since the savepoint, which stays.
    pub fn rollback_to(&mut self, savepoint: usize) -> Result<()> {
        self.writes.lock().rollback_to(savepoint)
    }

    /// Forgets a savepoint and all later ones, keeping the writes. Numbers of forgotten savepoints are given out again.
    pub fn release_savepoint(&mut self, savepoint: usize) -> Result<()> {
        self.writes.lock().release(savepoint)
    }

    /// How many savepoints it keeps. Each holds on to the writes as they were.
    pub fn savepoints(&self) -> usize {
        self.writes.lock().savepoints()
    }

    /// Whether it wrote anything.
    pub fn is_empty(&self) -> bool {
        self.writes.lock().is_empty()
    }

    /// Whether it wrote so many rows that committing it may keep a thread busy for a while.
    pub fn is_large(&self, rows: usize) -> bool {
        self.writes.lock().is_large(rows)
    }

    /// Makes all writes visible at once, or none. Blocks until durable if the settings say so; from async code use
    /// [`Transaction::commit_async`].
    pub fn commit(self) -> Result<CommitOutcome> {
        self.commit_with(&Given)
    }

    /// The same if `consent` is given in the end.
    pub fn commit_with(self, consent: &dyn Consent) -> Result<CommitOutcome> {
        // Whoever waits for the log has the database open.
        let _open = Arc::clone(&self.db);
        let (outcome, logged) = self.finish(consent)?;
        if let Some(logged) = logged {
            logged.wait()?;
        }
        Ok(outcome)
    }

    /// The same for async code: waits for the log without blocking the thread.
    pub async fn commit_async(self) -> Result<CommitOutcome> {
        self.commit_async_with(Given).await
    }

    /// The same if `consent` is given in the end.
    pub async fn commit_async_with(self, consent: impl Consent) -> Result<CommitOutcome> {
        // Whoever waits for the log has the database open.
        let _open = Arc::clone(&self.db);
        let (outcome, logged) = self.finish(&consent)?;
        drop(consent);
        if let Some(logged) = logged {
            logged.durable().await?;
        }
        Ok(outcome)
    }

    /// Commits up to the log; with the record that is to be waited for, if the settings say so.
    fn finish(mut self, consent: &dyn Consent) -> Result<(CommitOutcome, Option<Logged>)> {
        let db = Arc::clone(&self.db);
        let begun = Begun { transaction: self.id, term: self.term, base: &self.base };
        let (outcome, logged) = commit::commit(&db, begun, self.writes.get_mut(), consent)?;
        self.done = matches!(outcome, CommitOutcome::Committed { .. });
        Ok((outcome, logged.filter(|_| db.settings.sync_commits)))
    }

    /// Forgets all writes.
    pub fn rollback(self) {
        drop(self);
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let writes = self.writes.lock();
        writes.discard_abandoned();
        if !self.done {
            writes.discard_attached(&imbl::OrdMap::new());
        }
        self.db.transactions.fetch_sub(1, Ordering::Relaxed);
    }
}
