//! A plan's rows in one stream.

use std::sync::Arc;

use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, coalesce_partitions::CoalescePartitionsExec,
    sorts::sort_preserving_merge::SortPreservingMergeExec,
};

/// A stream of all rows, in the order that the plan promises.
pub(super) fn in_one_stream(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    if plan.output_partitioning().partition_count() == 1 {
        return plan;
    }
    match plan.output_ordering().cloned() {
        Some(order) => Arc::new(SortPreservingMergeExec::new(order, plan)),
        None => Arc::new(CoalescePartitionsExec::new(plan)),
    }
}
