//! MIN, MAX and COUNT over a whole table, answered from what the table knows of itself.
//!
//! ```text
//! AggregateExec: mode=Final, aggr=[count(*), max(id)]         MetadataAggregateExec: [count(*), max(id)]
//!   AggregateExec: mode=Partial                         ->      AggregateExec: mode=Final
//!     GrizzlyScanExec                                             AggregateExec: mode=Partial
//!                                                                   GrizzlyScanExec
//! ```
//!
//! The old plan stays below and runs when the snapshot that is read in the end cannot answer by itself, for instance
//! because the row with the greatest value was deleted in the meantime.

use std::sync::Arc;

use datafusion::{
    common::{Result, config::ConfigOptions},
    physical_expr::aggregate::AggregateFunctionExpr,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateInputMode},
        replace_children_if_necessary,
    },
};
use grizzly_provider::adapter::{GrizzlyScanExec, MetadataAggregateExec};

/// Puts a [`MetadataAggregateExec`] on top of every aggregate that it can answer. See the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct AggregateMetadata;

impl AggregateMetadata {
    /// The plan with answered aggregates; `None` if nothing changes.
    fn rewrite(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if let Some((aggregates, scan)) = whole_table_aggregate(plan)
            && let Some(answered) = MetadataAggregateExec::try_new(aggregates, scan, plan)
        {
            return Ok(Some(Arc::new(answered)));
        }
        let children = plan.children();
        let rewritten = children.iter().map(|child| Self::rewrite(child)).collect::<Result<Vec<_>>>()?;
        if rewritten.iter().all(Option::is_none) {
            return Ok(None);
        }
        let children = rewritten.into_iter().zip(children).map(|(new, old)| new.unwrap_or_else(|| Arc::clone(old)));
        replace_children_if_necessary(Arc::clone(plan), children.collect()).map(Some)
    }
}

/// The aggregates and the scan, if `plan` aggregates all rows of a Grizzly table into one group.
fn whole_table_aggregate(plan: &Arc<dyn ExecutionPlan>) -> Option<(&[Arc<AggregateFunctionExpr>], &GrizzlyScanExec)> {
    let mut aggregate = plan.downcast_ref::<AggregateExec>().filter(|aggregate| plain(aggregate))?;
    if aggregate.mode().input_mode() == AggregateInputMode::Partial {
        aggregate = aggregate.input().downcast_ref::<AggregateExec>().filter(|partial| plain(partial))?;
    }
    if aggregate.mode().input_mode() != AggregateInputMode::Raw {
        return None;
    }
    let scan = aggregate.input().downcast_ref::<GrizzlyScanExec>()?;
    let request = scan.request();
    let everything = request.predicate.is_none() && request.shards.is_none() && !request.all_versions;
    (everything && ExecutionPlan::fetch(scan).is_none()).then_some((aggregate.aggr_expr(), scan))
}

fn plain(aggregate: &AggregateExec) -> bool {
    aggregate.group_expr().is_empty()
        && aggregate.filter_expr().iter().all(Option::is_none)
        && aggregate.limit_options().is_none()
        && !aggregate.aggr_expr().is_empty()
}

impl PhysicalOptimizerRule for AggregateMetadata {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Self::rewrite(&plan)?.unwrap_or(plan))
    }

    fn name(&self) -> &str {
        "grizzly_aggregate_metadata"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
