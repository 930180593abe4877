//! The engines that the SQL corpus runs on, behind one connection type.

use std::sync::Arc;

use crate::cluster::nodes::{TestNode, three};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Schema, UInt64Type},
    util::display::{ArrayFormatter, FormatOptions},
};
use async_trait::async_trait;
use datafusion::{error::DataFusionError, execution::SessionStateBuilder, prelude::SessionContext};
use futures::TryStreamExt;
use grizzly_flight::{FlightSqlConnection, FlightSqlServer};
use grizzly_optimizer::GrizzlyOptimizerExt;
use grizzly_provider::{
    Error, Grizzly, Settings,
    adapter::{GrizzlySession, GrizzlySessionExt, sqlstate},
};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};

/// Which door a file goes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Engine {
    /// `GrizzlySession` with Grizzly's optimizer rules.
    Embedded,
    /// `GrizzlySession` without them: the same answers, only slower.
    EmbeddedNoRules,
    /// `GrizzlySession` that answers every query from kept results where it can.
    Cached,
    /// A plain `SessionContext` built `with_grizzly`.
    Vanilla,
    /// A Flight SQL server on loopback.
    Flight,
    /// One of three nodes, with every query on all of them that can be.
    Cluster,
}

impl Engine {
    fn label(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::EmbeddedNoRules => "embedded_norules",
            Self::Cached => "cached",
            Self::Vanilla => "vanilla",
            Self::Flight => "flight",
            Self::Cluster => "cluster",
        }
    }
}

/// An empty database in memory, and how to reach it.
pub(crate) struct Host {
    engine: Engine,
    db: Grizzly,
    /// Address of the server, if there is one. It runs as long as the runtime.
    address: Option<String>,
    _nodes: Vec<TestNode>,
}

/// One session.
pub(crate) struct Session {
    engine: Engine,
    door: Door,
}

enum Door {
    Front(GrizzlySession),
    Vanilla(SessionContext),
    Flight(FlightSqlConnection),
}

/// What a statement failed with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    sqlstate: String,
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self { message: error.strip_backtrace(), sqlstate: sqlstate(&error).to_owned() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { message: error.to_string(), sqlstate: error.sqlstate().to_owned() }
    }
}

fn with_rules(db: &Grizzly) -> Result<GrizzlySession, DataFusionError> {
    let builder = SessionStateBuilder::new().with_default_features().with_grizzly(db).with_grizzly_optimizer()?;
    Ok(GrizzlySession::with_state(builder.build())?)
}

impl Host {
    pub(crate) async fn start(engine: Engine) -> Result<Self, Failure> {
        let result_cache = if engine == Engine::Cached { 1 << 20 } else { 0 };
        let settings = Settings { result_cache, ..Settings::default() };
        let db = Grizzly::builder("memory://").settings(settings).open()?;
        let mut address = None;
        if engine == Engine::Flight {
            let served = db.clone();
            let server = FlightSqlServer::builder(Arc::new(move || with_rules(&served))).listen("127.0.0.1:0").await?;
            address = Some(server.url());
            tokio::spawn(server.serve());
        }
        let mut nodes = Vec::new();
        if engine == Engine::Cluster {
            let started = three(&db).await;
            let started =
                started.map_err(|error| Failure { message: error.to_string(), sqlstate: "XX000".to_owned() })?;
            address = Some(started[0].url.clone());
            nodes.extend(started);
        }
        Ok(Self { engine, db, address, _nodes: nodes })
    }

    pub(crate) async fn connect(&self) -> Result<Session, Failure> {
        let door = match (self.engine, &self.address) {
            (_, Some(address)) => {
                let connection = FlightSqlConnection::connect(address).await?;
                if self.engine == Engine::Cluster {
                    connection.update("SET grizzly.distribute_rows = 1").await?;
                }
                Door::Flight(connection)
            }
            (Engine::Vanilla, None) => {
                let state = SessionStateBuilder::new().with_default_features().with_grizzly(&self.db).build();
                Door::Vanilla(SessionContext::new_with_state(state))
            }
            (Engine::EmbeddedNoRules, None) => Door::Front(GrizzlySession::new(&self.db)),
            (Engine::Cached, None) => {
                let session = with_rules(&self.db)?;
                session.execute("SET grizzly.result_cache_rows = 0").await?;
                Door::Front(session)
            }
            (Engine::Embedded | Engine::Flight | Engine::Cluster, None) => Door::Front(with_rules(&self.db)?),
        };
        Ok(Session { engine: self.engine, door })
    }
}

#[async_trait]
impl AsyncDB for Session {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        if let (Engine::Cached, Door::Front(session)) = (self.engine, &self.door)
            && asks(sql)
        {
            // So that there is a result to answer with.
            session.sql(sql).await?.collect().await?;
        }
        let (schema, batches) = match &mut self.door {
            Door::Front(session) => {
                let frame = session.sql(sql).await?;
                (Arc::clone(frame.schema().inner()), frame.collect().await?)
            }
            Door::Vanilla(context) => {
                let frame = context.sql(sql).await?;
                (Arc::clone(frame.schema().inner()), frame.collect().await?)
            }
            Door::Flight(connection) => {
                let rows = connection.query(sql).await?;
                (rows.schema, rows.batches.try_collect().await?)
            }
        };
        output(sql, &schema, &batches)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.engine.label()
    }

    fn error_sql_state(failure: &Failure) -> Option<String> {
        Some(failure.sqlstate.clone())
    }
}

/// Whether the statement only reads.
fn asks(sql: &str) -> bool {
    let first = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    ["SELECT", "WITH", "VALUES", "EXPLAIN", "SHOW"].contains(&first.as_str())
}

/// A statement that writes answers with one row, its `count`; one that defines something with none.
fn output(sql: &str, schema: &Schema, batches: &[RecordBatch]) -> Result<DBOutput<DefaultColumnType>, Failure> {
    let asks = asks(sql);
    let counts = schema.fields().len() == 1 && schema.field(0).name() == "count";
    if !asks && counts && *schema.field(0).data_type() == DataType::UInt64 {
        let rows = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<UInt64Type>().values().iter());
        return Ok(DBOutput::StatementComplete(rows.sum()));
    }
    if schema.fields().is_empty() {
        return Ok(DBOutput::StatementComplete(0));
    }
    let types = schema.fields().iter().map(|field| column_type(field.data_type())).collect();
    let mut rows = Vec::new();
    for batch in batches {
        rows.extend(cells(batch)?);
    }
    Ok(DBOutput::Rows { types, rows })
}

fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DefaultColumnType::Text,
        other if other.is_integer() => DefaultColumnType::Integer,
        other if other.is_floating() || other.is_decimal() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Any,
    }
}

fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Failure> {
    let options = FormatOptions::new().with_null("NULL");
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(DataFusionError::from)?;
    let cell = |column: &ArrayFormatter<'_>, row: usize| match column.value(row).to_string() {
        text if text.is_empty() => "(empty)".to_owned(),
        text => text,
    };
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(column, row)).collect()).collect())
}
