//! Equality, IN, ranges and prefixes of indexed columns, read through the index.
//!
//! ```text
//! GrizzlyScanExec: access=full scan, predicate=part = 7
//!   ->
//! GrizzlyScanExec: access=index lineitem_part [(7)..(7)], predicate=part = 7
//! ```
//!
//! The predicate stays: it runs again on what the index finds.

use crate::{AccessPathRule, Candidate, ScanView};

/// Proposes every index whose first column the predicate narrows. See the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct IndexLookup;

impl AccessPathRule for IndexLookup {
    fn name(&self) -> &str {
        "index_lookup"
    }

    fn candidates(&self, scan: &ScanView<'_>) -> Vec<Candidate> {
        scan.indexes().iter().filter_map(|index| scan.index(index)).collect()
    }
}
