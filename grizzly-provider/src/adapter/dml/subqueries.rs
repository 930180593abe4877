//! DataFusion evaluates uncorrelated scalar subqueries above the whole plan, before the sink has begun its
//! transaction. They belong below it, where they read what the rest of the statement reads.
//!
//! ```text
//!   ScalarSubqueryExec            GrizzlyDmlExec
//!     GrizzlyDmlExec        =>      ScalarSubqueryExec
//!       input                         input
//!     subquery                        subquery
//! ```

use std::sync::Arc;

use datafusion::{
    config::ConfigOptions,
    error::Result,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{ExecutionPlan, replace_children_if_necessary, scalar_subquery::ScalarSubqueryExec},
};

use super::sink::DmlExec;

/// Moves scalar subqueries below the sink that the plan ends in.
#[derive(Debug, Default)]
pub(crate) struct SubqueriesBelowSink;

impl PhysicalOptimizerRule for SubqueriesBelowSink {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(subqueries) = plan.downcast_ref::<ScalarSubqueryExec>() else { return Ok(plan) };
        Ok(below_sink(subqueries.input(), subqueries)?.unwrap_or(plan))
    }

    fn name(&self) -> &str {
        "grizzly_subqueries_below_sink"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// `plan` without the subqueries above it; `None` if it holds no sink.
fn below_sink(
    plan: &Arc<dyn ExecutionPlan>,
    subqueries: &ScalarSubqueryExec,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(sink) = plan.downcast_ref::<DmlExec>() {
        let links = subqueries.subqueries().to_vec();
        let input = ScalarSubqueryExec::new(Arc::clone(sink.input()), links, subqueries.results().clone());
        return Ok(Some(Arc::new(sink.with_input(Arc::new(input)))));
    }
    let children = plan.children();
    let [child] = children.as_slice() else { return Ok(None) };
    let Some(child) = below_sink(child, subqueries)? else { return Ok(None) };
    Ok(Some(replace_children_if_necessary(Arc::clone(plan), vec![child])?))
}
