//! The bytes of a run around its blocks.
//!
//! ```text
//! header     "GZIX" | version u8 | key format u8 | entries per block u16 | entries u64
//!            | crc32c u32 of all other bytes | blocks u32 | directory offset u64
//! blocks     see `block`
//! directory  block offsets (blocks + 1) x u64, the last one its own
//!            fence ends (blocks + 2) x u64, the first one 0
//!            fences: the first key of each block, then the last key of the run
//! ```
//! Numbers are little-endian.

use bytes::Bytes;

use super::super::key::KEY_FORMAT;
use super::block::{Block, ENTRIES};
use super::{IndexError, Result};

const MAGIC: [u8; 4] = *b"GZIX";
const VERSION: u8 = 1;
const HEADER: usize = 32;
const CRC_AT: usize = 16;

/// Where things are in the bytes of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) len: usize,
    pub(super) blocks: usize,
    directory: usize,
    fences: usize,
}

/// What the directory will say of the blocks written so far.
#[derive(Debug, Default)]
pub(super) struct Directory {
    offsets: Vec<usize>,
    fences: Vec<u8>,
    fence_ends: Vec<usize>,
    len: usize,
}

impl Directory {
    pub(super) fn push(&mut self, offset: usize, fence: &[u8], entries: usize) {
        self.offsets.push(offset);
        self.fences.extend_from_slice(fence);
        self.fence_ends.push(self.fences.len());
        self.len += entries;
    }
}

/// Room for the header of a run that is being written.
pub(super) fn reserve_header() -> Vec<u8> {
    vec![0; HEADER]
}

/// Appends the directory and fills in the header.
pub(super) fn finish(out: &mut Vec<u8>, directory: &Directory, last: &[u8]) -> Layout {
    let at = out.len();
    let blocks = directory.offsets.len();
    let ends = directory.fence_ends.iter().copied();
    let end = directory.fences.len() + last.len();
    let numbers = directory.offsets.iter().copied().chain([at, 0]).chain(ends).chain([end]);
    numbers.for_each(|number| out.extend_from_slice(&(number as u64).to_le_bytes()));
    let fences = out.len();
    out.extend_from_slice(&directory.fences);
    out.extend_from_slice(last);
    out[..4].copy_from_slice(&MAGIC);
    out[4] = VERSION;
    out[5] = KEY_FORMAT;
    out[6..8].copy_from_slice(&(ENTRIES as u16).to_le_bytes());
    out[8..16].copy_from_slice(&(directory.len as u64).to_le_bytes());
    // An entry has a row number of 32 bits, so there are fewer blocks than that.
    out[20..24].copy_from_slice(&(blocks as u32).to_le_bytes());
    out[24..32].copy_from_slice(&(at as u64).to_le_bytes());
    let crc = checksum(out);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    Layout { len: directory.len, blocks, directory: at, fences }
}

/// The checksum of all bytes but its own.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..])
}

/// The first eight bytes of a key as a number that sorts like them; a shorter key is padded with zeros.
#[inline]
pub(super) fn head(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

impl Layout {
    /// Reads the header and checks everything that reading the run relies on.
    pub(super) fn read(bytes: &Bytes) -> Result<Self> {
        let layout = Self::read_header(bytes)?;
        let corrupt = |what: &str, offset| IndexError::Corrupt { what: what.into(), offset };
        for fence in 0..=layout.blocks {
            let (start, end) = (layout.fence_end(bytes, fence), layout.fence_end(bytes, fence + 1));
            if start > end || end > bytes.len() - layout.fences {
                return Err(corrupt("fence keys in order", layout.directory));
            }
            if fence > 0 && layout.fence(bytes, fence - 1) > layout.fence(bytes, fence) {
                return Err(corrupt("sorted fence keys", layout.fences + start));
            }
        }
        if layout.fence_end(bytes, 0) != 0 || layout.fence_end(bytes, layout.blocks + 1) != bytes.len() - layout.fences
        {
            return Err(corrupt("the end after the last fence key", bytes.len()));
        }
        let mut expected = HEADER;
        for block in 0..layout.blocks {
            let (start, end) = (layout.block_offset(bytes, block), layout.block_offset(bytes, block + 1));
            if start != expected || end < start || end > layout.directory {
                return Err(corrupt("a block", start));
            }
            let sound = layout.block(bytes, block).is_some_and(|block| block.check(end - start));
            if !sound {
                return Err(corrupt("a sound block", start));
            }
            expected = end;
        }
        if expected != layout.directory || layout.block_offset(bytes, layout.blocks) != layout.directory {
            return Err(corrupt("the directory right after the blocks", layout.directory));
        }
        Ok(layout)
    }

    fn read_header(bytes: &Bytes) -> Result<Self> {
        let corrupt = |what: &str, offset| IndexError::Corrupt { what: what.into(), offset };
        let header = bytes.first_chunk::<HEADER>().ok_or_else(|| corrupt("a header", bytes.len()))?;
        if header[..4] != MAGIC {
            return Err(corrupt("the magic bytes of an index run", 0));
        }
        let entries = u16::from_le_bytes([header[6], header[7]]);
        if (header[4], header[5], usize::from(entries)) != (VERSION, KEY_FORMAT, ENTRIES) {
            let what =
                format!("index run version {}, key format {}, {entries} entries per block", header[4], header[5]);
            return Err(IndexError::Unsupported { what });
        }
        if checksum(bytes).to_le_bytes() != header[CRC_AT..CRC_AT + 4] {
            return Err(corrupt("bytes that match their checksum", CRC_AT));
        }
        let len = usize::try_from(number(bytes, 8)).map_err(|_| corrupt("a number of entries", 8))?;
        let blocks = u32::from_le_bytes([header[20], header[21], header[22], header[23]]) as usize;
        if blocks != len.div_ceil(ENTRIES) {
            return Err(corrupt("as many blocks as the entries need", 20));
        }
        let directory = usize::try_from(number(bytes, 24)).map_err(|_| corrupt("the directory's offset", 24))?;
        let fences = directory.checked_add((2 * blocks + 3) * 8).filter(|fences| *fences <= bytes.len());
        let fences = fences.filter(|_| directory >= HEADER).ok_or_else(|| corrupt("the directory's offset", 24))?;
        Ok(Self { len, blocks, directory, fences })
    }

    /// Entries in block `block`.
    #[inline]
    pub(super) fn block_len(&self, block: usize) -> usize {
        (self.len - block * ENTRIES).min(ENTRIES)
    }

    #[inline]
    fn block_offset(&self, bytes: &[u8], block: usize) -> usize {
        number(bytes, self.directory + 8 * block) as usize
    }

    #[inline]
    fn fence_end(&self, bytes: &[u8], fence: usize) -> usize {
        number(bytes, self.directory + 8 * (self.blocks + 1 + fence)) as usize
    }

    /// The first key of block `fence`, or the last key of the run after the last block.
    #[inline]
    pub(super) fn fence<'a>(&self, bytes: &'a [u8], fence: usize) -> &'a [u8] {
        &bytes[self.fences + self.fence_end(bytes, fence)..self.fences + self.fence_end(bytes, fence + 1)]
    }

    /// Block `block`, if there is one.
    #[inline]
    pub(super) fn block<'a>(&self, bytes: &'a [u8], block: usize) -> Option<Block<'a>> {
        if block >= self.blocks {
            return None;
        }
        let data = bytes.get(self.block_offset(bytes, block)..)?;
        Block::parse(self.fence(bytes, block), self.block_len(block), data)
    }
}

#[inline]
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |number| u64::from_le_bytes(*number))
}
