//! Installation: one line on `SessionStateBuilder`, and the one list that says where each rule stands and why.

use std::sync::Arc;

use datafusion::{
    common::{Result, plan_datafusion_err},
    execution::session_state::SessionStateBuilder,
    physical_optimizer::PhysicalOptimizerRule,
};

use crate::{
    AccessPathRule, ChooseAccessPath,
    rules::{AggregateMetadata, IndexLookup, ShardPruning},
};

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Where a rule stands among DataFusion's.
enum Place {
    /// Right before the first rule of this name.
    Before(&'static str),
    /// Right after the first rule of this name.
    After(&'static str),
}

/// Every physical rule of this crate, where it stands, and why there.
fn placements(user_rules: Vec<Arc<dyn AccessPathRule>>) -> Vec<(Rule, Place)> {
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
        let rules = &mut self.physical_optimizers().get_or_insert_default().rules;
        for (rule, place) in placements(user_rules) {
            insert(rules, rule, &place)?;
        }
        Ok(self)
    }
}

fn insert(rules: &mut Vec<Rule>, rule: Rule, place: &Place) -> Result<()> {
    rules.retain(|other| other.name() != rule.name());
    let (Place::Before(landmark) | Place::After(landmark)) = place;
    let position = rules.iter().position(|other| other.name() == *landmark).ok_or_else(|| {
        plan_datafusion_err!(
            "cannot install the optimizer rule {}: it must stand next to DataFusion's rule {landmark}, and this \
             session has none",
            rule.name()
        )
    })?;
    rules.insert(position + usize::from(matches!(place, Place::After(_))), rule);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(builder: &mut SessionStateBuilder) -> Vec<String> {
        let optimizer = builder.physical_optimizers().get_or_insert_default();
        optimizer.rules.iter().map(|rule| rule.name().to_owned()).collect()
    }

    #[test]
    fn every_rule_stands_where_the_list_says_and_only_once() -> Result<()> {
        let mut builder = SessionStateBuilder::new().with_grizzly_optimizer()?.with_grizzly_optimizer()?;
        let names = names(&mut builder);
        for (rule, place) in placements(vec![]) {
            let at: Vec<_> = (0..names.len()).filter(|at| names[*at] == rule.name()).collect();
            assert_eq!(at.len(), 1, "{} in {names:?}", rule.name());
            match place {
                Place::Before(landmark) => assert_eq!(names[at[0] + 1], landmark),
                Place::After(landmark) => assert_eq!(names[at[0] - 1], landmark),
            }
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
