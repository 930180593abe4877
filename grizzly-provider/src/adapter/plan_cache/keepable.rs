//! Which plans may be kept.

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::Result,
    logical_expr::{Expr, LogicalPlan, Volatility},
};

use crate::adapter::dml::{grizzly_table, table_id};

/// Whether the plan means the same whenever it is executed.
pub(crate) fn keepable(plan: &LogicalPlan) -> Result<bool> {
    let mut keepable = true;
    plan.apply_with_subqueries(|node| {
        keepable &= keepable_node(node);
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                keepable &= keepable_expr(expr);
                Ok(next(keepable))
            })
        })?;
        Ok(next(keepable))
    })?;
    Ok(keepable)
}

fn next(keepable: bool) -> TreeNodeRecursion {
    if keepable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop }
}

fn keepable_node(node: &LogicalPlan) -> bool {
    match node {
        // A point in time may have been `now()`.
        LogicalPlan::TableScan(scan) => grizzly_table(&scan.source).is_some_and(|table| table.reads_as_of().is_none()),
        LogicalPlan::Dml(dml) => table_id(&dml.target).is_some(),
        LogicalPlan::Statement(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::RecursiveQuery(_) => false,
        // Rows to insert rarely come twice.
        LogicalPlan::Values(values) => values.values.len() <= 16,
        _ => true,
    }
}

fn keepable_expr(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => function.func.signature().volatility == Volatility::Immutable,
        Expr::ScalarVariable(..) => false,
        _ => true,
    }
}
