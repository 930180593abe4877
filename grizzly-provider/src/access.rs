//! The contract between planning and storage, as plain data: what may be asked of a scan, and what a scan can
//! offer. Everything above the engine (adapter, optimizer, flight) speaks to it in these types.

mod array_bytes;

use std::{fmt, ops::Bound, sync::Arc};

use arrow::{array::ArrayRef, datatypes::SchemaRef};
use serde::{Deserialize, Serialize};

/// Commit sequence number: the order of commits, and the microsecond (since the Unix epoch) at which each
/// happened. Two commits in one microsecond get successive numbers, so the order is total and never runs back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Csn(pub u64);

impl fmt::Display for Csn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a row version lives: segment number in the upper, row number in the lower 32 bits. Stable until
/// compaction moves the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

impl RowId {
    /// The row `row` of segment `segment`.
    pub fn new(segment: u32, row: u32) -> Self {
        Self((u64::from(segment) << 32) | u64::from(row))
    }

    /// The segment that holds the row.
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The row's number within its segment.
    pub fn row(self) -> u32 {
        (self.0 & u64::from(u32::MAX)) as u32
    }
}

/// The point in history a statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// The state right after this commit.
    Csn(Csn),
    /// The state at this many microseconds since the Unix epoch.
    TimestampMicros(i64),
}

/// A comparison of a column with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum CompareOp {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

/// A test on one column. Values are arrays of exactly the column's type, without nulls.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ColumnTest {
    /// `column op value`; `value` has length 1.
    Compare {
        /// The operator.
        op: CompareOp,
        /// The value, an array of length 1.
        #[serde(with = "array_bytes")]
        value: ArrayRef,
    },
    /// `column IN values`, or NOT IN.
    InList {
        /// The values, at least one.
        #[serde(with = "array_bytes")]
        values: ArrayRef,
        /// Whether this is NOT IN.
        negated: bool,
    },
    /// `column IS NULL`.
    IsNull,
    /// `column IS NOT NULL`.
    IsNotNull,
}

/// A condition on rows with SQL's meaning: a row is kept where it is TRUE. There is no NOT: callers push it down.
/// Columns are numbers into the table's schema, system columns included (see [`SystemColumn`]).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Predicate {
    /// A test of one column.
    Test {
        /// The column.
        column: usize,
        /// The test.
        test: ColumnTest,
    },
    /// A comparison of two columns of one type.
    CompareColumns {
        /// The left column.
        left: usize,
        /// The operator.
        op: CompareOp,
        /// The right column.
        right: usize,
    },
    /// All hold; true if empty.
    And(Vec<Predicate>),
    /// At least one holds; false if empty.
    Or(Vec<Predicate>),
    /// Every row, or none.
    Constant(bool),
}

/// Columns every table has besides its own. In projections and predicates the column number is
/// `schema.fields().len() + SystemColumn as usize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum SystemColumn {
    /// `row_id`, UInt64: see [`RowId`].
    RowId = 0,
    /// `row_version`, UInt64: 1 for an inserted row, +1 for each update.
    RowVersion = 1,
    /// `shard`, UInt32.
    Shard = 2,
    /// `created`, UInt64: the [`Csn`] that wrote this version; 0 for a transaction's own uncommitted rows.
    Created = 3,
    /// `deleted`, UInt64, NULL while the version is live: the [`Csn`] that ended it.
    Deleted = 4,
}

impl SystemColumn {
    /// All of them, in order of their numbers.
    pub const ALL: [Self; 5] = [Self::RowId, Self::RowVersion, Self::Shard, Self::Created, Self::Deleted];

    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RowId => "row_id",
            Self::RowVersion => "row_version",
            Self::Shard => "shard",
            Self::Created => "created",
            Self::Deleted => "deleted",
        }
    }
}

/// A range of index keys in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// Where it begins.
    pub lower: Bound<Vec<u8>>,
    /// Where it ends.
    pub upper: Bound<Vec<u8>>,
}

/// How a scan finds its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessPath {
    /// Every chunk that zone maps do not rule out.
    #[default]
    FullScan,
    /// The rows an index has for these key ranges. The predicate runs on them again.
    Index {
        /// Name of the index; the primary key's is `primary`.
        index: Arc<str>,
        /// Disjoint, ascending.
        ranges: Arc<[KeyRange]>,
    },
}

/// What is asked of a scan.
#[derive(Debug, Clone, Default)]
pub struct ScanRequest {
    /// Columns to return, by number, in order; system columns included.
    pub projection: Vec<usize>,
    /// Rows to return; all if `None`.
    pub predicate: Option<Predicate>,
    /// How to find them.
    pub access: AccessPath,
    /// The id of the index that `access` names, if the request may outlive the index: once that is dropped, the scan
    /// looks at all rows instead, even if there is another index of the name. Without it the index must exist.
    pub index_id: Option<u32>,
    /// Read only these shards; all if `None`.
    pub shards: Option<Arc<[u32]>>,
    /// Return also versions that are deleted or replaced, as long as they are retained (`t$rows`).
    pub all_versions: bool,
}

/// An index as planning sees it.
#[derive(Debug, Clone)]
pub struct IndexInfo {
    /// Unique within the table; the primary key's is `primary`.
    pub name: Arc<str>,
    /// Indexed columns, by number, most significant first.
    pub columns: Vec<usize>,
    /// Whether each column is in descending order.
    pub descending: Vec<bool>,
    /// No two live rows share a key without NULLs.
    pub unique: bool,
    /// It is the primary key.
    pub primary: bool,
}

/// What is known of a column's values.
#[derive(Debug, Clone, Default)]
pub struct ColumnStatistics {
    /// NULLs, counting rows that are deleted but retained.
    pub nulls: u64,
    /// Least value, an array of length 1; a lower bound if rows were deleted. `None` if there is no value, or if some
    /// segment does not know its least.
    pub min: Option<ArrayRef>,
    /// Greatest value; an upper bound if rows were deleted.
    pub max: Option<ArrayRef>,
    /// Estimated number of distinct values.
    pub distinct: Option<u64>,
    /// Encoded size in bytes.
    pub bytes: u64,
}

/// What is known of a table's rows at a snapshot.
#[derive(Debug, Clone)]
pub struct TableStatistics {
    /// Visible rows, exact.
    pub rows: u64,
    /// Row versions that are stored, deleted ones included.
    pub stored_rows: u64,
    /// Whether `nulls`, and `min` and `max` of the columns that have them, are exact: no deleted row is retained.
    pub exact: bool,
    /// One entry per column of the schema.
    pub columns: Vec<ColumnStatistics>,
}

/// A shard as planning sees it.
#[derive(Debug, Clone)]
pub struct ShardInfo {
    /// Number of the shard, from 0.
    pub shard: u32,
    /// Visible rows.
    pub rows: u64,
    /// Segments in memory and on storage.
    pub segments: u32,
    /// Rows not yet in a segment file.
    pub hot_rows: u64,
    /// Encoded bytes of the segment files.
    pub bytes: u64,
}

/// A new table.
#[derive(Debug, Clone)]
pub struct TableDefinition {
    /// Schema name, `public` by default.
    pub schema_name: String,
    /// Table name.
    pub name: String,
    /// Columns; `nullable = false` is enforced.
    pub schema: SchemaRef,
    /// Columns of the primary key, by name; empty for none. They become NOT NULL.
    pub primary_key: Vec<String>,
    /// Number of shards, at least 1.
    pub shards: u32,
    /// Columns whose hash places a row; the primary key if empty, round-robin without either. Where there is a
    /// primary key they must be part of it, so that uniqueness is a matter of one shard.
    pub shard_by: Vec<String>,
    /// DEFAULT expressions as SQL text, by column name.
    pub defaults: Vec<(String, String)>,
    /// Secondary indexes. Unique ones are the table's UNIQUE constraints.
    pub indexes: Vec<IndexDefinition>,
}

/// What to do where a new table's name is taken by a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// That is an error of kind `AlreadyExists`.
    Fail,
    /// The table stays as it is.
    Keep,
    /// The new table takes its place.
    Replace,
}

/// A new secondary index.
#[derive(Debug, Clone)]
pub struct IndexDefinition {
    /// Name of the index, unique within its table.
    pub name: String,
    /// Columns, most significant first, and whether each is descending.
    pub columns: Vec<(String, bool)>,
    /// Whether keys without NULLs must be unique.
    pub unique: bool,
}
