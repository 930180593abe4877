//! Transactional, indexed, sharded tables for Apache DataFusion.
//!
//! [`Grizzly`] opens a database: a folder, an object-store prefix, or memory. `engine` stores and versions rows
//! and knows nothing of DataFusion; `adapter` (feature `datafusion`, on by default) makes its tables, catalogs and
//! sessions DataFusion's; `access` is the plain data between them.

pub mod access;
#[cfg(feature = "datafusion")]
pub mod adapter;
mod engine;
mod error;

pub use engine::{
    ClusterSettings, CommitOutcome, Conflict, Grizzly, GrizzlyBuilder, Morsel, Settings, Snapshot, TableScan,
    TableSnapshot, Transaction, VerifyReport, Writer,
};
pub use error::{Error, ErrorKind, Result};
