//! The plan node that answers whole-table aggregates from metadata of the snapshot its statement reads.

use std::{fmt, sync::Arc};

use super::{GrizzlyScanExec, GrizzlyTable};
use crate::TableSnapshot;
use arrow::{array::ArrayRef, datatypes::DataType, record_batch::RecordBatch};
use datafusion::{
    common::{
        ColumnStatistics, Result, ScalarValue, Statistics, internal_err, stats::Precision, tree_node::TreeNodeRecursion,
    },
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::StatisticsArgs as AggregateArgs,
    physical_expr::{EquivalenceProperties, PhysicalExpr, aggregate::AggregateFunctionExpr, expressions::Column},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan,
        InputDistributionRequirements, Partitioning, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        statistics::StatisticsArgs,
        stream::RecordBatchStreamAdapter,
    },
};

/// One row of aggregates over a whole table, from metadata where the statement's snapshot can tell, otherwise by
/// running `fallback`.
#[derive(Debug, Clone)]
pub struct MetadataAggregateExec {
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    table: Arc<GrizzlyTable>,
    /// What the positions of the aggregates' columns are called in the table.
    projection: Vec<usize>,
    fallback: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl MetadataAggregateExec {
    /// Answers `aggregates`, without groups or filters, over all rows of `scan`, as the plan `fallback` does in one
    /// partition. `None` if the present snapshot could not.
    pub fn try_new(
        aggregates: &[Arc<AggregateFunctionExpr>],
        scan: &GrizzlyScanExec,
        fallback: &Arc<dyn ExecutionPlan>,
    ) -> Option<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(fallback.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let node = Self {
            aggregates: aggregates.to_vec(),
            table: Arc::clone(scan.table()),
            projection: scan.request().projection.clone(),
            fallback: Arc::clone(fallback),
            properties: Arc::new(properties),
        };
        node.answer(&scan.planning_snapshot().ok()?)?;
        Some(node)
    }

    /// The one row, if the snapshot's metadata is enough for every aggregate.
    fn answer(&self, table: &TableSnapshot) -> Option<RecordBatch> {
        let statistics = self.statistics(table)?;
        let values = self.aggregates.iter().map(|aggregate| {
            let field = aggregate.field();
            let args = AggregateArgs {
                statistics: &statistics,
                return_type: field.data_type(),
                is_distinct: aggregate.is_distinct(),
                exprs: &aggregate.expressions(),
            };
            aggregate.fun().value_from_stats(&args)?.to_array().ok()
        });
        // Fails where a value is not of the aggregate's type: then the fallback decides.
        RecordBatch::try_new(self.schema(), values.collect::<Option<_>>()?).ok()
    }

    /// Exact statistics of the scan's columns.
    fn statistics(&self, table: &TableSnapshot) -> Option<Statistics> {
        // The past is not counted, only the present is.
        if !table.is_current() {
            return None;
        }
        let rows = usize::try_from(table.row_count()).ok()?;
        let mut column_statistics = vec![ColumnStatistics::new_unknown(); self.projection.len()];
        for position in self.columns_needed() {
            *column_statistics.get_mut(position)? = exact_column(table, *self.projection.get(position)?, rows);
        }
        Some(Statistics { num_rows: Precision::Exact(rows), total_byte_size: Precision::Absent, column_statistics })
    }

    /// Positions in the scan's output that are arguments of an aggregate.
    fn columns_needed(&self) -> impl Iterator<Item = usize> {
        let arguments = self.aggregates.iter().flat_map(|aggregate| aggregate.expressions());
        arguments.filter_map(|argument| argument.downcast_ref::<Column>().map(Column::index))
    }
}

fn exact_column(table: &TableSnapshot, column: usize, rows: usize) -> ColumnStatistics {
    let mut statistics = ColumnStatistics::new_unknown();
    let schema = table.schema();
    // System columns have no bounds.
    let (Some(field), Some((min, max, values))) = (schema.fields().get(column), table.exact_bounds(column)) else {
        return statistics;
    };
    let exact = |bound: Option<ArrayRef>| {
        let value = bound.and_then(|bound| ScalarValue::try_from_array(&bound, 0).ok());
        value.filter(|value| value.data_type() == *field.data_type()).map_or(Precision::Absent, Precision::Exact)
    };
    if let Some(nulls) = usize::try_from(values).ok().and_then(|values| rows.checked_sub(values)) {
        statistics.null_count = Precision::Exact(nulls);
    }
    // NaNs and signed zeros make the bounds of floating-point columns a matter of convention.
    if !matches!(field.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64) {
        statistics.min_value = exact(min);
        statistics.max_value = exact(max);
    }
    statistics
}

impl DisplayAs for MetadataAggregateExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.aggregates.iter().map(|aggregate| aggregate.name()).collect();
        write!(f, "MetadataAggregateExec: [{}], otherwise as below", names.join(", "))
    }
}

impl ExecutionPlan for MetadataAggregateExec {
    fn name(&self) -> &'static str {
        "MetadataAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.fallback]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
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

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([fallback]) = <[_; 1]>::try_from(children) else {
            return internal_err!("MetadataAggregateExec has exactly one child");
        };
        Ok(Arc::new(Self { fallback, ..Self::clone(&self) }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match self.answer(&self.table.bind(&context)?) {
            Some(row) => {
                let rows = futures::stream::once(async { Ok(row) });
                Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
            }
            None => self.fallback.execute(partition, context),
        }
    }

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema()).with_num_rows(Precision::Exact(1))))
    }
}
