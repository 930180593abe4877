//! EXPLAIN shows the node above a query whose result would be kept.

use std::sync::Arc;

use datafusion::{
    catalog::Session,
    common::{
        display::{PlanType, StringifiedPlan},
        format::ExplainFormat,
    },
    error::Result,
    logical_expr::{Explain, LogicalPlan, Volatility},
    physical_plan::{ExecutionPlan, displayable, explain::ExplainExec},
};

use super::ResultCacheExec;
use crate::adapter::SessionHandle;

/// Whether the result of the explained query may be kept, as far as can be told before it is planned.
pub(crate) fn may_be_kept(explain: &Explain, session: &dyn Session) -> bool {
    let handle = session.config().get_extension::<SessionHandle>();
    let on = handle.is_some_and(|handle| ResultCacheExec::is_on(session, &handle));
    on && explain.explain_format == ExplainFormat::Indent && !mentions_time(explain, session)
}

/// The explanation `here` of a query, whose plans are `logical` and `physical`, with the node where it would be.
pub(crate) fn explain(
    here: &ExplainExec,
    logical: &Arc<LogicalPlan>,
    physical: &Arc<dyn ExecutionPlan>,
    session: &dyn Session,
) -> Result<Option<ExplainExec>> {
    let Some(node) = ResultCacheExec::try_new(physical, logical, session)? else { return Ok(None) };
    let plans = here.stringified_plans().iter().map(|plan| match plan.plan_type {
        PlanType::FinalPhysicalPlan => StringifiedPlan::new(PlanType::FinalPhysicalPlan, above(&node, &plan.plan)),
        _ => plan.clone(),
    });
    Ok(Some(ExplainExec::new(here.schema(), plans.collect(), here.verbose())))
}

fn above(node: &ResultCacheExec, plan: &str) -> String {
    let mut text = displayable(node).one_line().to_string();
    for line in plan.lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Whether the query as it was written calls a function like `now()`, of which the optimized plan shows nothing any
/// more. One that has such a name in a string passes for it: here that makes a line of text less.
fn mentions_time(explain: &Explain, session: &dyn Session) -> bool {
    let written = explain.stringified_plans.iter().find(|plan| plan.plan_type == PlanType::InitialLogicalPlan);
    let Some(written) = written else { return true };
    session.scalar_functions().iter().any(|(name, function)| {
        function.signature().volatility == Volatility::Stable && written.plan.contains(&format!("{name}("))
    })
}
