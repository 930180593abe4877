//! Grizzly as DataFusion sees it: tables, catalog, sessions, DML.

mod catalog;
mod defaults;
mod error;
mod estimate;
mod predicate;
mod scan;
mod session_handle;
mod statement;
mod system_tables;
mod table;
mod time_travel;

pub use catalog::GrizzlyCatalog;
pub use error::{grizzly_error, sqlstate};
pub use scan::{AccessChoice, GrizzlyScanExec};
pub use session_handle::SessionHandle;
pub use table::{GrizzlyTable, GrizzlyTables};
pub use time_travel::TimeTravelPlanner;
