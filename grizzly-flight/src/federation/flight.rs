//! A Flight SQL server as a remote database.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{Array, AsArray, UnionArray},
    compute::cast,
    datatypes::{DataType, SchemaRef},
    error::ArrowError,
    record_batch::RecordBatch,
};
use arrow_flight::sql::{CommandGetSqlInfo, CommandGetTables, SqlInfo};
use async_trait::async_trait;
use datafusion::{common::TableReference, error::DataFusionError, execution::SendableRecordBatchStream};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use grizzly_provider::{Error, ErrorKind, Result, adapter::grizzly_error};
use parking_lot::Mutex;

use super::{
    Dialect, Location, RemoteDatabase,
    retry::{retrying, within},
    table::quoted,
};
use crate::client::{FlightSqlConnection, IngestMode};

/// What a Grizzly server calls itself, and its own catalog.
const GRIZZLY: (&str, &str) = ("Grizzly", "grizzly");

/// A Flight SQL server. Another Grizzly is asked for nearly everything, any other server for what SQL defines.
#[derive(Debug)]
pub struct FlightSqlDatabase {
    connection: FlightSqlConnection,
    identity: String,
    dialect: Dialect,
    /// The catalog whose tables are listed.
    catalog: Option<String>,
    is_grizzly: bool,
}

impl FlightSqlDatabase {
    /// Connects to where `location` points.
    pub async fn connect(location: &Location) -> Result<Self> {
        let connection = FlightSqlConnection::connect_with(location.url(), location.connect_options()).await?;
        Ok(Self::new(connection).await?.with_catalog(location.path().map(str::to_owned)))
    }

    /// Over an open connection; asks the server what it is. Fails within `connect_timeout` if it does not answer:
    /// whoever accepts connections need not speak this protocol.
    pub async fn new(connection: FlightSqlConnection) -> Result<Self> {
        let limit = Some(connection.options().connect_timeout);
        let name = within(limit, connection.url(), server_name(&connection)).await??;
        let is_grizzly = name.as_deref() == Some(GRIZZLY.0);
        let mut hasher = DefaultHasher::new();
        connection.options().token.hash(&mut hasher);
        let identity = format!("flightsql {} {:x}", connection.url(), hasher.finish());
        let dialect = if is_grizzly { Dialect::GRIZZLY } else { Dialect::STANDARD };
        Ok(Self { connection, identity, dialect, catalog: None, is_grizzly })
    }

    /// Lists the tables of one of the server's catalogs; of its own, if `None`.
    #[must_use]
    pub fn with_catalog(self, catalog: Option<String>) -> Self {
        Self { catalog, ..self }
    }

    /// For how long a question may be asked again that was not answered at all.
    fn patience(&self) -> Duration {
        let options = self.connection.options();
        options.timeout.unwrap_or(Duration::MAX).min(options.connect_timeout)
    }

    fn malformed(&self, what: &str, error: ArrowError) -> Error {
        Error::new(ErrorKind::Invalid, format!("{}: {what}", self.name())).with_source(error)
    }

    /// Only the tables of one catalog: schemas of equal name in two would hide each other.
    fn of_one_catalog(&self, tables: Vec<TableReference>) -> Result<Vec<TableReference>> {
        let catalogs: BTreeSet<&str> = tables.iter().filter_map(|table| table.catalog()).collect();
        if catalogs.len() < 2 {
            return Ok(tables);
        }
        if self.is_grizzly {
            return Ok(tables.into_iter().filter(|table| table.catalog() == Some(GRIZZLY.1)).collect());
        }
        let catalogs = catalogs.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("{0}: it has several catalogs; name one of {catalogs} as in {0}/CATALOG", self.name());
        Err(Error::new(ErrorKind::Invalid, message))
    }
}

#[async_trait]
impl RemoteDatabase for FlightSqlDatabase {
    fn name(&self) -> &str {
        self.connection.url()
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    async fn tables(&self) -> Result<Vec<TableReference>> {
        let command = CommandGetTables { catalog: self.catalog.clone(), ..CommandGetTables::default() };
        let mut tables = Vec::new();
        for batch in retrying(self.patience(), || self.connection.ask(&command)).await? {
            let named = table_names(&batch);
            tables.extend(named.map_err(|error| self.malformed("the list of tables has unexpected columns", error))?);
        }
        self.of_one_catalog(tables)
    }

    async fn table_schema(&self, table: &TableReference) -> Result<SchemaRef> {
        let query = format!("SELECT * FROM {}", quoted(table));
        retrying(self.patience(), || self.connection.schema(&query)).await
    }

    fn execute(&self, sql: Arc<str>, _schema: SchemaRef) -> BoxStream<'static, Result<RecordBatch>> {
        let (connection, patience) = (self.connection.clone(), self.patience());
        let started = async move { retrying(patience, || first_rows(&connection, &sql)).await };
        futures::stream::once(started).try_flatten().boxed()
    }

    /// In a transaction of the server, so that rows whose source fails half-way are not kept.
    async fn insert(&self, table: &TableReference, rows: SendableRecordBatchStream) -> Result<u64> {
        let parts = [table.schema(), Some(table.table())];
        if parts.iter().flatten().any(|part| part.contains('.')) {
            let message = format!("{}: INSERT INTO {table}: names with a dot are not supported", self.name());
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let target = parts.into_iter().flatten().collect::<Vec<_>>().join(".");
        let failure: Arc<Mutex<Option<DataFusionError>>> = Arc::default();
        let failed = Arc::clone(&failure);
        let schema = rows.schema();
        let rows = rows.map(move |batch| batch.map_err(|error| *failed.lock() = Some(error)).ok());
        let rows = rows.scan((), |(), batch| std::future::ready(batch));
        let transaction = self.connection.begin().await?;
        let inserted = transaction.ingest(&target, IngestMode::Append, schema, rows).await;
        let failure = failure.lock().take();
        match (inserted, failure) {
            (Ok(count), None) => {
                transaction.commit().await?;
                Ok(u64::try_from(count).unwrap_or(0))
            }
            (outcome, failure) => {
                let undone = transaction.rollback().await;
                let error = failure.map(source_error).or(outcome.err()).or(undone.err());
                Err(error.unwrap_or_else(|| Error::new(ErrorKind::Internal, "an insert failed without an error")))
            }
        }
    }
}

/// An error of the rows to be inserted, which is not the remote's.
fn source_error(error: DataFusionError) -> Error {
    match grizzly_error(&error) {
        Some(inner) => Error::new(inner.kind(), inner.message()).with_source(error),
        None => Error::new(ErrorKind::Invalid, error.strip_backtrace()),
    }
}

/// Sends a query and waits for its first rows.
async fn first_rows(connection: &FlightSqlConnection, sql: &str) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let mut batches = connection.query(sql).await?.batches;
    let first = batches.try_next().await?;
    Ok(futures::stream::iter(first.map(Ok)).chain(batches).boxed())
}

/// What the server calls itself; `None` if it does not say.
async fn server_name(connection: &FlightSqlConnection) -> Result<Option<String>> {
    let command = CommandGetSqlInfo { info: vec![SqlInfo::FlightSqlServerName as u32] };
    let batches = match connection.ask(&command).await {
        Ok(batches) => batches,
        Err(error) if error.kind() == ErrorKind::Unavailable || error.kind() == ErrorKind::Permission => {
            return Err(error);
        }
        // Many servers do not answer this.
        Err(_) => return Ok(None),
    };
    let name = batches.iter().filter(|batch| batch.num_columns() == 2 && batch.num_rows() > 0).find_map(|batch| {
        let value = batch.column(1).as_any().downcast_ref::<UnionArray>()?.value(0);
        value.as_string_opt::<i32>().filter(|texts| !texts.is_empty()).map(|texts| texts.value(0).to_owned())
    });
    Ok(name)
}

/// The names in an answer to `CommandGetTables`.
fn table_names(batch: &RecordBatch) -> std::result::Result<Vec<TableReference>, ArrowError> {
    if batch.num_columns() < 3 {
        return Err(ArrowError::SchemaError(format!("{} columns instead of 4", batch.num_columns())));
    }
    let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
    let (catalogs, schemas, tables) = (text(0)?, text(1)?, text(2)?);
    let at = |column: &dyn Array, row: usize| {
        let column = column.as_string::<i32>();
        (!column.is_null(row)).then(|| column.value(row).to_owned()).filter(|name| !name.is_empty())
    };
    let names = (0..batch.num_rows()).filter_map(|row| {
        let table = at(tables.as_ref(), row)?;
        Some(match (at(catalogs.as_ref(), row), at(schemas.as_ref(), row)) {
            (Some(catalog), Some(schema)) => TableReference::full(catalog, schema, table),
            (None, Some(schema)) => TableReference::partial(schema, table),
            (_, None) => TableReference::bare(table),
        })
    });
    Ok(names.collect())
}
