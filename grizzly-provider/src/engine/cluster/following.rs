//! A database as another process writes it: the newest manifest, then its log as it grows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use grizzly_wal::{LogTail, Lsn, Record, Storage, world};

use super::{
    super::{
        files::Files,
        manifest::{LOG_DIR, Manifest},
        replica::Replica,
        version::DatabaseVersion,
    },
    lease,
};
use crate::error::Result;

/// How often the writer's checkpoints are looked for.
const LOOK_FOR_MANIFEST: Duration = Duration::from_millis(250);

/// A database as another process has written it so far.
pub(super) struct Following {
    pub(super) replica: Replica,
    pub(super) tail: LogTail,
    /// The newest manifest that is contained.
    manifest: u64,
    looked: Instant,
}

impl Following {
    /// The database as of its newest manifest.
    pub(super) fn load(storage: &Arc<dyn Storage>, files: Files) -> Result<Self> {
        let manifest = Manifest::load(storage)?;
        let manifest = manifest.ok_or_else(|| crate::Error::not_found(format!("'{}' is gone", storage.url())))?;
        let replica = Replica::from_manifest(files, &manifest)?;
        let tail = LogTail::new(Arc::clone(storage), LOG_DIR, Lsn(manifest.replay_from));
        let tail = tail.of(manifest.database.as_u128());
        Ok(Self { replica, tail, manifest: manifest.number, looked: world::instant() })
    }

    pub(super) fn version(&self) -> DatabaseVersion {
        self.replica.version.clone()
    }

    /// Applies what was logged since the last call.
    pub(super) fn advance(&mut self, storage: &Arc<dyn Storage>, care: Care) -> Result<Advanced> {
        let (mut tail, mut records) = self.look(false)?;
        // Read before the lease: if nobody has taken over since, whoever does will find these records too.
        let ask = !records.is_empty() || care == Care::All;
        if ask && lease::latest_epoch(storage.as_ref())? > tail.epoch() {
            // If a file has begun in that epoch, it may not have the next number: empty ones are removed.
            (tail, records) = self.look(true)?;
            if lease::latest_epoch(storage.as_ref())? > tail.epoch() {
                // Its holder has no log yet, so it has acknowledged nothing: it may have died before it came to that.
                // Only what was read and may not count is in doubt.
                return Ok(Advanced { changed: false, complete: records.is_empty() });
            }
        }
        self.tail = tail;
        for record in &records {
            self.replica.apply(record)?;
        }
        Ok(Advanced { changed: !records.is_empty(), complete: true })
    }

    /// What the log has behind the present place, and the place behind that.
    fn look(&self, thorough: bool) -> Result<(LogTail, Vec<Record>)> {
        let mut tail = self.tail.clone();
        if thorough {
            tail.search();
        }
        let records = tail.poll()?;
        Ok((tail, records))
    }

    /// Now and then: lets go of rows in memory that the writer has put into files since. Whether it did.
    pub(super) fn adopt_checkpoint(&mut self, storage: &Arc<dyn Storage>) -> Result<bool> {
        if world::since(self.looked) < LOOK_FOR_MANIFEST {
            return Ok(false);
        }
        self.looked = world::instant();
        self.replica.look_again_for_runs();
        if Manifest::newest(storage)? <= self.manifest {
            return Ok(false);
        }
        let Some(manifest) = Manifest::load(storage)? else { return Ok(false) };
        if self.tail.next_lsn() < Lsn(manifest.replay_from) {
            return Ok(false);
        }
        self.replica.adopt(&manifest)?;
        self.manifest = manifest.number;
        Ok(true)
    }
}

/// How much a caller needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// What is there counts. That there is no more is taken for granted.
    Some,
    /// Everything acknowledged before the call must be there.
    All,
}

/// What a look at the log has brought.
pub(super) struct Advanced {
    pub(super) changed: bool,
    /// Nothing was held back because a new writer may be about to take over.
    pub(super) complete: bool,
}
