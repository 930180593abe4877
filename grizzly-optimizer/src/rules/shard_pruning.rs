//! A scan of only those shards whose rows can match.
//!
//! ```text
//! GrizzlyScanExec: shards=8/8, predicate=customer = 7      (customer places a row)
//!   ->
//! GrizzlyScanExec: shards=1/8, predicate=customer = 7
//! ```
//!
//! Which shard a row is in follows from its values and the table's definition alone, never from its version, so the
//! choice holds for every snapshot the plan may run on.

use crate::{AccessPathRule, Candidate, ScanView};

/// Proposes a scan of the shards that the predicate leaves. See the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardPruning;

impl AccessPathRule for ShardPruning {
    fn name(&self) -> &str {
        "shard_pruning"
    }

    fn candidates(&self, scan: &ScanView<'_>) -> Vec<Candidate> {
        scan.pruned_shards().map(|_| scan.pruned_scan()).into_iter().collect()
    }
}
