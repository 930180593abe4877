//! Backups, taken beside writers: the newest checkpoint's files, the log behind it, and what the log names.
//!
//! A checkpoint is not waited for and not made: its manifest is on storage, and the log says the rest. While files
//! are copied none is removed; between two backups of a chain the log stays, and with it the files it names, so that
//! the chain can be restored as of any commit.

mod copied;
pub(crate) mod pins;
pub(crate) mod restore;
pub(crate) mod unfinished;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use bytes::Bytes;
use grizzly_wal::{
    EncryptedStorage, EncryptionKey, ErrorKind as Below, Lsn, Storage, Wal,
    backup::{self, Backup, BackupCheck, BackupSource, LoggedFile},
    lies_within,
};
use pins::Position;

use super::{
    clock::now,
    core::{Grizzly, Inner},
    manifest::{LOG_DIR, Manifest},
    redo,
    segment::meta::{DATA_DIR, SegmentKey, run_of_path, segment_of_path, segment_path},
};
use crate::{
    access::Csn,
    error::{Error, Result},
};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupKind {
    /// Everything.
    Full,
    /// What the chain in that place does not have yet; only as large as what has changed.
    Incremental,
}

/// A backup that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// Its name in its place, like `000003`.
    pub id: String,
    /// The last commit it holds. Every commit acknowledged before the backup began is in it.
    pub csn: Csn,
    /// Files copied; those that the chain had already are not among them.
    pub files: usize,
    /// Records of the log.
    pub log_records: u64,
    /// Bytes written to the place, without the backup's own description.
    pub bytes: u64,
}

/// A backup, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupInfo {
    /// Its name in its place, like `000003`.
    pub id: String,
    /// The backup that it continues; `None` for a full one.
    pub parent: Option<String>,
    /// When it was begun.
    pub created: SystemTime,
    /// The identity of the database.
    pub database: String,
    /// The first commit as of which it can be restored, together with its chain.
    pub from: Csn,
    /// The last commit it holds.
    pub csn: Csn,
    /// Files in it.
    pub files: usize,
    /// Bytes in it.
    pub bytes: u64,
}

/// Which state to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreTo {
    /// The end of the newest backup.
    Latest,
    /// As of this commit, or the last one before it.
    Csn(Csn),
    /// As of this moment.
    Time(SystemTime),
}

/// The backups in one place.
#[derive(Debug, Clone)]
pub struct Backups {
    inner: backup::Backups,
}

/// The storage that a URL names, encrypted if there is a key.
///
/// # Errors
/// `Unsupported` or `Invalid` for a URL that names none.
pub fn open_place(url: &str, key: Option<EncryptionKey>) -> Result<Arc<dyn Storage>> {
    let storage = grizzly_wal::open_storage(url)?;
    Ok(match key {
        Some(key) => Arc::new(EncryptedStorage::new(storage, key)),
        None => storage,
    })
}

/// Checks that neither of two places lies below the other: files of a database would be taken for those of a backup, or the
/// other way round. Those that go by no name are different ones.
fn check_apart(database: &str, backups: &str) -> Result<()> {
    if lies_within(database, backups) || lies_within(backups, database) {
        let message = format!("a database at '{database}' and backups at '{backups}' must not lie within each other");
        return Err(Error::invalid(message));
    }
    Ok(())
}

impl Backups {
    /// The backups at a URL; with the key they were encrypted with, if they were.
    ///
    /// # Errors
    /// `Unsupported` or `Invalid` for a URL that names no storage.
    pub fn open(url: &str, key: Option<EncryptionKey>) -> Result<Self> {
        open_place(url, key).map(Self::new)
    }

    /// The backups in a storage of the caller's.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { inner: backup::Backups::new(storage) }
    }

    /// All finished backups, oldest first.
    ///
    /// # Errors
    /// `Corrupt` names a damaged or missing description; `Permission` for a wrong or missing key.
    pub fn list(&self) -> Result<Vec<BackupInfo>> {
        let backups = self.inner.list().map_err(|error| self.explain(error))?;
        Ok(described(&backups))
    }

    /// What [`Backups::prune`] would remove.
    ///
    /// # Errors
    /// As [`Backups::prune`].
    pub fn prunable(&self, keep: NonZeroUsize) -> Result<Vec<BackupInfo>> {
        let pruned = self.inner.prunable(keep).map_err(|error| self.explain(error))?;
        Ok(described(&pruned.backups))
    }

    /// Removes all chains (a full backup and those that continue it) but the newest `keep`, and what older backups that
    /// were never finished have left behind; returns the backups that were removed, oldest first. The newest chain is
    /// that of the newest full backup. Chains stay or go as a whole: none that stays is broken.
    ///
    /// # Errors
    /// `Corrupt` if a description is damaged or missing, or a chain that is to stay lacks something; nothing has been
    /// removed then. After any other error what is left is whole, and can be pruned again.
    pub fn prune(&self, keep: NonZeroUsize) -> Result<Vec<BackupInfo>> {
        let pruned = self.inner.prune(keep).map_err(|error| self.explain(error))?;
        Ok(described(&pruned.backups))
    }

    /// Reads everything and compares it with its checksums, and checks that every chain is whole. `progress` is told
    /// how many pieces are done, of how many.
    ///
    /// # Errors
    /// Only if the place cannot be read; what is wrong is in the result.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<BackupCheck> {
        self.inner.verify(progress).map_err(|error| self.explain(error))
    }

    fn explain(&self, error: grizzly_wal::Error) -> Error {
        Error::from(error).at(&format!("backups in {}", self.inner.storage().url()))
    }
}

/// Backups as they are listed; `backups` has whole chains.
fn described(backups: &[Backup]) -> Vec<BackupInfo> {
    let mut from = BTreeMap::new();
    let described = backups.iter().map(|backup| {
        let from = *from.entry(&backup.chain).or_insert(backup.state.csn);
        BackupInfo {
            id: backup.id(),
            parent: backup.parent.map(|parent| format!("{parent:06}")),
            created: SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(backup.created),
            database: backup.database.clone(),
            from: Csn(from),
            csn: Csn(backup.end.csn),
            files: backup.files.len(),
            bytes: backup.stored_bytes(),
        }
    });
    described.collect()
}

impl Grizzly {
    /// Takes a backup to a URL while others read and write; encrypted with the database's key if it has one.
    ///
    /// An incremental one continues the newest backup there. Until then, for up to
    /// [`backup_window`](crate::Settings::backup_window), the database keeps its log from this backup on.
    ///
    /// # Errors
    /// `Invalid` if there is nothing to continue, the chain there is of another database, or the log was cut since;
    /// otherwise whatever the place reports. What is there already is not touched.
    pub fn backup(&self, to: &str, kind: BackupKind) -> Result<BackupReport> {
        let to = open_place(to, self.inner.storage.key().cloned())?;
        self.backup_into(&to, kind, &mut |_, _| {})
    }

    /// Takes a backup to a storage of the caller's. `progress` is told how many files are copied, of how many.
    ///
    /// # Errors
    /// As [`Grizzly::backup`].
    pub fn backup_into(
        &self,
        to: &Arc<dyn Storage>,
        kind: BackupKind,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<BackupReport> {
        backup(&self.inner, to, kind, progress)
    }

    /// Lets the log go that is kept for incremental backups to the URL, or to any place; returns for how many chains.
    /// The next backup there must be a full one.
    ///
    /// # Errors
    /// `Closed`, `Unavailable` where another process writes, or whatever the storage reports.
    pub fn release_backups(&self, to: Option<&str>) -> Result<usize> {
        let to = to.map(|to| Ok::<_, Error>(grizzly_wal::open_storage(to)?.url())).transpose()?;
        self.inner.check_writable()?;
        self.inner.pins.release(&self.inner.storage, |position| to.as_ref().is_none_or(|to| position.to == *to))
    }
}

/// Takes a backup while others read and write.
fn backup(
    db: &Inner,
    to: &Arc<dyn Storage>,
    kind: BackupKind,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackupReport> {
    check_apart(&db.url, &to.url())?;
    db.check_writable()?;
    let backups = backup::Backups::new(Arc::clone(to));
    let parent = match kind {
        BackupKind::Full => None,
        BackupKind::Incremental => {
            let newest = backups.newest()?;
            let none = || Error::invalid(format!("there is no backup in {} to continue: take a full one", to.url()));
            Some(newest.ok_or_else(none)?)
        }
    };
    let running = db.pins.start()?;
    let Chosen { source, log, marks } = choose(db, parent.as_ref(), &running)?;
    // Behind that point another writer may have gone on meanwhile, but what is before it all of them have.
    if source.end.0 > 0 {
        log.wait_durable(source.end)?;
    }
    let check = |path: &str, file: &Bytes| {
        let mark = segment_of_path(path).and_then(|segment| marks.get(&segment).copied());
        copied::check(path, file, mark).map_err(|error| grizzly_wal::Error::new(Below::Corrupt, error.to_string()))
    };
    let made = backup::create(&backups, &source, &check, parent.as_ref(), progress)?;
    let (chain, lsn) = (made.chain.clone(), made.continues_from().0);
    db.pins.advance(
        &db.storage,
        Position { chain, to: to.url(), lsn, created: made.created, database: Some(db.identity) },
    )?;
    drop(running);
    tracing::info!(id = made.id(), csn = made.end.csn, bytes = made.stored_bytes(), "a backup was taken");
    Ok(BackupReport {
        id: made.id(),
        csn: Csn(made.end.csn),
        files: made.files.len(),
        log_records: made.log.iter().map(|log| log.last + 1 - log.first).sum(),
        bytes: made.stored_bytes(),
    })
}

/// What a backup holds.
struct Chosen {
    source: BackupSource,
    log: Arc<Wal>,
    /// Those of segments that have one.
    marks: BTreeMap<SegmentKey, uuid::Uuid>,
}

/// Decides what the backup holds, between two checkpoints, and keeps all of it on storage from then on.
fn choose(db: &Inner, parent: Option<&Backup>, running: &pins::Running<'_>) -> Result<Chosen> {
    let _no_checkpoint = db.checkpoint.lock();
    let manifest = Manifest::load(&db.storage)?.ok_or_else(|| Error::internal("an open database has no manifest"))?;
    // The manifest of a successor says nothing about the commits that are known here.
    if manifest.epoch > db.epoch.load(Ordering::Acquire) {
        return Err(db.not_writer());
    }
    let (log, end, end_csn, covers, version) = {
        let state = db.commit.lock();
        let (log, csn) = (db.log()?, state.version.csn);
        // The clock of the next writer may be behind this one.
        let covers = if db.member.is_some() { csn } else { now().max(csn) };
        let end = Lsn(log.next_lsn().0 - 1);
        (log, end, csn, covers, Arc::clone(&state.version))
    };
    let first = parent.map_or(Lsn(manifest.replay_from), |parent| Lsn(parent.end.lsn).next());
    running.read_from(parent.map_or(first, Backup::continues_from));
    let runs = runs_by_segment(db)?;
    // The segment itself must be there; what else is there belongs to it.
    let of = |segment: SegmentKey| {
        let more = runs.get(&segment).into_iter().flatten();
        std::iter::once(segment_path(segment)).chain(more.cloned())
    };
    let entries = || manifest.tables.values().flatten().flatten();
    let newest = version.tables.values().flat_map(|table| table.segments());
    let metas = entries().map(|entry| &entry.meta).chain(newest.filter_map(|(_, segment)| Some(&segment.cold()?.meta)));
    let marks = metas.filter_map(|meta| Some((meta.key(), meta.mark?))).collect();
    let state_files = entries().flat_map(|entry| of(entry.meta.key()).chain(entry.tombstones.clone())).collect();
    let named = db.pins.named_in(first..end.next()).into_iter();
    let log_files =
        named.flat_map(|named| of(named.key()).map(move |path| LoggedFile { path, lsn: named.lsn })).collect();
    let source = BackupSource {
        storage: Arc::clone(&db.storage),
        log_dir: LOG_DIR.to_owned(),
        database: db.identity.to_string(),
        chain: uuid::Uuid::new_v4().to_string(),
        created: now().0,
        state: redo::encode_json(&manifest)?,
        state_csn: manifest.csn,
        state_lsn: Lsn(manifest.replay_from),
        state_files,
        log_files,
        end,
        end_csn: end_csn.0,
        covers: covers.0,
    };
    Ok(Chosen { source, log, marks })
}

/// Index runs on storage, by segment.
fn runs_by_segment(db: &Inner) -> Result<BTreeMap<SegmentKey, Vec<String>>> {
    let mut runs: BTreeMap<SegmentKey, Vec<String>> = BTreeMap::new();
    for file in db.storage.list(DATA_DIR)? {
        if let Some((segment, _)) = run_of_path(&file.path) {
            runs.entry(segment).or_default().push(file.path);
        }
    }
    Ok(runs)
}
