//! Which plans have a result that may be kept, and which tables that depends on.

use datafusion::{
    catalog::TableProvider,
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::Result,
    logical_expr::{Expr, LogicalPlan, Volatility},
    physical_plan::ExecutionPlan,
};

use crate::{
    Grizzly,
    adapter::{GrizzlyScanExec, GrizzlyTable, MetadataAggregateExec, dml::grizzly_table, statement::same_database},
};

/// The tables that `plan` reads, in its order, if its result depends on nothing but their rows: all are tables of `db`
/// as they are now, and all functions immutable.
pub(super) fn tables_read(plan: &LogicalPlan, db: &Grizzly) -> Result<Option<Vec<GrizzlyTable>>> {
    let (mut tables, mut fits) = (Vec::new(), true);
    plan.apply_with_subqueries(|node| {
        fits &= reads_only(node);
        if let LogicalPlan::TableScan(scan) = node {
            let table = grizzly_table(&scan.source).filter(|table| is_plain(table, db));
            fits &= table.is_some();
            tables.extend(table.cloned());
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                fits &= is_immutable(expr);
                Ok(next(fits))
            })
        })?;
        Ok(next(fits))
    })?;
    Ok((fits && !tables.is_empty()).then_some(tables))
}

fn next(fits: bool) -> TreeNodeRecursion {
    if fits { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop }
}

fn reads_only(node: &LogicalPlan) -> bool {
    matches!(
        node,
        LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Unnest(_)
    )
}

/// Whether it is a table of `db` as it is now, without system columns: those change when rows move.
fn is_plain(table: &GrizzlyTable, db: &Grizzly) -> bool {
    same_database(table.db(), db)
        && table.reads_as_of().is_none()
        && !table.reads_all_versions()
        && table.own_columns() == table.schema().fields().len()
}

fn is_immutable(expr: &Expr) -> bool {
    let volatility = match expr {
        Expr::ScalarFunction(function) => function.func.signature().volatility,
        Expr::AggregateFunction(function) => function.func.signature().volatility,
        Expr::WindowFunction(function) => function.fun.signature().volatility,
        Expr::HigherOrderFunction(function) => function.func.signature().volatility,
        Expr::ScalarVariable(..) | Expr::Placeholder(_) => return false,
        _ => return true,
    };
    volatility == Volatility::Immutable
}

/// About how many rows the scans of a physical plan look at.
pub(super) fn rows_looked_at(plan: &dyn ExecutionPlan) -> crate::Result<u64> {
    if plan.is::<MetadataAggregateExec>() {
        // It will hardly read anything.
        return Ok(0);
    }
    if let Some(scan) = plan.downcast_ref::<GrizzlyScanExec>() {
        return scan.rows_looked_at();
    }
    plan.children().into_iter().try_fold(0_u64, |rows, child| Ok(rows.saturating_add(rows_looked_at(child.as_ref())?)))
}
