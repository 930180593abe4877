//! Ended rows of a segment as a file: written at a checkpoint for segments whose ended rows changed since the last.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use grizzly_wal::{PutMode, Storage};

use super::super::mvcc::tombstones::Tombstones;
use crate::{
    access::Csn,
    error::{Error, Result},
};

const MAGIC: &[u8; 4] = b"GZT1";

/// Writes the ended rows of a segment to `path`, which must be new.
pub(crate) fn write(storage: &Arc<dyn Storage>, path: &str, ended: &Tombstones) -> Result<()> {
    let mut body = Vec::with_capacity(8 + 12 * ended.len() as usize);
    body.put_slice(MAGIC);
    body.put_u32_le(ended.len());
    for (row, csn) in ended.iter() {
        body.put_u32_le(row);
        body.put_u64_le(csn.0);
    }
    body.put_u32_le(crc32c::crc32c(&body));
    storage.put(path, &[Bytes::from(body)], PutMode::Overwrite)?;
    Ok(())
}

/// Reads what [`write`] wrote.
pub(crate) fn read(storage: &Arc<dyn Storage>, path: &str) -> Result<Tombstones> {
    let damaged = |what: &str| Error::corrupt(format!("'{path}' is damaged: {what}"));
    let bytes = storage.get(path)?;
    if bytes.len() < 12 || &bytes[..4] != MAGIC {
        return Err(damaged("it is not a list of ended rows"));
    }
    let (body, mut checksum) = bytes.split_at(bytes.len() - 4);
    if checksum.get_u32_le() != crc32c::crc32c(body) {
        return Err(damaged("its checksum is wrong"));
    }
    let mut body = &body[4..];
    let count = body.get_u32_le() as usize;
    if body.len() != 12 * count {
        return Err(damaged("its length does not fit its count"));
    }
    Ok((0..count).map(|_| (body.get_u32_le(), Csn(body.get_u64_le()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_found() {
        let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
        let ended: Tombstones = [(1, Csn(7)), (70_000, Csn(9))].into_iter().collect();
        let path = "data/00000003-1.del";
        write(&storage, path, &ended).expect("it can be written");
        let again = read(&storage, path).expect("it can be read");
        assert!(again.iter().eq(ended.iter()));
        let mut bytes = storage.get(path).expect("it is there").to_vec();
        bytes[9] ^= 4;
        storage.put(path, &[bytes.into()], PutMode::Overwrite).expect("it can be written");
        assert!(read(&storage, path).is_err());
    }
}
