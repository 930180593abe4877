//! Ended rows of a segment as a file: written at a checkpoint for segments whose ended rows changed since the last.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use grizzly_wal::{PutMode, Storage};

use super::super::{
    label::{self, Label},
    mvcc::tombstones::Tombstones,
};
use crate::{
    access::Csn,
    error::{Error, Result},
};

const MAGIC: &[u8; 4] = b"GZT1";

/// A list on storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListFile {
    pub(crate) path: String,
    /// How many rows it has.
    pub(crate) rows: u32,
    /// The checksum of its content.
    pub(crate) crc: u32,
}

/// Writes the ended rows of a segment to `path`, which must be new.
pub(crate) fn write(storage: &Arc<dyn Storage>, path: String, label: &Label, ended: &Tombstones) -> Result<ListFile> {
    let mut body = Vec::with_capacity(8 + 12 * ended.len() as usize);
    body.put_slice(MAGIC);
    body.put_u32_le(ended.len());
    for (row, csn) in ended.iter() {
        body.put_u32_le(row);
        body.put_u64_le(csn.0);
    }
    let crc = crc32c::crc32c(&body);
    body.put_u32_le(crc);
    storage.put(&path, &label::labelled(vec![Bytes::from(body)], label)?, PutMode::Overwrite)?;
    Ok(ListFile { path, rows: ended.len(), crc })
}

/// Reads what [`write`] wrote to `path`, with this checksum if that is known.
pub(crate) fn read(
    storage: &Arc<dyn Storage>,
    path: &str,
    label: &Label,
    crc: Option<u32>,
) -> Result<(Tombstones, ListFile)> {
    let damaged = |what: &str| Error::corrupt(format!("'{path}' is damaged: {what}"));
    let bytes = label::content(path, &storage.get(path)?, label)?;
    if bytes.len() < 12 || &bytes[..4] != MAGIC {
        return Err(damaged("it is not a list of ended rows"));
    }
    let (body, mut checksum) = bytes.split_at(bytes.len() - 4);
    let found = checksum.get_u32_le();
    if found != crc32c::crc32c(body) {
        return Err(damaged("its checksum is wrong"));
    }
    if crc.is_some_and(|crc| crc != found) {
        return Err(damaged("it is another list than the one that the checkpoint has written"));
    }
    let mut body = &body[4..];
    let count = body.get_u32_le() as usize;
    if body.len() != 12 * count {
        return Err(damaged("its length does not fit its count"));
    }
    let ended: Tombstones = (0..count).map(|_| (body.get_u32_le(), Csn(body.get_u64_le()))).collect();
    if ended.len() as usize != count {
        return Err(damaged("it lists a row twice"));
    }
    Ok((ended, ListFile { path: path.to_owned(), rows: count as u32, crc: found }))
}

#[cfg(test)]
mod tests {
    use super::{super::super::label::Part, *};

    #[test]
    fn a_flipped_bit_and_another_list_are_found() {
        let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
        let ended: Tombstones = [(1, Csn(7)), (70_000, Csn(9))].into_iter().collect();
        let label = Label::new(uuid::Uuid::nil(), 1, 3, 1).with(Part::Ended { checkpoint: 1, writer: 1 });
        let path = "data/00000003-1.del";
        let list = write(&storage, path.to_owned(), &label, &ended).expect("it can be written");
        let (again, found) = read(&storage, path, &label, Some(list.crc)).expect("it can be read");
        assert!(again.iter().eq(ended.iter()) && found == list);
        assert!(read(&storage, path, &label, Some(list.crc ^ 1)).is_err());
        assert!(read(&storage, path, &label.with(Part::Ended { checkpoint: 2, writer: 1 }), None).is_err());
        let mut bytes = storage.get(path).expect("it is there").to_vec();
        bytes[9] ^= 4;
        storage.put(path, &[bytes.into()], PutMode::Overwrite).expect("it can be written");
        assert!(read(&storage, path, &label, None).is_err());
    }
}
