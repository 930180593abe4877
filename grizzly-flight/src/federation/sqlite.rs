//! A SQLite file as a remote: `sqlite:///path/to/file.db`.
//!
//! Opened read-only; each running query has a connection and a thread of its own.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatchOptions, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::common::TableReference;
use futures::{StreamExt, stream::BoxStream};
use grizzly_provider::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags, types::Value};
use tokio::sync::mpsc;

use super::{Comparison, Dialect, Location, RemoteDatabase, dialect::standard_cast, retry::within};

/// Rows that are made into one batch.
const BATCH_ROWS: usize = 4096;

/// A SQLite file.
#[derive(Debug)]
pub struct SqliteDatabase {
    file: Arc<File>,
    name: String,
    identity: String,
    timeout: Option<Duration>,
}

#[derive(Debug)]
struct File {
    path: String,
    name: String,
    /// How long to wait for a lock.
    patience: Duration,
}

impl SqliteDatabase {
    /// Opens the file that `location` names.
    pub async fn open(location: &Location) -> Result<Self> {
        let path = location.path().map(|path| format!("/{path}"));
        let path = path.ok_or_else(|| Error::new(ErrorKind::Invalid, "expected sqlite:///path/to/file.db"))?;
        let name = format!("sqlite://{path}");
        let file = Arc::new(File { path, name: name.clone(), patience: location.connect_timeout() });
        let database = Self { file, identity: name.clone(), name, timeout: location.timeout() };
        database.tables().await?;
        Ok(database)
    }

    /// Runs `work` on a thread where it may wait for the disk.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = Arc::clone(&self.file);
        let working = tokio::task::spawn_blocking(move || {
            let connection = file.open()?;
            work(&connection).map_err(|error| file.failed(&error))
        });
        let done = within(self.timeout, &self.name, working).await?;
        done.map_err(|error| {
            Error::new(ErrorKind::Internal, format!("{}: a query ended abnormally", self.name)).with_source(error)
        })?
    }
}

impl File {
    fn open(&self) -> Result<Connection> {
        let opened = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let connection = opened.map_err(|error| self.failed(&error))?;
        connection.busy_timeout(self.patience).map_err(|error| self.failed(&error))?;
        Ok(connection)
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        use rusqlite::ErrorCode as C;
        let kind = match error.sqlite_error_code() {
            Some(C::CannotOpen | C::DatabaseBusy | C::DatabaseLocked | C::SystemIoFailure) => ErrorKind::Unavailable,
            Some(C::DatabaseCorrupt | C::NotADatabase) => ErrorKind::Corrupt,
            Some(C::OperationInterrupted) => ErrorKind::Cancelled,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, format!("{}: {error}", self.name))
    }

    /// Sends all batches of a query; stops when nobody wants them any more.
    fn run(&self, sql: &str, schema: &SchemaRef, batches: &mpsc::Sender<Result<RecordBatch>>) -> Result<()> {
        let connection = self.open()?;
        let failed = |error: rusqlite::Error| self.failed(&error);
        let mut statement = connection.prepare(sql).map_err(failed)?;
        let width = statement.column_count();
        let mut rows = statement.query([]).map_err(failed)?;
        let mut values: Vec<Vec<Value>> = Vec::new();
        loop {
            let row = rows.next().map_err(failed)?;
            let ended = row.is_none();
            if let Some(row) = row {
                let cells: rusqlite::Result<Vec<Value>> = (0..width).map(|at| row.get(at)).collect();
                values.push(cells.map_err(failed)?);
            }
            if values.len() == BATCH_ROWS || (ended && !values.is_empty()) {
                let batch = batch(&std::mem::take(&mut values), schema).map_err(|error| {
                    let message =
                        format!("{}: the columns have changed since the table was opened: {error}", self.name);
                    Error::new(ErrorKind::Invalid, message)
                })?;
                if batches.blocking_send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
            if ended {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl RemoteDatabase for SqliteDatabase {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn dialect(&self) -> &Dialect {
        &Dialect::SQLITE
    }

    async fn tables(&self) -> Result<Vec<TableReference>> {
        let sql =
            "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        let names = self.ask(move |connection| {
            let mut statement = connection.prepare(sql)?;
            statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
        });
        Ok(names.await?.into_iter().map(TableReference::bare).collect())
    }

    async fn table_schema(&self, table: &TableReference) -> Result<SchemaRef> {
        let wanted = table.table().to_owned();
        let columns = self.ask(move |connection| {
            let mut statement = connection.prepare("SELECT name, type, \"notnull\" FROM pragma_table_info(?1)")?;
            let columns = statement.query_map([wanted], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
            });
            columns?.collect::<rusqlite::Result<Vec<_>>>()
        });
        let columns = columns.await?;
        if columns.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("{}: there is no table {table}", self.name)));
        }
        let fields = columns.into_iter().map(|(name, declared, not_null)| match data_type(&declared) {
            Some(data_type) => Ok(Field::new(name, data_type, !not_null)),
            None => {
                let message = format!(
                    "{}: column {name} of {table} is declared as \"{declared}\", which is not supported; read a view \
                     that casts it to INTEGER, REAL or TEXT",
                    self.name
                );
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        });
        Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
    }

    fn execute(&self, sql: Arc<str>, schema: SchemaRef) -> BoxStream<'static, Result<RecordBatch>> {
        let (file, timeout) = (Arc::clone(&self.file), self.timeout);
        let started = async move {
            let (sender, receiver) = mpsc::channel(2);
            let reading = Arc::clone(&file);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = reading.run(&sql, &schema, &sender) {
                    // Nobody waits for it any more if this fails.
                    let _ = sender.blocking_send(Err(error));
                }
            });
            futures::stream::unfold(Some(receiver), move |receiver| {
                let file = Arc::clone(&file);
                async move {
                    let mut receiver = receiver?;
                    match within(timeout, &file.name, receiver.recv()).await {
                        Ok(None) => None,
                        Ok(Some(batch)) => Some((batch, Some(receiver))),
                        Err(late) => Some((Err(late), None)),
                    }
                }
            })
        };
        futures::stream::once(started).flatten().boxed()
    }
}

/// SQLite's rule for declared types, as far as their values are of one type.
fn data_type(declared: &str) -> Option<DataType> {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Some(DataType::Int64)
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Some(DataType::Utf8)
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Some(DataType::Float64)
    } else {
        has("BLOB").then_some(DataType::Binary)
    }
}

fn batch(rows: &[Vec<Value>], schema: &SchemaRef) -> std::result::Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let columns = schema.fields().iter().enumerate().map(|(at, field)| {
        column(rows, at, field.data_type()).map_err(|error| format!("column {}: {error}", field.name()))
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| error.to_string())
}

/// Every value says its own type, whatever its column's is.
fn column(rows: &[Vec<Value>], at: usize, data_type: &DataType) -> std::result::Result<ArrayRef, String> {
    let cells = || rows.iter().map(|row| row.get(at).filter(|value| !matches!(value, Value::Null)));
    let unfit = |value: &Value| format!("a value of type {} in a column of {data_type}", value.data_type());
    let integer = |value: &Value| if let Value::Integer(number) = value { Ok(*number) } else { Err(unfit(value)) };
    let real = |value: &Value| match value {
        Value::Real(number) => Ok(*number),
        other => Err(unfit(other)),
    };
    let text = |value: &Value| if let Value::Text(text) = value { Ok(text.clone()) } else { Err(unfit(value)) };
    let blob = |value: &Value| if let Value::Blob(blob) = value { Ok(blob.clone()) } else { Err(unfit(value)) };
    let array: ArrayRef = match data_type {
        other if other.is_integer() => {
            let numbers = cells().map(|cell| cell.map(integer).transpose());
            Arc::new(numbers.collect::<std::result::Result<Int64Array, _>>()?)
        }
        DataType::Float64 => {
            let numbers = cells().map(|cell| cell.map(real).transpose());
            Arc::new(numbers.collect::<std::result::Result<Float64Array, _>>()?)
        }
        DataType::Binary => {
            let blobs = cells().map(|cell| cell.map(blob).transpose());
            Arc::new(blobs.collect::<std::result::Result<BinaryArray, _>>()?)
        }
        other if other.is_string() => {
            let texts = cells().map(|cell| cell.map(text).transpose());
            Arc::new(texts.collect::<std::result::Result<StringArray, _>>()?)
        }
        other => return Err(format!("SQLite has no type for {other}")),
    };
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    arrow::compute::cast_with_options(&array, data_type, &options).map_err(|error| error.to_string())
}

impl Dialect {
    /// SQLite: whole numbers only. Whether texts are compared with case is a column's own affair there, and it has
    /// neither booleans nor decimals nor dates.
    pub const SQLITE: Self = Self {
        compares: |data_type| match data_type {
            DataType::Int64 | DataType::Int32 | DataType::Int16 => Comparison::Ordered,
            _ => Comparison::None,
        },
        calculates: |_, _| false,
        cast: |sql, to| match to {
            DataType::Int64 => standard_cast(sql, to),
            _ => None,
        },
        converts: |_, _| false,
        functions: &[],
        escapes_patterns: false,
        aggregates: |name, data_type| match name {
            "count" => true,
            "min" | "max" | "sum" => *data_type == DataType::Int64,
            _ => false,
        },
        returns: |data_type| *data_type == DataType::Int64,
        casts_aggregates: false,
        filters_aggregates: true,
        full_joins: true,
    };
}
