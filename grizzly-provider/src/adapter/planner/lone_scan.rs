//! The shortest way to a plan: a table's scan that takes every condition itself, and nothing else.
//!
//! DataFusion's rules arrange operators among each other. With one operator there is nothing to arrange, so only the
//! rules that others put into the session are asked, in their order; a lookup by key or index spends most of its
//! planning on the rest.

use std::{
    any::{Any, TypeId},
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

/// DataFusion's own rules.
static ARRANGING: LazyLock<HashSet<TypeId>> =
    LazyLock::new(|| PhysicalOptimizer::new().rules.iter().map(|rule| type_of(rule.as_ref())).collect());

type Rule = dyn PhysicalOptimizerRule + Send + Sync;

fn type_of(rule: &Rule) -> TypeId {
    let any: &dyn Any = rule;
    any.type_id()
}

/// The physical plan if `plan` is a lone scan of one of the database's tables, and stays one.
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
    let others = session.physical_optimizers().iter().filter(|rule| !ARRANGING.contains(&type_of(rule.as_ref())));
    let mut plan = Arc::clone(scanned.plan());
    for rule in others {
        let after = rule.optimize_with_context(Arc::clone(&plan), &Context(session));
        let after = after.map_err(|error| DataFusionError::Context(rule.name().to_owned(), Box::new(error)))?;
        // What is not a scan any more may have to be arranged after all, and other columns be judged.
        if !after.is::<GrizzlyScanExec>() || after.schema() != plan.schema() {
            return Ok(None);
        }
        plan = after;
    }
    Ok(Some(plan))
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
