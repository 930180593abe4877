//! What runs in the background: writing hot rows to files, merging segments, and letting go of what nobody reads.

mod choice;
pub(crate) mod collect;
pub(crate) mod compact;
pub(crate) mod flush;
pub(crate) mod room;
pub(crate) mod tombstone_file;
pub(crate) mod worker;
