//! Which dynamic filters a scan may trust.
//!
//! DataFusion 55.2 hands a join's or a TopK's filter down through projections by the names of its columns. Where two
//! columns above a scan have one name, as after a join of two tables that both have an `id`, the filter made for one
//! may arrive at the table of the other. So a scan takes a dynamic filter only if no name in it occurs twice anywhere
//! on the way down, and only the rule here can tell; a scan that it has not seen takes none.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    common::config::ConfigOptions,
    error::Result,
    physical_expr::utils::collect_columns,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, PhysicalExpr, aggregates::AggregateExec, joins::HashJoinExec, replace_children_if_necessary,
        sorts::sort::SortExec,
    },
};

use super::GrizzlyScanExec;

/// Names that occur more than once in some plan between a scan and what makes filters for it.
#[derive(Debug, Clone, Default)]
pub(super) struct AmbiguousNames(Arc<HashSet<String>>);

impl AmbiguousNames {
    /// Whether none of the columns of `filter` has such a name.
    pub(super) fn allow(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        collect_columns(filter).iter().all(|column| !self.0.contains(column.name()))
    }

    /// These and the names that occur more than once in what `plan` yields.
    fn with(&self, plan: &dyn ExecutionPlan) -> Self {
        let mut once = HashSet::new();
        let schema = plan.schema();
        let fields = schema.fields().iter();
        let twice: Vec<&String> =
            fields.map(|field| field.name()).filter(|name| !once.insert(*name) && !self.0.contains(*name)).collect();
        if twice.is_empty() {
            return self.clone();
        }
        Self(Arc::new(self.0.iter().chain(twice).cloned().collect()))
    }
}

/// Tells scans which names are ambiguous above them. It stands right before dynamic filters are handed out.
#[derive(Debug)]
pub(crate) struct DynamicFilterNames;

impl DynamicFilterNames {
    /// The rule that hands out dynamic filters.
    pub(crate) const BEFORE: &'static str = "FilterPushdown(Post)";
}

impl PhysicalOptimizerRule for DynamicFilterNames {
    fn name(&self) -> &str {
        "grizzly_dynamic_filter_names"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(marked(&plan, &AmbiguousNames::default(), false)?.unwrap_or(plan))
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// `plan` with marked scans, if it has any; `filtered` says whether a filter may come down through it.
fn marked(
    plan: &Arc<dyn ExecutionPlan>,
    above: &AmbiguousNames,
    filtered: bool,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<GrizzlyScanExec>() {
        let mut scan = scan.fresh();
        scan.ambiguous = Some(above.clone());
        return Ok(Some(Arc::new(scan)));
    }
    let names = if filtered { above.with(plan.as_ref()) } else { above.clone() };
    let filtered = filtered || makes_filters(plan.as_ref());
    let children = plan.children();
    let mut next = Vec::with_capacity(children.len());
    let mut changed = false;
    for child in children {
        let child_marked = marked(child, &names, filtered)?;
        changed |= child_marked.is_some();
        next.push(child_marked.unwrap_or_else(|| Arc::clone(child)));
    }
    if changed { replace_children_if_necessary(Arc::clone(plan), next).map(Some) } else { Ok(None) }
}

fn makes_filters(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<HashJoinExec>() || plan.is::<SortExec>() || plan.is::<AggregateExec>()
}
