//! Grizzly as DataFusion sees it: tables, catalog, sessions, DML.

mod busy;
mod catalog;
mod create_as;
mod defaults;
mod dml;
mod error;
mod estimate;
mod metadata_aggregate;
mod misleading_keys;
mod options;
mod plan_cache;
mod planner;
mod predicate;
mod result_cache;
mod scan;
mod session;
mod session_handle;
mod sql;
mod statement;
mod system_tables;
mod table;
mod time_travel;

pub use busy::CommitNotice;
pub use catalog::GrizzlyCatalog;
pub use create_as::{create_table_as, is_own_table, stored_field};
pub use error::{grizzly_error, sqlstate};
pub use metadata_aggregate::MetadataAggregateExec;
pub use options::GrizzlyOptions;
pub use scan::{AccessChoice, GrizzlyScanExec};
pub use session::{GrizzlySession, GrizzlySessionExt};
pub use session_handle::SessionHandle;
pub use sql::{GrizzlyDialect, is_call};
pub use statement::statement_snapshot;
pub use table::{GrizzlyTable, GrizzlyTables};
pub use time_travel::{PointInTime, RelativeTime, TimeTravelPlanner};
