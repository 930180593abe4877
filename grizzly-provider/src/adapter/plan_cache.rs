//! Optimized plans by SQL text: a statement that comes again pays for physical planning and execution only.
//!
//! A kept plan never shows old data, since snapshots are bound when scans run. It is found again only under the same
//! version of the catalog and the same settings, and only plans that are the same every time are kept: all tables are
//! Grizzly's, all functions immutable.

use std::{cmp::Ordering, fmt, hash::{Hash, Hasher}, sync::Arc};

use datafusion::{
    common::{DFSchemaRef, config::ConfigOptions, tree_node::{TreeNode, TreeNodeRecursion}},
    error::Result,
    execution::SessionState,
    logical_expr::{
        Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore, Volatility,
    },
    prelude::SessionContext,
};
use quick_cache::sync::Cache;

use super::{GrizzlyOptions, SessionHandle, dml::grizzly_table, planner::GrizzlyQueryPlanner};
use crate::Error;

const PLANS: usize = 512;
const LONGEST_TEXT: usize = 16 * 1024;

/// The plans a session keeps.
pub(crate) struct PlanCache {
    /// `None` if the session's planner could not open a kept plan.
    plans: Option<Cache<String, Kept>>,
}

#[derive(Clone)]
struct Kept {
    plan: LogicalPlan,
    catalog_version: u64,
    /// Settings are shared until they change, and cannot change in place as long as this shares them, so being the
    /// same object means being the same settings.
    settings: Arc<ConfigOptions>,
}

impl PlanCache {
    /// A cache for sessions with this state.
    pub(crate) fn for_state(state: &SessionState) -> Self {
        let planner: &dyn std::any::Any = state.query_planner().as_ref();
        let plans = planner.is::<GrizzlyQueryPlanner>().then(|| Cache::new(PLANS));
        Self { plans }
    }

    /// The plan kept for this text, if it still holds.
    pub(crate) fn get(&self, sql: &str, handle: &SessionHandle, context: &SessionContext) -> Option<LogicalPlan> {
        let kept = self.plans.as_ref()?.get(sql)?;
        let same_settings = Arc::ptr_eq(&kept.settings, context.state_ref().read().config_options());
        (same_settings && kept.catalog_version == handle.db().catalog_version()).then_some(kept.plan)
    }

    /// Optimizes and keeps `plan` if it may be kept; returns what to execute instead of it.
    pub(crate) fn keep(
        &self,
        sql: &str,
        plan: &LogicalPlan,
        handle: &SessionHandle,
        context: &SessionContext,
    ) -> Result<Option<LogicalPlan>> {
        let Some(plans) = &self.plans else { return Ok(None) };
        // Before optimizing: should the catalog change meanwhile, the plan is not found again.
        let catalog_version = handle.db().catalog_version();
        let state = context.state();
        if sql.len() > LONGEST_TEXT || !enabled(&state) || !keepable(plan)? {
            return Ok(None);
        }
        let optimized = state.optimize(plan)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(CachedPlan { plan: Arc::new(optimized) }) });
        let settings = Arc::clone(state.config_options());
        // Only settings the session itself shares can be compared later.
        if Arc::ptr_eq(&settings, context.state_ref().read().config_options()) {
            plans.insert(sql.to_owned(), Kept { plan: plan.clone(), catalog_version, settings });
        }
        Ok(Some(plan))
    }
}

impl fmt::Debug for PlanCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanCache").field("plans", &self.plans.as_ref().map(Cache::len)).finish()
    }
}

fn enabled(state: &SessionState) -> bool {
    state.config_options().extensions.get::<GrizzlyOptions>().is_none_or(|options| options.plan_cache)
}

/// Whether the plan means the same whenever it is executed.
fn keepable(plan: &LogicalPlan) -> Result<bool> {
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
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => false,
        _ => true,
    }
}

/// A plan that has been analyzed and optimized. Rules see a leaf; the session's planner opens it.
#[derive(Clone)]
pub(crate) struct CachedPlan {
    plan: Arc<LogicalPlan>,
}

impl CachedPlan {
    /// The kept plan that `node` is, if it is one.
    pub(crate) fn inside(node: &LogicalPlan) -> Option<&LogicalPlan> {
        let LogicalPlan::Extension(extension) = node else { return None };
        extension.node.as_any().downcast_ref::<Self>().map(|cached| cached.plan.as_ref())
    }
}

impl fmt::Debug for CachedPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialEq for CachedPlan {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.plan, &other.plan) || self.plan == other.plan
    }
}

impl Eq for CachedPlan {}

impl Hash for CachedPlan {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plan.hash(state);
    }
}

impl PartialOrd for CachedPlan {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.plan.partial_cmp(&other.plan)
    }
}

impl UserDefinedLogicalNodeCore for CachedPlan {
    fn name(&self) -> &str {
        "CachedPlan"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        self.plan.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedPlan: {}", self.plan.display())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        if exprs.is_empty() && inputs.is_empty() {
            return Ok(self.clone());
        }
        Err(Error::internal("a kept plan has neither expressions nor inputs").into())
    }
}
