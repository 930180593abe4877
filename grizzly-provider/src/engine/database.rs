//! A database: open, names, tables, transactions.

use std::sync::Arc;

use arrow::{array::ArrayRef, record_batch::RecordBatch};

use super::{CommitOutcome, Settings, Snapshot, Transaction};
use crate::{
    access::{AsOf, Csn, IndexDefinition, TableDefinition},
    error::{Error, Result},
};

/// An open database. Cheap to clone; every clone is the same database.
#[derive(Debug, Clone)]
pub struct Grizzly {}

/// Opens a database with settings of its own.
#[derive(Debug)]
pub struct GrizzlyBuilder {}

/// What [`Grizzly::verify`] looked at.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Tables, segment files, column chunks and index entries that were checked.
    pub tables: u64,
    /// Segment files read.
    pub segments: u64,
    /// Column chunks decoded.
    pub chunks: u64,
    /// Index entries compared with the rows.
    pub index_entries: u64,
    /// What is wrong, one line each, naming file and place; empty if all is well.
    pub problems: Vec<String>,
}

fn stub<T>() -> Result<T> {
    Err(Error::internal("engine skeleton"))
}

impl GrizzlyBuilder {
    /// Replaces all settings.
    pub fn settings(self, _settings: Settings) -> Self {
        self
    }
    /// Opens the database.
    pub fn open(self) -> Result<Grizzly> {
        stub()
    }
}

impl Grizzly {
    /// Opens `file:///path`, a plain path, `memory://`, or any object-store URL with default settings.
    pub fn open(url: &str) -> Result<Self> {
        Self::builder(url).open()
    }
    /// Like [`Grizzly::open`], with settings.
    pub fn builder(_url: &str) -> GrizzlyBuilder {
        GrizzlyBuilder {}
    }
    /// The URL it was opened with.
    pub fn url(&self) -> &str {
        ""
    }
    /// What can be read now: every commit acknowledged so far.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {}
    }
    /// What could be read then. An error outside the retention window.
    pub fn snapshot_at(&self, _at: AsOf) -> Result<Snapshot> {
        stub()
    }
    /// Starts a transaction on the present snapshot.
    pub fn begin(&self) -> Result<Transaction> {
        stub()
    }
    /// Creates a table. `if_not_exists` makes an existing one no error; returns whether it was created.
    pub fn create_table(&self, _definition: TableDefinition, _if_not_exists: bool) -> Result<bool> {
        stub()
    }
    /// Drops a table; returns whether there was one. Table names are `name` or `schema.name` everywhere.
    pub fn drop_table(&self, _table: &str, _if_exists: bool) -> Result<bool> {
        stub()
    }
    /// Creates a schema (namespace); `public` exists always.
    pub fn create_schema(&self, _name: &str, _if_not_exists: bool) -> Result<bool> {
        stub()
    }
    /// Drops an empty schema.
    pub fn drop_schema(&self, _name: &str, _if_exists: bool) -> Result<bool> {
        stub()
    }
    /// Stores or replaces a view by its SQL text.
    pub fn create_view(&self, _name: &str, _sql: &str, _or_replace: bool) -> Result<()> {
        stub()
    }
    /// Drops a view; returns whether there was one.
    pub fn drop_view(&self, _name: &str, _if_exists: bool) -> Result<bool> {
        stub()
    }
    /// Builds an index over all rows and keeps it up to date from then on.
    pub fn create_index(&self, _table: &str, _index: IndexDefinition, _if_not_exists: bool) -> Result<bool> {
        stub()
    }
    /// Drops an index. Without `table` the name must be unique in the database.
    pub fn drop_index(&self, _table: Option<&str>, _index: &str, _if_exists: bool) -> Result<bool> {
        stub()
    }
    /// The live row with this primary key (one array of length 1 per key column), with all columns of the table.
    pub fn get(&self, _table: &str, _key: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        stub()
    }
    /// Inserts rows, or replaces those whose primary key exists (row_version + 1), in one commit.
    pub fn put(&self, _table: &str, _rows: RecordBatch) -> Result<Csn> {
        stub()
    }
    /// Replaces the row with the primary key found in `row` if its row_version is `expected`; otherwise
    /// `CommitOutcome::Conflict`.
    pub fn compare_and_set(&self, _table: &str, _row: RecordBatch, _expected: u64) -> Result<CommitOutcome> {
        stub()
    }
    /// Writes hot rows to segment files and lets the log be cut.
    pub fn flush(&self) -> Result<()> {
        stub()
    }
    /// Merges segments and drops rows that nobody may read any more.
    pub fn compact(&self, _table: &str) -> Result<()> {
        stub()
    }
    /// Checks every checksum, decodes every chunk and compares every index with the rows.
    pub fn verify(&self) -> Result<VerifyReport> {
        stub()
    }
    /// Bytes on storage that belong to the table: segment files and index runs.
    pub fn table_bytes(&self, _table: &str) -> Result<u64> {
        stub()
    }
    /// Ends all work and lets go of the storage. Later calls fail with `Closed`.
    pub fn close(&self) -> Result<()> {
        stub()
    }
    /// A number that changes with every change of the catalog (tables, indexes, views), for caches of plans.
    pub fn catalog_version(&self) -> u64 {
        0
    }
}

#[expect(dead_code, reason = "skeleton")]
fn _keep(_: Arc<()>) {}
