//! From a chain back to files and a log, as of a commit. Everything needed is read and compared with its checksum
//! before the first byte is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::chain::{Backups, chain_to, incomplete};
use super::manifest::{Backup, FilePiece, LogPiece};
use super::{Progress, log_piece};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Lsn;
use crate::record::NewRecord;
use crate::recovery;
use crate::storage::{PutMode, Storage};
use crate::writer::WalOptions;

/// What a restore takes from which backups.
#[derive(Debug)]
pub struct RestorePlan {
    base: Backup,
    /// Commits after this one are left out.
    to: u64,
    files: Vec<FilePiece>,
    log: Vec<LogPiece>,
}

/// What a restore wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The last commit.
    pub csn: u64,
    /// Files.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Records of the log.
    pub records: u64,
}

impl RestorePlan {
    /// The backup whose state is the base.
    pub fn base(&self) -> &Backup {
        &self.base
    }
}

impl Backups {
    /// Chooses what restores the database as of the last commit at or before `to`, or as of the newest backup.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there is no backup, or none covers that moment; [`ErrorKind::Corrupt`] names what is
    /// damaged or missing.
    pub fn plan(&self, to: Option<u64>) -> Result<RestorePlan> {
        let backups: BTreeMap<u64, Backup> = self.list()?.into_iter().map(|backup| (backup.number, backup)).collect();
        let Some(newest) = backups.values().next_back() else {
            return Err(Error::invalid(format!("there is no backup in {}", self.storage().url())));
        };
        let to_csn = to.unwrap_or(newest.end.covers);
        let covering = backups.values().rfind(|backup| backup.state.csn <= to_csn);
        let tip = covering.and_then(|newest| backups.values().rfind(|backup| backup.chain == newest.chain));
        let Some(tip) = tip.filter(|tip| to_csn <= tip.end.covers) else { return Err(not_covered(&backups, to_csn)) };
        let mut chain = chain_to(&backups, tip)?;
        // No backup behind the first one that reaches so far is needed.
        let needed = chain.iter().position(|backup| backup.end.csn >= to_csn).map_or(chain.len(), |last| last + 1);
        chain.truncate(needed);
        let base = chain.iter().rfind(|backup| backup.state.csn <= to_csn).copied();
        let Some(base) = base else { return Err(not_covered(&backups, to_csn)) };
        for length in 1..=chain.len() {
            if let Some(problem) = incomplete(&chain[..length]).into_iter().next() {
                return Err(Error::new(ErrorKind::Corrupt, problem));
            }
        }
        Ok(select(base, &chain, to_csn))
    }

    /// Reads every piece of a plan; returns the engine's description of the base state.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] names the first piece that is missing or damaged.
    pub fn check(&self, plan: &RestorePlan, progress: Progress<'_>) -> Result<Bytes> {
        let state = self.read(&plan.base.state.piece)?;
        let total = (plan.files.len() + plan.log.len()) as u64;
        let pieces = plan.files.iter().map(|file| &file.piece);
        for (done, piece) in (1..).zip(pieces) {
            self.read(piece)?;
            progress(done, total);
        }
        for (done, log) in (plan.files.len() as u64 + 1..).zip(&plan.log) {
            log_piece::decode(&log.piece.name, self.read(&log.piece)?)?;
            progress(done, total);
        }
        Ok(state)
    }

    /// Writes the files of a plan that was [checked](Self::check), and a log of `owner` in the folder `log_dir`, to
    /// `target`.
    pub fn write(
        &self,
        plan: &RestorePlan,
        target: &Arc<dyn Storage>,
        (log_dir, owner): (&str, Option<u128>),
        progress: Progress<'_>,
    ) -> Result<Restored> {
        let total = plan.files.len() as u64;
        let mut bytes = 0;
        for (done, file) in (1..).zip(&plan.files) {
            target.put(&file.path, &[self.read(&file.piece)?], PutMode::Create)?;
            bytes += file.piece.raw;
            progress(done, total);
        }
        let (records, csn) = self.write_log(plan, target, log_dir, owner)?;
        Ok(Restored { csn: csn.max(plan.base.state.csn), files: total, bytes, records })
    }

    /// Writes the records behind the state, up to the last one wanted; their number, and the last commit.
    fn write_log(
        &self,
        plan: &RestorePlan,
        target: &Arc<dyn Storage>,
        dir: &str,
        owner: Option<u128>,
    ) -> Result<(u64, u64)> {
        let first = Lsn(plan.base.state.first_lsn);
        let wal = recovery::open(Arc::clone(target), dir, first, WalOptions { owner, ..WalOptions::default() })?
            .into_writer()?;
        let wal = Arc::new(wal);
        let (mut records, mut csn) = (0, 0);
        for log in &plan.log {
            for record in log_piece::decode(&log.piece.name, self.read(&log.piece)?)? {
                let header = record.header;
                if header.lsn < first || header.commit_ts > plan.to {
                    continue;
                }
                let expected = wal.next_lsn();
                if header.lsn != expected {
                    let message = format!("{} holds record {} where {expected} belongs", log.piece.name, header.lsn);
                    return Err(Error::new(ErrorKind::Corrupt, message));
                }
                let (txn, commit_ts, kind) = (header.txn, header.commit_ts, header.kind);
                wal.append(NewRecord { txn, commit_ts, kind, payload: record.payload })?;
                (records, csn) = (records + 1, commit_ts);
            }
        }
        wal.close()?;
        Ok((records, csn))
    }
}

/// What of `chain` is needed to replay the log on the state of `base` up to `to`.
fn select(base: &Backup, chain: &[&Backup], to: u64) -> RestorePlan {
    let logged = chain.iter().flat_map(|backup| &backup.log_files);
    let logged = logged.filter(|file| file.lsn >= base.state.first_lsn).map(|file| &file.path);
    let wanted: BTreeSet<&String> = base.state.files.iter().chain(logged).collect();
    let files: BTreeMap<&String, &FilePiece> =
        chain.iter().flat_map(|backup| &backup.files).map(|file| (&file.path, file)).collect();
    let log = chain.iter().flat_map(|backup| &backup.log);
    let log = log.filter(|log| log.last >= base.state.first_lsn && log.first_csn <= to);
    RestorePlan {
        base: base.clone(),
        to,
        files: wanted.into_iter().filter_map(|path| files.get(path).copied().cloned()).collect(),
        log: log.cloned().collect(),
    }
}

/// The error for a moment that no chain covers, with those that are.
fn not_covered(backups: &BTreeMap<u64, Backup>, to: u64) -> Error {
    let mut ranges: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for backup in backups.values() {
        let range = ranges.entry(&backup.chain).or_insert((backup.state.csn, 0));
        range.1 = backup.end.covers;
    }
    let mut ranges: Vec<_> = ranges.into_values().collect();
    ranges.sort_unstable();
    let ranges: Vec<_> = ranges.into_iter().map(|(from, to)| format!("{from} to {to}")).collect();
    Error::invalid(format!("no backup covers commit {to}; the backups cover {}", ranges.join(" and ")))
}
