//! The storage engine: Arrow and bytes, no query planner.

pub mod key;
