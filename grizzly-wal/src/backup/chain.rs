//! The backups in one place: what is there, and whether it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::manifest::{BEGUN, Backup, Piece, begun_path, id, manifest_path};
use super::{Progress, log_piece, piece};
use crate::encryption::random;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{PutMode, Storage, check_plain};

/// The backups of one database, in one place.
#[derive(Debug, Clone)]
pub struct Backups {
    storage: Arc<dyn Storage>,
}

/// What [`Backups::verify`] looked at, and what it found.
#[derive(Debug, Clone, Default)]
pub struct BackupCheck {
    /// Backups.
    pub backups: u64,
    /// Stored pieces whose bytes were read and compared with their checksums.
    pub pieces: u64,
    /// Bytes of those pieces.
    pub bytes: u64,
    /// Records of the log.
    pub records: u64,
    /// What is wrong, one line each, naming the piece; empty if all is well.
    pub problems: Vec<String>,
}

/// What stands in the folders of a place.
#[derive(Default)]
struct Found {
    /// Backups with a manifest.
    finished: BTreeSet<u64>,
    /// Folders that say they were begun.
    begun: BTreeSet<u64>,
    /// All folders.
    all: BTreeSet<u64>,
}

impl Found {
    /// Folders with pieces of a backup whose manifest is gone.
    fn lost(&self) -> impl Iterator<Item = u64> {
        self.all.iter().copied().filter(|number| !self.finished.contains(number) && !self.begun.contains(number))
    }
}

impl Backups {
    /// The backups in `storage`, which may be empty.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// Where they are.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// All finished backups, oldest first.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] names a manifest that is damaged or missing; [`ErrorKind::Invalid`] if the place holds
    /// something else.
    pub fn list(&self) -> Result<Vec<Backup>> {
        let found = self.scan()?;
        if let Some(number) = found.lost().next() {
            return Err(lost(number));
        }
        found.finished.into_iter().map(|number| self.load(number)).collect()
    }

    /// The newest finished backup.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn newest(&self) -> Result<Option<Backup>> {
        let found = self.scan()?;
        found.finished.last().map(|number| self.load(*number)).transpose()
    }

    /// Reads every piece of every backup, and checks that each chain has all files and all records it needs.
    ///
    /// # Errors
    /// Only if the place cannot be read; what is wrong with the backups is in the result.
    pub fn verify(&self, progress: Progress<'_>) -> Result<BackupCheck> {
        let found = self.scan()?;
        let mut check = BackupCheck::default();
        check.problems.extend(found.lost().map(|number| lost(number).message().to_owned()));
        let mut backups = BTreeMap::new();
        for number in found.finished {
            match self.load(number) {
                Ok(backup) => drop(backups.insert(number, backup)),
                Err(error) => check.problems.push(error.message().to_owned()),
            }
        }
        let total = backups.values().map(|backup| backup.pieces().count() as u64).sum();
        for backup in backups.values() {
            check.backups += 1;
            self.check_pieces(backup, &mut check, total, progress)?;
            match chain_to(&backups, backup) {
                Ok(chain) => check.problems.extend(incomplete(&chain)),
                Err(error) => check.problems.push(error.message().to_owned()),
            }
        }
        Ok(check)
    }

    fn check_pieces(&self, backup: &Backup, check: &mut BackupCheck, total: u64, progress: Progress<'_>) -> Result<()> {
        for piece in backup.pieces() {
            let log = backup.log.iter().find(|log| log.piece.name == piece.name);
            let read = self.read(piece).and_then(|content| match log {
                Some(log) => log_piece::decode(&piece.name, content).map(|records| {
                    let fits = records.iter().zip(log.first..).all(|(record, lsn)| record.header.lsn.0 == lsn);
                    (records.len() as u64, fits && records.len() as u64 == log.last + 1 - log.first)
                }),
                None => Ok((0, true)),
            });
            match read {
                Ok((records, true)) => check.records += records,
                Ok(_) => check.problems.push(format!("{} has other records than its manifest says", piece.name)),
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(error) => check.problems.push(error.message().to_owned()),
            }
            check.pieces += 1;
            check.bytes += piece.stored;
            progress(check.pieces, total);
        }
        Ok(())
    }

    /// The content of a piece.
    pub(super) fn read(&self, piece: &Piece) -> Result<Bytes> {
        piece::read(self.storage.as_ref(), piece)
    }

    /// Makes the folder of the next backup ours.
    pub(super) fn claim(&self) -> Result<u64> {
        let number = self.scan()?.all.last().map_or(1, |last| last + 1);
        // Of two that claim one number the same bytes would be both's.
        let nonce = u64::from_le_bytes(random()?);
        let holder = Bytes::from(format!("process {}, {nonce:016x}", std::process::id()));
        self.storage.put(&begun_path(number), &[holder], PutMode::Create).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let message = format!("another backup is being written to {}", self.storage.url());
                Error::new(ErrorKind::Locked, message).with_source(error)
            }
            _ => error,
        })?;
        Ok(number)
    }

    /// Removes what a backup that failed has written.
    pub(super) fn abandon(&self, number: u64) {
        if let Err(error) = self.remove_unfinished(&id(number)) {
            tracing::warn!(backup = id(number), %error, "cannot remove an unfinished backup");
        }
    }

    /// Removes the folder of a backup that says it was begun, and has no description.
    pub(super) fn remove_unfinished(&self, folder: &str) -> Result<()> {
        let pieces = self.storage.list(folder)?;
        let begun = format!("{folder}/{BEGUN}");
        pieces.iter().filter(|piece| piece.path != begun).try_for_each(|piece| self.storage.remove(&piece.path))?;
        // Last: pieces without it are those of a backup whose description is lost.
        self.storage.remove(&begun)
    }

    /// Folders of backups that were begun and never finished.
    pub(super) fn unfinished(&self) -> Result<Vec<u64>> {
        let Found { finished, begun, .. } = self.scan()?;
        Ok(begun.difference(&finished).copied().collect())
    }

    /// The files that a chain ending with `last` has.
    pub(super) fn paths_of_chain(&self, last: Option<&Backup>) -> Result<BTreeSet<String>> {
        let Some(last) = last else { return Ok(BTreeSet::new()) };
        let mut paths = BTreeSet::new();
        for backup in self.chain(last)? {
            paths.extend(backup.files.into_iter().map(|file| file.path));
        }
        Ok(paths)
    }

    /// The backups from the full one to `last`.
    fn chain(&self, last: &Backup) -> Result<Vec<Backup>> {
        let mut chain = vec![last.clone()];
        while let Some(parent) = chain.last().and_then(|backup| backup.parent) {
            let older = self.load(parent)?;
            check_link(&chain[chain.len() - 1], &older)?;
            chain.push(older);
        }
        chain.reverse();
        Ok(chain)
    }

    fn load(&self, number: u64) -> Result<Backup> {
        let path = manifest_path(number);
        let text = self.storage.get(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => lost(number).with_source(error),
            _ => error,
        })?;
        if self.storage.key().is_none() {
            check_plain(&path, &text)?;
        }
        let backup = Backup::decode(&path, &text)?;
        if backup.number != number {
            let message = format!("backup manifest {path} says it is backup {}", backup.id());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(backup)
    }

    fn scan(&self) -> Result<Found> {
        let mut found = Found::default();
        for object in self.storage.list("")? {
            let folder =
                object.path.split_once('/').and_then(|(folder, rest)| Some((folder.parse::<u64>().ok()?, rest)));
            // No place has as many.
            let ours = |number: u64| number < u64::MAX && object.path.starts_with(&id(number));
            let Some((number, rest)) = folder.filter(|(number, _)| ours(*number)) else {
                let message =
                    format!("{} is not a place of backups: it contains '{}'", self.storage.url(), object.path);
                return Err(Error::invalid(message));
            };
            found.all.insert(number);
            if rest == "backup.json" {
                found.finished.insert(number);
            } else if rest == BEGUN {
                found.begun.insert(number);
            }
        }
        Ok(found)
    }
}

/// The error for a backup of which only pieces are there.
fn lost(number: u64) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} is missing", manifest_path(number)))
}

/// The backups from the full one to `last`, out of those that were read.
pub(super) fn chain_to<'a>(backups: &'a BTreeMap<u64, Backup>, last: &'a Backup) -> Result<Vec<&'a Backup>> {
    let mut chain = vec![last];
    while let Some(parent) = chain[chain.len() - 1].parent {
        let child = chain[chain.len() - 1];
        let older = backups.get(&parent).ok_or_else(|| {
            let message = format!(
                "backup {} continues {}, whose manifest {} cannot be read",
                child.id(),
                id(parent),
                manifest_path(parent)
            );
            Error::new(ErrorKind::Corrupt, message)
        })?;
        check_link(child, older)?;
        chain.push(older);
    }
    chain.reverse();
    Ok(chain)
}

fn check_link(child: &Backup, parent: &Backup) -> Result<()> {
    let fits = child.chain == parent.chain && child.database == parent.database && parent.number < child.number;
    if fits {
        return Ok(());
    }
    let message = format!("backup {} says it continues {}, which is of another chain", child.id(), parent.id());
    Err(Error::new(ErrorKind::Corrupt, message))
}

/// What the last backup of a chain needs and the chain lacks: files and records.
pub(super) fn incomplete(chain: &[&Backup]) -> Vec<String> {
    let Some((last, before)) = chain.split_last() else { return Vec::new() };
    let mut problems = Vec::new();
    let there: BTreeSet<&String> = chain.iter().flat_map(|backup| &backup.files).map(|file| &file.path).collect();
    let logged = last.log_files.iter().map(|file| &file.path);
    let absent = last.state.files.iter().chain(logged).filter(|path| !there.contains(path));
    problems.extend(absent.map(|path| format!("backup {} needs {path}, which its chain does not have", last.id())));
    let mut next = before.last().map_or(last.state.first_lsn, |parent| parent.end.lsn + 1);
    for log in &last.log {
        if log.first != next {
            problems.push(format!("backup {} lacks record {next} of the log", last.id()));
        }
        next = log.last + 1;
    }
    if next <= last.end.lsn {
        problems.push(format!("backup {} lacks record {next} of the log", last.id()));
    }
    problems
}
