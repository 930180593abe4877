//! CALL: what a database does besides reading and writing rows. There is one procedure, `grizzly.backup`.
//!
//! A call is a plan that acts when it is executed and returns one row, so that it comes through every door, EXPLAIN
//! changes nothing, and a node that does not write can pass it on.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider, streaming::StreamingTable},
    common::TableReference,
    datasource::{DefaultTableSource, TableType, provider_as_source},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, SessionState, TaskContext},
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
    physical_plan::{ExecutionPlan, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    sql::sqlparser::ast::{
        Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Value,
    },
};

use super::names::identifier;
use crate::{BackupKind, BackupReport, Error, Grizzly, adapter::SessionHandle};

/// What is said about a call that is not understood.
const EXPECTED: &str = "expected CALL grizzly.backup('URL') or CALL grizzly.backup('URL', 'incremental')";

/// The plan of `CALL grizzly.backup('URL' [, 'full' | 'incremental'])`.
pub(super) fn plan(state: &SessionState, call: &Function) -> Result<LogicalPlan> {
    if procedure(state, &call.name) != ["grizzly", "backup"] {
        return Err(Error::not_found(format!("there is no procedure {}: {EXPECTED}", call.name)).into());
    }
    // Not shown as given: a URL may hold a secret.
    let wrong = || Error::invalid(format!("the arguments are wrong: {EXPECTED}"));
    let arguments = texts(call).ok_or_else(wrong)?;
    let (to, kind) = match arguments.as_slice() {
        [to] => (to, BackupKind::Full),
        [to, kind] if kind.eq_ignore_ascii_case("full") => (to, BackupKind::Full),
        [to, kind] if kind.eq_ignore_ascii_case("incremental") => (to, BackupKind::Incremental),
        _ => return Err(wrong().into()),
    };
    let session = state.config().get_extension::<SessionHandle>();
    let session = session.ok_or_else(|| Error::invalid("the session was built without with_grizzly"))?;
    let schema = report_schema();
    let backup = Backup { db: session.db().clone(), to: to.clone(), kind, schema: Arc::clone(&schema) };
    let rows = StreamingTable::try_new(schema, vec![Arc::new(backup)])?;
    let name = TableReference::partial("grizzly", "backup");
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(Call { rows })), None)?.build()
}

/// Whether a node of a plan acts when it is executed, as CALL does, though it looks like a table that is read.
pub fn is_call(node: &LogicalPlan) -> bool {
    let LogicalPlan::TableScan(scan) = node else { return false };
    let source = scan.source.downcast_ref::<DefaultTableSource>();
    source.is_some_and(|source| source.table_provider.downcast_ref::<Call>().is_some())
}

fn procedure(state: &SessionState, name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(|part| identifier(state, part)).collect()
}

/// The arguments, if all of them are texts.
fn texts(call: &Function) -> Option<Vec<String>> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let plain = list.duplicate_treatment.is_none() && list.clauses.is_empty() && call.over.is_none();
    let text = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    plain.then(|| list.args.iter().map(text).collect()).flatten()
}

/// A call as the table of its result.
#[derive(Debug)]
struct Call {
    rows: StreamingTable,
}

#[async_trait]
impl TableProvider for Call {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rows.scan(state, projection, filters, limit).await
    }
}

/// Takes a backup when it is executed, and returns what was taken.
#[derive(Debug)]
struct Backup {
    db: Grizzly,
    to: String,
    kind: BackupKind,
    schema: SchemaRef,
}

impl PartitionStream for Backup {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (db, to, kind, schema) = (self.db.clone(), self.to.clone(), self.kind, Arc::clone(&self.schema));
        let taken = async move {
            // It reads and writes files for as long as it takes.
            let taken = tokio::task::spawn_blocking(move || db.backup(&to, kind)).await;
            let taken = taken.map_err(|error| Error::internal("a backup ended abnormally").with_source(error))?;
            report(schema, &taken?)
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::once(taken)))
    }
}

fn report_schema() -> SchemaRef {
    let numbers = ["csn", "files", "log_records", "bytes"];
    let numbers = numbers.into_iter().map(|name| Field::new(name, DataType::UInt64, false));
    let fields = std::iter::once(Field::new("backup", DataType::Utf8, false)).chain(numbers);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn report(schema: SchemaRef, taken: &BackupReport) -> Result<RecordBatch> {
    let number = |number: u64| Arc::new(UInt64Array::from(vec![number])) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![taken.id.as_str()])),
        number(taken.csn.0),
        number(taken.files as u64),
        number(taken.log_records),
        number(taken.bytes),
    ];
    RecordBatch::try_new(schema, columns).map_err(DataFusionError::from)
}
