//! The optimizer rule that sends the largest sub-plans of one remote there as SQL.
//!
//! ```text
//! Join(l.id = o.customer)                     Join(l.id = o.customer)
//!   local l                                     local l
//!   Aggregate(o.customer, sum(i.price))   ->    Projection(the columns' names)
//!     Join(o.id = i.order)                        TableScan remote_…: SELECT … JOIN … GROUP BY …
//!       remote orders o
//!       remote items i
//! ```
//!
//! It runs last, when filters and projections have reached the tables. What it puts in place of a sub-plan is a table
//! whose query is the sub-plan, so that no planner needs to know of it, and so that whatever later passes move onto it
//! becomes part of the query too. Nodes that act (INSERT, COPY, DDL) and nodes of others are never part of a query; the
//! search goes on below them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use arrow::datatypes::{Field, Schema};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    datasource::provider_as_source,
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, Sort},
    optimizer::{OptimizerConfig, OptimizerRule},
};

use super::{
    RemoteTable,
    candidate::{Candidate, candidate, reads_remote},
};

/// Finds the largest sub-plans that one remote can run, and asks it to. See the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct FederationRule;

impl OptimizerRule for FederationRule {
    fn name(&self) -> &str {
        "grizzly_federation"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if reads_remote(&plan)? { federate(plan) } else { Ok(Transformed::no(plan)) }
    }
}

fn federate(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if let Some(found) = candidate(&plan).filter(|found| found.worth) {
        match &plan {
            _ if !found.ordered => return Ok(Transformed::yes(replace(found, &plan)?)),
            LogicalPlan::Sort(sort) => {
                // A scan has no order: the few rows that come are sorted again.
                let input = Arc::new(replace(found, &sort.input)?);
                let sorted = LogicalPlan::Sort(Sort { input, ..sort.clone() });
                return Ok(Transformed::yes(sorted));
            }
            _ => {}
        }
    }
    let rewritten = plan.map_subqueries(federate)?;
    rewritten.transform_sibling(|plan| plan.map_children(federate))
}

/// A scan of what `found` asks for, under the names that `plan` gives its columns.
fn replace(found: Candidate, plan: &LogicalPlan) -> Result<LogicalPlan> {
    let names = found.select.names();
    let fields = plan.schema().fields().iter().zip(&names).map(|(field, name)| {
        let field: &Field = field;
        field.clone().with_name(name.as_str())
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let table = RemoteTable::of_query(found.remote, found.select, schema);
    // Plans of equal text count as equal, so the name must say which query it is.
    let mut hasher = DefaultHasher::new();
    (table.remote().identity(), table.sql()).hash(&mut hasher);
    let name = format!("remote_{:016x}", hasher.finish());
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?.build()?;
    let scanned = scan.schema().columns().into_iter();
    let columns = scanned
        .zip(plan.schema().iter())
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(scan))?))
}
