//! Prepared statements: planned once, bound to rows of values, run as often as the client likes.

use std::{fmt, sync::Arc};

use arrow::{compute::concat_batches, datatypes::SchemaRef, record_batch::RecordBatch};
use arrow_flight::{
    FlightDescriptor, FlightInfo, IpcMessage, SchemaAsIpc,
    decode::FlightRecordBatchStream,
    error::FlightError,
    sql::{ActionCreatePreparedStatementResult, server::PeekableFlightDataStream},
};
use bytes::Bytes;
use futures::TryStreamExt;
use grizzly_provider::Error;
use parking_lot::Mutex;
use tonic::Status;

use super::{
    attended::TimeLimit,
    decoded,
    parameters::Parameters,
    query::{Bound, Statement, announce, run_update},
    sessions::{Session, SessionKey, State},
    statement::{Kind, Understood, understand},
    stream::{FlightStream, wire_schema},
};
use crate::error::{invalid, status};

/// A planned statement and the values bound to it last.
pub(crate) struct Prepared {
    session: Arc<Session>,
    planned: Mutex<Arc<Planned>>,
    rows: Mutex<Option<RecordBatch>>,
}

/// What a statement means under one version of the catalog.
struct Planned {
    catalog_version: u64,
    understood: Understood,
    parameters: Parameters,
}

impl Planned {
    async fn new(session: &Arc<Session>, time: TimeLimit, sql: &str) -> Result<Self, Status> {
        // Read before planning: what changes meanwhile makes the plan outdated, not the other way round.
        let catalog_version = session.open()?.handle().db().catalog_version();
        let understood = understand(session, time, sql).await?;
        let parameters = match &understood.kind {
            Kind::Read(plan) | Kind::Write(plan) => Parameters::of(plan)?,
            Kind::Control => Parameters::none(),
        };
        Ok(Self { catalog_version, understood, parameters })
    }
}

impl Prepared {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The plan, made anew if tables were created or dropped since: the names may mean others now.
    async fn planned(&self, state: &State) -> Result<Arc<Planned>, Status> {
        let planned = Arc::clone(&self.planned.lock());
        if planned.catalog_version == self.session.open()?.handle().db().catalog_version() {
            return Ok(planned);
        }
        let planned = Arc::new(Planned::new(&self.session, state.time_limit(), &planned.understood.sql).await?);
        *self.planned.lock() = Arc::clone(&planned);
        Ok(planned)
    }

    /// The statement with `rows`, or with the values bound before.
    async fn bind(&self, state: &State, rows: Option<RecordBatch>) -> Result<Bound, Status> {
        let planned = self.planned(state).await?;
        let parameters = planned.parameters.clone();
        let rows = rows.or_else(|| self.rows.lock().clone());
        let rows = match rows {
            _ if parameters.is_empty() => None,
            Some(rows) => Some(parameters.fit(&rows)?),
            None => {
                let wanted = parameters.schema().fields().len();
                return Err(invalid(format!("the statement has {wanted} parameters, none were given")));
            }
        };
        Ok(Bound { understood: planned.understood.clone(), parameters, rows })
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("sql", &self.planned.lock().understood.sql).finish_non_exhaustive()
    }
}

/// Plans a statement and tells its parameters and columns.
pub(crate) async fn create(
    state: &Arc<State>,
    key: &SessionKey,
    transaction: Option<&[u8]>,
    sql: &str,
) -> Result<ActionCreatePreparedStatementResult, Status> {
    let session = state.session(key, transaction)?;
    let planned = Planned::new(&session, state.time_limit(), sql).await?;
    // JDBC's driver takes a statement with columns for a query and one without for an update.
    let dataset_schema = match &planned.understood.kind {
        Kind::Read(_) => ipc(&wire_schema(&planned.understood.schema))?,
        Kind::Write(_) | Kind::Control => Bytes::new(),
    };
    let parameter_schema = ipc(planned.parameters.schema())?;
    let prepared = Prepared { session, planned: Mutex::new(Arc::new(planned)), rows: Mutex::default() };
    let prepared_statement_handle = state.prepared.insert(prepared.session.owner(), prepared)?;
    Ok(ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema })
}

/// Describes one run with the values bound now. Each call is a run of its own; its ticket may be sent again.
pub(crate) async fn plan(
    state: &Arc<State>,
    handle: &[u8],
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let prepared = state.prepared.get(handle)?;
    let bound = prepared.bind(state, None).await?;
    announce(state, Arc::clone(&prepared.session), bound, state.time_limit(), descriptor)
}

/// Runs it now; for clients that make the ticket themselves.
pub(crate) async fn fetch(state: &Arc<State>, handle: &[u8]) -> Result<FlightStream, Status> {
    let prepared = state.prepared.get(handle)?;
    let bound = prepared.bind(state, None).await?;
    Statement::new(Arc::clone(&prepared.session), bound, state.time_limit()).fetch(state).await
}

/// The columns of its result.
pub(crate) async fn schema(state: &Arc<State>, handle: &[u8]) -> Result<SchemaRef, Status> {
    let planned = state.prepared.get(handle)?.planned(state).await?;
    Ok(wire_schema(&planned.understood.schema))
}

/// Binds the values that follow.
pub(crate) async fn bind(state: &Arc<State>, handle: &[u8], data: PeekableFlightDataStream) -> Result<(), Status> {
    let prepared = state.prepared.get(handle)?;
    let rows = rows(data).await?;
    if let Some(rows) = &rows {
        // Told now rather than at execution: values that do not fit.
        prepared.planned(state).await?.parameters.fit(rows)?;
    }
    *prepared.rows.lock() = rows;
    Ok(())
}

/// Runs it once per row of the values that follow, or with those bound before, in one transaction.
pub(crate) async fn update(state: &Arc<State>, handle: &[u8], data: PeekableFlightDataStream) -> Result<i64, Status> {
    let prepared = state.prepared.get(handle)?;
    let rows = rows(data).await?;
    run_update(state, &prepared.session, prepared.bind(state, rows).await?, state.time_limit()).await
}

/// Reads all values that follow; none if no schema follows.
async fn rows(data: PeekableFlightDataStream) -> Result<Option<RecordBatch>, Status> {
    let messages = data.into_peekable().map_err(FlightError::from);
    // Without parameters drivers send the bare command, which the decoder would take for a damaged schema.
    let messages = messages.try_filter(|message| std::future::ready(!message.data_header.is_empty()));
    let stream = FlightRecordBatchStream::new_from_flight_data(messages);
    let batches: Vec<RecordBatch> = decoded::rest(stream).try_collect().await.map_err(Status::from)?;
    let Some(first) = batches.first() else { return Ok(None) };
    let schema = first.schema();
    concat_batches(&schema, &batches).map(Some).map_err(|error| invalid(format!("parameters: {error}")))
}

fn ipc(schema: &SchemaRef) -> Result<Bytes, Status> {
    let options = arrow::ipc::writer::IpcWriteOptions::default();
    let IpcMessage(bytes) =
        SchemaAsIpc::new(schema, &options).try_into().map_err(|error| status(&Error::from(error)))?;
    Ok(bytes)
}
