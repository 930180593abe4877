//! Hides primary keys from plans in which DataFusion draws wrong conclusions from them.
//!
//! ```text
//! SELECT DISTINCT r.id, i.sku FROM r JOIN i ON … ORDER BY r.id, i.sku LIMIT 2
//! ```
//!
//! Where rows are grouped by the key of one table and by something that this key does not determine, DataFusion 55 says
//! of the result that the key alone determines all of it (`aggregate_functional_dependencies` looks at what a key
//! consists of, not at what it determines). What stands above then loses the second column of an ORDER BY or of another
//! GROUP BY, and the answer is wrong. Without keys such a plan is right, and hardly slower: keys spare it the columns of
//! a GROUP BY that nobody reads.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    datasource::provider_as_source,
    error::Result,
    logical_expr::{Distinct, Expr, LogicalPlan, TableScanBuilder},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

use super::dml::grizzly_table;

/// Takes the keys off the tables of such plans. See the module's description.
#[derive(Debug, Default)]
pub(crate) struct MisleadingKeys;

impl OptimizerRule for MisleadingKeys {
    fn name(&self) -> &str {
        "grizzly_misleading_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if misleads(&plan)? { plan.transform_up_with_subqueries(without_keys) } else { Ok(Transformed::no(plan)) }
    }
}

/// Whether a key in it would be misunderstood.
fn misleads(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= match node {
            LogicalPlan::Aggregate(aggregate) => mixes(aggregate.input.schema(), &aggregate.group_expr),
            LogicalPlan::Distinct(Distinct::On(on)) => mixes(on.input.schema(), &on.on_expr),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                mixes(input.schema(), &columns)
            }
            _ => false,
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether a key is among `groups`, and something that it does not determine.
fn mixes(schema: &DFSchema, groups: &[Expr]) -> bool {
    let position = |group: &Expr| group.try_as_col().and_then(|column| schema.maybe_index_of_column(column));
    schema.functional_dependencies().iter().any(|key| {
        let has_key = key.source_indices.iter().all(|at| groups.iter().any(|group| position(group) == Some(*at)));
        let known = |at: usize| key.source_indices.contains(&at) || key.target_indices.contains(&at);
        let determines = |group: &Expr| {
            let columns = group.column_refs();
            !group.is_volatile()
                && columns.into_iter().all(|column| schema.maybe_index_of_column(column).is_some_and(known))
        };
        has_key && !groups.iter().all(determines)
    })
}

/// A scan without keys; anything else with what its inputs are now.
fn without_keys(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node.recompute_schema()?)) };
    let Some(table) = grizzly_table(&scan.source).filter(|table| table.has_key()) else {
        return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    };
    let source = provider_as_source(Arc::new(table.without_key()));
    let scan = TableScanBuilder::new(scan.table_name, source)
        .with_projection(scan.projection)
        .with_filters(scan.filters)
        .with_fetch(scan.fetch)
        .with_statistics_requests(scan.statistics_requests)
        .build()?;
    Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
}
