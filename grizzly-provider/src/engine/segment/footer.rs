//! What a segment file says about itself: where its blobs are, their checksums, zone maps and column summaries.
//!
//! A file is laid out as
//!
//! ```text
//! header   64 bytes: magic "GRZSEG\r\n", version u32, zeros
//! blobs    one per column of each chunk, each at an offset divisible by 64, zeros in between
//! footer   this struct as JSON, compressed with zstd
//! trailer  40 bytes: footer offset u64, footer bytes u64, footer bytes unpacked u64,
//!          footer crc32c u32, trailer crc32c u32, magic "\r\nSEGGRZ"
//! ```
//!
//! Numbers are little-endian. A version only ever adds fields to the footer; a reader refuses versions above its own.
//! Version 2 added the label.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{super::label::Label, DistinctSketch, Result, SegmentError, ZoneMap};

/// The file version written, and the highest one read.
pub(crate) const VERSION: u32 = 2;

/// Rows in a chunk; the last chunk of a segment may have fewer.
pub(crate) const CHUNK_ROWS: usize = 65_536;

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const TRAILER_BYTES: usize = 40;
const HEADER_MAGIC: &[u8; 8] = b"GRZSEG\r\n";
const TRAILER_MAGIC: &[u8; 8] = b"\r\nSEGGRZ";

/// A footer larger than this is taken for damage, not allocated.
const LARGEST_FOOTER: u64 = 1 << 30;

/// Everything about a segment except its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentFooter {
    /// Which file this is; unknown for one of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<Label>,
    /// Rows in all chunks.
    pub(crate) rows: u64,
    /// The chunks, in row order.
    pub(crate) chunks: Vec<ChunkMeta>,
    /// What is known of each column over all chunks.
    pub(crate) columns: Vec<ColumnSummary>,
}

/// One chunk: a run of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkMeta {
    /// Rows in this chunk.
    pub(crate) rows: u32,
    /// Position of its first row in the segment.
    pub(crate) first_row: u64,
    /// Where each column's blob is.
    pub(crate) columns: Vec<BlobMeta>,
    /// Each column's zone map.
    pub(crate) zones: Vec<ZoneMap>,
}

/// Where one blob is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobMeta {
    /// Position in the file.
    #[serde(rename = "o")]
    pub(crate) offset: u64,
    /// Length in bytes.
    #[serde(rename = "l")]
    pub(crate) len: u64,
    /// CRC-32C of the bytes.
    #[serde(rename = "c")]
    pub(crate) crc: u32,
}

/// What is known of one column over the whole segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ColumnSummary {
    /// Name when the file was written, for messages: the catalog decides what the column is called.
    pub(crate) name: String,
    /// Arrow type when the file was written, as text: the catalog decides what the column is.
    pub(crate) data_type: String,
    /// Rows that are NULL.
    pub(crate) nulls: u64,
    /// Key bytes of the smallest value, where known; exact.
    #[serde(with = "super::hex", default, skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<Vec<u8>>,
    /// Key bytes of the largest value, where known; exact.
    #[serde(with = "super::hex", default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<Vec<u8>>,
    /// Roughly how many different values; `None` for types that are not counted.
    pub(crate) distinct: Option<DistinctSketch>,
    /// Bytes of all its blobs.
    pub(crate) bytes: u64,
}

impl SegmentFooter {
    /// The zone map of a column over the whole segment, to prune segments as chunks are pruned.
    #[cfg(test)]
    pub(crate) fn zone(&self, column: usize) -> Option<ZoneMap> {
        let summary = self.columns.get(column)?;
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        // Counts too large for a zone map must still say "some, not all": saturating both keeps nulls <= rows.
        let all_null = summary.nulls == self.rows;
        let rows = count(self.rows);
        let nulls = if all_null { rows } else { count(summary.nulls).min(rows.saturating_sub(1)) };
        Some(ZoneMap { rows, nulls, min: summary.min.clone(), max: summary.max.clone() })
    }

    /// Header bytes of a file.
    pub(super) fn header() -> Bytes {
        let mut header = vec![0; HEADER_BYTES];
        header[..8].copy_from_slice(HEADER_MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        Bytes::from(header)
    }

    /// Footer and trailer, to be written at `offset`.
    pub(super) fn to_parts(&self, offset: u64) -> Result<[Bytes; 2]> {
        let failed = |e: &dyn ToString| SegmentError::internal("writing a segment footer", e.to_string());
        let json = serde_json::to_vec(self).map_err(|e| failed(&e))?;
        let packed = zstd::bulk::compress(&json, 3).map_err(|e| failed(&e))?;
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        trailer.extend_from_slice(&offset.to_le_bytes());
        trailer.extend_from_slice(&(packed.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&(json.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&packed).to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&trailer).to_le_bytes());
        trailer.extend_from_slice(TRAILER_MAGIC);
        Ok([Bytes::from(packed), Bytes::from(trailer)])
    }

    /// Parses the compressed footer.
    pub(super) fn from_bytes(packed: &[u8], trailer: &Trailer, file: &str) -> Result<Self> {
        if crc32c::crc32c(packed) != trailer.footer_crc {
            return Err(SegmentError::corrupt(file, "the footer's checksum differs"));
        }
        // By its own bytes, not by the length that the trailer claims, it is known how much room it takes.
        let json = grizzly_wal::unpack(packed, trailer.footer_unpacked)
            .map_err(|e| SegmentError::corrupt(file, format!("the footer does not unpack: {e}")))?;
        if json.len() as u64 != trailer.footer_unpacked {
            return Err(SegmentError::corrupt(file, "the footer has another length than the trailer says"));
        }
        serde_json::from_slice(&json)
            .map_err(|e| SegmentError::corrupt(file, format!("the footer does not parse: {e}")))
    }
}

/// Where the footer is: the last bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) footer_offset: u64,
    pub(super) footer_bytes: u64,
    footer_unpacked: u64,
    footer_crc: u32,
}

impl Trailer {
    /// Parses the last [`TRAILER_BYTES`] of a file of `size` bytes.
    pub(super) fn from_bytes(bytes: &[u8], size: u64, file: &str) -> Result<Self> {
        let corrupt = |what: &str| SegmentError::corrupt(file, what);
        if bytes.len() != TRAILER_BYTES {
            return Err(corrupt("the file is too short to be a segment"));
        }
        let number = |at: usize| -> u64 { bytes[at..at + 8].iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b)) };
        let crc = |at: usize| -> u32 { bytes[at..at + 4].iter().rev().fold(0, |n, b| (n << 8) | u32::from(*b)) };
        if &bytes[32..] != TRAILER_MAGIC {
            return Err(corrupt("it does not end as a segment does"));
        }
        if crc32c::crc32c(&bytes[..28]) != crc(28) {
            return Err(corrupt("the trailer's checksum differs"));
        }
        let (footer_offset, footer_bytes) = (number(0), number(8));
        if footer_offset.checked_add(footer_bytes) != size.checked_sub(TRAILER_BYTES as u64) {
            return Err(corrupt("the file has another length than its trailer says"));
        }
        let footer_unpacked = number(16);
        if footer_unpacked > LARGEST_FOOTER {
            return Err(corrupt("the trailer says that the footer is larger than any"));
        }
        Ok(Self { footer_offset, footer_bytes, footer_unpacked, footer_crc: crc(24) })
    }
}

/// Checks the first bytes of a file.
pub(super) fn check_header(bytes: &[u8], file: &str) -> Result<()> {
    if bytes.len() < HEADER_BYTES || &bytes[..8] != HEADER_MAGIC {
        return Err(SegmentError::corrupt(file, "it does not begin as a segment does"));
    }
    let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if version == 0 || version > VERSION {
        let what = format!("{file} has segment version {version}; this program reads up to {VERSION}");
        return Err(SegmentError::Unsupported { what });
    }
    if bytes[12..HEADER_BYTES].iter().any(|byte| *byte != 0) {
        return Err(SegmentError::corrupt(file, "the header's reserved bytes are not zero"));
    }
    Ok(())
}
