//! Tables, shards, row versions, transactions, indexes and segments. No DataFusion in here.
//!
//! One write, followed through the files: `txn/transaction` collects rows in `txn/writes`; `txn/commit` checks them
//! (`txn/conflict`), makes records of them (`redo`), applies those to the next version (`version/apply`), logs them and hands
//! the version to `txn/publish`, which makes it visible once the log is durable. Who reads the log, at a start or beside the
//! writer, applies its records to a `replica`. `maintenance/flush` turns hot rows (`shard/hot`) into segment files
//! (`segment`), and `manifest` records them.
//!
//! `core` is the open database. What is above it changes it (`txn`, `ddl`, `maintenance`), begins to write it (`recovery`), opens
//! it (`open`, `alone`, `cluster`) and shows it to others (`database`); what is below knows nothing of it.
//!
//! Several processes on one database: `cluster` says which of them writes, and lets the others follow.
//!
//! One read: `snapshot` names a version; `planning` estimates; `scan` carries out an access path, through
//! `lookup` where an index is used, and `rows` fetches values.

mod activity;
mod alone;
mod backup;
mod bulk;
mod catalog;
mod clock;
mod close;
mod cluster;
mod consent;
mod core;
mod database;
mod ddl;
mod errors;
mod extension;
mod files;
mod index;
pub(crate) mod key;
mod label;
mod lookup;
mod made;
mod maintenance;
mod manifest;
mod mvcc;
mod nodes;
mod open;
mod planning;
mod recovery;
mod redo;
mod redo_rows;
mod replica;
mod rows;
mod scan;
pub(crate) mod segment;
mod settings;
mod shard;
mod snapshot;
mod stamps;
mod statistics;
mod txn;
mod verify;
mod version;

pub use self::core::Grizzly;
pub use activity::Activity;
pub use backup::{BackupInfo, BackupKind, BackupReport, Backups, RestoreTo, open_place, restore::RestoreReport};
pub use cluster::member::Writer;
pub use consent::{Consent, Given};
pub use database::GrizzlyBuilder;
pub use nodes::NodeLease;
pub use scan::{Morsel, TableScan};
pub use settings::{ClusterSettings, Settings};
pub use snapshot::{Snapshot, TableSnapshot};
pub use txn::{
    outcome::{CommitOutcome, Conflict},
    transaction::Transaction,
};
pub use verify::VerifyReport;
