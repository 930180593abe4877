//! What was asked: the name by which a result is found.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::Result,
    logical_expr::{Expr, LogicalPlan, TableScan, logical_plan::builder::LogicalTableSource},
};

/// A plan, the settings it runs under, and the tables it reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Worked out once: plans are large.
    hash: u64,
    settings: u64,
    /// Plans of two tables of one name compare as equal, so these are compared, too: their ids, in the plan's order.
    tables: Vec<u64>,
    plan: Arc<LogicalPlan>,
}

impl Question {
    pub(super) fn new(plan: &Arc<LogicalPlan>, settings: u64, tables: Vec<u64>) -> Self {
        let mut hasher = DefaultHasher::new();
        (settings, &tables, plan).hash(&mut hasher);
        Self { hash: hasher.finish(), settings, tables, plan: Arc::clone(plan) }
    }

    /// The plan as text.
    pub(super) fn text(&self) -> String {
        self.plan.display_indent().to_string()
    }

    /// The same question without handles of tables, and about how many bytes it takes. The tables would keep their
    /// database open, and the cache is part of the database.
    pub(super) fn to_keep(&self) -> Result<(Self, usize)> {
        let plan = self.plan.as_ref().clone().transform_down_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
            let source = Arc::new(LogicalTableSource::new(scan.source.schema()));
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
        });
        let plan = Arc::new(plan?.data);
        let bytes = bytes(&plan)? + size_of_val(self.tables.as_slice());
        Ok((Self { hash: self.hash, settings: self.settings, tables: self.tables.clone(), plan }, bytes))
    }
}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// About what a field of a schema takes, its names included.
const FIELD_BYTES: usize = 256;

/// About how many bytes a plan takes.
fn bytes(plan: &LogicalPlan) -> Result<usize> {
    let mut bytes = 0;
    plan.apply_with_subqueries(|node| {
        bytes += size_of::<LogicalPlan>() + node.schema().fields().len() * FIELD_BYTES;
        if let LogicalPlan::TableScan(scan) = node {
            bytes += scan.source.schema().fields().len() * FIELD_BYTES;
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                bytes += size_of::<Expr>();
                if let Expr::Literal(value, _) = expr {
                    bytes += value.size();
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(bytes)
}
