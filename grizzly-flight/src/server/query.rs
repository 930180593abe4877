//! Statements: planned by GetFlightInfo, run by DoGet; or run at once, as updates.
//!
//! Reads stream. A write runs once, however often its ticket is sent: it runs in a task of its own, to its end, and
//! every ticket waits for and gets the one stored answer.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::{
    array::{Array, Int64Array, UInt64Array},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket, sql::TicketStatementQuery};
use bytes::Bytes;
use datafusion::{common::ParamValues, logical_expr::LogicalPlan, prelude::DataFrame};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, Shared},
};
use grizzly_provider::{Error, ErrorKind, adapter::CommitNotice};
use tonic::Status;

use super::{
    batch::insert_of_all,
    forward::{self, Sent, Written},
    handles::packed,
    parameters::Parameters,
    sessions::{Session, SessionKey, State},
    statement::{Kind, Understood, is_definition, understand},
    stream::{BatchStream, CancelSwitch, FlightStream, deadline, encode, guarded, wire_schema},
};
use crate::error::{invalid, query_status, status};

type Outcome = Shared<BoxFuture<'static, Result<Arc<[RecordBatch]>, Status>>>;

/// A statement with its parameter values, ready to run in its session.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) understood: Understood,
    pub(crate) parameters: Parameters,
    /// Fitted rows; a statement without parameters has none of these and runs once.
    pub(crate) rows: Option<RecordBatch>,
}

impl Bound {
    /// A statement without parameters.
    pub(crate) fn plain(understood: Understood) -> Self {
        Self { understood, parameters: Parameters::none(), rows: None }
    }

    /// The same for another node.
    fn sent(&self) -> Sent<'_> {
        Sent { sql: &self.understood.sql, values: self.rows.as_ref() }
    }

    /// The values of each run: one per row of parameters.
    fn runs(&self) -> Result<Vec<ParamValues>, Status> {
        let Some(rows) = &self.rows else { return Ok(vec![ParamValues::List(Vec::new())]) };
        (0..rows.num_rows()).map(|row| self.parameters.row(rows, row)).collect()
    }
}

/// A planned statement that waits for its ticket.
pub(crate) struct Statement {
    session: Arc<Session>,
    bound: Bound,
    switch: CancelSwitch,
    outcome: OnceLock<Outcome>,
    /// All rows of a query were fetched once, or as many as the client wanted.
    fetched: Arc<AtomicBool>,
}

/// Notes, when it is dropped, that a query's rows were fetched.
struct Fetched(Arc<AtomicBool>);

impl Drop for Fetched {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Statement {
    pub(crate) fn new(session: Arc<Session>, bound: Bound) -> Self {
        Self { session, bound, switch: CancelSwitch::new(), outcome: OnceLock::new(), fetched: Arc::default() }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Whether the stream of its rows has ended.
    pub(crate) fn is_fetched(&self) -> bool {
        self.fetched.load(Ordering::Acquire)
    }

    /// Whether a write has begun, or is done.
    pub(crate) fn has_started(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// Stops it, now and for all future tickets.
    pub(crate) fn cancel(&self) {
        self.switch.cancel();
    }

    /// The result, under the schema that GetFlightInfo announced.
    pub(crate) async fn fetch(&self, state: &Arc<State>) -> Result<FlightStream, Status> {
        let schema = Arc::clone(&self.bound.understood.schema);
        let batches = match &self.bound.understood.kind {
            Kind::Read(plan) => {
                let rows = read(state, &self.session, &self.bound, plan, &self.switch).await?;
                let fetched = Fetched(Arc::clone(&self.fetched));
                rows.inspect(move |_| _ = &fetched).boxed()
            }
            Kind::Write(_) | Kind::Control => {
                let outcome = self.outcome.get_or_init(|| self.start(state)).clone();
                let batches = outcome.await?.to_vec();
                futures::stream::iter(batches.into_iter().map(Ok)).boxed()
            }
        };
        Ok(encode(schema, batches))
    }

    /// Starts the write in a task of its own: a client that goes away must not leave it half answered.
    fn start(&self, state: &Arc<State>) -> Outcome {
        let (state, session, bound) = (Arc::clone(state), Arc::clone(&self.session), self.bound.clone());
        let switch = self.switch.clone();
        let task = tokio::spawn(async move {
            let until = deadline(state.limits.statement_timeout);
            let commits = CommitNotice::default();
            let writing = commits.watch(write(&state, &session, &bound));
            tokio::pin!(writing);
            let stopped = tokio::select! {
                biased;
                status = switch.stopped(until) => status,
                result = &mut writing => return result.map(Arc::from),
            };
            // What is being committed may be durable at any moment: the answer waits for it, however late that is.
            if commits.has_begun() {
                return writing.await.map(Arc::from);
            }
            session.abort();
            Err(stopped)
        });
        let joined = async move {
            task.await.unwrap_or_else(|error| {
                Err(status(&Error::new(ErrorKind::Internal, "the statement failed unexpectedly").with_source(error)))
            })
        };
        joined.boxed().shared()
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("sql", &self.bound.understood.sql).finish_non_exhaustive()
    }
}

/// Plans a statement and keeps it for its ticket.
pub(crate) async fn plan(
    state: &Arc<State>,
    key: &SessionKey,
    transaction: Option<&[u8]>,
    sql: &str,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let session = state.session(key, transaction)?;
    let understood = understand(&session, sql).await?;
    if let Kind::Read(plan) | Kind::Write(plan) = &understood.kind
        && !Parameters::of(plan)?.is_empty()
    {
        return Err(invalid("the statement has parameters; prepare it and bind their values"));
    }
    announce(state, Statement::new(session, Bound::plain(understood)), descriptor)
}

/// The columns of a statement, without keeping it.
pub(crate) async fn schema(
    state: &Arc<State>,
    key: &SessionKey,
    transaction: Option<&[u8]>,
    sql: &str,
) -> Result<SchemaRef, Status> {
    let session = state.session(key, transaction)?;
    Ok(wire_schema(&understand(&session, sql).await?.schema))
}

/// Keeps the statement and describes how to fetch it.
pub(crate) fn announce(
    state: &Arc<State>,
    statement: Statement,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let schema = wire_schema(&statement.bound.understood.schema);
    let writes = !matches!(statement.bound.understood.kind, Kind::Read(_));
    let statement_handle = state.statements.insert(statement.session.owner(), statement)?;
    let info = flight_info(&schema, packed(&TicketStatementQuery { statement_handle }), descriptor)?;
    // A driver that knows the columns may fetch in the background, and let its user go on as if the write were done.
    // Without them it must wait for the stream's first message, which is sent when it is.
    Ok(if writes { FlightInfo { schema: Bytes::new(), ..info } } else { info })
}

/// One endpoint, on this server, with this ticket.
pub(crate) fn flight_info(
    schema: &SchemaRef,
    ticket: Bytes,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    let info = FlightInfo::new().try_with_schema(schema);
    let info = info.map_err(|error| status(&Error::from(error)))?;
    Ok(info.with_endpoint(endpoint).with_descriptor(descriptor).with_total_records(-1).with_total_bytes(-1))
}

/// Runs a statement at once and says how many rows it changed.
pub(crate) async fn update(
    state: &Arc<State>,
    key: &SessionKey,
    transaction: Option<&[u8]>,
    sql: &str,
) -> Result<i64, Status> {
    let session = state.session(key, transaction)?;
    let bound = Bound::plain(understand(&session, sql).await?);
    run_update(state, &session, bound).await
}

/// Runs a bound statement, in a task of its own, and says how many rows it changed.
pub(crate) async fn run_update(state: &Arc<State>, session: &Arc<Session>, bound: Bound) -> Result<i64, Status> {
    let statement = Statement::new(Arc::clone(session), bound);
    if let Kind::Read(plan) = &statement.bound.understood.kind {
        // A query sent as an update: it runs, its rows are dropped one batch at a time.
        let rows = read(state, session, &statement.bound, plan, &statement.switch).await?;
        rows.try_for_each(|_| async { Ok(()) }).await?;
        return Ok(0);
    }
    let batches = statement.start(state).await?;
    Ok(count(&batches))
}

async fn read(
    state: &Arc<State>,
    session: &Arc<Session>,
    bound: &Bound,
    plan: &Arc<LogicalPlan>,
    switch: &CancelSwitch,
) -> Result<BatchStream, Status> {
    let until = deadline(state.limits.statement_timeout);
    if session.forward.is_open() {
        let rows = session.forward.read(session.open()?, bound.sent()).await?;
        return Ok(guarded(forward::stream(rows), switch.clone(), until, session.lease()));
    }
    session.forward.settle(session.open()?).await?;
    let mut streams = Vec::new();
    for values in bound.runs()? {
        let starting = async {
            let frame = frame(session, bound, plan, values).await?;
            frame.execute_stream().await.map_err(|error| query_status(&error))
        };
        let stream = tokio::select! {
            biased;
            status = switch.stopped(until) => {
                session.abort();
                return Err(status);
            }
            stream = starting => stream?,
        };
        streams.push(guarded(stream, switch.clone(), until, session.lease()));
    }
    // A statement that fails while its rows are fetched has failed: it aborts the open transaction as any other does.
    let session = Arc::clone(session);
    Ok(futures::stream::iter(streams).flatten().inspect_err(move |_| session.abort()).boxed())
}

/// Carries out a write or a control statement and collects its small result.
async fn write(state: &Arc<State>, session: &Arc<Session>, bound: &Bound) -> Result<Vec<RecordBatch>, Status> {
    let _lease = session.lease();
    let plan = match &bound.understood.kind {
        Kind::Read(plan) | Kind::Write(plan) => plan,
        Kind::Control => {
            let sql = &bound.understood.sql;
            if is_definition(sql) {
                session.define(session.say(sql)).await?
            } else {
                session.say(sql).await?
            }
            return Ok(Vec::new());
        }
    };
    if session.forward.applies(session.open()?) {
        return match session.forward.write(session.open()?, bound.sent()).await? {
            Written::Rows(batches) => Ok(batches),
            Written::Changed(rows) => Ok(vec![counted(Arc::clone(&bound.understood.schema), rows)?]),
        };
    }
    if let Some(rows) = bound.rows.as_ref().filter(|rows| rows.num_rows() > 1 && bound.parameters.is_positional())
        && let Some(whole) = insert_of_all(plan, rows).map_err(|error| query_status(&error))?
    {
        return collect(session, &whole, ParamValues::List(Vec::new())).await;
    }
    let mut runs = bound.runs()?;
    if runs.len() == 1 {
        return collect(session, plan, runs.remove(0)).await;
    }
    let changed = write_rows(state, session, plan, runs).await?;
    let schema = Arc::clone(&bound.understood.schema);
    Ok(vec![counted(schema, changed)?])
}

/// Runs the plan once per row of parameters, all or nothing: in a transaction of its own, or in the open one, which a
/// failure aborts, as that of any statement does.
async fn write_rows(
    state: &Arc<State>,
    session: &Arc<Session>,
    plan: &LogicalPlan,
    runs: Vec<ParamValues>,
) -> Result<i64, Status> {
    if session.open()?.in_transaction() {
        return write_each(session, plan, runs).await;
    }
    let own = state.fresh_session()?;
    own.say("BEGIN").await?;
    let changed = write_each(&own, plan, runs).await?;
    own.say("COMMIT").await?;
    Ok(changed)
}

async fn write_each(session: &Session, plan: &LogicalPlan, runs: Vec<ParamValues>) -> Result<i64, Status> {
    let mut changed = 0;
    for values in runs {
        changed += count(&collect(session, plan, values).await?);
    }
    Ok(changed)
}

/// A query that is ready to run. Without parameters it is run by its text if that means the same now: so the session finds
/// plans that statements of one shape share, where `plan` would be optimized anew.
async fn frame(session: &Session, bound: &Bound, plan: &LogicalPlan, values: ParamValues) -> Result<DataFrame, Status> {
    let understood = &bound.understood;
    if bound.rows.is_none() && !understood.is_execute() && session.open()?.may_keep(plan) {
        let frame = session.open()?.sql(&understood.sql).await.map_err(|error| query_status(&error))?;
        // Otherwise a table is another one since the columns were announced.
        if frame.schema().as_arrow() == understood.schema.as_ref() {
            return Ok(frame);
        }
    }
    run_plan(session, plan, values).await
}

async fn run_plan(session: &Session, plan: &LogicalPlan, values: ParamValues) -> Result<DataFrame, Status> {
    session.open()?.execute_plan(plan, values).await.map_err(|error| query_status(&error))
}

/// Runs a write to its end. As in any session, a failure aborts the open transaction.
pub(crate) async fn collect(
    session: &Session,
    plan: &LogicalPlan,
    values: ParamValues,
) -> Result<Vec<RecordBatch>, Status> {
    let result = run_plan(session, plan, values).await?.collect().await;
    result.map_err(|error| {
        session.abort();
        query_status(&error)
    })
}

/// The sum of the first column of a write's result: rows changed.
pub(crate) fn count(batches: &[RecordBatch]) -> i64 {
    let numbers = batches.iter().filter(|batch| batch.num_columns() > 0).map(|batch| batch.column(0));
    numbers.map(|column| sum(column.as_ref())).sum()
}

fn sum(column: &dyn Array) -> i64 {
    let any = column.as_any();
    if let Some(counts) = any.downcast_ref::<UInt64Array>() {
        return counts.iter().flatten().map(|count| i64::try_from(count).unwrap_or(i64::MAX)).sum();
    }
    any.downcast_ref::<Int64Array>().map_or(0, |counts| counts.iter().flatten().sum())
}

/// A write's result: one row with the number of changed rows.
fn counted(schema: SchemaRef, changed: i64) -> Result<RecordBatch, Status> {
    let failed = |error| status(&Error::from(error));
    let numbers = Int64Array::from(vec![changed]);
    let Some(field) = schema.fields().first() else { return Ok(RecordBatch::new_empty(schema)) };
    let column = arrow::compute::cast(&numbers, field.data_type()).map_err(failed)?;
    RecordBatch::try_new(schema, vec![column]).map_err(failed)
}
