//! Row versions: who sees which, and which have ended.

mod packed_rows;
pub(crate) mod row_set;
pub(crate) mod tombstones;
pub(crate) mod visibility;
