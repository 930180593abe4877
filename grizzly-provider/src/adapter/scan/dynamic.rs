//! Filters that joins and TopK fill in while the query runs. A scan looks at them between morsels and never waits
//! for one: whoever fills it in may be waiting for this very scan.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{physical_expr::DynamicFilterTracking, physical_plan::PhysicalExpr};

use crate::{
    access::Predicate,
    adapter::predicate::{self, convert_physical},
};

/// A filter from further up the plan.
#[derive(Debug, Clone)]
pub(super) struct DynamicFilter {
    expr: Arc<dyn PhysicalExpr>,
    /// What its columns are called in the table: the projection when it was pushed down.
    columns: Arc<[usize]>,
}

impl DynamicFilter {
    pub(super) fn new(expr: Arc<dyn PhysicalExpr>, columns: &[usize]) -> Self {
        Self { expr, columns: columns.into() }
    }

    pub(super) fn expr(&self) -> &Arc<dyn PhysicalExpr> {
        &self.expr
    }
}

/// What a scan's dynamic filters say at the moment, as one predicate.
#[derive(Debug)]
pub(super) struct CurrentFilter {
    filters: Vec<(DynamicFilter, DynamicFilterTracking)>,
    predicate: Option<Predicate>,
    worth: Worth,
    /// The table's.
    schema: SchemaRef,
}

impl CurrentFilter {
    pub(super) fn new(filters: &[DynamicFilter], schema: SchemaRef) -> Self {
        let filters = filters.iter().map(|filter| (filter.clone(), DynamicFilterTracking::classify(&filter.expr)));
        let mut current = Self { filters: filters.collect(), predicate: None, worth: Worth::default(), schema };
        current.convert();
        current
    }

    /// What the next morsel should be narrowed by; `None` as long as nothing is known or it does not pay.
    pub(super) fn poll(&mut self) -> Option<&Predicate> {
        let mut changed = false;
        for (_, tracking) in &mut self.filters {
            // Every tracker is asked, so that each takes note of what it has shown.
            changed |= tracking.watcher().is_some_and(|tracker| tracker.changed());
        }
        if changed {
            self.convert();
            self.worth = Worth::default();
        }
        let apply = self.worth.decide();
        self.predicate.as_ref().filter(|_| apply)
    }

    /// Takes note of how many rows the morsel had that was read after [`CurrentFilter::poll`].
    pub(super) fn observe(&mut self, rows: usize) {
        self.worth.observe(rows);
    }

    fn convert(&mut self) {
        let parts = self.filters.iter();
        let parts = parts.filter_map(|(filter, _)| {
            convert_physical(filter.expr.as_ref(), &filter.columns, &self.schema).into_predicate()
        });
        let all = parts.fold(None, |all, part| Some(predicate::and(all, part)));
        self.predicate = all.filter(|predicate| !matches!(predicate, Predicate::Constant(true)));
    }
}

/// Whether a dynamic filter earns its keep. A join's bounds often let nearly every row pass, and selecting nearly all
/// rows of a morsel costs more than leaving it whole. So now and then a morsel is read without the filter, and where
/// that makes hardly a difference the filter rests.
#[derive(Debug, Default)]
struct Worth {
    applied: bool,
    with: Sample,
    without: Sample,
}

#[derive(Debug, Default)]
struct Sample {
    morsels: u32,
    rows: u64,
}

impl Worth {
    /// Morsels read with the filter before one is read without it.
    const WITH: u32 = 2;

    /// Morsels for which a judgement holds.
    const ROUND: u32 = 32;

    fn decide(&mut self) -> bool {
        if self.with.morsels + self.without.morsels >= Self::ROUND && !self.is_selective() {
            *self = Self::default();
        }
        self.applied = self.with.morsels < Self::WITH || (self.without.morsels > 0 && self.is_selective());
        // A filter that leaves nothing of a morsel needs no comparison.
        self.applied |= self.with.rows == 0;
        self.applied
    }

    fn observe(&mut self, rows: usize) {
        let sample = if self.applied { &mut self.with } else { &mut self.without };
        sample.morsels += 1;
        sample.rows += rows as u64;
    }

    /// Whether the filter leaves out at least a tenth of the rows.
    fn is_selective(&self) -> bool {
        let with = self.with.rows * u64::from(self.without.morsels);
        let without = self.without.rows * u64::from(self.with.morsels);
        with * 10 < without * 9
    }
}

#[cfg(test)]
mod tests {
    use super::Worth;

    /// How many of 100 morsels are read with a filter that lets `passing` of 1,000 rows pass.
    fn applied(passing: usize) -> usize {
        let mut worth = Worth::default();
        let apply = |_: &usize| {
            let apply = worth.decide();
            worth.observe(if apply { passing } else { 1_000 });
            apply
        };
        (0..100).filter(apply).count()
    }

    #[test]
    fn a_filter_is_used_as_far_as_it_pays() {
        assert_eq!(applied(0), 100);
        assert_eq!(applied(1), 99);
        assert_eq!(applied(500), 99);
        assert!(applied(990) < 12, "{}", applied(990));
        assert!(applied(1_000) < 12);
    }
}
