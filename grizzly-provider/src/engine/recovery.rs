//! Beginning to write, whoever does: the first manifest, how the log is written, and what was recovered put in its place.

use std::sync::{Arc, atomic::Ordering};

use grizzly_wal::{ErrorKind as Below, Storage, Wal, WalOptions, world::MutexGuard};

use super::{
    clock::now,
    cluster::lease::Lease,
    core::Inner,
    maintenance::{collect, left_over::LeftOver},
    manifest::Manifest,
    replica::Replica,
    segment::meta::{DATA_DIR, segment_of_path},
    txn::{order::CommitState, publish::Publisher},
};
use crate::error::{Error, ErrorKind, Result};

/// The newest manifest.
pub(super) fn load_or_create(storage: &Arc<dyn Storage>, create: bool, url: &str) -> Result<Manifest> {
    match Manifest::load(storage)? {
        Some(manifest) => Ok(manifest),
        None if create => self::create(storage),
        None => Err(Error::new(ErrorKind::NotFound, format!("there is no database at '{url}'"))),
    }
}

/// How the log is written: what it has made durable becomes visible, unless the lease has run out by then.
pub(super) fn wal_options(
    publisher: &Arc<Publisher>,
    database: uuid::Uuid,
    epoch: u64,
    lease: Option<&Arc<Lease>>,
) -> WalOptions {
    let (published, lease) = (Arc::clone(publisher), lease.cloned());
    let fence = lease.map(|lease| -> grizzly_wal::Fence {
        Box::new(move || {
            lease.check().map_err(|error| grizzly_wal::Error::new(Below::AlreadyExists, error.to_string()))
        })
    });
    let on_durable: grizzly_wal::OnDurable = Box::new(move |lsn| published.durable(lsn));
    let owner = Some(database.as_u128());
    WalOptions { on_durable: Some(on_durable), fence, epoch, owner, ..WalOptions::default() }
}

/// Lets a database write to `wal`, beginning with what was recovered; `torn` says where the log read before ended
/// within a record. `manifest` is the newest.
pub(super) fn install(
    db: &Inner,
    replica: Replica,
    (wal, torn): (Arc<Wal>, Vec<String>),
    manifest: &Manifest,
) -> Result<()> {
    let state = adopt(db, replica, torn, manifest)?;
    // Where one process alone goes on with a new log, its snapshots may hold files that the newest version does not name.
    let is_first = db.term.load(Ordering::Acquire) == 0;
    let left_over = (is_first || db.member.is_some()).then(|| LeftOver::beside(manifest, &state.version));
    *db.left_over.lock() = left_over;
    // In this order: whoever sees that this process writes begins transactions that may commit.
    db.term.fetch_add(1, Ordering::AcqRel);
    db.runs_differ.store(true, Ordering::Release);
    db.wal.store(Some(wal));
    drop(state);
    // Commits are made from here on: whatever fails now, this process writes, and must not begin again with another log.
    if let Err(error) = collect::remove_left_over(db) {
        tracing::warn!(%error, url = db.url, "files that a writer before has left cannot be removed; it is tried again");
    }
    Ok(())
}

/// Shows what was recovered as the state of a database, and returns the lock under which commits are made.
pub(super) fn adopt<'db>(
    db: &'db Inner,
    replica: Replica,
    torn: Vec<String>,
    manifest: &Manifest,
) -> Result<MutexGuard<'db, CommitState>> {
    // As they are now: the writer before may have taken backups since this process began to follow.
    db.pins.resume(&db.storage, db.identity, replica.named)?;
    *db.torn.lock() = torn;
    let listed = db.storage.list(DATA_DIR)?;
    let listed = listed.iter().filter_map(|file| segment_of_path(&file.path)).map(|(id, _)| id + 1).max();
    let version = Arc::new(replica.version);
    let mut state = db.commit.lock();
    db.next_segment.fetch_max(replica.next_segment.max(listed.unwrap_or(0)), Ordering::AcqRel);
    db.checkpoints.resume(manifest.number, replica.lists);
    *db.obsolete.lock() = replica.replaced;
    db.epoch.store(manifest.epoch, Ordering::Release);
    // What was visible here and is gone keeps its number.
    db.clock.leave_behind(db.publisher.current().csn);
    db.publisher.restart(Arc::clone(&version));
    db.hot.set(&version);
    *state = CommitState::new(version);
    Ok(state)
}

fn create(storage: &Arc<dyn Storage>) -> Result<Manifest> {
    let manifest = Manifest::new(uuid::Uuid::new_v4(), now());
    manifest.store(storage)?;
    Ok(manifest)
}
