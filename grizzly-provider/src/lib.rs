//! Transactional, indexed, sharded tables for Apache DataFusion.
//!
//! [`Grizzly`] opens a database: a folder, an object-store prefix, or memory. `engine` stores and versions rows
//! and knows nothing of DataFusion; `adapter` (feature `datafusion`, on by default) makes its tables, catalogs and
//! sessions DataFusion's; `access` is the plain data between them.

pub mod access;
#[cfg(feature = "datafusion")]
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "it runs in the runtime of its caller")]
pub mod adapter;
pub mod batch;
mod engine;
mod error;
mod foreign;

pub use engine::{
    Activity, BackupInfo, BackupKind, BackupReport, Backups, ClusterSettings, CommitOutcome, Conflict, Consent, Given,
    Grizzly, GrizzlyBuilder, Morsel, NodeLease, RestoreReport, RestoreTo, Settings, Snapshot, TableScan, TableSnapshot,
    Transaction, VerifyReport, Writer, open_place,
};
pub use error::{Error, ErrorKind, Result};
pub use grizzly_wal::{EncryptionKey, Storage, backup::BackupCheck};

/// What it takes to write a [`Storage`] of one's own, for [`GrizzlyBuilder::storage`].
pub mod storage {
    pub use grizzly_wal::{AppendFile, Error, ErrorKind, ObjectMeta, PutMode, Result, Storage, open_storage};
}
