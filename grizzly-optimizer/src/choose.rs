//! The physical rule that gives every Grizzly scan its access path.
//!
//! ```text
//! AggregateExec                                  AggregateExec
//!   GrizzlyScanExec: predicate=part = 7    ->      GrizzlyScanExec: access=index lineitem_part, predicate=part = 7
//! ```
//!
//! A plan without Grizzly scans, and a scan without a predicate, cost a downcast each. A lookup by unique key is
//! settled without any estimate, so that it stays cheap next to the lookup itself.

use std::sync::Arc;

use datafusion::{
    common::{Result, config::ConfigOptions},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{ExecutionPlan, replace_children_if_necessary},
};
use grizzly_provider::adapter::{AccessChoice, GrizzlyScanExec};

use crate::{AccessPathRule, Candidate, ScanView, explain};

/// Asks every [`AccessPathRule`] about every Grizzly scan and records the cheapest path in it.
#[derive(Debug)]
pub struct ChooseAccessPath {
    user_rules: Vec<Arc<dyn AccessPathRule>>,
    built_in_rules: Vec<Arc<dyn AccessPathRule>>,
}

impl ChooseAccessPath {
    /// Asks `user_rules` before `built_in_rules`.
    pub fn new(user_rules: Vec<Arc<dyn AccessPathRule>>, built_in_rules: Vec<Arc<dyn AccessPathRule>>) -> Self {
        Self { user_rules, built_in_rules }
    }

    /// The plan with chosen paths; `None` if nothing changes.
    fn rewrite(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if let Some(scan) = plan.downcast_ref::<GrizzlyScanExec>() {
            return Ok(self.choose(scan)?.map(|chosen| Arc::new(chosen) as _));
        }
        let children = plan.children();
        let rewritten = children.iter().map(|child| self.rewrite(child)).collect::<Result<Vec<_>>>()?;
        if rewritten.iter().all(Option::is_none) {
            return Ok(None);
        }
        let children = rewritten.into_iter().zip(children).map(|(new, old)| new.unwrap_or_else(|| Arc::clone(old)));
        replace_children_if_necessary(Arc::clone(plan), children.collect()).map(Some)
    }

    fn choose(&self, scan: &GrizzlyScanExec) -> Result<Option<GrizzlyScanExec>> {
        let request = scan.request();
        if request.predicate.is_none() && self.user_rules.is_empty() || scan.access_choice().is_some() {
            return Ok(None);
        }
        let table = scan.planning_snapshot()?;
        let view = ScanView::new(&table, request);
        let Some((winner, reason)) = self.cheapest(&view) else {
            return Ok(None);
        };
        with_candidate(scan, winner, reason).map(Some)
    }

    /// The cheapest path and why it won; `None` if there is nothing to choose from.
    fn cheapest(&self, view: &ScanView<'_>) -> Option<(Candidate, String)> {
        let mut candidates = ask(&self.user_rules, view);
        if candidates.is_empty() && !self.built_in_rules.is_empty() {
            if let Some(winner) = view.unique_points() {
                let reason = explain::unique_key(&winner);
                return Some((winner, reason));
            }
            if !view.has_choice() {
                return None;
            }
        }
        candidates.extend(ask(&self.built_in_rules, view));
        if candidates.is_empty() {
            return None;
        }
        candidates.push(view.full_scan());
        // A stable sort: among equals the earliest, so a user's rule before ours, and any index before a scan.
        candidates.sort_by(|a, b| a.cost_us.total_cmp(&b.cost_us));
        let winner = candidates.remove(0);
        let reason = explain::reason(&winner, &candidates);
        Some((winner, reason))
    }
}

fn ask(rules: &[Arc<dyn AccessPathRule>], view: &ScanView<'_>) -> Vec<Candidate> {
    rules.iter().flat_map(|rule| rule.candidates(view)).collect()
}

fn with_candidate(scan: &GrizzlyScanExec, winner: Candidate, reason: String) -> Result<GrizzlyScanExec> {
    let Candidate { path, shards, estimated_rows, cost_us } = winner;
    let chosen = scan.with_access(AccessChoice { path, estimated_rows, estimated_cost: cost_us, reason })?;
    Ok(match shards {
        Some(shards) => chosen.with_shards(shards)?,
        None => chosen,
    })
}

impl PhysicalOptimizerRule for ChooseAccessPath {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.rewrite(&plan)?.unwrap_or(plan))
    }

    fn name(&self) -> &str {
        "grizzly_choose_access_path"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
