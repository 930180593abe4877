//! The plan node that runs a query on a remote.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatchOptions},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{internal_err, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;
use grizzly_provider::{Error, ErrorKind};

use super::RemoteDatabase;

/// Runs one query on a remote, when it is executed, and streams its rows.
#[derive(Debug)]
pub struct RemoteScanExec {
    remote: Arc<dyn RemoteDatabase>,
    sql: Arc<str>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RemoteScanExec {
    /// `sql` must return the columns of `schema`, in order; with an empty schema, its rows are only counted.
    pub fn new(remote: Arc<dyn RemoteDatabase>, sql: String, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { remote, sql: Arc::from(sql), schema, properties: Arc::new(properties), metrics }
    }

    /// What is asked of the remote.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

impl DisplayAs for RemoteScanExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteScanExec: remote={}, sql={}", self.remote.name(), self.sql)
    }
}

impl ExecutionPlan for RemoteScanExec {
    fn name(&self) -> &str {
        "RemoteScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a remote scan has no inputs") }
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (remote, schema) = (Arc::clone(&self.remote), Arc::clone(&self.schema));
        let batches = self.remote.execute(Arc::clone(&self.sql), Arc::clone(&self.schema));
        let batches = batches.map(move |batch| {
            let batch = fit(batch?, &schema).map_err(|error| {
                let message = format!("{}: the columns have changed since the table was opened", remote.name());
                DataFusionError::from(Error::new(ErrorKind::Invalid, format!("{message}: {error}")))
            })?;
            Ok(batch.record_output(&metrics))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The batch under exactly `schema`. Other representations of the same values are converted; other types, and values
/// that do not fit, are errors.
fn fit(batch: RecordBatch, schema: &SchemaRef) -> std::result::Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let text = |error: arrow::error::ArrowError| error.to_string();
    if schema.fields().is_empty() {
        return RecordBatch::try_new_with_options(Arc::clone(schema), vec![], &options).map_err(text);
    }
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    if batch.num_columns() != schema.fields().len() {
        return Err(format!("{} columns came where {} were expected", batch.num_columns(), schema.fields().len()));
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| fit_column(column, field));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(text)
}

fn fit_column(column: &ArrayRef, field: &Field) -> std::result::Result<ArrayRef, String> {
    let (from, to) = (column.data_type(), field.data_type());
    if from == to {
        return Ok(Arc::clone(column));
    }
    if !same_values(from, to) {
        return Err(format!("column {} is {from} and was {to}", field.name()));
    }
    // Not safe in arrow's sense, which is to make NULLs of what does not fit.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, to, &options).map_err(|error| format!("column {}: {error}", field.name()))
}

/// Whether both types hold values of one kind, so that a checked cast changes none.
fn same_values(from: &DataType, to: &DataType) -> bool {
    let bytes = |t: &DataType| matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    match (from, to) {
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => from == to,
        (DataType::Decimal128(_, 0), to) => to.is_integer(),
        (DataType::Dictionary(_, from), to) => **from == *to || same_values(from, to),
        (from, to) => {
            from.is_integer() && to.is_integer() || from.is_string() && to.is_string() || bytes(from) && bytes(to)
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array, Int64Array, StringArray},
        datatypes::Schema,
    };

    use super::*;

    fn fitted(column: ArrayRef, to: DataType) -> std::result::Result<RecordBatch, String> {
        let batch = RecordBatch::try_from_iter([("x", column)]).expect("one column");
        fit(batch, &Arc::new(Schema::new(vec![Field::new("x", to, true)])))
    }

    #[test]
    fn another_representation_fits_and_another_type_does_not() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", "x"]));
        let views = fitted(Arc::clone(&texts), DataType::Utf8View).expect("the same texts");
        assert_eq!(views.column(0).data_type(), &DataType::Utf8View);
        assert!(fitted(texts, DataType::Int64).is_err_and(|error| error.contains("column x is Utf8 and was Int64")));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 1 << 40]));
        assert!(fitted(Arc::clone(&numbers), DataType::UInt64).is_ok());
        assert!(fitted(numbers, DataType::Int32).is_err());
    }
}
