//! Grizzly's own access-path rules and plan-shape rules, one per file.

mod aggregate_metadata;
mod index_lookup;
mod shard_pruning;

pub use aggregate_metadata::AggregateMetadata;
pub use index_lookup::IndexLookup;
pub use shard_pruning::ShardPruning;
