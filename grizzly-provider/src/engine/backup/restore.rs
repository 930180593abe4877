//! From backups to a database of its own identity.

use std::{sync::Arc, time::UNIX_EPOCH};

use grizzly_wal::{EncryptionKey, Storage, backup::Restored};

use super::{
    super::{
        close,
        core::{Grizzly, Inner},
        ddl,
        maintenance::flush,
        manifest::{LOG_DIR, Manifest},
        open,
        segment::meta::{DATA_DIR, run_of_path},
        settings::Settings,
    },
    Backups, RestoreTo, check_apart, open_place, unfinished,
};
use crate::{
    access::Csn,
    error::{Error, Result},
};

/// What a restore made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// The last commit of the restored database.
    pub csn: Csn,
    /// The backup whose files are the base.
    pub base: String,
    /// Files written.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Records of the log that were replayed on them.
    pub records: u64,
}

impl Backups {
    /// Rebuilds the database at a URL, which must hold nothing; with a key it is encrypted. It gets an identity of
    /// its own and can live beside the original. `progress` is told how many pieces are done, of how many.
    ///
    /// # Errors
    /// `Corrupt` names a piece that is damaged or missing, `Invalid` a moment that is not covered or a target that is
    /// not empty; nothing has been written then.
    pub fn restore(
        &self,
        into: &str,
        key: Option<EncryptionKey>,
        to: RestoreTo,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RestoreReport> {
        self.restore_into(&open_place(into, key)?, to, progress)
    }

    /// The same, into a storage of the caller's.
    ///
    /// # Errors
    /// As [`Backups::restore`].
    pub fn restore_into(
        &self,
        into: &Arc<dyn Storage>,
        to: RestoreTo,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RestoreReport> {
        let to = match to {
            RestoreTo::Latest => None,
            RestoreTo::Csn(csn) => Some(csn.0),
            RestoreTo::Time(time) => Some(time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)),
        };
        check_apart(&into.url(), &self.inner.storage().url())?;
        check_empty(into)?;
        let plan = self.inner.plan(to).map_err(|error| self.explain(error))?;
        let state = self.inner.check(&plan, progress).map_err(|error| self.explain(error))?;
        let manifest = restored_manifest(&state)?;
        let lock = into.lock()?;
        check_empty(into)?;
        unfinished::mark(into)?;
        let Restored { csn, files, bytes, records } =
            self.inner.write(&plan, into, (LOG_DIR, Some(manifest.database.as_u128())), progress)?;
        manifest.store(into)?;
        drop(lock);
        finish(into)?;
        unfinished::unmark(into)?;
        Ok(RestoreReport { csn: Csn(csn), base: plan.base().id(), files, bytes, records })
    }
}

impl Grizzly {
    /// Rebuilds the database at `into`, which must hold nothing, from backups that are not encrypted. See
    /// [`Backups::restore`] for keys and progress.
    ///
    /// # Errors
    /// As [`Backups::restore`].
    pub fn restore(from: &str, into: &str, to: RestoreTo) -> Result<RestoreReport> {
        Backups::open(from, None)?.restore(into, None, to, &mut |_, _| {})
    }
}

fn check_empty(into: &Arc<dyn Storage>) -> Result<()> {
    let objects = into.list("")?.into_iter().map(|object| object.path);
    match objects.chain(into.list_append(LOG_DIR)?).next() {
        Some(found) => Err(Error::invalid(format!(
            "'{}' is not empty: it contains '{found}'; restore into a new place",
            into.url()
        ))),
        None => Ok(()),
    }
}

/// The manifest of the new database: the old state under a new identity. Its number and its epoch go on: they are part
/// of the names of files, which must not be given again.
fn restored_manifest(state: &[u8]) -> Result<Manifest> {
    let mut manifest = Manifest::decode("state", state)?;
    manifest.database = uuid::Uuid::new_v4();
    manifest.named_by_log.clear();
    manifest.log = None;
    Ok(manifest)
}

/// Replays the log into files and gives every segment the index runs it should have: some may have been made and
/// dropped again between two backups.
fn finish(storage: &Arc<dyn Storage>) -> Result<()> {
    let settings = Settings { background: false, create: false, ..Settings::default() };
    let db = open::open(storage.url(), settings, Arc::clone(storage))?;
    flush::checkpoint(&db)?;
    ddl::mend_runs(&db)?;
    remove_stray_runs(&db)?;
    close::close(&db)
}

/// Runs of indexes that did not exist yet: an index made later must not find them.
fn remove_stray_runs(db: &Inner) -> Result<()> {
    let version = db.publisher.current();
    for file in db.storage.list(DATA_DIR)? {
        let Some((segment, index)) = run_of_path(&file.path) else { continue };
        let table = version.tables.values().find(|table| {
            let found = table.segment(segment.0).and_then(|found| found.cold());
            found.is_some_and(|cold| cold.meta.key() == segment)
        });
        if table.is_some_and(|table| table.def.indexes.iter().all(|def| def.id != index)) {
            db.storage.remove(&file.path)?;
        }
    }
    Ok(())
}
