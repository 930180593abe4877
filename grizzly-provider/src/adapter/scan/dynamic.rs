//! Filters that joins and TopK fill in while the query runs. A scan looks at them between morsels and never waits
//! for one: whoever fills it in may be waiting for this very scan.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{
    physical_expr::DynamicFilterTracking,
    physical_plan::PhysicalExpr,
};

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
    /// The table's.
    schema: SchemaRef,
}

impl CurrentFilter {
    pub(super) fn new(filters: &[DynamicFilter], schema: SchemaRef) -> Self {
        let filters = filters.iter().map(|filter| (filter.clone(), DynamicFilterTracking::classify(&filter.expr)));
        let mut current = Self { filters: filters.collect(), predicate: None, schema };
        current.convert();
        current
    }

    /// The predicate as of now; `None` as long as nothing is known.
    pub(super) fn poll(&mut self) -> Option<&Predicate> {
        let mut changed = false;
        for (_, tracking) in &mut self.filters {
            // Every tracker is asked, so that each takes note of what it has shown.
            changed |= tracking.watcher().is_some_and(|tracker| tracker.changed());
        }
        if changed {
            self.convert();
        }
        self.predicate.as_ref()
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
