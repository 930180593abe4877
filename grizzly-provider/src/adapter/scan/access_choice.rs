//! How the optimizer tells a scan to find its rows, and why.

use crate::access::AccessPath;

/// An access path with the estimate it was chosen by. EXPLAIN shows all of it.
#[derive(Debug, Clone)]
pub struct AccessChoice {
    /// How to find the rows.
    pub path: AccessPath,
    /// About how many rows the scan will return.
    pub estimated_rows: u64,
    /// What it will cost, in the unit of the optimizer's cost function.
    pub estimated_cost: f64,
    /// Why this path and not another.
    pub reason: String,
}
