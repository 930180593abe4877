//! Statements: planned by GetFlightInfo, run by DoGet; or run at once, as updates.
//!
//! Reads stream. A write runs once, however often its ticket is sent: it runs in a task of its own, to its end, and
//! every ticket waits for and gets the one stored answer.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use arrow::{
    array::{Array, Int64Array, UInt64Array},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket, sql::TicketStatementQuery};
use bytes::Bytes;
use datafusion::{
    common::ParamValues,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::LogicalPlan,
    physical_plan::{self, ExecutionPlan, execute_stream},
    prelude::DataFrame,
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, Shared},
};
use grizzly_provider::{
    Error, ErrorKind,
    adapter::{REPLANS, bind_tables, unhurried},
};
use parking_lot::Mutex;
use tonic::Status;

use super::{
    attended::{TimeLimit, attended, failed_unexpectedly},
    batch::insert_of_all,
    forward::{self, Sent, Written},
    handles::packed,
    parameters::Parameters,
    sessions::{Session, SessionKey, State},
    statement::{Kind, Understood, is_definition, understand},
    stream::{BatchStream, CancelSwitch, FlightStream, encode, guarded, wire_schema},
};
use crate::error::{invalid, is_outdated, query_status, status};

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
    schema: SchemaRef,
    switch: CancelSwitch,
    /// What to run. Of a write that has ended, only its answer is kept.
    work: Mutex<Option<Arc<Work>>>,
    outcome: OnceLock<Outcome>,
    /// How many wait for it.
    waiting: Arc<AtomicUsize>,
    /// All rows of a query were fetched once, or as many as the client wanted.
    fetched: Arc<AtomicBool>,
}

/// A statement in its session.
struct Work {
    session: Arc<Session>,
    bound: Bound,
    time: TimeLimit,
    switch: CancelSwitch,
}

/// Stops a write when the last one who waits for its answer is gone before there is one. What has begun to commit goes on.
struct Waiter {
    switch: CancelSwitch,
    waiting: Arc<AtomicUsize>,
    is_answered: bool,
}

impl Waiter {
    /// One more of those that are `waiting`.
    fn new(switch: &CancelSwitch, waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self { switch: switch.clone(), waiting: Arc::clone(waiting), is_answered: false }
    }

    async fn wait(mut self, outcome: Outcome) -> Result<Arc<[RecordBatch]>, Status> {
        let answer = outcome.await;
        self.is_answered = true;
        answer
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let is_last = self.waiting.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && !self.is_answered {
            self.switch.cancel();
        }
    }
}

/// Notes, when it is dropped, that a query's rows were fetched.
struct Fetched(Arc<AtomicBool>);

impl Drop for Fetched {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Statement {
    pub(crate) fn new(session: Arc<Session>, bound: Bound, time: TimeLimit) -> Self {
        let (schema, switch) = (Arc::clone(&bound.understood.schema), CancelSwitch::new());
        let work = Work { session, bound, time, switch: switch.clone() };
        let work = Mutex::new(Some(Arc::new(work)));
        Self { schema, switch, work, outcome: OnceLock::new(), waiting: Arc::default(), fetched: Arc::default() }
    }

    /// Whether its session has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.work.lock().as_ref().is_some_and(|work| work.session.has_ended())
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
        let work = self.work.lock().clone();
        let batches = if let Some(work) = &work
            && let Kind::Read(plan) = &work.bound.understood.kind
        {
            let owner = work.session.owner();
            state.fetching.make_room(owner, &work.session.open()?.context().runtime_env().memory_pool)?;
            let rows = state.fetching.fetch(owner, work.read(plan).await?);
            let fetched = Fetched(Arc::clone(&self.fetched));
            rows.inspect(move |_| _ = &fetched).boxed()
        } else {
            self.answer(work.as_ref(), state).await?
        };
        Ok(encode(Arc::clone(&self.schema), batches))
    }

    /// What a write yields, run by whoever asks first.
    async fn answer(&self, work: Option<&Arc<Work>>, state: &Arc<State>) -> Result<BatchStream, Status> {
        let outcome = match (self.outcome.get(), work) {
            (Some(outcome), _) => outcome,
            (None, Some(work)) => self.outcome.get_or_init(|| work.start(state)),
            (None, None) => {
                let message = "a statement has neither work nor an answer";
                return Err(status(&Error::new(ErrorKind::Internal, message)));
            }
        };
        let answer = Waiter::new(&self.switch, &self.waiting).wait(outcome.clone()).await;
        // Its session may go, and whatever it was given.
        drop(self.work.lock().take());
        let batches = answer?.to_vec();
        Ok(futures::stream::iter(batches.into_iter().map(Ok)).boxed())
    }
}

impl Work {
    /// The rows of a query, read as they are asked for.
    async fn read(&self, plan: &Arc<LogicalPlan>) -> Result<BatchStream, Status> {
        let (session, deadline) = (&self.session, self.time.deadline());
        let guarded = |stream| guarded(stream, self.switch.clone(), deadline, session.lease());
        session.ready().await?;
        if session.forward.is_open() {
            let rows = session.forward.read(session.open()?, self.bound.sent()).await?;
            return Ok(guarded(forward::stream(rows)));
        }
        session.forward.settle(session.open()?).await?;
        let (planning, bound, plan) = (Arc::clone(session), self.bound.clone(), Arc::clone(plan));
        let started =
            attended(session, &self.switch, deadline, async move { start_all(&planning, &bound, &plan).await });
        // A statement that fails, at its start or while its rows are fetched, aborts the open transaction as any other does.
        let session = Arc::clone(session);
        let started = started.await.inspect_err(|_| session.abort())?;
        let streams: Vec<_> = started.into_iter().map(guarded).collect();
        Ok(futures::stream::iter(streams).flatten().inspect_err(move |_| session.abort()).boxed())
    }

    /// Starts the write in a task of its own: a client that goes away must not leave it half done.
    fn start(&self, state: &Arc<State>) -> Outcome {
        let (state, session, bound) = (Arc::clone(state), Arc::clone(&self.session), self.bound.clone());
        let (switch, deadline) = (self.switch.clone(), self.time.deadline());
        let task = tokio::spawn(async move {
            let work = write(state, Arc::clone(&session), bound);
            attended(&session, &switch, deadline, work).await.map(Arc::from)
        });
        task.map(|ended| ended.unwrap_or_else(|error| Err(failed_unexpectedly(&error)))).boxed().shared()
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("schema", &self.schema).finish_non_exhaustive()
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
    let begun = Instant::now();
    let understood = understand(&session, state.time_limit(), sql).await?;
    let left = state.time_limit().after(begun.elapsed());
    if let Kind::Read(plan) | Kind::Write(plan) = &understood.kind
        && !Parameters::of(plan)?.is_empty()
    {
        return Err(invalid("the statement has parameters; prepare it and bind their values"));
    }
    announce(state, session, Bound::plain(understood), left, descriptor)
}

/// The columns of a statement, without keeping it.
pub(crate) async fn schema(
    state: &Arc<State>,
    key: &SessionKey,
    transaction: Option<&[u8]>,
    sql: &str,
) -> Result<SchemaRef, Status> {
    let session = state.session(key, transaction)?;
    Ok(wire_schema(&understand(&session, state.time_limit(), sql).await?.schema))
}

/// Keeps the statement and describes how to fetch it.
pub(crate) fn announce(
    state: &Arc<State>,
    session: Arc<Session>,
    bound: Bound,
    time: TimeLimit,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let schema = wire_schema(&bound.understood.schema);
    let writes = !matches!(bound.understood.kind, Kind::Read(_));
    let owner = session.owner();
    let statement_handle = state.statements.insert(owner, Statement::new(session, bound, time))?;
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
    let begun = Instant::now();
    let bound = Bound::plain(understand(&session, state.time_limit(), sql).await?);
    run_update(state, &session, bound, state.time_limit().after(begun.elapsed())).await
}

/// Runs a bound statement, in a task of its own, and says how many rows it changed.
pub(crate) async fn run_update(
    state: &Arc<State>,
    session: &Arc<Session>,
    bound: Bound,
    time: TimeLimit,
) -> Result<i64, Status> {
    let work = Work { session: Arc::clone(session), bound, time, switch: CancelSwitch::new() };
    if let Kind::Read(plan) = &work.bound.understood.kind {
        // A query sent as an update: it runs, its rows are dropped one batch at a time.
        let rows = work.read(plan).await?;
        rows.try_for_each(|_| async { Ok(()) }).await?;
        return Ok(0);
    }
    let waiter = Waiter::new(&work.switch, &Arc::default());
    Ok(count(&waiter.wait(work.start(state)).await?))
}

/// Starts a query once for each row of parameters.
async fn start_all(
    session: &Session,
    bound: &Bound,
    plan: &Arc<LogicalPlan>,
) -> Result<Vec<SendableRecordBatchStream>, Status> {
    let mut streams = Vec::new();
    for values in bound.runs()? {
        let (plan, context) = ready(session, bound, plan, values).await?;
        streams.push(execute_stream(plan, context).map_err(|error| query_status(&error))?);
    }
    Ok(streams)
}

/// What executes a query with these values. A table that was replaced since `plan` was made is the one that it reads, if the
/// columns of the result are still those that were announced.
async fn ready(
    session: &Session,
    bound: &Bound,
    plan: &Arc<LogicalPlan>,
    values: ParamValues,
) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>), Status> {
    let attempt = |plan: Arc<LogicalPlan>| {
        let values = values.clone();
        let ready = async move {
            let (plan, context) = physical(frame(session, bound, &plan, values).await?).await?;
            bind_tables(&plan, &context).map_err(|error| query_status(&error))?;
            Ok((plan, context))
        };
        ready.boxed()
    };
    replanned(session, bound, plan, attempt).await
}

/// What `attempt` yields with the plan of a statement; it is made with another plan while a table is replaced after planning.
async fn replanned<'a, T: Send>(
    session: &Session,
    bound: &Bound,
    plan: &Arc<LogicalPlan>,
    attempt: impl Fn(Arc<LogicalPlan>) -> BoxFuture<'a, Result<T, Status>> + Sync,
) -> Result<T, Status> {
    // In a transaction it would be the same table again, and one that has ended meanwhile must not be left out.
    let attempts = if session.in_transaction() { 0 } else { REPLANS };
    let mut result = attempt(Arc::clone(plan)).await;
    for _ in 0..attempts {
        let Err(outdated) = &result else { break };
        let Some(plan) = planned_again(session, bound, outdated).await? else { break };
        result = attempt(plan).await;
    }
    result
}

/// Whether a plan takes the parameters that values were fitted to.
fn takes_as_much(bound: &Bound, plan: &LogicalPlan) -> Result<bool, Status> {
    Ok(bound.rows.is_none() || Parameters::of(plan)?.schema() == bound.parameters.schema())
}

/// Another plan of a statement that failed since a table was replaced after it was planned; `None` if that is not why, or
/// if the result would have other columns.
async fn planned_again(session: &Session, bound: &Bound, failed: &Status) -> Result<Option<Arc<LogicalPlan>>, Status> {
    let understood = &bound.understood;
    if !is_outdated(failed) || understood.is_execute() {
        return Ok(None);
    }
    let plan = session.open()?.plan(&understood.sql).await.map_err(|error| query_status(&error))?;
    let is_same = plan.schema().as_arrow() == understood.schema.as_ref() && takes_as_much(bound, &plan)?;
    // What COPY has written stays.
    Ok(Some(plan).filter(|plan| is_same && !matches!(plan.as_ref(), LogicalPlan::Copy(_))))
}

/// Carries out a write or a control statement and collects its small result.
async fn write(state: Arc<State>, session: Arc<Session>, bound: Bound) -> Result<Vec<RecordBatch>, Status> {
    let (state, session, bound) = (&state, &session, &bound);
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
    if session.forward.applies(session.ready().await?) {
        return match session.forward.write(session.open()?, bound.sent()).await? {
            Written::Rows(batches) => Ok(batches),
            Written::Changed(rows) => Ok(vec![counted(Arc::clone(&bound.understood.schema), rows)?]),
        };
    }
    let attempt = |plan: Arc<LogicalPlan>| async move { write_all(state, session, bound, &plan).await }.boxed();
    replanned(session, bound, plan, attempt).await
}

/// Carries out a write with all its rows of parameters, or does nothing.
async fn write_all(
    state: &Arc<State>,
    session: &Arc<Session>,
    bound: &Bound,
    plan: &LogicalPlan,
) -> Result<Vec<RecordBatch>, Status> {
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
    let own = state.fresh_session(session.owner())?;
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

/// What executes the rows of `frame`.
async fn physical(frame: DataFrame) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>), Status> {
    let context = Arc::new(frame.task_ctx());
    let plan = unhurried(frame.create_physical_plan()).await.map_err(|error| query_status(&error))?;
    Ok((plan, context))
}

/// Runs a write to its end. As in any session, a failure aborts the open transaction.
pub(crate) async fn collect(
    session: &Session,
    plan: &LogicalPlan,
    values: ParamValues,
) -> Result<Vec<RecordBatch>, Status> {
    let (plan, context) = physical(run_plan(session, plan, values).await?).await?;
    physical_plan::collect(plan, context).await.map_err(|error| {
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
