//! What planning may take. A statement of a hundred bytes can stand for a plan of a million operators, where a WITH or a
//! view names another twice and so on; such plans are refused. Whoever was told to stop ends between two passes of the
//! rules.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    config::ConfigOptions,
    error::Result,
    logical_expr::{Expr, GroupingSet, LogicalPlan},
    optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::ExecutionPlan,
};

use super::interrupt;
use crate::{Error, ErrorKind};

/// A rule of each kind that changes nothing.
#[derive(Debug)]
pub(super) struct Bounds;

const NAME: &str = "grizzly_bounds";

/// Operators of one plan, those of its subqueries included. Planning takes seconds then.
const MOST_OPERATORS: usize = 50_000;

/// Nodes of one expression, if most of them come from the columns that it names. Planning takes seconds then.
const MOST_NODES: u64 = 100_000;

/// Columns of operators that the planner may copy, of about 130 bytes each.
const MOST_COPIED: usize = 2_000_000;

/// Grouping sets of one GROUP BY, as in PostgreSQL.
const MOST_GROUPING_SETS: usize = 4096;

/// An error of kind `TooComplex` if `plan` is too large to be worth planning, and of kind `Cancelled` if the statement
/// was stopped.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    interrupt::check()?;
    check_operators(operators(plan)?)?;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            check_grouping_sets(aggregate.group_expr.iter().map(grouping_sets))?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    widths(plan).map(drop)
}

/// How many grouping sets an element of GROUP BY stands for.
fn grouping_sets(element: &Expr) -> usize {
    match element {
        Expr::GroupingSet(GroupingSet::Cube(columns)) => cube(columns.len()),
        Expr::GroupingSet(GroupingSet::Rollup(columns)) => columns.len() + 1,
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => sets.len(),
        _ => 1,
    }
}

/// How many grouping sets a CUBE of so many elements stands for.
pub(super) fn cube(elements: usize) -> usize {
    u32::try_from(elements).ok().and_then(|elements| 1_usize.checked_shl(elements)).unwrap_or(usize::MAX)
}

/// An error of kind `TooComplex` if a GROUP BY, whose elements stand for so many grouping sets each, has too many.
pub(super) fn check_grouping_sets(elements: impl Iterator<Item = usize>) -> Result<()> {
    let sets = elements.fold(1, usize::saturating_mul);
    if sets <= MOST_GROUPING_SETS {
        return Ok(());
    }
    let message = format!("GROUP BY has {sets} grouping sets; no more than {MOST_GROUPING_SETS} are possible");
    Err(Error::new(ErrorKind::TooComplex, message).into())
}

/// How many nodes the expressions of a plan's columns have with the columns that they name written out, as optimizers do
/// where they move conditions down: `v + v` of `v + v` of `v` has seven. A plan of forty such has a trillion, so an error of
/// kind `TooComplex` where columns make an expression too large.
fn widths(plan: &LogicalPlan) -> Result<Vec<u64>> {
    let mut widths = match plan {
        LogicalPlan::Projection(projection) => {
            let input = widths(&projection.input)?;
            return projection.expr.iter().map(|expr| width(expr, projection.input.schema(), &input)).collect();
        }
        LogicalPlan::Filter(filter) => {
            let input = widths(&filter.input)?;
            width(&filter.predicate, filter.input.schema(), &input)?;
            input
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = widths(&aggregate.input)?;
            let of = |exprs: &[Expr]| -> Result<Vec<u64>> {
                exprs.iter().map(|expr| width(expr, aggregate.input.schema(), &input)).collect()
            };
            of(&aggregate.aggr_expr)?;
            of(&aggregate.group_expr)?
        }
        LogicalPlan::Union(union) => {
            let mut widest = vec![1; plan.schema().fields().len()];
            for input in &union.inputs {
                widest.iter_mut().zip(widths(input)?).for_each(|(widest, width)| *widest = width.max(*widest));
            }
            widest
        }
        _ => {
            let mut all = Vec::new();
            for input in plan.inputs() {
                all.extend(widths(input)?);
            }
            all
        }
    };
    widths.resize(plan.schema().fields().len(), 1);
    Ok(widths)
}

fn width(expr: &Expr, schema: &DFSchema, columns: &[u64]) -> Result<u64> {
    let plain = columns.iter().all(|width| *width == 1);
    let (mut own, mut all) = (0_u64, 0_u64);
    expr.apply(|node| {
        let column = match node {
            Expr::Column(column) if !plain => schema.maybe_index_of_column(column).and_then(|at| columns.get(at)),
            _ => None,
        };
        own += 1;
        all = all.saturating_add(column.copied().unwrap_or(1));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if all > MOST_NODES && all / 4 > own {
        let message = format!(
            "the statement is too complex: with the columns that it names written out, an expression has {all} parts, more \
             than {MOST_NODES}"
        );
        return Err(Error::new(ErrorKind::TooComplex, message).into());
    }
    Ok(all)
}

/// How many operators `plan` has; of one that has too many, no more than it takes to tell.
pub(super) fn operators(plan: &LogicalPlan) -> Result<usize> {
    let mut operators = 0;
    plan.apply_with_subqueries(|_| {
        operators += 1;
        Ok(if operators > MOST_OPERATORS { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(operators)
}

/// An error of kind `TooComplex` if a plan of so many operators is not worth planning.
pub(super) fn check_operators(operators: usize) -> Result<()> {
    if operators <= MOST_OPERATORS {
        return Ok(());
    }
    let message = format!(
        "the statement is too complex: with its views and WITH queries written out wherever they are named, its plan has \
         more than {MOST_OPERATORS} operators"
    );
    Err(Error::new(ErrorKind::TooComplex, message).into())
}

/// An error of kind `TooComplex` if so many columns of operators are not worth copying.
pub(super) fn check_copied(columns: usize) -> Result<()> {
    if columns <= MOST_COPIED {
        return Ok(());
    }
    let message = format!(
        "the statement is too complex: copies of its WITH queries, one for each name of one, have more than {MOST_COPIED} \
         columns of operators"
    );
    Err(Error::new(ErrorKind::TooComplex, message).into())
}

impl AnalyzerRule for Bounds {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        check(&plan)?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        NAME
    }
}

impl OptimizerRule for Bounds {
    fn name(&self) -> &str {
        NAME
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        check(&plan)?;
        Ok(Transformed::no(plan))
    }
}

impl PhysicalOptimizerRule for Bounds {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        interrupt::check()?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        NAME
    }

    fn schema_check(&self) -> bool {
        true
    }
}
