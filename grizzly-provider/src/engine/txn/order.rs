//! The order of commits: what their lock protects, and records that are on their way into the log.

use std::sync::Arc;

use grizzly_wal::{ErrorKind as Below, Lsn, Wal};

use super::{
    super::version::DatabaseVersion,
    moved::MovedRows,
    publish::{Publisher, SnapshotRegistry},
};
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
};

/// What the commit lock protects: the newest version, visible or not, and where compaction moved rows.
#[derive(Debug)]
pub(crate) struct CommitState {
    pub(crate) version: Arc<DatabaseVersion>,
    pub(crate) moved: MovedRows,
    /// The commit after which this process began to write. Where rows moved before it is not known.
    pub(super) since: Csn,
}

impl CommitState {
    /// For a process that writes from here on.
    pub(crate) fn new(version: Arc<DatabaseVersion>) -> Self {
        let since = version.csn;
        Self { version, moved: MovedRows::default(), since }
    }

    /// Forgets where rows went that every snapshot has seen there.
    pub(crate) fn forget_moves(&mut self, snapshots: &SnapshotRegistry, publisher: &Publisher) {
        self.moved.forget(snapshots.oldest(publisher));
    }

    /// What is needed to look at it without the lock.
    pub(super) fn seen(&self) -> (Arc<DatabaseVersion>, MovedRows) {
        (Arc::clone(&self.version), self.moved.clone())
    }
}

/// A record that is on its way into the log.
#[derive(Debug)]
pub(crate) struct Logged {
    log: Arc<Wal>,
    pub(crate) lsn: Lsn,
}

impl Logged {
    pub(crate) fn new(log: Arc<Wal>, lsn: Lsn) -> Self {
        Self { log, lsn }
    }

    /// Blocks until the record is durable.
    ///
    /// # Errors
    /// `DiskFull` or `Unavailable` if it never will be and the storage holds nothing of it; `OutcomeUnknown` if it is not
    /// known what the storage holds: that is found when it is read again.
    pub(crate) fn wait(&self) -> Result<()> {
        self.log.wait_durable(self.lsn).map_err(unknown)
    }

    /// The same for async code.
    pub(crate) async fn durable(&self) -> Result<()> {
        self.log.durable(self.lsn).await.map_err(unknown)
    }
}

/// What the log's failure means for a commit.
fn unknown(error: grizzly_wal::Error) -> Error {
    if matches!(error.kind(), Below::Full | Below::Io) {
        let error = Error::from(error);
        return Error::new(error.kind(), "the commit did not take place").with_source(error);
    }
    let message = "it is not known whether the commit took effect: the log failed while it was written";
    Error::new(ErrorKind::OutcomeUnknown, message).with_source(error)
}
