//! Making a backup: the files that the chain lacks, the log since the backup before, and the manifest last.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::chain::Backups;
use super::manifest::{
    Backup, End, FORMAT, FilePiece, LogPiece, LoggedFile, Piece, State, begun_path, id, manifest_path,
};
use super::{FileCheck, Progress, log_piece, piece};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Lsn;
use crate::reader;
use crate::record::Record;
use crate::storage::{PutMode, Storage};

/// Content of one piece of the log, before compression.
const LOG_PIECE: usize = 16 << 20;

/// What is to be backed up. The engine sees to it that files and log stay until the backup is done.
#[derive(Debug)]
pub struct BackupSource {
    /// Where the database is.
    pub storage: Arc<dyn Storage>,
    /// The folder of its log.
    pub log_dir: String,
    /// Its identity.
    pub database: String,
    /// Identity of the chain, if this backup begins one.
    pub chain: String,
    /// The present moment in microseconds since 1970.
    pub created: u64,
    /// The engine's description of a state of the database.
    pub state: Bytes,
    /// The last commit in that state.
    pub state_csn: u64,
    /// The first record of the log that is not in that state.
    pub state_lsn: Lsn,
    /// The files that state names.
    pub state_files: Vec<String>,
    /// Files that records of the log name, for the records that this backup adds.
    pub log_files: Vec<LoggedFile>,
    /// The last record to cover; durable.
    pub end: Lsn,
    /// The last commit to cover.
    pub end_csn: u64,
    /// Every commit up to this moment is covered; microseconds since 1970.
    pub covers: u64,
}

impl Backup {
    /// The first record that the log must still hold for a backup that continues this one. It is the last record of
    /// this one, where there is one, so that a log that went another way since is noticed.
    pub fn continues_from(&self) -> Lsn {
        Lsn(if self.end.record_crc.is_some() { self.end.lsn } else { self.end.lsn + 1 })
    }
}

/// Makes a backup: a full one, or one that continues `parent`, which must be the newest one there. Each file passes `check`
/// before it is copied: what is damaged must not be found when it is needed.
///
/// # Errors
/// Whatever `check` says, and [`ErrorKind::Invalid`] if `parent` is a backup of another database, or the log does not reach
/// back to it.
pub fn create(
    to: &Backups,
    source: &BackupSource,
    check: FileCheck<'_>,
    parent: Option<&Backup>,
    progress: Progress<'_>,
) -> Result<Backup> {
    if let Some(parent) = parent {
        check_parent(parent, source)?;
    }
    let number = to.claim()?;
    let writer = Writer { to: to.storage().as_ref(), source, check, number };
    let written = to.paths_of_chain(parent).and_then(|there| writer.write(&there, parent, progress));
    let backup = written.inspect_err(|_| to.abandon(number))?;
    // From here on it may be there whatever is said of it, and what it names must stay. What is begun and not described is
    // pruned one day.
    writer.to.put(&manifest_path(number), &backup.encode()?, PutMode::Create)?;
    if let Err(error) = writer.to.remove(&begun_path(number)) {
        tracing::warn!(backup = id(number), %error, "the mark of a backup that is finished cannot be removed");
    }
    Ok(backup)
}

fn check_parent(parent: &Backup, source: &BackupSource) -> Result<()> {
    if parent.database != source.database {
        let message = format!(
            "backup {} is one of database {}, not of {}: begin with a full backup in another place",
            parent.id(),
            parent.database,
            source.database
        );
        return Err(Error::invalid(message));
    }
    if parent.end.lsn > source.end.0 {
        return Err(other_way(parent));
    }
    Ok(())
}

/// The database was set back to before the backup, and went on from there.
fn other_way(parent: &Backup) -> Error {
    Error::invalid(format!(
        "the log does not continue backup {}: record {} is another one now; take a full backup",
        parent.id(),
        parent.end.lsn
    ))
}

struct Writer<'a> {
    to: &'a dyn Storage,
    source: &'a BackupSource,
    check: FileCheck<'a>,
    number: u64,
}

impl Writer<'_> {
    /// Writes everything into the folder that was claimed but the description, which it returns; `there` is what the chain has already.
    fn write(&self, there: &BTreeSet<String>, parent: Option<&Backup>, progress: Progress<'_>) -> Result<Backup> {
        let (source, number) = (self.source, self.number);
        let (log, record_crc) = self.log(parent)?;
        let files = self.files(there, progress)?;
        let piece = piece::write(self.to, &format!("{}/state", id(number)), source.state.clone())?;
        Ok(Backup {
            format: FORMAT,
            number,
            parent: parent.map(|parent| parent.number),
            chain: parent.map_or_else(|| source.chain.clone(), |parent| parent.chain.clone()),
            database: source.database.clone(),
            created: source.created,
            state: State {
                piece,
                csn: source.state_csn,
                first_lsn: source.state_lsn.0,
                files: source.state_files.clone(),
            },
            end: End { lsn: source.end.0, csn: source.end_csn, covers: source.covers, record_crc },
            files,
            log,
            log_files: source.log_files.clone(),
        })
    }

    /// Copies the log behind `parent`, or behind the state; with the checksum of the last record.
    fn log(&self, parent: Option<&Backup>) -> Result<(Vec<LogPiece>, Option<u32>)> {
        let source = self.source;
        let (from, first) = match parent {
            Some(parent) => (parent.continues_from(), Lsn(parent.end.lsn).next()),
            None => (source.state_lsn, source.state_lsn),
        };
        let mut last_crc = parent.and_then(|parent| parent.end.record_crc);
        let mut out = LogWriter { to: self, pieces: Vec::new(), pending: Pending::default() };
        if from > source.end {
            return Ok((out.pieces, last_crc));
        }
        let records = reader::read(Arc::clone(&source.storage), &source.log_dir, from);
        let mut next = from;
        for record in records.map_err(|error| unreachable_log(error, parent))? {
            let record = record?;
            if record.header.lsn > source.end {
                break;
            }
            let crc = log_piece::checksum(&record);
            match parent.filter(|_| record.header.lsn < first) {
                Some(parent) if Some(crc) != parent.end.record_crc => return Err(other_way(parent)),
                Some(_) => {}
                None => out.add(&record)?,
            }
            last_crc = Some(crc);
            next = record.header.lsn.next();
        }
        if next <= source.end {
            let message = format!("{} ends before record {next}, but {} was durable", source.log_dir, source.end);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        out.flush()?;
        Ok((out.pieces, last_crc))
    }

    /// Copies the files that the chain does not have.
    fn files(&self, there: &BTreeSet<String>, progress: Progress<'_>) -> Result<Vec<FilePiece>> {
        let logged = self.source.log_files.iter().map(|file| &file.path);
        let wanted: BTreeSet<&String> = self.source.state_files.iter().chain(logged).collect();
        let missing: Vec<&String> = wanted.into_iter().filter(|path| !there.contains(*path)).collect();
        let total = missing.len() as u64;
        let mut files = Vec::with_capacity(missing.len());
        for (done, path) in (1..).zip(missing) {
            let content = self.source.storage.get(path)?;
            (self.check)(path, &content)?;
            let piece = piece::write(self.to, &format!("{}/{path}", id(self.number)), content)?;
            files.push(FilePiece { path: path.clone(), piece });
            progress(done, total);
        }
        Ok(files)
    }
}

fn unreachable_log(error: Error, parent: Option<&Backup>) -> Error {
    let Some(parent) = parent.filter(|_| error.kind() == ErrorKind::Corrupt) else { return error };
    let message = format!("the log no longer reaches back to backup {}; take a full backup", parent.id());
    Error::invalid(message).with_source(error)
}

/// Records on their way into pieces.
struct LogWriter<'a> {
    to: &'a Writer<'a>,
    pieces: Vec<LogPiece>,
    pending: Pending,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Number and commit timestamp of the first and the last record.
    first: Option<(u64, u64)>,
    last: (u64, u64),
}

impl LogWriter<'_> {
    fn add(&mut self, record: &Record) -> Result<()> {
        let place = (record.header.lsn.0, record.header.commit_ts);
        self.pending.first.get_or_insert(place);
        self.pending.last = place;
        log_piece::encode(record, &mut self.pending.bytes);
        if self.pending.bytes.len() >= LOG_PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let Pending { bytes, first, last } = std::mem::take(&mut self.pending);
        let Some((first, first_csn)) = first else { return Ok(()) };
        let name = format!("{}/log/{first:012}", id(self.to.number));
        let piece: Piece = piece::write(self.to.to, &name, bytes.into())?;
        self.pieces.push(LogPiece { first, last: last.0, first_csn, last_csn: last.1, piece });
        Ok(())
    }
}
