//! Several servers on one database.

pub(crate) mod forward;
