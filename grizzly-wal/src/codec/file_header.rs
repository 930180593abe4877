//! What a log file says about itself, in its first bytes.

use super::{array_at, u16_at, u32_at, u64_at};
use crate::encryption::SALT;
use crate::ids::Lsn;

/// The layout version this build writes for a log that belongs to somebody. It reads this one and all older ones.
pub(crate) const FORMAT_VERSION: u16 = 2;
/// The version of a file that does not say whose it is.
const UNNAMED_VERSION: u16 = 1;
/// Bytes of the header every log file starts with.
const BASE: usize = 64;
/// Bytes of the longest header.
pub(crate) const LONGEST_HEADER: usize = 128;

const MAGIC: [u8; 8] = *b"GRIZZLOG";
/// All payloads are encrypted.
const FILE_ENCRYPTED: u16 = 1;
/// The file names the epoch of its writer.
const FILE_EPOCH: u16 = 2;
/// Bytes of a key's identity.
pub(crate) const FILE_KEY_ID: usize = 4;

/// What a log file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// The number in its name.
    pub(crate) number: u64,
    /// The number of the first record in it.
    pub(crate) first_lsn: Lsn,
    /// Seeds every frame checksum, so bytes of another log inside a payload are never taken for a frame of this one.
    pub(crate) salt: u64,
    /// Which of several writers that replace each other wrote it, or 0. Files before it end at its first record,
    /// whatever their writer may have added after it was replaced.
    pub(crate) epoch: u64,
    /// From what the key of this file is derived, if its payloads are encrypted.
    pub(crate) encryption: Option<FileEncryption>,
    /// Where it belongs; unknown for a file of an earlier version.
    pub(crate) place: Option<FilePlace>,
}

/// Where a log file belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilePlace {
    /// Whose log it is.
    pub(crate) owner: u128,
    /// The salt of the file that has the record before its first one, or 0 if that was not known.
    pub(crate) previous: u64,
}

/// What an encrypted log file says of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileEncryption {
    /// The second half of what the key is derived from; the first is the file's salt.
    pub(crate) salt: [u8; 8],
    pub(crate) key_id: [u8; FILE_KEY_ID],
}

impl FileEncryption {
    /// What the key of a file is derived from: both of its salts.
    pub(crate) fn key_salt(&self, file_salt: u64) -> [u8; SALT] {
        let mut salt = [0; SALT];
        salt[..8].copy_from_slice(&file_salt.to_le_bytes());
        salt[8..].copy_from_slice(&self.salt);
        salt
    }
}

/// Why the first bytes of a file are not its header.
#[derive(Debug)]
pub(crate) enum HeaderProblem {
    /// Wrong magic or checksum: never completely written, or damaged. It would have had `len` bytes.
    Invalid { len: usize },
    /// Sound, but of a version or with flags this build does not know.
    Newer { version: u16, flags: u16 },
}

impl FileHeader {
    /// Bytes before the first frame.
    pub(crate) fn len(&self) -> usize {
        if self.place.is_some() { LONGEST_HEADER } else { BASE }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        bytes[0..8].copy_from_slice(&MAGIC);
        let version = if self.place.is_some() { FORMAT_VERSION } else { UNNAMED_VERSION };
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        let encrypted = if self.encryption.is_some() { FILE_ENCRYPTED } else { 0 };
        let replaces = if self.epoch > 0 { FILE_EPOCH } else { 0 };
        bytes[10..12].copy_from_slice(&(encrypted | replaces).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.epoch.to_le_bytes());
        if let Some(encryption) = &self.encryption {
            bytes[48..56].copy_from_slice(&encryption.salt);
            bytes[56..60].copy_from_slice(&encryption.key_id);
        }
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        if let Some(place) = &self.place {
            bytes[64..80].copy_from_slice(&place.owner.to_le_bytes());
            bytes[80..88].copy_from_slice(&place.previous.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..124]);
            bytes[124..128].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderProblem> {
        let Some(base) = bytes.get(..BASE) else {
            return Err(HeaderProblem::Invalid { len: BASE });
        };
        if base[..8] != MAGIC || crc32c::crc32c(&base[..60]) != u32_at(base, 60) {
            return Err(HeaderProblem::Invalid { len: BASE });
        }
        let (version, flags) = (u16_at(base, 8), u16_at(base, 10));
        if version == 0 || version > FORMAT_VERSION || flags & !(FILE_ENCRYPTED | FILE_EPOCH) != 0 {
            return Err(HeaderProblem::Newer { version, flags });
        }
        let encryption = (flags & FILE_ENCRYPTED != 0)
            .then(|| FileEncryption { salt: array_at(base, 48), key_id: array_at(base, 56) });
        let epoch = if flags & FILE_EPOCH != 0 { u64_at(base, 40) } else { 0 };
        let place = if version > UNNAMED_VERSION { Some(FilePlace::decode(bytes)?) } else { None };
        let (number, first_lsn) = (u64_at(base, 16), Lsn(u64_at(base, 24)));
        Ok(Self { number, first_lsn, salt: u64_at(base, 32), epoch, encryption, place })
    }
}

impl FilePlace {
    /// The second half of a header.
    fn decode(bytes: &[u8]) -> Result<Self, HeaderProblem> {
        let sound = bytes.get(..LONGEST_HEADER).filter(|bytes| crc32c::crc32c(&bytes[..124]) == u32_at(bytes, 124));
        let bytes = sound.ok_or(HeaderProblem::Invalid { len: LONGEST_HEADER })?;
        Ok(Self { owner: u128::from_le_bytes(array_at(bytes, 64)), previous: u64_at(bytes, 80) })
    }
}
