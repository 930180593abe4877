//! A transaction: a snapshot and the writes made on it.

use arrow::{array::ArrayRef, record_batch::RecordBatch};

use super::Snapshot;
use crate::{
    access::{Csn, RowId},
    error::{Error, Result},
};

/// What became of a commit.
#[derive(Debug, Clone)]
#[must_use = "a commit may have been refused"]
pub enum CommitOutcome {
    /// All writes are visible, and durable as the settings promise.
    Committed {
        /// The commit's number.
        csn: Csn,
    },
    /// Nothing was written: another transaction committed first. It may be retried from the start.
    Conflict(Conflict),
}

/// Why a commit was refused.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The table.
    pub table: String,
    /// The key, as SQL would write it, or the row.
    pub key: String,
    /// The commit that came first.
    pub committed: Csn,
}

impl CommitOutcome {
    /// The commit's number, or the conflict as an [`Error`] of kind `Conflict` (SQLSTATE 40001).
    pub fn into_result(self) -> Result<Csn> {
        match self {
            Self::Committed { csn } => Ok(csn),
            Self::Conflict(conflict) => Err(conflict.into()),
        }
    }
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        Self::new(
            crate::ErrorKind::Conflict,
            format!(
                "could not serialize: table {} key {} was changed by commit {}; the transaction may be retried",
                conflict.table, conflict.key, conflict.committed
            ),
        )
    }
}

/// A transaction under snapshot isolation. Dropping it rolls back.
#[derive(Debug)]
pub struct Transaction {}

fn stub<T>() -> Result<T> {
    Err(Error::internal("engine skeleton"))
}

impl Transaction {
    /// The database as the transaction sees it, its own writes so far included.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {}
    }
    /// Adds rows (all columns of the table, in its order; types as in the table). Returns their number.
    /// Call it repeatedly for large amounts: rows are encoded as they come.
    pub fn insert(&mut self, _table: &str, _rows: RecordBatch) -> Result<u64> {
        stub()
    }
    /// Deletes rows by id. Ids that this transaction already deleted are an error of kind `Invalid`.
    pub fn delete(&mut self, _table: &str, _rows: &[RowId]) -> Result<u64> {
        stub()
    }
    /// Replaces rows by id with `new` (same order, all columns); their row_version grows by one.
    pub fn update(&mut self, _table: &str, _rows: &[RowId], _new: RecordBatch) -> Result<u64> {
        stub()
    }
    /// The id and version of the live row with this primary key, as the transaction sees it.
    pub fn find(&self, _table: &str, _key: &[ArrayRef]) -> Result<Option<(RowId, u64)>> {
        stub()
    }
    /// The live row with this primary key, as the transaction sees it.
    pub fn get(&self, _table: &str, _key: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        stub()
    }
    /// Inserts rows or replaces those whose primary key exists.
    pub fn put(&mut self, _table: &str, _rows: RecordBatch) -> Result<u64> {
        stub()
    }
    /// Marks the present state, to return to with [`Transaction::rollback_to`].
    pub fn savepoint(&mut self) -> usize {
        0
    }
    /// Undoes everything since the savepoint.
    pub fn rollback_to(&mut self, _savepoint: usize) -> Result<()> {
        stub()
    }
    /// Whether it wrote anything.
    pub fn is_empty(&self) -> bool {
        true
    }
    /// Makes all writes visible at once, or none. Blocks until durable if the settings say so; must not be called
    /// from async code, see [`Transaction::commit_async`].
    pub fn commit(self) -> Result<CommitOutcome> {
        stub()
    }
    /// The same for async code.
    pub async fn commit_async(self) -> Result<CommitOutcome> {
        stub()
    }
    /// Forgets all writes.
    pub fn rollback(self) {}
}
