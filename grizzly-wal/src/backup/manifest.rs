//! What a backup says about itself, as JSON with a checksum behind it. It is written last: a backup without it was
//! never finished.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::Lsn;

/// The version of the layout of backups this build writes. It reads this one and all older ones.
pub(super) const FORMAT: u32 = 1;
/// More bytes than any backup has.
const LARGEST: u64 = 1 << 62;

/// One stored object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its path in the backup's place.
    pub name: String,
    /// Bytes as stored.
    pub stored: u64,
    /// CRC-32C of the bytes as stored.
    pub stored_crc: u32,
    /// Bytes of the content.
    pub raw: u64,
    /// CRC-32C of the content.
    pub raw_crc: u32,
    /// Whether the stored bytes are one zstd frame.
    pub zstd: bool,
}

/// A file of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePiece {
    /// Its path in the database.
    pub path: String,
    /// Where its bytes are.
    #[serde(flatten)]
    pub piece: Piece,
}

/// Consecutive records of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPiece {
    /// Number of the first record.
    pub first: u64,
    /// Number of the last record.
    pub last: u64,
    /// Commit timestamp of the first record.
    pub first_csn: u64,
    /// Commit timestamp of the last record.
    pub last_csn: u64,
    /// Where its bytes are.
    #[serde(flatten)]
    pub piece: Piece,
}

/// A file that a record of the log names, needed by whoever replays that record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedFile {
    /// Its path in the database.
    pub path: String,
    /// The record that names it.
    pub lsn: u64,
}

/// A state of the database that the log can be replayed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The engine's description of it.
    pub piece: Piece,
    /// The last commit it contains.
    pub csn: u64,
    /// The first record of the log it does not contain.
    pub first_lsn: u64,
    /// Paths of all files it names; each is in this backup or in one before it in the chain.
    pub files: Vec<String>,
}

/// How far a backup reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The last record of the log it covers.
    pub lsn: u64,
    /// The last commit it covers.
    pub csn: u64,
    /// Microseconds since 1970: every commit up to this moment is covered. Never before `csn`.
    pub covers: u64,
    /// Checksum of the last record, if the backup or one before it in the chain holds a record at all.
    pub record_crc: Option<u32>,
}

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Version of the layout.
    pub format: u32,
    /// Its number in its place: 1, 2, 3 …
    pub number: u64,
    /// The backup that it continues; `None` for a full one.
    pub parent: Option<u64>,
    /// Identity of the chain, shared by a full backup and all that continue it.
    pub chain: String,
    /// Identity of the database.
    pub database: String,
    /// When it was begun, in microseconds since 1970.
    pub created: u64,
    /// Where replay can start.
    pub state: State,
    /// Where it ends.
    pub end: End,
    /// Files that no backup before it in the chain has.
    pub files: Vec<FilePiece>,
    /// The log since the backup before it, or since its own state if it is a full one. No record is left out.
    pub log: Vec<LogPiece>,
    /// Files that those records name.
    pub log_files: Vec<LoggedFile>,
}

impl Backup {
    /// Its number as text, under which it is listed: `000003`.
    pub fn id(&self) -> String {
        id(self.number)
    }

    /// Whether it begins a chain.
    pub fn is_full(&self) -> bool {
        self.parent.is_none()
    }

    /// Every stored object of it but the manifest.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        let files = self.files.iter().map(|file| &file.piece);
        std::iter::once(&self.state.piece).chain(files).chain(self.log.iter().map(|log| &log.piece))
    }

    /// Bytes it takes in its place, without the manifest.
    pub fn stored_bytes(&self) -> u64 {
        self.pieces().map(|piece| piece.stored).sum()
    }

    pub(super) fn encode(&self) -> Result<[Bytes; 2]> {
        let json = serde_json::to_vec(self).map_err(|error| {
            Error::invalid(format!("backup {} cannot be described: {error}", self.id())).with_source(error)
        })?;
        let checksum = checksum_line(&json);
        Ok([json.into(), checksum.into()])
    }

    pub(super) fn decode(path: &str, text: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let damaged = |what: &str| Error::new(ErrorKind::Corrupt, format!("backup manifest {path} is damaged: {what}"));
        let end = text.iter().rposition(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no checksum"))?;
        let (json, checksum) = text.split_at(end);
        if checksum != checksum_line(json).as_bytes() {
            return Err(damaged("its checksum is wrong"));
        }
        let unreadable = |error: serde_json::Error| damaged(&error.to_string()).with_source(error);
        let head: Head = serde_json::from_slice(json).map_err(unreadable)?;
        if head.format > FORMAT {
            let message = format!(
                "{path} was written by a newer Grizzly: backup format {}, this one reads up to {FORMAT}",
                head.format
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let backup: Self = serde_json::from_slice(json).map_err(unreadable)?;
        match backup.odd_number() {
            Some(what) => Err(damaged(what)),
            None => Ok(backup),
        }
    }

    /// What cannot be true of any backup, so that whoever reckons with its numbers need not mind.
    fn odd_number(&self) -> Option<&'static str> {
        let records = self.log.iter().flat_map(|log| [log.first, log.last]);
        let mut records = records.chain(self.log_files.iter().map(|file| file.lsn));
        if self.end.lsn >= Lsn::BEYOND.0
            || self.state.first_lsn >= Lsn::BEYOND.0
            || records.any(|lsn| lsn >= Lsn::BEYOND.0)
        {
            return Some("it names a record that no log reaches");
        }
        if self.log.iter().any(|log| log.first > log.last) {
            return Some("a piece of its log ends before it begins");
        }
        if self.parent.is_some_and(|parent| parent >= self.number) {
            return Some("it continues a backup that is not older");
        }
        let bytes = self.pieces().map(|piece| u128::from(piece.stored) + u128::from(piece.raw)).sum::<u128>();
        (bytes > u128::from(LARGEST)).then_some("its pieces are larger than any storage")
    }
}

/// The folder of a backup, and the name it is listed under.
pub(super) fn id(number: u64) -> String {
    format!("{number:06}")
}

/// The path of a backup's manifest.
pub(super) fn manifest_path(number: u64) -> String {
    format!("{}/backup.json", id(number))
}

/// Stands in the folder of a backup until that is finished.
pub(super) const BEGUN: &str = "begun";

/// The path of that object.
pub(super) fn begun_path(number: u64) -> String {
    format!("{}/{BEGUN}", id(number))
}

fn checksum_line(json: &[u8]) -> String {
    format!("\n{:08x}", crc32c::crc32c(json))
}
