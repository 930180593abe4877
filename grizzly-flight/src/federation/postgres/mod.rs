//! A PostgreSQL database as a remote: `postgres://user:password@host:port/database`.
//!
//! Connections are made without TLS and are read-only; each running query has one of its own, and idle ones are kept.

mod decode;

use std::{fmt, sync::Arc, time::Duration};

use arrow::{
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::{common::TableReference, logical_expr::Operator};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use grizzly_provider::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use tokio_postgres::{Client, Config, NoTls, Row, types::ToSql};

use super::{
    Comparison, Dialect, Location, RemoteDatabase,
    dialect::standard_cast,
    retry::{retrying, within},
    table::quoted,
};

/// Rows that are made into one batch.
const BATCH_ROWS: usize = 4096;

/// Idle connections that are kept.
const IDLE: usize = 8;

const TABLES: &str = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace \
                      n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN \
                      ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%' ORDER BY 1, 2";

const COLUMNS: &str = "SELECT a.attname::text, t.typname::text, a.atttypmod, a.attnotnull, \
                       coalesce(l.collisdeterministic, true) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t \
                       ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation WHERE \
                       a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// A PostgreSQL database.
pub struct PostgresDatabase {
    location: Location,
    identity: String,
    idle: Arc<Mutex<Vec<Client>>>,
}

impl PostgresDatabase {
    /// Connects to where `location` points.
    pub async fn connect(location: Location) -> Result<Self> {
        let identity = format!("{} {:?}", location.url(), (location.credentials().0, location.path()));
        let database = Self { location, identity, idle: Arc::default() };
        let client = connection(&database.location, &database.idle).await?;
        give_back(&database.idle, client);
        Ok(database)
    }

    async fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let client = connection(&self.location, &self.idle).await?;
        let asked = client.query(sql, parameters);
        let rows = within(self.location.timeout(), self.name(), asked).await?;
        let rows = rows.map_err(|error| failed(&self.location, &error))?;
        give_back(&self.idle, client);
        Ok(rows)
    }

    fn field(&self, table: &TableReference, row: &Row) -> Result<Field> {
        let broken = |error: tokio_postgres::Error| failed(&self.location, &error);
        let name: String = row.try_get(0).map_err(broken)?;
        let kind: String = row.try_get(1).map_err(broken)?;
        let modifier: i32 = row.try_get(2).map_err(broken)?;
        let not_null: bool = row.try_get(3).map_err(broken)?;
        let deterministic: bool = row.try_get(4).map_err(broken)?;
        let data_type = data_type(&kind, modifier).filter(|_| deterministic).ok_or_else(|| {
            let message = format!(
                "{}: column {name} of {table} is of type {kind}, which is not supported; read a view that casts it",
                self.name()
            );
            Error::new(ErrorKind::Unsupported, message)
        })?;
        Ok(Field::new(name, data_type, !not_null))
    }
}

impl fmt::Debug for PostgresDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresDatabase").field("location", &self.location).finish_non_exhaustive()
    }
}

#[async_trait]
impl RemoteDatabase for PostgresDatabase {
    fn name(&self) -> &str {
        self.location.url()
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn dialect(&self) -> &Dialect {
        &Dialect::POSTGRES
    }

    async fn tables(&self) -> Result<Vec<TableReference>> {
        let rows = self.ask(TABLES, &[]).await?;
        let name = |row: &Row| -> std::result::Result<TableReference, tokio_postgres::Error> {
            Ok(TableReference::partial(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?))
        };
        let names: std::result::Result<Vec<_>, _> = rows.iter().map(name).collect();
        names.map_err(|error| failed(&self.location, &error))
    }

    async fn table_schema(&self, table: &TableReference) -> Result<SchemaRef> {
        let rows = self.ask(COLUMNS, &[&quoted(table)]).await?;
        if rows.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("{}: there is no table {table}", self.name())));
        }
        let fields: Result<Vec<Field>> = rows.iter().map(|row| self.field(table, row)).collect();
        Ok(Arc::new(Schema::new(fields?)))
    }

    fn execute(&self, sql: Arc<str>, schema: SchemaRef) -> BoxStream<'static, Result<RecordBatch>> {
        let (location, idle) = (self.location.clone(), Arc::clone(&self.idle));
        let started =
            async move { retrying(location.connect_timeout(), || start(&location, &idle, &sql, &schema)).await };
        futures::stream::once(started).try_flatten().boxed()
    }
}

/// Sends a query and waits for its first rows.
async fn start(
    location: &Location,
    idle: &Arc<Mutex<Vec<Client>>>,
    sql: &str,
    schema: &SchemaRef,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let client = connection(location, idle).await?;
    let sent = async {
        let statement = client.prepare(sql).await?;
        let rows = client.query_raw(&statement, std::iter::empty::<&(dyn ToSql + Sync)>()).await?;
        Ok::<_, tokio_postgres::Error>(Box::pin(rows.ready_chunks(BATCH_ROWS)))
    };
    let rows = within(location.timeout(), location.url(), sent).await?;
    let rows = rows.map_err(|error| failed(location, &error))?;
    let (place, columns, idle) = (location.clone(), Arc::clone(schema), Arc::clone(idle));
    let batches = futures::stream::try_unfold((rows, client), move |(mut rows, client)| {
        let (location, schema, idle) = (place.clone(), Arc::clone(&columns), Arc::clone(&idle));
        async move {
            let Some(chunk) = within(location.timeout(), location.url(), rows.next()).await? else {
                give_back(&idle, client);
                return Ok(None);
            };
            let chunk: std::result::Result<Vec<Row>, _> = chunk.into_iter().collect();
            let chunk = chunk.map_err(|error| failed(&location, &error))?;
            let batch = decode::batch(&chunk, &schema).map_err(|error| {
                let message = format!("{location}: the columns have changed since the table was opened: {error}");
                Error::new(ErrorKind::Invalid, message)
            })?;
            Ok(Some((batch, (rows, client))))
        }
    });
    let mut batches = batches.boxed();
    let first = batches.try_next().await?;
    Ok(futures::stream::iter(first.map(Ok)).chain(batches).boxed())
}

/// A kept connection, or a new one.
async fn connection(location: &Location, idle: &Mutex<Vec<Client>>) -> Result<Client> {
    let kept = || idle.lock().pop();
    while let Some(client) = kept() {
        if !client.is_closed() {
            return Ok(client);
        }
    }
    let mut config: Config = location
        .full()
        .as_str()
        .split('?')
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|error: tokio_postgres::Error| Error::new(ErrorKind::Invalid, format!("{location}: {error}")))?;
    let (user, password) = location.credentials();
    if let Some(user) = user {
        config.user(user);
    }
    if let Some(password) = password {
        config.password(password);
    }
    let limit = location.timeout().unwrap_or(Duration::ZERO).as_millis();
    let settings = format!(
        "-c statement_timeout={limit} -c default_transaction_read_only=on -c standard_conforming_strings=on -c \
         TimeZone=UTC"
    );
    config.options(settings).application_name("grizzly").connect_timeout(location.connect_timeout());
    let connecting = within(Some(location.connect_timeout()), location.url(), config.connect(NoTls)).await?;
    let (client, connection) = connecting.map_err(|error| failed(location, &error))?;
    let name = location.url().to_owned();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, remote = name, "a connection ended");
        }
    });
    Ok(client)
}

fn give_back(idle: &Mutex<Vec<Client>>, client: Client) {
    let mut idle = idle.lock();
    if idle.len() < IDLE {
        idle.push(client);
    }
}

/// PostgreSQL's error under its own SQLSTATE; one without is of the connection.
fn failed(location: &Location, error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(reported) => {
            let kind = crate::error::kind_of_sqlstate(reported.code().code()).unwrap_or(ErrorKind::Invalid);
            Error::new(kind, format!("{location}: {}", reported.message()))
        }
        None => {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            Error::new(ErrorKind::Unavailable, format!("{location}: {error}: {cause}"))
        }
    }
}

/// The type of a column here; `None` for types whose values have no exact counterpart.
fn data_type(name: &str, modifier: i32) -> Option<DataType> {
    Some(match name {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" => DataType::Int32,
        "int8" => DataType::Int64,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "text" | "varchar" | "name" => DataType::Utf8,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "numeric" if modifier > 4 => {
            let (precision, scale) = (((modifier - 4) >> 16) & 0xffff, (modifier - 4) & 0x7ff);
            let precision = u8::try_from(precision).ok().filter(|precision| (1..=38).contains(precision))?;
            let scale = i8::try_from(scale).ok().filter(|scale| i32::from(*scale) <= i32::from(precision))?;
            DataType::Decimal128(precision, scale)
        }
        _ => return None,
    })
}

impl Dialect {
    /// PostgreSQL. Its order of texts is that of a locale, and its floats have another order too.
    pub const POSTGRES: Self = Self {
        compares: |data_type| match data_type {
            DataType::Boolean | DataType::Date32 | DataType::Decimal128(..) => Comparison::Ordered,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Comparison::Ordered,
            other if is_integer(other) => Comparison::Ordered,
            other if other.is_string() => Comparison::Equal,
            _ => Comparison::None,
        },
        calculates: |operator, data_type| match (operator, data_type) {
            (Operator::Plus | Operator::Minus | Operator::Multiply, DataType::Decimal128(precision, _)) => {
                *precision < 38
            }
            (_, other) => matches!(other, DataType::Int32 | DataType::Int64),
        },
        cast: |sql, to| match to {
            DataType::Timestamp(TimeUnit::Microsecond, None) => Some(format!("CAST({sql} AS TIMESTAMP)")),
            other => standard_cast(sql, other),
        },
        converts: |from, to| match (from, to) {
            (DataType::Decimal128(from_precision, from_scale), DataType::Decimal128(precision, scale)) => {
                let whole = |precision: &u8, scale: &i8| i16::from(*precision) - i16::from(*scale);
                scale >= from_scale && whole(precision, scale) >= whole(from_precision, from_scale)
            }
            (from, DataType::Decimal128(precision, scale)) => {
                is_integer(from) && i16::from(*precision) - i16::from(*scale) >= 19
            }
            (DataType::Int16, DataType::Int32 | DataType::Int64) | (DataType::Int32, DataType::Int64) => true,
            (DataType::Date32, DataType::Timestamp(TimeUnit::Microsecond, None)) => true,
            (from, to) => from.is_string() && to.is_string(),
        },
        functions: &["character_length", "coalesce", "like", "nullif", "octet_length", "starts_with", "||"],
        escapes_patterns: false,
        aggregates: |name, data_type| match name {
            "count" => true,
            "min" | "max" => {
                is_integer(data_type)
                    || matches!(data_type, DataType::Date32 | DataType::Decimal128(..) | DataType::Timestamp(_, None))
            }
            "sum" => is_integer(data_type) || matches!(data_type, DataType::Decimal128(..)),
            "bool_and" | "bool_or" => *data_type == DataType::Boolean,
            _ => false,
        },
        returns: |_| true,
        casts_aggregates: true,
        filters_aggregates: true,
        // Only on conditions that it can sort or hash by.
        full_joins: false,
    };
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int16 | DataType::Int32 | DataType::Int64)
}
