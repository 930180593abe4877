//! The operator on top of every writing statement. It does nothing while planning or under EXPLAIN; executed, it
//! reads its input once and writes in the statement's transaction.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{TableReference, tree_node::TreeNodeRecursion},
    datasource::provider_as_source,
    error::Result,
    execution::TaskContext,
    logical_expr::{DmlStatement, LogicalPlan, WriteOp, dml::InsertOp},
    physical_expr::{EquivalenceProperties, OrderingRequirements, PhysicalExpr},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
        InputDistributionRequirements, Partitioning, PlanProperties, ReplaceChildrenOptions, SendableRecordBatchStream,
        coalesce_partitions::CoalescePartitionsExec,
        execution_plan::{EvaluationType, SchedulingType},
        metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};

use super::{
    scope::WriteScope,
    source::SinkTable,
    target::{Target, check_writable},
};
use crate::{
    Error, Grizzly,
    access::{IfExists, TableDefinition},
    adapter::{
        GrizzlyTable,
        dml::{
            merge::MergeAction,
            write::{Writer, write},
        },
    },
};

/// What a sink does with the rows of its input.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Input: the table's columns. Adds them.
    Append,
    /// Input: the table's columns. Replaces the rows with the same primary key, adds the others.
    Put,
    /// Input: the table's columns. They become the whole table.
    Overwrite,
    /// Input: the table's columns. Adds them; of rows with equal values in one of these sets of columns only the
    /// first.
    AppendDistinct {
        /// The sets of column numbers.
        keys: Vec<Vec<usize>>,
    },
    /// Input: row ids. Deletes them.
    Delete,
    /// Input: row ids, then the table's columns. Replaces the rows.
    Update {
        /// The columns whose values may be new.
        assigned: Vec<usize>,
    },
    /// Input: which clause applies, row ids, then the table's columns.
    Merge(MergeAction),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Append => "insert",
            Self::Put => "replace",
            Self::Overwrite => "overwrite",
            Self::AppendDistinct { .. } => "insert distinct",
            Self::Delete => "delete",
            Self::Update { .. } => "update",
            Self::Merge(_) => "merge",
        })
    }
}

/// A plan that runs `input` into a sink.
pub(super) fn write_plan(
    name: &TableReference,
    target: Target,
    action: Action,
    input: LogicalPlan,
) -> Result<LogicalPlan> {
    let schema = Arc::clone(input.schema().inner());
    let sink = provider_as_source(Arc::new(SinkTable { target, action, schema }));
    let op = WriteOp::Insert(InsertOp::Append);
    Ok(LogicalPlan::Dml(DmlStatement::new(name.clone(), sink, op, Arc::new(input))))
}

/// A plan that creates a table, with the rows of `input` in it, in one commit.
pub(crate) fn create_and_fill(
    db: &Grizzly,
    definition: TableDefinition,
    existing: IfExists,
    input: LogicalPlan,
) -> Result<LogicalPlan> {
    let name = TableReference::partial(definition.schema_name.as_str(), definition.name.as_str());
    write_plan(&name, Target::new(db, definition, existing), Action::Append, input)
}

/// What [`GrizzlyTable`] answers to `TableProvider::insert_into`.
pub(crate) fn insert_into(
    table: &GrizzlyTable,
    input: Arc<dyn ExecutionPlan>,
    op: InsertOp,
) -> Result<Arc<dyn ExecutionPlan>> {
    check_writable(table)?;
    let action = match op {
        InsertOp::Append => Action::Append,
        InsertOp::Overwrite => Action::Overwrite,
        InsertOp::Replace => Action::Put,
    };
    Ok(Arc::new(DmlExec::new(Target::of(table), action, input)))
}

/// Writes its input; yields one row, the number of rows written.
#[derive(Debug)]
pub(super) struct DmlExec {
    target: Target,
    action: Action,
    input: Arc<dyn ExecutionPlan>,
    /// The order in which the statement says that rows come. It matters where a later row replaces an earlier one.
    ordering: Option<OrderingRequirements>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DmlExec {
    /// Rows are written in the order that `input` has now: optimizer rules keep it.
    pub(super) fn new(target: Target, action: Action, input: Arc<dyn ExecutionPlan>) -> Self {
        let inserts = !matches!(action, Action::Delete | Action::Update { .. } | Action::Merge(_));
        let ordering = input.output_ordering().filter(|_| inserts).cloned().map(OrderingRequirements::from);
        Self::ordered(target, action, input, ordering)
    }

    fn ordered(
        target: Target,
        action: Action,
        input: Arc<dyn ExecutionPlan>,
        ordering: Option<OrderingRequirements>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(count_schema()),
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        )
        .with_scheduling_type(SchedulingType::Cooperative)
        .with_evaluation_type(EvaluationType::Eager);
        let metrics = ExecutionPlanMetricsSet::new();
        Self { target, action, input, ordering, properties: Arc::new(properties), metrics }
    }

    /// The same write of other rows.
    pub(super) fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::ordered(self.target.clone(), self.action.clone(), input, self.ordering.clone())
    }

    pub(super) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }
}

impl DisplayAs for DmlExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::TreeRender => write!(f, "{} {}", self.action, self.target.name),
            _ => write!(f, "GrizzlyDmlExec: action={}, table={}", self.action, self.target.name),
        }
    }
}

impl ExecutionPlan for DmlExec {
    fn name(&self) -> &'static str {
        "GrizzlyDmlExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.ordering.clone()]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(self.with_input(input))),
            _ => Err(Error::internal("a sink has exactly one input").into()),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(Error::internal(format!("a sink has one partition, not partition {partition}")).into());
        }
        let rows_written = MetricBuilder::new(&self.metrics).counter("rows_written", partition);
        let (target, action, input) = (self.target.clone(), self.action.clone(), single_partition(&self.input));
        let statement = async move {
            let scope = WriteScope::open(&target.db, &context).await?;
            let reads = Arc::clone(scope.context());
            let Some(mut writer) = Writer::new(target, scope, &context)? else { return count_batch(0) };
            let rows = input.execute(0, reads)?;
            let count = write(&mut writer, &action, rows).await?;
            writer.finish().await?;
            rows_written.add(usize::try_from(count).unwrap_or(usize::MAX));
            count_batch(count)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(count_schema(), futures::stream::once(statement))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The planner gives a sink one partition; should somebody else not, no partition may be lost.
fn single_partition(input: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    if input.output_partitioning().partition_count() == 1 {
        return Arc::clone(input);
    }
    Arc::new(CoalescePartitionsExec::new(Arc::clone(input)))
}

fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}

fn count_batch(count: u64) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(UInt64Array::from(vec![count]));
    Ok(RecordBatch::try_new(count_schema(), vec![column])?)
}
