//! The plan node that adds rows to a remote's table.

use std::{fmt, sync::Arc};

use arrow::{
    array::UInt64Array,
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{TableReference, internal_err, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use grizzly_provider::{Error, ErrorKind, adapter::SessionHandle};

use super::RemoteDatabase;

/// Sends the rows of its input to a table of a remote, all or none, and returns their number.
#[derive(Debug)]
pub struct RemoteInsertExec {
    remote: Arc<dyn RemoteDatabase>,
    table: TableReference,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl RemoteInsertExec {
    pub(super) fn new(remote: Arc<dyn RemoteDatabase>, table: TableReference, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(count_schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { remote, table, input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for RemoteInsertExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteInsertExec: remote={}, table={}", self.remote.name(), self.table)
    }
}

impl ExecutionPlan for RemoteInsertExec {
    fn name(&self) -> &str {
        "RemoteInsertExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (inputs.pop(), inputs.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(Arc::clone(&self.remote), self.table.clone(), input))),
            _ => internal_err!("a remote insert has one input"),
        }
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let session = context.session_config().get_extension::<SessionHandle>();
        if session.is_some_and(|session| session.in_transaction()) {
            let message = format!(
                "{}: INSERT INTO {} cannot be part of a transaction here: it would stay if the transaction is rolled \
                 back",
                self.remote.name(),
                self.table
            );
            return Err(Error::new(ErrorKind::Unsupported, message).into());
        }
        let rows = self.input.execute(0, context)?;
        let (remote, table) = (Arc::clone(&self.remote), self.table.clone());
        let done = async move {
            let count = remote.insert(&table, rows).await.map_err(DataFusionError::from)?;
            Ok(RecordBatch::try_new(count_schema(), vec![Arc::new(UInt64Array::from(vec![count]))])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(count_schema(), futures::stream::once(done))))
    }
}

fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}
