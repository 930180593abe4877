//! The files of one log folder: their names, and what their first bytes say.

use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;

use crate::codec::{FILE_KEY_ID, FORMAT_VERSION, FileEncryption, FileHeader, FilePlace, HeaderProblem, LONGEST_HEADER};
use crate::encryption::{EncryptionKey, FileCipher, no_key, not_encrypted, random, wrong_key};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Lsn;
use crate::storage::{AppendFile, Storage};

const SUFFIX: &str = ".log";
/// More files than any log has.
const LAST: u64 = 1 << 62;

/// One file of the log.
#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    pub(crate) number: u64,
    pub(crate) path: String,
    /// Known once its header was read; files before the first needed record are not looked into.
    pub(crate) first_lsn: Option<Lsn>,
}

/// All files of the folder, oldest first. Other names in it are not ours and are left alone.
pub(crate) fn list(storage: &dyn Storage, dir: &str) -> Result<Vec<LogFile>> {
    let number = |found: &str| {
        let number = found.rsplit('/').next()?.strip_suffix(SUFFIX)?.parse().ok()?;
        // A number has one name. One that no log reaches is not ours, either.
        (path(dir, number) == found && number < LAST).then_some(number)
    };
    let files = storage.list_append(dir)?.into_iter();
    let mut files: Vec<_> =
        files.filter_map(|path| Some(LogFile { number: number(&path)?, path, first_lsn: None })).collect();
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// The file a writer that was still alive began after `file`, if there is one. Cheaper than listing them all, which
/// may take longer than a busy writer needs to begin the next.
pub(crate) fn successor(storage: &dyn Storage, dir: &str, file: &LogFile) -> Result<Option<LogFile>> {
    let number = file.number + 1;
    let path = path(dir, number);
    Ok(storage.has_begun(&path)?.then_some(LogFile { number, path, first_lsn: None }))
}

/// Reads the header of a whole file. `None` if its writer never got as far as that: nothing but zeros follows.
pub(crate) fn header(path: &str, number: u64, bytes: &Bytes) -> Result<Option<FileHeader>> {
    match FileHeader::decode(bytes) {
        Ok(header) if header.first_lsn >= Lsn::BEYOND || header.first_lsn < Lsn::FIRST => {
            Err(Error::corrupt(path, 24, format!("it says that it begins with record {}", header.first_lsn)))
        }
        Ok(header) if header.number == number => Ok(Some(header)),
        Ok(header) => Err(Error::corrupt(path, 16, format!("it says it is file {}", header.number))),
        Err(HeaderProblem::Newer { version, flags }) => Err(newer(path, version, flags)),
        // The header is synced before the first record is written, so records prove that it was once whole.
        Err(HeaderProblem::Invalid { len }) if bytes.iter().skip(len).all(|byte| *byte == 0) => Ok(None),
        Err(HeaderProblem::Invalid { .. }) => Err(Error::corrupt(path, 0, "its header has a wrong magic or checksum")),
    }
}

/// Like [`header`], reading no more than needed.
pub(crate) fn probe(storage: &dyn Storage, file: &LogFile) -> Result<Option<FileHeader>> {
    let start = storage.peek_append(&file.path, LONGEST_HEADER)?;
    match FileHeader::decode(&start) {
        Err(HeaderProblem::Invalid { .. }) => header(&file.path, file.number, &storage.read_append(&file.path)?),
        _ => header(&file.path, file.number, &start),
    }
}

/// What a file to be started will be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewFile {
    pub(crate) number: u64,
    pub(crate) first_lsn: Lsn,
    /// The epoch of its writer.
    pub(crate) epoch: u64,
    /// Where it belongs.
    pub(crate) place: Option<FilePlace>,
    /// Bytes to reserve.
    pub(crate) preallocate: u64,
}

/// Starts a file, its header durable.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] if another writer has begun it, or any later one.
pub(crate) fn create(
    storage: &dyn Storage,
    dir: &str,
    new: NewFile,
) -> Result<(Box<dyn AppendFile>, LogFile, FileHeader)> {
    let NewFile { number, first_lsn, epoch, place, preallocate } = new;
    let path = path(dir, number);
    let (salt, encryption) = match storage.key() {
        // Any number that differs from file to file will do; it need not be secret.
        None => (RandomState::new().build_hasher().finish(), None),
        // No two files may have a key in common, also those that two writers begin with the same number.
        Some(key) => (u64::from_le_bytes(random()?), Some(FileEncryption { salt: random()?, key_id: key_id(key) })),
    };
    let header = FileHeader { number, first_lsn, salt, epoch, encryption, place };
    let mut file = storage.create_append(&path, preallocate)?;
    if let Err(error) = file.append(&header.encode()).and_then(|()| file.sync()) {
        if error.kind() == ErrorKind::Full {
            // It would be taken for one that holds nothing, and takes room that is needed. If it stays, it does no harm.
            drop(storage.remove_append(&path));
        }
        return Err(error);
    }
    // Its name may have been taken and become free again while we slept. A file goes only when there is a later one,
    // so that one gives it away.
    if let Some(later) = list(storage, dir)?.last().filter(|last| last.number > number) {
        storage.remove_append(&path)?;
        let message = format!("another writer has begun {}, after {path}", later.path);
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    Ok((file, LogFile { number, path, first_lsn: Some(first_lsn) }, header))
}

/// What decrypts the payloads of a file; `None` where nothing is encrypted.
///
/// # Errors
/// [`ErrorKind::Permission`] if it is encrypted with a key that the storage does not have, and
/// [`ErrorKind::Invalid`] if the storage has a key and the file is not encrypted.
pub(crate) fn cipher(storage: &dyn Storage, path: &str, header: &FileHeader) -> Result<Option<FileCipher>> {
    match (&header.encryption, storage.key()) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(not_encrypted(path)),
        (Some(_), None) => Err(no_key(path)),
        (Some(encryption), Some(key)) if encryption.key_id == key_id(key) => {
            key.cipher(&encryption.key_salt(header.salt), b"grizzly log").map(Some)
        }
        (Some(_), Some(_)) => Err(wrong_key(path)),
    }
}

fn key_id(key: &EncryptionKey) -> [u8; FILE_KEY_ID] {
    let id = key.id();
    std::array::from_fn(|at| id[at])
}

/// The path of a file.
pub(crate) fn path(dir: &str, number: u64) -> String {
    format!("{}/{number:010}{SUFFIX}", dir.trim_end_matches('/'))
}

fn newer(path: &str, version: u16, flags: u16) -> Error {
    let message =
        format!("{path} is in log format {version} (flags {flags:#x}); this build reads up to format {FORMAT_VERSION}");
    Error::new(ErrorKind::Unsupported, message)
}
