//! Beginning to write, when the database is opened and after its log failed.

use std::sync::{Arc, atomic::Ordering};

use grizzly_wal::{Lsn, Wal, world};

use super::{
    super::{
        cluster::lease::Lease,
        core::Inner,
        manifest::{LOG_DIR, Manifest},
        recovery::{self, wal_options},
        replica::Replica,
    },
    epoch,
};
use crate::error::{Error, Result};

/// Takes an epoch, reads everything, and goes on behind it.
pub(super) fn begin(db: &Inner, found: &Manifest) -> Result<()> {
    // A lock of this machine keeps nobody else out of a bucket.
    let held = !db.storage.lock_excludes();
    let lease = epoch::take(&db.storage, found, held)?;
    let begun = go_on(db, found, &lease, held);
    if begun.is_err() {
        // The next attempt takes another one.
        drop(lease.release());
    }
    begun
}

fn go_on(db: &Inner, found: &Manifest, lease: &Arc<Lease>, held: bool) -> Result<()> {
    let storage = &db.storage;
    let manifest = match held {
        // What a writer before is storing at this moment must not count any more.
        true => {
            let claimed = Manifest::claim(storage, lease.epoch())?;
            Manifest::prune(storage)?;
            claimed
        }
        false => Manifest { epoch: lease.epoch(), ..found.clone() },
    };
    let mut replica = Replica::from_manifest(db.files.clone(), &manifest)?;
    let mut options = wal_options(&db.publisher, db.identity, lease.epoch(), None);
    options.sole = !held;
    let replay = grizzly_wal::open(Arc::clone(storage), LOG_DIR, Lsn(manifest.replay_from), options)?;
    let mut replay = replay.knowing(lease.known_log());
    let mut records = 0_u64;
    for record in &mut replay {
        replica.apply(&record?)?;
        records += 1;
    }
    let torn = replay.torn().to_vec();
    let wal = Arc::new(replay.into_writer()?);
    tracing::info!(url = db.url, records, csn = replica.version.csn.0, "the database is open");
    leave_word(lease, &wal);
    db.alone.store(Some(Arc::clone(lease)));
    recovery::install(db, replica, (wal, torn), &manifest)
}

/// From here on the lease says which file the log has begun.
fn leave_word(lease: &Arc<Lease>, wal: &Arc<Wal>) {
    lease.follow_log(wal);
    if let Err(error) = lease.leave_word() {
        tracing::warn!(%error, "no word of the log could be left; that its newest file is missing would not be noticed");
    }
}

/// Begins to write if this process could not when it opened the database, or if the log failed since and can go
/// on. Whoever is refused hears why from [`Inner::check_writable`]. Not to be called under the commit lock or the
/// checkpoint's.
pub(crate) fn begin_to_write(db: &Inner) {
    let wanted = || db.wal.load().as_ref().is_none_or(|log| log.can_go_on());
    if db.member.is_some() || !wanted() {
        return;
    }
    // Somebody who flushes or merges will soon be refused.
    let Some(_no_maintenance) = db.checkpoint.try_lock() else { return };
    // Another thread may have done it meanwhile, or tried.
    if wanted() && !db.grounded.is_too_early() && db.check_open().is_ok() {
        let started = world::instant();
        end_log(db);
        let begun = Manifest::load(&db.storage).and_then(|manifest| {
            let gone = || Error::not_found(format!("'{}' is gone", db.storage.url()));
            begin(db, &manifest.ok_or_else(gone)?)
        });
        if let Err(error) = begun {
            db.grounded.set(started, &error);
        }
    }
}

/// Gives up a log that failed. What was not acknowledged by now never will be.
fn end_log(db: &Inner) {
    let _no_commits = db.commit.lock();
    let Some(log) = db.wal.swap(None) else { return };
    db.term.fetch_add(1, Ordering::AcqRel);
    drop(log.close());
    // Versions that wait for the log will not become visible.
    db.publisher.publish_now(db.publisher.current());
}
