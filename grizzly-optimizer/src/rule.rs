//! The hook for ways to read a table: an [`AccessPathRule`] proposes, the cheapest proposal is taken.

use std::{fmt, sync::Arc};

use grizzly_provider::access::AccessPath;

use crate::ScanView;

/// Proposes ways to read the rows of one scan.
///
/// Every scan of a Grizzly table in a plan is shown to every rule, users' rules first and in the order of their
/// installation; the proposal with the least [`Candidate::cost_us`] is taken, the earliest among equals. A full scan
/// is always among the candidates. `EXPLAIN` names the winner and what the others would have cost.
///
/// What a rule must keep: a candidate's path reads *every* row for which the scan's predicate is true. It may read
/// more, since the predicate runs again on what is read. [`ScanView::index`] and [`ScanView::full_scan`] build paths
/// that do, with an estimated cost; changing their cost is always safe. A rule is called while planning, for each
/// scan, so it should take microseconds.
///
/// ```
/// use grizzly_optimizer::{AccessPathRule, Candidate, ScanView};
///
/// /// Never scans a table of more than a million rows if any index can help.
/// #[derive(Debug)]
/// struct PreferIndexes;
///
/// impl AccessPathRule for PreferIndexes {
///     fn name(&self) -> &str {
///         "prefer_indexes"
///     }
///
///     fn candidates(&self, scan: &ScanView<'_>) -> Vec<Candidate> {
///         if scan.rows() < 1_000_000 {
///             return vec![];
///         }
///         scan.indexes().iter().filter_map(|index| scan.index(index)).map(|path| path.with_cost(0.0)).collect()
///     }
/// }
/// ```
pub trait AccessPathRule: fmt::Debug + Send + Sync {
    /// The rule's name, for `EXPLAIN`.
    fn name(&self) -> &str;

    /// Ways to read this scan's rows; none if the rule has nothing to say.
    fn candidates(&self, scan: &ScanView<'_>) -> Vec<Candidate>;
}

/// One way to read the rows of a scan.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// How the rows are found.
    pub path: AccessPath,
    /// The only shards to read; all if `None`.
    pub shards: Option<Arc<[u32]>>,
    /// Rows it reads, about.
    pub estimated_rows: u64,
    /// What it costs, in microseconds of one core; see [`cost`](crate::cost).
    pub cost_us: f64,
}

impl Candidate {
    /// The same path at another cost.
    #[must_use]
    pub fn with_cost(mut self, cost_us: f64) -> Self {
        self.cost_us = cost_us;
        self
    }
}
