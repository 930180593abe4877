//! What runs in the background: writing hot rows to files, merging segments, and letting go of what nobody reads.
//!
//! `checkpoints`, `hot_rows`, `left_over` and `signals` are the state of it in an open database.

pub(crate) mod checkpoints;
mod choice;
pub(crate) mod collect;
pub(crate) mod compact;
pub(crate) mod flush;
pub(crate) mod hot_rows;
pub(crate) mod left_over;
pub(crate) mod room;
pub(crate) mod signals;
pub(crate) mod tombstone_file;
pub(crate) mod worker;
