//! The shortest way to a plan: a table's scan that takes every condition itself, and nothing else.
//!
//! DataFusion's rules arrange operators among each other. With one operator there is nothing to arrange, so only the
//! rules that others put into the session are asked, in their order; a lookup by key or index spends most of its
//! planning on the rest.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use datafusion::{
    catalog::{ScanArgs, Session},
    config::ConfigOptions,
    datasource::source_as_provider,
    error::{DataFusionError, Result},
    logical_expr::{LogicalPlan, expr_rewriter::unnormalize_cols},
    physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
    physical_plan::{ExecutionPlan, operator_statistics::StatisticsRegistry},
};

use crate::adapter::GrizzlyScanExec;

/// The names of DataFusion's own rules.
static ARRANGING: LazyLock<HashSet<String>> =
    LazyLock::new(|| PhysicalOptimizer::new().rules.iter().map(|rule| rule.name().to_owned()).collect());

/// The physical plan if `plan` is a lone scan of one of the database's tables.
pub(super) async fn plan(plan: &LogicalPlan, session: &dyn Session) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let LogicalPlan::TableScan(scan) = plan else { return Ok(None) };
    let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
    let filters = unnormalize_cols(scan.filters.iter().cloned());
    let arguments = ScanArgs::default()
        .with_projection(scan.projection.as_deref())
        .with_filters(Some(&filters))
        .with_limit(scan.fetch);
    let scanned = provider.scan_with_args(session, arguments).await?;
    if !scanned.plan().is::<GrizzlyScanExec>() {
        return Ok(None);
    }
    let mut others = session.physical_optimizers().iter().filter(|rule| !ARRANGING.contains(rule.name()));
    let plan = others.try_fold(Arc::clone(scanned.plan()), |plan, rule| apply(rule.as_ref(), plan, session))?;
    // What a rule made several operators of may have to be arranged after all.
    Ok(Some(plan).filter(|plan| plan.is::<GrizzlyScanExec>()))
}

fn apply(
    rule: &(dyn PhysicalOptimizerRule + Send + Sync),
    plan: Arc<dyn ExecutionPlan>,
    session: &dyn Session,
) -> Result<Arc<dyn ExecutionPlan>> {
    let before = plan.schema();
    let plan = rule.optimize_with_context(plan, &Context(session));
    let plan = plan.map_err(|error| DataFusionError::Context(rule.name().to_owned(), Box::new(error)))?;
    if rule.schema_check() && plan.schema() != before {
        let problem = format!("the rule {} changed the columns from {before:?} to {:?}", rule.name(), plan.schema());
        return Err(DataFusionError::Internal(problem));
    }
    Ok(plan)
}

struct Context<'a>(&'a dyn Session);

impl PhysicalOptimizerContext for Context<'_> {
    fn config_options(&self) -> &ConfigOptions {
        self.0.config_options()
    }

    fn statistics_registry(&self) -> Option<&StatisticsRegistry> {
        self.0.statistics_registry()
    }
}
