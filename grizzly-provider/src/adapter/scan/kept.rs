//! Batches for whoever keeps them. A sort and a join's first side hold the rows that they are given and count their memory by the
//! buffers that these lie in, which a batch of a scan has in common with the seven that were decoded with it: each counts for
//! all, and what fits eight times is refused.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    config::ConfigOptions,
    error::Result,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions,
        coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec,
        filter::FilterExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec},
        projection::ProjectionExec,
        repartition::RepartitionExec,
        sorts::sort::SortExec,
    },
};

use super::GrizzlyScanExec;

/// Has scans hand on batches with memory of their own where they are kept.
#[derive(Debug)]
pub(crate) struct KeptRows;

impl PhysicalOptimizerRule for KeptRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let keeps = |node: Arc<dyn ExecutionPlan>| match keeps_first(&node) {
            true => first_replaced(&node),
            false => Ok(Transformed::no(node)),
        };
        plan.transform_down(keeps).data()
    }

    fn name(&self) -> &'static str {
        "grizzly_kept_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether an operator keeps the rows of its first input.
fn keeps_first(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<SortExec>() || node.is::<HashJoinExec>() || node.is::<NestedLoopJoinExec>() || node.is::<CrossJoinExec>()
}

/// Whether an operator may hand on the very columns that it was given.
fn hands_on(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<ProjectionExec>()
        || node.is::<FilterExec>()
        || node.is::<RepartitionExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<CooperativeExec>()
}

/// `node` over a first input whose scans hand on batches with memory of their own, if their rows come through as they are.
fn first_replaced(node: &Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let mut children: Vec<_> = node.children().into_iter().cloned().collect();
    let Some(first) = children.first_mut() else { return Ok(Transformed::no(Arc::clone(node))) };
    let kept = match first.downcast_ref::<GrizzlyScanExec>() {
        Some(scan) if !scan.is_kept => Transformed::yes(Arc::new(scan.kept()) as _),
        None if hands_on(first) => first_replaced(first)?,
        _ => Transformed::no(Arc::clone(first)),
    };
    if !kept.transformed {
        return Ok(Transformed::no(Arc::clone(node)));
    }
    *first = kept.data;
    let replaced =
        Arc::clone(node).replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?;
    Ok(Transformed::yes(replaced))
}
