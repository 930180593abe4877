//! Plans by SQL text: a statement that comes again pays for physical planning and execution only. One with placeholders,
//! which drivers prepare over and over, gets the same plan again, by which [`TemplateCache`](super::TemplateCache) finds
//! what it keeps.

use std::sync::Arc;

use datafusion::{error::Result, execution::SessionState, logical_expr::LogicalPlan, prelude::SessionContext};
use quick_cache::sync::Cache;

use super::{CachedPlan, Conditions, SessionHandle, keepable::keepable, opens_kept_plans};

const PLANS: usize = 512;
const LONGEST_TEXT: usize = 16 * 1024;

/// The plans a session keeps by their text.
pub(crate) struct PlanCache {
    /// Optimized, without placeholders.
    ready: ByText<LogicalPlan>,
    /// As planned, with placeholders.
    prepared: ByText<Arc<LogicalPlan>>,
}

impl PlanCache {
    /// A cache for sessions with this state.
    pub(crate) fn for_state(state: &SessionState) -> Self {
        Self { ready: ByText::for_state(state), prepared: ByText::for_state(state) }
    }

    /// The plan kept for this text, if it still holds.
    pub(crate) fn get(&self, sql: &str, handle: &SessionHandle, context: &SessionContext) -> Option<LogicalPlan> {
        self.ready.get(sql, handle, context)
    }

    /// Optimizes and keeps `plan`, which was made under `conditions`, if it may be kept; returns what to execute instead of it.
    pub(crate) fn keep(
        &self,
        sql: &str,
        plan: &LogicalPlan,
        conditions: Conditions,
        context: &SessionContext,
    ) -> Result<Option<LogicalPlan>> {
        if !self.ready.takes(sql, plan, &conditions)? || !plan.get_parameter_names()?.is_empty() {
            return Ok(None);
        }
        let plan = CachedPlan::around(context.state().optimize(plan)?);
        self.ready.insert(sql, plan.clone(), conditions);
        Ok(Some(plan))
    }

    /// The plan kept for this text, or what `plan` yields, which is kept if it has placeholders and may be kept.
    pub(crate) async fn prepared(
        &self,
        sql: &str,
        handle: &SessionHandle,
        context: &SessionContext,
        plan: impl Future<Output = Result<LogicalPlan>>,
    ) -> Result<Arc<LogicalPlan>> {
        if let Some(plan) = self.prepared.get(sql, handle, context) {
            return Ok(plan);
        }
        let conditions = Conditions::now(handle, context);
        let plan = Arc::new(plan.await?);
        if self.prepared.takes(sql, &plan, &conditions)? && !plan.get_parameter_names()?.is_empty() {
            self.prepared.insert(sql, Arc::clone(&plan), conditions);
        }
        Ok(plan)
    }
}

/// `None` if the session's planner could not open a kept plan.
struct ByText<P>(Option<Cache<String, Kept<P>>>);

#[derive(Clone)]
struct Kept<P> {
    plan: P,
    conditions: Conditions,
}

impl<P: Clone> ByText<P> {
    fn for_state(state: &SessionState) -> Self {
        Self(opens_kept_plans(state).then(|| Cache::new(PLANS)))
    }

    fn get(&self, sql: &str, handle: &SessionHandle, context: &SessionContext) -> Option<P> {
        let kept = self.0.as_ref()?.get(sql)?;
        kept.conditions.hold(handle, context).then_some(kept.plan)
    }

    fn takes(&self, sql: &str, plan: &LogicalPlan, conditions: &Conditions) -> Result<bool> {
        Ok(self.0.is_some() && sql.len() <= LONGEST_TEXT && conditions.allow_keeping() && keepable(plan)?)
    }

    fn insert(&self, sql: &str, plan: P, conditions: Conditions) {
        if let Some(plans) = &self.0 {
            plans.insert(sql.to_owned(), Kept { plan, conditions });
        }
    }
}
