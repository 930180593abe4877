//! What a reader sees: one immutable value.

use std::sync::Arc;

use arrow::{array::ArrayRef, datatypes::SchemaRef};

use super::TableScan;
use crate::{
    access::{AccessPath, Csn, IndexInfo, KeyRange, Predicate, ScanRequest, ShardInfo, TableStatistics},
    error::{Error, Result},
};

/// All tables as of one commit, and, within a transaction, its own writes so far. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct Snapshot {}

/// One table in a snapshot.
#[derive(Debug, Clone)]
pub struct TableSnapshot {}

impl Snapshot {
    /// The last commit it contains.
    pub fn csn(&self) -> Csn {
        Csn(0)
    }
    /// The table `name` or `schema.name`.
    pub fn table(&self, _name: &str) -> Result<TableSnapshot> {
        Err(Error::internal("skeleton"))
    }
    /// The table with this id (stable across renames; ids are never reused).
    pub fn table_by_id(&self, _id: u64) -> Result<TableSnapshot> {
        Err(Error::internal("skeleton"))
    }
    /// Names of schemas.
    pub fn schema_names(&self) -> Vec<String> {
        vec![]
    }
    /// Names of tables in a schema.
    pub fn table_names(&self, _schema: &str) -> Vec<String> {
        vec![]
    }
    /// Views of a schema: name and SQL text.
    pub fn views(&self, _schema: &str) -> Vec<(String, String)> {
        vec![]
    }
}

impl TableSnapshot {
    /// Never reused within the database.
    pub fn id(&self) -> u64 {
        0
    }
    /// Schema and table name.
    pub fn name(&self) -> (&str, &str) {
        ("", "")
    }
    /// The table's own columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(arrow::datatypes::Schema::empty())
    }
    /// Column numbers of the primary key.
    pub fn primary_key(&self) -> &[usize] {
        &[]
    }
    /// DEFAULT expression of a column as SQL text.
    pub fn default(&self, _column: &str) -> Option<&str> {
        None
    }
    /// Column numbers whose hash places a row (empty: round-robin).
    pub fn shard_by(&self) -> &[usize] {
        &[]
    }
    /// Rows and bytes per shard.
    pub fn shards(&self) -> Vec<ShardInfo> {
        vec![]
    }
    /// Primary key first, then secondary indexes.
    pub fn indexes(&self) -> Vec<IndexInfo> {
        vec![]
    }
    /// Exact row count, bounds, distinct estimates.
    pub fn statistics(&self) -> Arc<TableStatistics> {
        Arc::new(TableStatistics { rows: 0, stored_rows: 0, exact: false, columns: vec![] })
    }
    /// Visible rows, exact, without building full statistics.
    pub fn row_count(&self) -> u64 {
        0
    }
    /// Order-preserving bytes of a key prefix (arrays of length 1 of the indexed columns' types), for [`KeyRange`]s.
    pub fn index_key(&self, _index: &str, _prefix: &[ArrayRef]) -> Result<Vec<u8>> {
        Err(Error::internal("skeleton"))
    }
    /// About how many index entries fall into these ranges (cheap, from fence keys), over these shards.
    pub fn estimate_index_rows(&self, _index: &str, _ranges: &[KeyRange], _shards: Option<&[u32]>) -> u64 {
        0
    }
    /// About how many rows a full scan must decode for this predicate after zone maps (cheap, metadata only).
    pub fn estimate_scan_rows(&self, _predicate: Option<&Predicate>, _shards: Option<&[u32]>) -> u64 {
        0
    }
    /// The shards that can hold rows for which the predicate is true, if fewer than all.
    pub fn prune_shards(&self, _predicate: &Predicate) -> Option<Arc<[u32]>> {
        None
    }
    /// Plans a scan; no I/O.
    pub fn scan(&self, _request: &ScanRequest) -> Result<TableScan> {
        Err(Error::internal("skeleton"))
    }
    /// The schema of a request's batches: the table's columns, then the system columns, projected.
    pub fn projected_schema(&self, _projection: &[usize]) -> Result<SchemaRef> {
        Err(Error::internal("skeleton"))
    }
    /// Exact least and greatest value and number of non-null values of a column over visible rows, from metadata
    /// and the index alone, or `None` if only a scan can tell.
    pub fn exact_bounds(&self, _column: usize) -> Option<(Option<ArrayRef>, Option<ArrayRef>, u64)> {
        None
    }
}

#[expect(dead_code, reason = "skeleton")]
fn _keep(_: AccessPath) {}
