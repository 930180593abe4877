//! A database that one process opens alone: to read it nothing is written, and where nothing can be written it is
//! read all the same. Writing begins at open if it can, and else with the first write that finds room.
//!
//! The same happens after the log failed in a way that left nothing of the failed records behind: what is durable is
//! read again, as at a start, and the log goes on in a new file under a new epoch.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use grizzly_wal::{
    Lsn, Storage, Wal,
    world::{self, Mutex},
};

use super::{
    cluster::{lease, lease::Lease, promote},
    database::Inner,
    files::Files,
    maintenance::worker,
    manifest::Manifest,
    recovery::{self, LOG_DIR, Parts, load_or_create, new_cache, wal_options},
    replica::Replica,
    segment::removal::Removal,
    settings::Settings,
    txn::publish::Publisher,
    version::DatabaseVersion,
};
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
};

/// Attempts to write again are at least so far apart.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a process that opened a database alone does not write to it at the moment.
#[derive(Debug, Default)]
pub(super) struct Grounded {
    last: Mutex<Option<Attempt>>,
}

/// An attempt to begin to write that failed.
#[derive(Debug)]
struct Attempt {
    kind: ErrorKind,
    why: String,
    /// When the next one makes sense.
    again: Instant,
}

impl Grounded {
    /// An attempt that began then has failed. It may have read much, so the next one waits the longer.
    fn set(&self, begun: Instant, error: &Error) {
        let again = world::instant() + PAUSE.max(4 * world::since(begun));
        *self.last.lock() = Some(Attempt { kind: error.kind(), why: error.to_string(), again });
    }

    fn is_too_early(&self) -> bool {
        self.last.lock().as_ref().is_some_and(|last| world::instant() < last.again)
    }

    /// The error for a write.
    pub(super) fn refusal(&self, url: &str) -> Error {
        let last = self.last.lock();
        let (kind, why) = last.as_ref().map_or((ErrorKind::Unavailable, ""), |last| (last.kind, last.why.as_str()));
        let message =
            format!("database '{url}' can be read but not written at the moment; writing is tried again: {why}");
        Error::new(kind, message)
    }
}

/// Whether an error says that nothing can be written here, while reading may work.
fn forbids_writing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::DiskFull | ErrorKind::Permission)
}

/// Opens the database in `storage` for this process alone.
pub(super) fn open(url: String, settings: Settings, storage: Arc<dyn Storage>) -> Result<Arc<Inner>> {
    let lock = storage.lock()?;
    let found = load_or_create(&storage, settings.create, &url)?;
    let removal = Arc::new(Removal::new(Arc::clone(&storage), Duration::ZERO));
    let files = Files { removal, cache: new_cache(&settings) };
    let publisher = Arc::new(Publisher::new(DatabaseVersion::empty(Csn(found.history_from))));
    let parts = Parts { url, settings, storage, publisher, files, lock, member: None };
    let db = Arc::new(Inner::new(parts, found.database));
    let begun = world::instant();
    match begin(&db, &found) {
        Err(error) if forbids_writing(&error) => {
            read_only(&db, &found)?;
            tracing::warn!(%error, url = db.url, "the database is open, but cannot be written at the moment");
            db.grounded.set(begun, &error);
        }
        begun => begun?,
    }
    worker::start(&db)?;
    Ok(db)
}

/// Takes an epoch, reads everything, and goes on behind it.
fn begin(db: &Inner, found: &Manifest) -> Result<()> {
    // A lock of this machine keeps nobody else out of a bucket.
    let held = !db.storage.lock_excludes();
    let lease = lease::take_alone(&db.storage, found, held)?;
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
            let claimed = promote::claim(storage, lease)?;
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

/// Reads everything and writes nothing.
fn read_only(db: &Inner, manifest: &Manifest) -> Result<()> {
    let mut replica = Replica::from_manifest(db.files.clone(), manifest)?;
    let known = manifest.known_log().and(lease::known_log(db.storage.as_ref(), manifest.database)?);
    let log = grizzly_wal::read(Arc::clone(&db.storage), LOG_DIR, Lsn(manifest.replay_from))?;
    let mut log = log.knowing(known);
    for record in &mut log {
        replica.apply(&record?)?;
    }
    recovery::adopt(db, replica, log.torn().to_vec(), manifest).map(drop)
}

impl Inner {
    /// Begins to write if this process could not when it opened the database, or if the log failed since and can go
    /// on. Whoever is refused hears why from [`Inner::check_writable`]. Not to be called under the commit lock or the
    /// checkpoint's.
    pub(super) fn begin_to_write(&self) {
        let wanted = || self.wal.load().as_ref().is_none_or(|log| log.can_go_on());
        if self.member.is_some() || !wanted() {
            return;
        }
        // Somebody who flushes or merges will soon be refused.
        let Some(_no_maintenance) = self.checkpoint.try_lock() else { return };
        // Another thread may have done it meanwhile, or tried.
        if wanted() && !self.grounded.is_too_early() && self.check_open().is_ok() {
            let started = world::instant();
            self.end_log();
            let begun = Manifest::load(&self.storage).and_then(|manifest| {
                let gone = || Error::not_found(format!("'{}' is gone", self.storage.url()));
                begin(self, &manifest.ok_or_else(gone)?)
            });
            if let Err(error) = begun {
                self.grounded.set(started, &error);
            }
        }
    }

    /// Gives up a log that failed. What was not acknowledged by now never will be.
    fn end_log(&self) {
        let _no_commits = self.commit.lock();
        let Some(log) = self.wal.swap(None) else { return };
        self.term.fetch_add(1, Ordering::AcqRel);
        drop(log.close());
        // Versions that wait for the log will not become visible.
        self.publisher.publish_now(self.publisher.current());
    }
}
