//! Reading what another process writes: the newest manifest, then its log as it grows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use grizzly_wal::{LogTail, Lsn, Storage};

use super::{
    super::{
        database::Inner,
        manifest::Manifest,
        recovery::{LOG_DIR, Recovery},
        segment::{ChunkCache, removal::Removal},
        version::DatabaseVersion,
    },
    Member, lease,
};
use crate::error::Result;

/// How often the writer's checkpoints are looked for.
const LOOK_FOR_MANIFEST: Duration = Duration::from_millis(250);

/// A database as another process has written it so far.
pub(super) struct Following {
    pub(super) recovery: Recovery,
    pub(super) tail: LogTail,
    /// The newest manifest that is contained.
    manifest: u64,
    looked: Instant,
}

impl Following {
    /// The database as of its newest manifest.
    pub(super) fn load(storage: &Arc<dyn Storage>, removal: &Arc<Removal>, cache: &Arc<ChunkCache>) -> Result<Self> {
        let manifest = Manifest::load(storage)?;
        let manifest = manifest.ok_or_else(|| crate::Error::not_found(format!("'{}' is gone", storage.url())))?;
        let recovery = Recovery::from_manifest(Arc::clone(removal), Arc::clone(cache), &manifest)?;
        let tail = LogTail::new(Arc::clone(storage), LOG_DIR, Lsn(manifest.replay_from));
        Ok(Self { recovery, tail, manifest: manifest.number, looked: Instant::now() })
    }

    pub(super) fn version(&self) -> DatabaseVersion {
        self.recovery.version.clone()
    }

    /// Applies what was logged since the last call. Whether that was anything.
    fn advance(&mut self, storage: &Arc<dyn Storage>) -> Result<bool> {
        let mut tail = self.tail.clone();
        let records = tail.poll()?;
        // Read before the lease: if nobody has taken over since, whoever does will find these records too.
        if !records.is_empty() && lease::latest_epoch(storage.as_ref())? > tail.epoch() {
            return Ok(false);
        }
        self.tail = tail;
        for record in &records {
            self.recovery.apply(record)?;
        }
        Ok(!records.is_empty())
    }

    /// Now and then: lets go of rows in memory that the writer has put into files since. Whether it did.
    fn adopt_checkpoint(&mut self, storage: &Arc<dyn Storage>) -> Result<bool> {
        if self.looked.elapsed() < LOOK_FOR_MANIFEST {
            return Ok(false);
        }
        self.looked = Instant::now();
        self.recovery.look_again_for_runs();
        if Manifest::newest(storage)? <= self.manifest {
            return Ok(false);
        }
        let Some(manifest) = Manifest::load(storage)? else { return Ok(false) };
        if self.tail.next_lsn() < Lsn(manifest.replay_from) {
            return Ok(false);
        }
        self.recovery.adopt(&manifest)?;
        self.manifest = manifest.number;
        Ok(true)
    }
}

/// Makes visible what the writer has logged since the last call.
pub(super) fn catch_up(db: &Inner, member: &Member) -> Result<()> {
    let mut place = member.following.lock();
    let mut following = match place.take() {
        Some(following) => following,
        None => Following::load(&db.storage, &db.removal, &db.cache)?,
    };
    // After an error the next call begins anew, from the newest manifest.
    let advanced = following.advance(&db.storage)?;
    let adopted = following.adopt_checkpoint(&db.storage)?;
    // What was seen once stays, also while a fresh start has not come as far yet.
    if (advanced || adopted) && following.recovery.version.csn >= db.publisher.current().csn {
        db.publisher.publish_now(Arc::new(following.version()));
        member.news.tell();
    }
    *place = Some(following);
    Ok(())
}
