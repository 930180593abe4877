//! Optimized plans, kept for when a statement comes again: by SQL text, by SQL text without its literals, and for
//! plans with placeholders.
//!
//! A kept plan never shows old data, since snapshots are bound when scans run. It is found again only under the same
//! version of the catalog and the same settings, and only plans that are the same every time are kept: all tables are
//! Grizzly's, all functions immutable.

mod cached_plan;
mod keepable;
mod literals;
mod lookup;
mod template;
mod text;

use std::{any::Any, sync::Arc};

use datafusion::{config::ConfigOptions, execution::SessionState, prelude::SessionContext};

use super::{GrizzlyOptions, SessionHandle, planner::GrizzlyQueryPlanner};

pub(crate) use cached_plan::CachedPlan;
pub(crate) use keepable::keepable;
pub(crate) use literals::ShapeCache;
pub(crate) use template::TemplateCache;
pub(crate) use text::PlanCache;

/// What a kept plan depends on besides the statement. They are asked for before planning: a plan that was made while a table
/// was replaced is of the old one, and would be found for as long as the new one stays.
#[derive(Clone)]
pub(crate) struct Conditions {
    catalog_version: u64,
    /// Settings are shared until they change, and cannot change in place as long as this shares them, so being the
    /// same object means being the same settings.
    settings: Arc<ConfigOptions>,
}

impl Conditions {
    /// The present ones.
    pub(crate) fn now(handle: &SessionHandle, context: &SessionContext) -> Self {
        let settings = Arc::clone(context.state_ref().read().config_options());
        Self { catalog_version: handle.db().catalog_version(), settings }
    }

    /// Whether they are as they were.
    fn hold(&self, handle: &SessionHandle, context: &SessionContext) -> bool {
        Arc::ptr_eq(&self.settings, context.state_ref().read().config_options())
            && self.catalog_version == handle.db().catalog_version()
    }

    fn allow_keeping(&self) -> bool {
        self.settings.extensions.get::<GrizzlyOptions>().is_none_or(|options| options.plan_cache)
    }
}

/// Whether the session's planner can open a kept plan.
fn opens_kept_plans(state: &SessionState) -> bool {
    let planner: &dyn Any = state.query_planner().as_ref();
    planner.is::<GrizzlyQueryPlanner>()
}
