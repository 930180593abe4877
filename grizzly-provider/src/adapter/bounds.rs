//! What planning may take. A statement of a hundred bytes can stand for a plan of a million operators, where a WITH or a
//! view names another twice and so on; such plans are refused. Whoever was told to stop ends between two passes of the
//! rules.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TreeNodeRecursion},
    config::ConfigOptions,
    error::Result,
    logical_expr::LogicalPlan,
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

/// An error of kind `TooComplex` if `plan` is too large to be worth planning, and of kind `Cancelled` if the statement
/// was stopped.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    interrupt::check()?;
    check_operators(operators(plan)?)
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
