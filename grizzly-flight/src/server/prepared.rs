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
    understood: Understood,
    parameters: Parameters,
    rows: Mutex<Option<RecordBatch>>,
}

impl Prepared {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The statement with `rows`, or with the values bound before.
    fn bind(&self, rows: Option<RecordBatch>) -> Result<Bound, Status> {
        let rows = rows.or_else(|| self.rows.lock().clone());
        if rows.is_none() && !self.parameters.is_empty() {
            let wanted = self.parameters.schema().fields().len();
            return Err(invalid(format!("the statement has {wanted} parameters, none were given")));
        }
        let rows = if self.parameters.is_empty() { None } else { rows };
        Ok(Bound { understood: self.understood.clone(), parameters: self.parameters.clone(), rows })
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("sql", &self.understood.sql).finish_non_exhaustive()
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
    let understood = understand(&session, sql).await?;
    let parameters = match &understood.kind {
        Kind::Read(plan) | Kind::Write(plan) => Parameters::of(plan)?,
        Kind::Control => Parameters::none(),
    };
    let dataset_schema = ipc(&wire_schema(&understood.schema))?;
    let parameter_schema = ipc(parameters.schema())?;
    let prepared = Prepared { session, understood, parameters, rows: Mutex::default() };
    let prepared_statement_handle = state.prepared.insert(prepared)?;
    Ok(ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema })
}

/// Describes one run with the values bound now. Each call is a run of its own; its ticket may be sent again.
pub(crate) fn plan(state: &Arc<State>, handle: &[u8], descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let prepared = state.prepared.get(handle)?;
    let bound = prepared.bind(None)?;
    announce(state, Statement::new(Arc::clone(&prepared.session), bound), descriptor)
}

/// Runs it now; for clients that make the ticket themselves.
pub(crate) async fn fetch(state: &Arc<State>, handle: &[u8]) -> Result<FlightStream, Status> {
    let prepared = state.prepared.get(handle)?;
    let bound = prepared.bind(None)?;
    Statement::new(Arc::clone(&prepared.session), bound).fetch(state).await
}

/// The columns of its result.
pub(crate) fn schema(state: &Arc<State>, handle: &[u8]) -> Result<SchemaRef, Status> {
    Ok(wire_schema(&state.prepared.get(handle)?.understood.schema))
}

/// Binds the values that follow.
pub(crate) async fn bind(state: &Arc<State>, handle: &[u8], data: PeekableFlightDataStream) -> Result<(), Status> {
    let prepared = state.prepared.get(handle)?;
    let rows = rows(&prepared, data).await?;
    *prepared.rows.lock() = rows;
    Ok(())
}

/// Runs it once per row of the values that follow, or with those bound before, in one transaction.
pub(crate) async fn update(state: &Arc<State>, handle: &[u8], data: PeekableFlightDataStream) -> Result<i64, Status> {
    let prepared = state.prepared.get(handle)?;
    let rows = rows(&prepared, data).await?;
    run_update(state, &prepared.session, prepared.bind(rows)?).await
}

/// Reads all values that follow and fits them to the parameters; none if no schema follows.
async fn rows(prepared: &Prepared, data: PeekableFlightDataStream) -> Result<Option<RecordBatch>, Status> {
    let messages = data.into_peekable().map_err(FlightError::from);
    // Without parameters drivers send the bare command, which the decoder would take for a damaged schema.
    let messages = messages.try_filter(|message| std::future::ready(!message.data_header.is_empty()));
    let mut stream = FlightRecordBatchStream::new_from_flight_data(messages);
    let mut fitted = Vec::new();
    while let Some(batch) = stream.try_next().await.map_err(Status::from)? {
        fitted.push(prepared.parameters.fit(&batch)?);
    }
    let Some(first) = fitted.first() else { return Ok(None) };
    let schema = first.schema();
    concat_batches(&schema, &fitted).map(Some).map_err(|error| invalid(format!("parameters: {error}")))
}

fn ipc(schema: &SchemaRef) -> Result<Bytes, Status> {
    let options = arrow::ipc::writer::IpcWriteOptions::default();
    let IpcMessage(bytes) =
        SchemaAsIpc::new(schema, &options).try_into().map_err(|error| status(&Error::from(error)))?;
    Ok(bytes)
}
