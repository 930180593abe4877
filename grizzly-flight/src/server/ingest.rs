//! Bulk ingest: a stream of batches into a table, created, extended or replaced as the client asks, in one
//! transaction.
//!
//! The rows go through an ordinary INSERT plan whose source is the stream itself, so defaults, casts, constraints
//! and atomicity are those of INSERT, and nothing is collected.

use std::{fmt, sync::Arc};

use arrow::{
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use arrow_flight::{
    decode::FlightRecordBatchStream,
    error::FlightError,
    sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption, server::PeekableFlightDataStream},
};
use datafusion::{
    catalog::streaming::StreamingTable,
    common::{ParamValues, TableReference},
    datasource::{MemTable, TableProvider, provider_as_source, source_as_provider},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, col, dml::InsertOp, lit},
    physical_plan::{EmptyRecordBatchStream, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    scalar::ScalarValue,
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use grizzly_provider::{
    Error, ErrorKind,
    access::IfExists,
    adapter::{create_table_as, is_own_table, stored_field},
};
use parking_lot::Mutex;
use tonic::Status;

use super::{
    decoded,
    metadata::quoted,
    query::{collect, count},
    sessions::{Session, SessionKey, State},
};
use crate::error::{invalid, not_found, query_status, status, unsupported};

/// Stores all rows of `data` as `command` says and returns their number. If anything fails, no row is stored.
pub(crate) async fn ingest(
    state: &Arc<State>,
    key: &SessionKey,
    command: CommandStatementIngest,
    data: PeekableFlightDataStream,
) -> Result<i64, Status> {
    if command.temporary {
        return Err(unsupported("temporary tables are not supported"));
    }
    let transaction = command.transaction_id.as_deref();
    let in_transaction = transaction.is_some_and(|handle| !handle.is_empty());
    let session = state.session(key, transaction)?;
    let _lease = session.lease();
    if session.forward.applies(session.ready().await?) {
        return session.forward.ingest(session.open()?, command, data).await;
    }
    let (schema, rows) = incoming(data).await?;
    // The open transaction, if there is one; else one of its own, as replacing takes two statements.
    let own = if in_transaction || session.open()?.in_transaction() {
        None
    } else {
        Some(state.fresh_session(session.owner())?)
    };
    let prepared = match prepare_table(&session, &command, &schema).await? {
        Found::There(target) => target,
        Found::ToCreate(table, existing) => {
            let context = session.open()?.context();
            if let Some(own) = own.as_ref().filter(|_| is_own_table(context, &table)) {
                let input = source(&schema, rows).and_then(LogicalPlanBuilder::build);
                let context = own.open()?.context();
                let plan = input.and_then(|input| create_table_as(context, &table, existing, input));
                let plan = plan.map_err(|error| query_status(&error))?;
                return Ok(count(&collect(own, &plan, ParamValues::List(Vec::new())).await?));
            }
            // A transaction's later statements look for the table where everybody does.
            create(&session, &table, &schema, existing == IfExists::Replace).await?;
            let provider = context.table_provider(table.clone()).await.map_err(|error| query_status(&error))?;
            let target = Target { table, provider, replace: false };
            let plan = insert_plan(&target, schema, rows).await?;
            let stored = store(&session, false, &target, plan).await;
            if stored.is_err()
                && let Err(error) = context.deregister_table(target.table.clone())
            {
                tracing::warn!(%error, table = %target.table, "the table of a failed ingest could not be dropped");
            }
            return stored;
        }
    };
    let running = own.as_ref().unwrap_or(&session);
    store(running, own.is_some(), &prepared, insert_plan(&prepared, schema, rows).await?).await
}

/// Runs the insert, in a transaction of its own or in the open one, which a failure aborts.
async fn store(running: &Session, own: bool, prepared: &Target, plan: LogicalPlan) -> Result<i64, Status> {
    if own {
        running.say("BEGIN").await?;
    }
    if prepared.replace {
        running.say(&format!("DELETE FROM {}", quoted(&prepared.table))).await?;
    }
    let rows = count(&collect(running, &plan, ParamValues::List(Vec::new())).await?);
    if own {
        running.say("COMMIT").await?;
    }
    Ok(rows)
}

/// Whether the table that takes the rows is there.
enum Found {
    There(Target),
    ToCreate(TableReference, IfExists),
}

/// The table that takes the rows.
struct Target {
    table: TableReference,
    provider: Arc<dyn TableProvider>,
    /// Its rows go first.
    replace: bool,
}

async fn prepare_table(
    session: &Session,
    command: &CommandStatementIngest,
    schema: &SchemaRef,
) -> Result<Found, Status> {
    let context = session.open()?.context();
    let table = reference(command);
    let options = command.table_definition_options.as_ref();
    let exists = options.map_or(TableExistsOption::Append, |options| options.if_exists());
    let missing = options.map_or(TableNotExistOption::Create, |options| options.if_not_exist());
    let failed = |error: DataFusionError| query_status(&error);
    let present = context.table_exist(table.clone()).map_err(failed)?;
    if !present {
        if missing == TableNotExistOption::Fail {
            return Err(not_found(format!("table {table} does not exist")));
        }
        return Ok(Found::ToCreate(table, IfExists::Fail));
    }
    if exists == TableExistsOption::Fail {
        let message = format!("table {table} exists already");
        return Err(status(&Error::new(ErrorKind::AlreadyExists, message)));
    }
    let provider = context.table_provider(table.clone()).await.map_err(failed)?;
    let replace = exists == TableExistsOption::Replace;
    if replace && !same_columns(&provider.schema(), schema) {
        return Ok(Found::ToCreate(table, IfExists::Replace));
    }
    Ok(Found::There(Target { table, provider, replace }))
}

fn reference(command: &CommandStatementIngest) -> TableReference {
    match (command.catalog.as_deref(), command.schema.as_deref()) {
        (Some(catalog), Some(schema)) if !catalog.is_empty() => {
            TableReference::full(catalog, schema, command.table.as_str())
        }
        (_, Some(schema)) if !schema.is_empty() => TableReference::partial(schema, command.table.as_str()),
        _ => TableReference::bare(command.table.as_str()),
    }
}

/// An empty table with these columns, in place of one of that name if there is one: the session's catalog makes a
/// stored table of it.
async fn create(session: &Session, table: &TableReference, schema: &SchemaRef, replace: bool) -> Result<(), Status> {
    if !session.may_define() {
        let message = format!("table {table} cannot be created in a transaction that has written; commit first");
        return Err(status(&Error::new(ErrorKind::TransactionState, message)));
    }
    let fields: Vec<Field> = schema.fields().iter().map(|field| stored_field(field)).collect();
    let failed = |error: DataFusionError| query_status(&error);
    let empty = MemTable::try_new(Arc::new(Schema::new(fields)), vec![vec![]]).map_err(failed)?;
    let defining = async {
        let context = session.open()?.context();
        if replace {
            context.deregister_table(table.clone()).map_err(failed)?;
        }
        context.register_table(table.clone(), Arc::new(empty)).map(drop).map_err(failed)
    };
    session.define(defining).await
}

/// Whether the rows can take the place of the table's without a change of its columns.
fn same_columns(current: &SchemaRef, incoming: &SchemaRef) -> bool {
    current.fields().len() == incoming.fields().len()
        && current
            .fields()
            .iter()
            .zip(incoming.fields())
            .all(|(a, b)| a.name() == b.name() && meaning(a.data_type()) == meaning(stored_field(b).data_type()))
}

/// A type without the choice of its layout in memory.
fn meaning(kind: &DataType) -> DataType {
    match kind {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// INSERT INTO the target's columns, by name; columns that do not come get their default.
async fn insert_plan(target: &Target, schema: SchemaRef, rows: Rows) -> Result<LogicalPlan, Status> {
    let columns = target.provider.schema();
    if let Some(unknown) = schema.fields().iter().find(|field| columns.field_with_name(field.name()).is_err()) {
        return Err(invalid(format!("table {} has no column {}", target.table, unknown.name())));
    }
    let failed = |error: DataFusionError| query_status(&error);
    let values = columns.fields().iter().map(|field| {
        let value: Expr = if schema.field_with_name(field.name()).is_ok() {
            cast(col(datafusion::common::Column::from_name(field.name())), field.data_type().clone())
        } else {
            let default = target.provider.get_column_default(field.name()).cloned();
            cast(default.unwrap_or_else(|| lit(ScalarValue::Null)), field.data_type().clone())
        };
        value.alias(field.name())
    });
    let input = source(&schema, rows)
        .and_then(|scan| scan.project(values))
        .and_then(LogicalPlanBuilder::build)
        .map_err(failed)?;
    let sink = provider_as_source(Arc::clone(&target.provider));
    debug_assert!(source_as_provider(&sink).is_ok(), "DML targets must be table providers");
    LogicalPlanBuilder::insert_into(input, target.table.clone(), sink, InsertOp::Append)
        .and_then(LogicalPlanBuilder::build)
        .map_err(failed)
}

/// A scan of the client's rows.
fn source(schema: &SchemaRef, rows: Rows) -> Result<LogicalPlanBuilder, DataFusionError> {
    let partition = OneShot { schema: Arc::clone(schema), rows: Mutex::new(Some(rows)) };
    let source = StreamingTable::try_new(Arc::clone(schema), vec![Arc::new(partition)])?;
    LogicalPlanBuilder::scan(UNNAMED, provider_as_source(Arc::new(source)), None)
}

const UNNAMED: &str = "incoming";

type Rows = BoxStream<'static, Result<RecordBatch, FlightError>>;

/// The schema that comes first, and the batches behind it.
async fn incoming(data: PeekableFlightDataStream) -> Result<(SchemaRef, Rows), Status> {
    let messages = data.into_peekable().map_err(FlightError::from);
    let mut stream = FlightRecordBatchStream::new_from_flight_data(messages);
    // The schema is known once the first batch is decoded, or the stream has ended after its schema.
    let first = decoded::first(&mut stream).await?;
    let schema = match (&first, stream.schema()) {
        (Some(batch), _) => batch.schema(),
        (None, Some(schema)) => Arc::clone(schema),
        (None, None) => return Err(invalid("an ingest needs a schema, even without rows")),
    };
    let rows = futures::stream::iter(first.map(Ok)).chain(decoded::rest(stream));
    Ok((schema, rows.boxed()))
}

/// A partition that can be read once: the client's stream.
struct OneShot {
    schema: SchemaRef,
    rows: Mutex<Option<Rows>>,
}

impl fmt::Debug for OneShot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneShot").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for OneShot {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let Some(rows) = self.rows.lock().take() else {
            let again = DataFusionError::Execution("a client's rows can be read only once".to_owned());
            let failed = futures::stream::once(std::future::ready(Err(again)));
            return Box::pin(RecordBatchStreamAdapter::new(schema, failed));
        };
        let rows = rows.map_err(|error| DataFusionError::External(Box::new(error)));
        if schema.fields().is_empty() {
            return Box::pin(EmptyRecordBatchStream::new(schema));
        }
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}
