//! Plans by SQL text: a statement that comes again pays for physical planning and execution only.

use datafusion::{error::Result, execution::SessionState, logical_expr::LogicalPlan, prelude::SessionContext};
use quick_cache::sync::Cache;

use super::{CachedPlan, Conditions, SessionHandle, keepable::keepable, opens_kept_plans};

const PLANS: usize = 512;
const LONGEST_TEXT: usize = 16 * 1024;

/// The plans a session keeps by their text.
pub(crate) struct PlanCache {
    /// `None` if the session's planner could not open a kept plan.
    plans: Option<Cache<String, Kept>>,
}

#[derive(Clone)]
struct Kept {
    plan: LogicalPlan,
    conditions: Conditions,
}

impl PlanCache {
    /// A cache for sessions with this state.
    pub(crate) fn for_state(state: &SessionState) -> Self {
        Self { plans: opens_kept_plans(state).then(|| Cache::new(PLANS)) }
    }

    /// The plan kept for this text, if it still holds.
    pub(crate) fn get(&self, sql: &str, handle: &SessionHandle, context: &SessionContext) -> Option<LogicalPlan> {
        let kept = self.plans.as_ref()?.get(sql)?;
        kept.conditions.hold(handle, context).then_some(kept.plan)
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
        // Before optimizing: should anything change meanwhile, the plan is not found again.
        let conditions = Conditions::now(handle, context);
        if sql.len() > LONGEST_TEXT || !conditions.allow_keeping() || !keepable(plan)? {
            return Ok(None);
        }
        if !plan.get_parameter_names()?.is_empty() {
            return Ok(None);
        }
        let plan = CachedPlan::around(context.state().optimize(plan)?);
        plans.insert(sql.to_owned(), Kept { plan: plan.clone(), conditions });
        Ok(Some(plan))
    }
}
