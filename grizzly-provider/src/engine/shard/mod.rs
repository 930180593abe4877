//! A shard: the unit of placement, parallelism, flush and compaction.

pub(crate) mod hot;
pub(crate) mod router;
