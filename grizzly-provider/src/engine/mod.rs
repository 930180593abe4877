//! Tables, shards, row versions, transactions, indexes and segments. No DataFusion in here.

mod database;
mod index;
mod key;
mod scan;
mod settings;
mod shard;
mod snapshot;
mod transaction;

pub use database::{Grizzly, GrizzlyBuilder, VerifyReport};
pub use scan::{Morsel, TableScan};
pub use settings::Settings;
pub use snapshot::{Snapshot, TableSnapshot};
pub use transaction::{CommitOutcome, Conflict, Transaction};
