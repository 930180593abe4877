//! What a database elsewhere must be able to do for its tables to be read here.

use std::{fmt, sync::Arc};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::{common::TableReference, execution::SendableRecordBatchStream};
use futures::stream::BoxStream;
use grizzly_provider::{Error, ErrorKind, Result};

use super::Dialect;

/// A database elsewhere. Every error of its methods names it.
#[async_trait]
pub trait RemoteDatabase: fmt::Debug + Send + Sync + 'static {
    /// What it is called in EXPLAIN and in errors; holds no secrets.
    fn name(&self) -> &str;

    /// Two with the same identity are one database, seen by one user: a query may use the tables of both. Never
    /// shown.
    fn identity(&self) -> &str;

    /// How it wants its SQL, and what in it means there exactly what it means here.
    fn dialect(&self) -> &Dialect;

    /// The names of its tables, under which [`RemoteDatabase::table_schema`] finds them.
    async fn tables(&self) -> Result<Vec<TableReference>>;

    /// The columns of a table. `NotFound` if there is none of that name.
    async fn table_schema(&self, table: &TableReference) -> Result<SchemaRef>;

    /// Runs a query that only reads. Its columns are those of `schema` in order, but may have other names, and other
    /// types if the table has changed. Nothing is sent before the stream is polled. A query that fails before its
    /// first rows were delivered may be sent again; after that never.
    fn execute(&self, sql: Arc<str>, schema: SchemaRef) -> BoxStream<'static, Result<RecordBatch>>;

    /// Adds rows to a table, all or none, and returns their number.
    async fn insert(&self, table: &TableReference, rows: SendableRecordBatchStream) -> Result<u64> {
        drop(rows);
        Err(Error::new(ErrorKind::Unsupported, format!("{}: INSERT INTO {table} is not supported", self.name())))
    }
}
