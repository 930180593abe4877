//! Installation: one line on `SessionStateBuilder`, and the one list that says where each rule stands and why.

use std::sync::Arc;

use datafusion::{
    common::{Result, plan_datafusion_err},
    execution::session_state::SessionStateBuilder,
    optimizer::OptimizerRule,
    physical_optimizer::PhysicalOptimizerRule,
};

use crate::{
    AccessPathRule, ChooseAccessPath, JoinOrder,
    rules::{AggregateMetadata, IndexLookup, ShardPruning},
};

type LogicalRule = Arc<dyn OptimizerRule + Send + Sync>;
type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Where a rule stands among DataFusion's.
enum Place {
    /// Right before the first rule of this name.
    Before(&'static str),
    /// Right after the first rule of this name.
    After(&'static str),
}

/// Every logical rule of this crate, where it stands, and why there.
fn logical_placements() -> Vec<(LogicalRule, Place)> {
    vec![
        // Estimates need filters at the tables and joins with their equalities, which all earlier rules work towards.
        // EliminateCrossJoin would put a bushy tree back into a line, so the last word is here.
        (Arc::new(JoinOrder), Place::After("optimize_projections")),
    ]
}

/// Every physical rule of this crate, where it stands, and why there.
fn physical_placements(user_rules: Vec<Arc<dyn AccessPathRule>>) -> Vec<(PhysicalRule, Place)> {
    vec![
        // DataFusion's rule answers aggregates from statistics that cannot change before execution; Grizzly's counts
        // can. What it left is taken right behind it, while partial and final aggregates still lie next to each other.
        (Arc::new(AggregateMetadata), Place::After("aggregate_statistics")),
        // Physical filters have reached the scans by now (FilterPushdown), and an index read has one partition where a
        // scan has many, so the choice must be made before partitions and orders are enforced.
        (Arc::new(ChooseAccessPath::new(user_rules, built_in_rules())), Place::Before("EnsureRequirements")),
    ]
}

/// The access-path rules that are asked after the user's.
fn built_in_rules() -> Vec<Arc<dyn AccessPathRule>> {
    vec![Arc::new(IndexLookup), Arc::new(ShardPruning)]
}

/// Puts Grizzly's optimizer rules into a session.
///
/// The rules only make queries faster: a session without them gives the same answers.
pub trait GrizzlyOptimizerExt: Sized {
    /// Installs all rules. Installing again replaces what was installed before.
    ///
    /// Fails with a planning error if a DataFusion rule next to which one of ours must stand is missing, as it may be
    /// when the session was given its own list of rules.
    fn with_grizzly_optimizer(self) -> Result<Self> {
        self.with_grizzly_optimizer_rules(vec![])
    }

    /// Like [`with_grizzly_optimizer`](Self::with_grizzly_optimizer), with `user_rules` asked before Grizzly's own.
    fn with_grizzly_optimizer_rules(self, user_rules: Vec<Arc<dyn AccessPathRule>>) -> Result<Self>;
}

impl GrizzlyOptimizerExt for SessionStateBuilder {
    fn with_grizzly_optimizer_rules(mut self, user_rules: Vec<Arc<dyn AccessPathRule>>) -> Result<Self> {
        let logical = &mut self.optimizer().get_or_insert_default().rules;
        for (rule, place) in logical_placements() {
            insert(logical, rule, &place, |rule| rule.name())?;
        }
        let physical = &mut self.physical_optimizers().get_or_insert_default().rules;
        for (rule, place) in physical_placements(user_rules) {
            insert(physical, rule, &place, |rule| rule.name())?;
        }
        Ok(self)
    }
}

fn insert<R: ?Sized>(rules: &mut Vec<Arc<R>>, rule: Arc<R>, place: &Place, name: fn(&R) -> &str) -> Result<()> {
    rules.retain(|other| name(other) != name(&rule));
    let (Place::Before(landmark) | Place::After(landmark)) = place;
    let position = rules.iter().position(|other| name(other) == *landmark).ok_or_else(|| {
        plan_datafusion_err!(
            "cannot install the optimizer rule {}: it must stand next to DataFusion's rule {landmark}, and this \
             session has none",
            name(&rule)
        )
    })?;
    rules.insert(position + usize::from(matches!(place, Place::After(_))), rule);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_placed(names: &[&str], rule: &str, place: &Place) {
        let at: Vec<_> = (0..names.len()).filter(|at| names[*at] == rule).collect();
        assert_eq!(at.len(), 1, "{rule} in {names:?}");
        match place {
            Place::Before(landmark) => assert_eq!(names[at[0] + 1], *landmark),
            Place::After(landmark) => assert_eq!(names[at[0] - 1], *landmark),
        }
    }

    #[test]
    fn every_rule_stands_where_the_list_says_and_only_once() -> Result<()> {
        let state = SessionStateBuilder::new().with_grizzly_optimizer()?.with_grizzly_optimizer()?.build();
        let names: Vec<_> = state.optimizers().iter().map(|rule| rule.name()).collect();
        for (rule, place) in logical_placements() {
            assert_placed(&names, rule.name(), &place);
        }
        let names: Vec<_> = state.physical_optimizers().iter().map(|rule| rule.name()).collect();
        for (rule, place) in physical_placements(vec![]) {
            assert_placed(&names, rule.name(), &place);
        }
        Ok(())
    }

    #[test]
    fn a_missing_landmark_is_an_error_that_names_it() {
        let builder = SessionStateBuilder::new().with_physical_optimizer_rules(vec![]);
        let error = builder.with_grizzly_optimizer().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("aggregate_statistics"), "{error}");
    }
}
