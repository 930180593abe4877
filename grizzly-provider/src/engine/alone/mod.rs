//! A database that one process opens alone: to read it nothing is written, and where nothing can be written it is
//! read all the same. Writing begins at open if it can, and else with the first write that finds room.
//!
//! The same happens after the log failed in a way that left nothing of the failed records behind: what is durable is
//! read again, as at a start, and the log goes on in a new file under a new epoch.

pub(super) mod begin;
mod epoch;
pub(super) mod grounded;

use std::{sync::Arc, time::Duration};

use grizzly_wal::{Lsn, Storage, world};

use self::begin::begin;
use super::{
    cluster::lease,
    core::{Inner, Parts},
    files::Files,
    maintenance::worker,
    manifest::{LOG_DIR, Manifest},
    recovery::{self, load_or_create},
    replica::Replica,
    settings::Settings,
    txn::publish::Publisher,
    version::DatabaseVersion,
};
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
};

/// Whether an error says that nothing can be written here, while reading may work.
fn forbids_writing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::DiskFull | ErrorKind::Permission)
}

/// Opens the database in `storage` for this process alone.
pub(super) fn open(url: String, settings: Settings, storage: Arc<dyn Storage>) -> Result<Arc<Inner>> {
    let lock = storage.lock()?;
    let found = load_or_create(&storage, settings.create, &url)?;
    let files = Files::new(&storage, Duration::ZERO, settings.memory_bytes);
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
