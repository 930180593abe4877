//! Shards: the parts of a table that are stored, flushed and compacted on their own.

mod router;

pub(crate) use router::{SHARD_HASH_VERSION, ShardRouter, shard_of};
