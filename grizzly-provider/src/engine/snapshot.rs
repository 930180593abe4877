//! What a reader sees: one immutable value.

use std::sync::Arc;

use arrow::{array::ArrayRef, datatypes::SchemaRef};

use super::{
    planning, rows,
    scan::{self, TableScan},
    statistics,
    txn::publish::SnapshotGuard,
    version::{DatabaseVersion, Segment, TableVersion},
};
use crate::{
    access::{Csn, IndexInfo, KeyRange, Predicate, ScanRequest, ShardInfo, TableStatistics},
    error::{Error, ErrorKind, Result},
};

/// All tables as of one commit, and, within a transaction, its own writes so far. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct Snapshot {
    version: Arc<DatabaseVersion>,
    csn: Csn,
    guard: Arc<SnapshotGuard>,
    /// The term of the process in which it was taken: what was visible in one need not be there in the next.
    term: u64,
}

/// One table in a snapshot.
#[derive(Debug, Clone)]
pub struct TableSnapshot {
    pub(super) table: Arc<TableVersion>,
    pub(super) csn: Csn,
    /// Whether some stored rows are newer than the snapshot, so that each must be asked for its commit.
    pub(super) historic: bool,
    /// Keeps what the snapshot needs while the table is in use.
    _guard: Arc<SnapshotGuard>,
}

impl Snapshot {
    pub(crate) fn new(version: Arc<DatabaseVersion>, csn: Csn, guard: SnapshotGuard, term: u64) -> Self {
        Self { version, csn, guard: Arc::new(guard), term }
    }

    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    pub(crate) fn version(&self) -> &Arc<DatabaseVersion> {
        &self.version
    }

    /// The same point in history with other contents: a transaction's own view.
    pub(crate) fn with_version(&self, version: Arc<DatabaseVersion>) -> Self {
        Self { version, csn: self.csn, guard: Arc::clone(&self.guard), term: self.term }
    }

    /// The last commit it contains.
    pub fn csn(&self) -> Csn {
        self.csn
    }

    /// The table `name` or `schema.name`.
    pub fn table(&self, name: &str) -> Result<TableSnapshot> {
        Ok(self.snapshot_of(self.version.table_named(name)?))
    }

    /// The table with this id (ids are never reused).
    pub fn table_by_id(&self, id: u64) -> Result<TableSnapshot> {
        Ok(self.snapshot_of(self.version.table(id)?))
    }

    /// The same table, by the name that it had when its id was asked for: an error calls it so.
    pub fn table_called(&self, id: u64, name: &str) -> Result<TableSnapshot> {
        self.table_by_id(id).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let message = format!("table '{name}' was dropped or replaced, or is newer than what is read");
                Error::not_found(message).outdated()
            }
            _ => error,
        })
    }

    fn snapshot_of(&self, table: &Arc<TableVersion>) -> TableSnapshot {
        let historic = self.csn < self.version.csn;
        TableSnapshot { table: Arc::clone(table), csn: self.csn, historic, _guard: Arc::clone(&self.guard) }
    }

    /// Names of schemas.
    pub fn schema_names(&self) -> Vec<String> {
        self.version.catalog.schemas.clone()
    }

    /// Names of tables in a schema.
    pub fn table_names(&self, schema: &str) -> Vec<String> {
        let tables = self.version.catalog.tables.values().filter(|table| table.schema_name == schema);
        tables.map(|table| table.name.clone()).collect()
    }

    /// Views of a schema: name and SQL text.
    pub fn views(&self, schema: &str) -> Vec<(String, String)> {
        let views = self.version.catalog.views.iter().filter(|view| view.schema_name == schema);
        views.map(|view| (view.name.clone(), view.sql.clone())).collect()
    }

    /// A number that changes with every change of the catalog.
    pub fn catalog_version(&self) -> u64 {
        self.version.catalog.version
    }
}

impl TableSnapshot {
    /// Never reused within the database.
    pub fn id(&self) -> u64 {
        self.table.def.id
    }

    /// The last commit the snapshot contains.
    pub fn csn(&self) -> Csn {
        self.csn
    }

    /// Names the table's contents: snapshots of the table with the same number have the same rows and the same
    /// definition. It is a commit that changed them or a later one; flush and compaction leave it as it is. `None`
    /// where that is not known: in the past, and in a transaction that has written to the table.
    pub fn last_change(&self) -> Option<Csn> {
        Some(self.table.changed).filter(|changed| *changed <= self.csn)
    }

    /// Schema and table name.
    pub fn name(&self) -> (&str, &str) {
        (&self.table.def.schema_name, &self.table.def.name)
    }

    /// The table's own columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.def.schema)
    }

    /// Column numbers of the primary key.
    pub fn primary_key(&self) -> &[usize] {
        &self.table.def.primary_key
    }

    /// DEFAULT expression of a column as SQL text.
    pub fn default(&self, column: &str) -> Option<&str> {
        let found = self.table.def.defaults.iter().find(|(name, _)| name == column);
        found.map(|(_, sql)| sql.as_str())
    }

    /// Column numbers whose hash places a row (empty: round-robin).
    pub fn shard_by(&self) -> &[usize] {
        &self.table.def.shard_by
    }

    /// Rows and bytes per shard.
    pub fn shards(&self) -> Vec<ShardInfo> {
        statistics::shards(&self.table)
    }

    /// Primary key first, then secondary indexes.
    pub fn indexes(&self) -> Vec<IndexInfo> {
        self.table.def.indexes.iter().map(|index| index.info()).collect()
    }

    /// The id of the index of this name, which no other index of the table will have.
    pub fn index_id(&self, index: &str) -> Option<u32> {
        planning::index(&self.table, index).ok().map(|(index, _)| index.id)
    }

    /// Row count, bounds, distinct estimates.
    pub fn statistics(&self) -> Arc<TableStatistics> {
        statistics::statistics(&self.table)
    }

    /// Rows visible in this snapshot; exact unless it lies in the past.
    pub fn row_count(&self) -> u64 {
        self.table.live_rows()
    }

    /// Whether [`TableSnapshot::row_count`] and [`TableSnapshot::exact_bounds`] hold for this very snapshot.
    pub fn is_current(&self) -> bool {
        !self.historic
    }

    /// Whether rows of a segment may be visible.
    pub(super) fn may_see(&self, segment: &Segment) -> bool {
        self.historic || segment.has_live()
    }

    /// Order-preserving bytes of a key prefix (arrays of length 1 of the indexed columns' types), for [`KeyRange`]s.
    pub fn index_key(&self, index: &str, prefix: &[ArrayRef]) -> Result<Vec<u8>> {
        let (_, encoder) = planning::index(&self.table, index)?;
        let mut key = Vec::with_capacity(32);
        encoder.encode_prefix(prefix, &mut key)?;
        Ok(key)
    }

    /// About how many index entries fall into these ranges (cheap, from fence keys), over these shards.
    pub fn estimate_index_rows(&self, index: &str, ranges: &[KeyRange], shards: Option<&[u32]>) -> u64 {
        planning::estimate_index_rows(&self.table, index, ranges, shards, |segment| self.may_see(segment))
    }

    /// About how many rows a full scan must look at for this predicate after zone maps (cheap, metadata only).
    pub fn estimate_scan_rows(&self, predicate: Option<&Predicate>, shards: Option<&[u32]>) -> u64 {
        planning::estimate_scan_rows(&self.table, predicate, shards, |segment| self.may_see(segment))
    }

    /// The shards that can hold rows for which the predicate is true, if fewer than all.
    pub fn prune_shards(&self, predicate: &Predicate) -> Option<Arc<[u32]>> {
        planning::prune_shards(&self.table, predicate)
    }

    /// Plans a scan; no I/O.
    pub fn scan(&self, request: &ScanRequest) -> Result<TableScan> {
        scan::plan(self, request)
    }

    /// The schema of a request's batches: the table's columns, then the system columns, projected.
    pub fn projected_schema(&self, projection: &[usize]) -> Result<SchemaRef> {
        rows::projected_schema(&self.table.def.schema, projection)
    }

    /// Exact least and greatest value and number of non-null values of a column over visible rows, from metadata
    /// alone, or `None` if only a scan can tell. Least and greatest are `None` if there is no value, or if only a scan
    /// can tell them.
    pub fn exact_bounds(&self, column: usize) -> Option<(Option<ArrayRef>, Option<ArrayRef>, u64)> {
        let statistics = self.statistics();
        if self.historic || !statistics.exact {
            return None;
        }
        let column = statistics.columns.get(column)?;
        let values = statistics.rows.checked_sub(column.nulls)?;
        Some((column.min.clone(), column.max.clone(), values))
    }
}
