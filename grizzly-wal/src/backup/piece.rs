//! One stored object of a backup: compressed where that helps, with a checksum of what is stored and of the content.

use bytes::Bytes;

use super::manifest::Piece;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{PutMode, Storage};
use crate::unpack::unpack;

const LEVEL: i32 = 3;

/// Stores `content` as the new object `name`.
pub(super) fn write(storage: &dyn Storage, name: &str, content: Bytes) -> Result<Piece> {
    let (raw, raw_crc) = (content.len() as u64, crc32c::crc32c(&content));
    let small = zstd::bulk::compress(&content, LEVEL).map_err(|error| Error::io("compress", name, error))?;
    // A file that hardly shrinks is cheaper to read as it is.
    let zstd = small.len() < content.len() - content.len() / 20;
    let stored = if zstd { Bytes::from(small) } else { content };
    let piece = Piece {
        name: name.to_owned(),
        stored: stored.len() as u64,
        stored_crc: crc32c::crc32c(&stored),
        raw,
        raw_crc,
        zstd,
    };
    storage.put(name, &[stored], PutMode::Create)?;
    Ok(piece)
}

/// The content of a piece, which must be what was written.
///
/// # Errors
/// [`ErrorKind::Corrupt`] names a piece that is missing or damaged.
pub(super) fn read(storage: &dyn Storage, piece: &Piece) -> Result<Bytes> {
    let name = &piece.name;
    let damaged = |what: &str| Error::new(ErrorKind::Corrupt, format!("{name} {what}"));
    let stored = storage.get(name).map_err(|error| match error.kind() {
        ErrorKind::NotFound => damaged("is missing").with_source(error),
        _ => error,
    })?;
    if stored.len() as u64 != piece.stored || crc32c::crc32c(&stored) != piece.stored_crc {
        return Err(damaged("is damaged: its checksum is wrong"));
    }
    let content = match piece.zstd {
        true => unpack(&stored, piece.raw).map_err(|error| damaged("does not decompress").with_source(error))?.into(),
        false => stored,
    };
    if content.len() as u64 != piece.raw || crc32c::crc32c(&content) != piece.raw_crc {
        return Err(damaged("is damaged: the checksum of its content is wrong"));
    }
    Ok(content)
}
