//! Grizzly as DataFusion sees it: tables, catalog, sessions, DML.

mod session_handle;

pub use session_handle::SessionHandle;
