//! Rows of parameters for `INSERT … VALUES (?, …)`: one INSERT of all rows instead of one per row.
//!
//! ```text
//! Insert t                       Insert t
//!   Projection                     Projection
//!     Values: ($1, upper($2))  =>    Projection: p1, upper(p2)
//!                                      TableScan: rows of parameters
//! ```
//! The rows, and what happens if one of them is refused, are the same; planning and committing happen once.

use std::sync::Arc;

use arrow::{
    datatypes::{Field, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    datasource::{MemTable, provider_as_source},
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Values, WriteOp, dml::InsertOp, expr::Placeholder},
};

const PARAMETERS: &str = "parameters";

/// The plan that inserts all `rows` at once, if `plan` inserts a single row of values and positional parameters.
pub(crate) fn insert_of_all(plan: &LogicalPlan, rows: &RecordBatch) -> Result<Option<LogicalPlan>> {
    if !inserts_one_row(plan) {
        return Ok(None);
    }
    let fields = rows.schema_ref().fields().iter().enumerate();
    let fields: Vec<Field> =
        fields.map(|(at, field)| Field::new(name(at + 1), field.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), rows.columns().to_vec())?;
    let table = Arc::new(MemTable::try_new(schema, vec![vec![batch]])?);
    let whole = plan.clone().transform_up(|node| {
        let LogicalPlan::Values(values) = &node else { return Ok(Transformed::no(node)) };
        let scan = LogicalPlanBuilder::scan(PARAMETERS, provider_as_source(Arc::clone(&table) as _), None)?;
        Ok(Transformed::yes(scan.project(columns(values)?)?.build()?))
    });
    whole.data()?.recompute_schema().map(Some)
}

/// Whether the plan is an INSERT whose rows come from one row of VALUES, by projections only.
fn inserts_one_row(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Dml(insert) = plan else { return false };
    if insert.op != WriteOp::Insert(InsertOp::Append) {
        return false;
    }
    let mut node = insert.input.as_ref();
    while let LogicalPlan::Projection(projection) = node {
        if projection.expr.iter().any(has_more_than_columns) {
            return false;
        }
        node = projection.input.as_ref();
    }
    matches!(node, LogicalPlan::Values(values) if values.values.len() == 1)
}

/// Parameters and subqueries above the row itself are left to the general way.
fn has_more_than_columns(expr: &Expr) -> bool {
    expr.exists(|e| {
        Ok(matches!(e, Expr::Placeholder(_) | Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_)))
    })
    .unwrap_or(true)
}

/// The row's expressions over the columns of parameters, under the names VALUES gives them.
fn columns(values: &Values) -> Result<Vec<Expr>> {
    let row = values.values.first().into_iter().flatten();
    let names = values.schema.fields().iter();
    row.zip(names).map(|(expr, field)| Ok(over_parameters(expr.clone())?.alias(field.name()))).collect()
}

fn over_parameters(expr: Expr) -> Result<Expr> {
    expr.transform(|expr| match expr {
        Expr::Placeholder(Placeholder { id, .. }) => {
            let column = Column::new(Some(PARAMETERS), format!("p{}", id.trim_start_matches('$')));
            Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Continue))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn name(parameter: usize) -> String {
    format!("p{parameter}")
}
