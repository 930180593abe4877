//! The order of inner joins, by estimated size instead of by the order of FROM.
//!
//! ```text
//! Join(c.nation = n.id)                          Join(l.order = o.id)
//!   Join(l.order = o.id)                           lineitem
//!     Join(o.customer = c.id)            ->        Join(o.customer = c.id)
//!       customer                                     orders
//!       orders                                       Join(c.nation = n.id)
//!     lineitem                                         customer
//!   nation (name = 'FRANCE')                           nation (name = 'FRANCE')
//! ```
//!
//! Only plain inner joins are reordered: every row that comes out is a combination of one row of each input that meets
//! all conditions, whatever the order. A semi join that keeps few rows moves down to the one input it is about. Inputs
//! may be anything (outer joins, limits, aggregates): they are moved as a whole. Without an estimate for every input, or
//! where the gain is small, FROM order stays. The columns come out in their old order.

mod build;
mod enumerate;
mod estimate;
mod graph;
mod model;
mod selectivity;

use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Join, JoinType, LogicalPlan},
    optimizer::{OptimizerConfig, OptimizerRule, optimize_projections::OptimizeProjections},
};

use graph::Graph;
use model::Model;

/// A new order must be estimated to cost at most this share of the old one: estimates are rough.
const WORTH_IT: f64 = 0.9;

/// Reorders inner joins by estimated size. See the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinOrder;

impl OptimizerRule for JoinOrder {
    fn name(&self) -> &str {
        "grizzly_join_order"
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if joins(&plan)? < 2 {
            return Ok(Transformed::no(plan));
        }
        let reordered = reorder_all(plan)?;
        if !reordered.transformed {
            return Ok(reordered);
        }
        // Between the old joins, columns were dropped as soon as they had been used.
        let pruned = OptimizeProjections::new().rewrite(reordered.data, config)?;
        Ok(Transformed::yes(pruned.data))
    }
}

/// How many joins the plan has, counting no further than two.
fn joins(plan: &LogicalPlan) -> Result<usize> {
    let mut joins = 0;
    plan.apply_with_subqueries(|node| {
        joins += usize::from(matches!(node, LogicalPlan::Join(_)));
        Ok(if joins < 2 { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(joins)
}

/// Reorders every group of joins in the plan.
fn reorder_all(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(&plan, LogicalPlan::Join(Join { join_type: JoinType::Inner | JoinType::LeftSemi, .. })) {
        return reorder_inputs(plan, reorder_all);
    }
    match reorder(&plan)? {
        Some(reordered) => Ok(Transformed::yes(reordered)),
        None => reorder_leaves(plan),
    }
}

fn reorder_inputs(
    plan: LogicalPlan,
    reorder: fn(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
) -> Result<Transformed<LogicalPlan>> {
    let rewritten = plan.map_uncorrelated_subqueries(reorder_all)?;
    let rewritten = rewritten.transform_sibling(|plan| plan.map_children(reorder))?;
    if rewritten.transformed { rewritten.map_data(LogicalPlan::recompute_schema) } else { Ok(rewritten) }
}

/// Leaves a group of joins as it is and goes on below it.
fn reorder_leaves(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if graph::is_transparent(&plan) { reorder_inputs(plan, reorder_leaves) } else { reorder_below(plan) }
}

/// An input of a group: not itself the top of a group, except for a semi join that had to stay.
fn reorder_below(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    reorder_inputs(plan, reorder_all)
}

/// The group of joins at the top of `plan` in a better order; `None` if there is none.
fn reorder(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let Some(graph) = Graph::try_new(plan) else {
        return Ok(None);
    };
    let Some(model) = Model::try_new(&graph) else {
        return Ok(None);
    };
    let Some(best) = enumerate::best_order(&model) else {
        return Ok(None);
    };
    let better = best.cost < WORTH_IT * model.size(&graph.shape).cost;
    if !better && !graph.semi_joins_moved {
        return Ok(None);
    }
    // An order that cannot be expressed is no reason to fail: FROM order can.
    Ok(build::plan_of(graph, &model, &best.shape, plan.schema()).ok())
}
