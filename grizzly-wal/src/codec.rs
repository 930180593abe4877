//! Records and file headers to bytes and back. Pure, and the only file that knows the layout drawn in FORMAT.md.

mod file_header;

use bytes::Bytes;

pub(crate) use self::file_header::{
    FILE_KEY_ID, FORMAT_VERSION, FileEncryption, FileHeader, FilePlace, HeaderProblem, LONGEST_HEADER,
};
use crate::encryption::{FileCipher, TAG, no_key};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Lsn;
use crate::record::{Record, RecordHeader};
use crate::unpack::unpack;

/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER: usize = 48;
/// The largest payload of one record, before compression.
pub const MAX_PAYLOAD: usize = 1 << 30;

const ALIGNMENT: usize = 8;
/// The payload is a zstd frame.
const FLAG_ZSTD: u8 = 1;
/// No record: the writer ended the file here on purpose.
const FLAG_SEAL: u8 = 2;
/// The payload is encrypted, its last bytes are the tag.
const FLAG_ENCRYPTED: u8 = 4;
/// The `kind` of a seal whose file was followed by another one before the seal was written.
const SEAL_FOLLOWED: u8 = 1;
/// Payloads up to this size are copied out of the file's buffer instead of keeping all of it alive.
const COPY_BELOW: usize = 64 * 1024;

/// A payload ready for the log: compressed if that pays, with its checksum. Made outside of any lock.
#[derive(Debug)]
pub(crate) struct Packed {
    stored: Bytes,
    /// Bytes left for the tag of an encrypted payload.
    tag: usize,
    raw_len: u32,
    crc: u32,
    flags: u8,
}

impl Packed {
    /// Packs `payload`, with zstd if it is larger than `compress_above` bytes and gets smaller by it. One that is to
    /// be `encrypted` gets room for a tag; that happens when its file is known, in [`finish_group`].
    pub(crate) fn new(payload: Bytes, compress_above: usize, encrypted: bool) -> Result<Self> {
        if payload.len() > MAX_PAYLOAD {
            let message = format!("a record of {} bytes exceeds the limit of {MAX_PAYLOAD}", payload.len());
            return Err(Error::invalid(message));
        }
        let raw_len = payload.len() as u32;
        let (stored, flags) = match payload.len() > compress_above {
            true => {
                let small =
                    zstd::bulk::compress(&payload, 1).map_err(|error| Error::io("compress", "a record", error))?;
                if small.len() < payload.len() { (Bytes::from(small), FLAG_ZSTD) } else { (payload, 0) }
            }
            false => (payload, 0),
        };
        let (tag, crc, flags) = match encrypted {
            true => (TAG, 0, flags | FLAG_ENCRYPTED),
            false => (0, crc32c::crc32c(&stored), flags),
        };
        Ok(Self { stored, tag, raw_len, crc, flags })
    }

    /// Bytes of the payload in the log.
    fn stored_len(&self) -> usize {
        self.stored.len() + self.tag
    }

    /// Bytes the frame will take in the log.
    pub(crate) fn frame_len(&self) -> usize {
        padded(FRAME_HEADER + self.stored_len())
    }

    /// Appends the frame to `out`. It becomes valid when [`finish_group`] has run over it.
    pub(crate) fn encode(&self, header: &RecordHeader, out: &mut Vec<u8>) {
        let mut bytes = [0; FRAME_HEADER];
        bytes[4..8].copy_from_slice(&(self.stored_len() as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&header.lsn.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&header.txn.to_le_bytes());
        bytes[24..32].copy_from_slice(&header.commit_ts.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.crc.to_le_bytes());
        bytes[44] = header.kind;
        bytes[45] = self.flags;
        let end = out.len() + self.frame_len();
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&self.stored);
        out.resize(end, 0);
    }
}

/// Completes the frames of one group: the distance to the group's first record, encryption, then the header checksum.
///
/// `frames` must come from [`Packed::encode`]. Returns the number of records.
pub(crate) fn finish_group(frames: &mut [u8], salt: u64, cipher: Option<&FileCipher>) -> Result<u64> {
    let (mut offset, mut count) = (0, 0_u32);
    while offset < frames.len() {
        let frame = &mut frames[offset..];
        frame[32..36].copy_from_slice(&count.to_le_bytes());
        if frame[45] & FLAG_ENCRYPTED != 0 {
            encrypt(frame, cipher)?;
        }
        let crc = header_crc(&frame[..FRAME_HEADER], salt);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        offset += padded(FRAME_HEADER + u32_at(frame, 4) as usize);
        count += 1;
    }
    Ok(u64::from(count))
}

/// Encrypts the payload of the first of these frames in place. Its number is the nonce: a file has each number once,
/// and a key of its own.
fn encrypt(frame: &mut [u8], cipher: Option<&FileCipher>) -> Result<()> {
    let (lsn, bound) = (u64_at(frame, 8), bound_header(frame));
    let cipher = cipher.ok_or_else(|| Error::invalid("a record is to be encrypted in a file that is not"))?;
    let end = FRAME_HEADER + u32_at(frame, 4) as usize;
    let tag = cipher.seal(lsn, &bound, &mut frame[FRAME_HEADER..end - TAG])?;
    frame[end - TAG..end].copy_from_slice(&tag);
    let crc = crc32c::crc32c(&frame[FRAME_HEADER..end]);
    frame[40..44].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// What an encrypted payload is bound to: all of its frame's header but the checksums.
fn bound_header(header: &[u8]) -> [u8; 40] {
    let mut bound = [0; 40];
    bound[..36].copy_from_slice(&header[4..40]);
    bound[36..].copy_from_slice(&header[44..48]);
    bound
}

/// Why a file was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealKind {
    /// The log was closed.
    Closed,
    /// The log goes on in another file, which was there before this seal.
    Followed,
}

/// The frame that ends a file on purpose; `next` is the number of the record that is not in it.
pub(crate) fn seal_frame(next: Lsn, salt: u64, kind: SealKind) -> Result<Vec<u8>> {
    let kind = if kind == SealKind::Followed { SEAL_FOLLOWED } else { 0 };
    let header = RecordHeader { lsn: next, txn: 0, commit_ts: 0, kind };
    let packed = Packed { stored: Bytes::new(), tag: 0, raw_len: 0, crc: crc32c::crc32c(&[]), flags: FLAG_SEAL };
    let mut frame = Vec::with_capacity(FRAME_HEADER);
    packed.encode(&header, &mut frame);
    finish_group(&mut frame, salt, None)?;
    Ok(frame)
}

/// What stands at an offset of a log file.
#[derive(Debug)]
pub(crate) enum Frame {
    /// A sound record, and where the next frame starts.
    Record(StoredRecord, usize),
    /// The writer ended the file here; the number of the record that would have come next, and the offset behind.
    Seal(Lsn, usize, SealKind),
    /// Only zeros up to the end of the file: nothing was ever written here.
    Unwritten,
    /// Neither: torn or damaged.
    Bad(&'static str),
}

/// A record whose checksums are right, not yet decompressed.
#[derive(Debug)]
pub(crate) struct StoredRecord {
    pub(crate) header: RecordHeader,
    /// What its payload is bound to, if that is encrypted.
    bound: [u8; 40],
    stored: Bytes,
    raw_len: u32,
    flags: u8,
}

/// Reads the frame at `offset` of a whole log file. Never allocates by a length read from the file.
pub(crate) fn read_frame(file: &Bytes, offset: usize, salt: u64) -> Frame {
    let rest = file.get(offset..).unwrap_or_default();
    if rest.iter().all(|byte| *byte == 0) {
        return Frame::Unwritten;
    }
    let Some(header) = sound_header(rest, salt) else {
        return Frame::Bad("its header has a wrong checksum");
    };
    let stored_len = u32_at(header, 4) as usize;
    let end = padded(FRAME_HEADER + stored_len);
    if end > rest.len() {
        return Frame::Bad("it reaches beyond the end of the file");
    }
    let stored = file.slice(offset + FRAME_HEADER..offset + FRAME_HEADER + stored_len);
    if crc32c::crc32c(&stored) != u32_at(header, 40) {
        return Frame::Bad("its payload has a wrong checksum");
    }
    if rest[FRAME_HEADER + stored_len..end].iter().any(|byte| *byte != 0) {
        return Frame::Bad("its padding is not zero");
    }
    let (lsn, flags) = (Lsn(u64_at(header, 8)), header[45]);
    if flags & FLAG_SEAL != 0 {
        let kind = if header[44] == SEAL_FOLLOWED { SealKind::Followed } else { SealKind::Closed };
        return Frame::Seal(lsn, offset + end, kind);
    }
    let record = RecordHeader { lsn, txn: u64_at(header, 16), commit_ts: u64_at(header, 24), kind: header[44] };
    let record =
        StoredRecord { header: record, bound: bound_header(header), stored, raw_len: u32_at(header, 36), flags };
    Frame::Record(record, offset + end)
}

impl StoredRecord {
    /// The record as it was appended. Decompression stops at the declared size.
    pub(crate) fn unpack(self, cipher: Option<&FileCipher>) -> Result<Record> {
        let stored = self.decrypt(cipher)?;
        let Self { header, raw_len, flags, .. } = self;
        if flags & !(FLAG_ZSTD | FLAG_ENCRYPTED) != 0 {
            let message = format!("record {} has flags {flags:#x}, which this version does not know", header.lsn);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if raw_len as usize > MAX_PAYLOAD {
            let message = format!("record {} says that it has {raw_len} bytes; none has", header.lsn);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let payload = if flags & FLAG_ZSTD != 0 {
            decompress(&stored, raw_len as usize, header.lsn)?
        } else if stored.len() <= COPY_BELOW {
            Bytes::copy_from_slice(&stored)
        } else {
            stored
        };
        if payload.len() != raw_len as usize {
            let message = format!("record {} has {} bytes instead of {raw_len}", header.lsn, payload.len());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(Record { header, payload })
    }

    /// The stored payload, decrypted in a file that is encrypted. A plain payload in such a file is a forgery.
    fn decrypt(&self, cipher: Option<&FileCipher>) -> Result<Bytes> {
        let lsn = self.header.lsn;
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("record {lsn} {what}"));
        match (cipher, self.flags & FLAG_ENCRYPTED != 0) {
            (None, false) => Ok(self.stored.clone()),
            (None, true) => Err(no_key(&format!("record {lsn}"))),
            (Some(_), false) => Err(corrupt("is not encrypted, but its file is")),
            (Some(cipher), true) => {
                let mut data = self.stored.to_vec();
                let len = cipher.open(lsn.0, &self.bound, &mut data).map(<[u8]>::len);
                data.truncate(len.ok_or_else(|| corrupt("is not what was encrypted there"))?);
                Ok(data.into())
            }
        }
    }
}

/// Whether a frame somewhere behind `offset` proves that record `missing` was once durable: a frame tells the first
/// record of its group, and a group is written only when everything before it has been synced. Frames of the same
/// group prove nothing, since a crash may keep later sectors of one write and lose earlier ones.
pub(crate) fn proves_durable(file: &Bytes, offset: usize, salt: u64, missing: Lsn) -> bool {
    let start = offset.next_multiple_of(ALIGNMENT);
    (start..file.len()).step_by(ALIGNMENT).any(|at| {
        let rest = &file[at..];
        // The cheap test first: a checksum over every eighth byte of 64 MiB takes a while.
        rest.len() >= FRAME_HEADER
            && u64_at(rest, 8) > missing.0
            && sound_header(rest, salt)
                .is_some_and(|header| u64_at(header, 8).saturating_sub(u64::from(u32_at(header, 32))) > missing.0)
    })
}

/// Whether the writer ended this file, whose frames begin at `offset`, on purpose. Follows frame lengths only.
pub(crate) fn is_sealed(file: &Bytes, mut offset: usize, salt: u64) -> bool {
    while let Some(header) = file.get(offset..).and_then(|rest| sound_header(rest, salt)) {
        if header[45] & FLAG_SEAL != 0 {
            return true;
        }
        offset += padded(FRAME_HEADER + u32_at(header, 4) as usize);
    }
    false
}

fn sound_header(bytes: &[u8], salt: u64) -> Option<&[u8]> {
    let header = bytes.get(..FRAME_HEADER)?;
    (header_crc(header, salt) == u32_at(header, 0)).then_some(header)
}

fn header_crc(header: &[u8], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &header[4..FRAME_HEADER])
}

fn decompress(stored: &[u8], raw_len: usize, lsn: Lsn) -> Result<Bytes> {
    let failed = |error| Error::new(ErrorKind::Corrupt, format!("record {lsn} does not decompress")).with_source(error);
    unpack(stored, raw_len as u64).map(Bytes::from).map_err(failed)
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// `N` bytes at `at`; callers have checked that they are there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests;
