//! A plan that needs no more planning, as a node of other plans.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    common::DFSchemaRef,
    error::Result,
    logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore},
};

use crate::Error;

/// A plan that has been analyzed and optimized. Rules see a leaf; the session's planner opens it.
#[derive(Clone)]
pub(crate) struct CachedPlan {
    plan: Arc<LogicalPlan>,
}

impl CachedPlan {
    /// `plan`, which has been optimized, as a leaf.
    pub(super) fn around(plan: LogicalPlan) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(Self { plan: Arc::new(plan) }) })
    }

    /// The kept plan that `node` is, if it is one.
    pub(crate) fn inside(node: &LogicalPlan) -> Option<&Arc<LogicalPlan>> {
        let LogicalPlan::Extension(extension) = node else { return None };
        extension.node.as_any().downcast_ref::<Self>().map(|cached| &cached.plan)
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
        // Optimizers take the hash of a plan after each pass; a leaf that none of them opens need not say more.
        self.plan.schema().fields().len().hash(state);
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
