//! How the log carries sets of rows: chunk by chunk, as a list of the rows where they are few, as bits where they are many.

use bytes::{Buf, BufMut, Bytes};

use super::mvcc::{
    row_set::{ChunkRows, RowBits, RowSet, TableRows, WORDS},
    tombstones::{CHUNK_ROWS, Tombstones},
};
use crate::access::{Csn, RowId};

/// A list of more rows than this takes more room than the bits of their chunk.
const LISTED: usize = 8 * WORDS / 2;
/// Chunks whose rows have numbers of 32 bits.
const CHUNKS: u32 = u32::MAX / CHUNK_ROWS + 1;

/// Writes rows of a table.
pub(super) fn put_table_rows(out: &mut Vec<u8>, rows: &TableRows) {
    out.put_u32_le(rows.segments().len() as u32);
    for (segment, rows) in rows.segments() {
        out.put_u32_le(segment);
        out.put_u32_le(rows.chunks().len() as u32);
        for (chunk, rows) in rows.chunks() {
            out.put_u32_le(chunk);
            match rows {
                ChunkRows::Few(few) => put_list(out, few.len(), few.iter().copied()),
                ChunkRows::Many(bits) => put_bits(out, bits),
            }
        }
    }
}

/// Reads what [`put_table_rows`] wrote; `None` if it is not that.
pub(super) fn get_table_rows(payload: &mut Bytes) -> Option<TableRows> {
    let mut all = TableRows::default();
    for _ in 0..payload.try_get_u32_le().ok()? {
        let segment = payload.try_get_u32_le().ok()?;
        let mut rows = RowSet::default();
        for _ in 0..payload.try_get_u32_le().ok()? {
            let chunk = payload.try_get_u32_le().ok().filter(|chunk| *chunk < CHUNKS)?;
            rows.push(chunk, get_rows(payload)?).then_some(())?;
        }
        all.push(segment, rows).then_some(())?;
    }
    Some(all)
}

/// Reads a list of row ids, as older logs have it.
pub(super) fn get_row_ids(payload: &mut Bytes) -> Option<TableRows> {
    let count = payload.try_get_u32_le().ok()?;
    let mut rows = TableRows::default();
    for _ in 0..count {
        rows.insert(RowId(payload.try_get_u64_le().ok()?)).then_some(())?;
    }
    Some(rows)
}

/// Writes ended rows of a segment with their commits.
pub(super) fn put_tombstones(out: &mut Vec<u8>, ended: &Tombstones) {
    out.put_u32_le(ended.chunks().len() as u32);
    for (chunk, rows) in ended.chunks() {
        out.put_u32_le(chunk);
        out.put_u32_le(rows.many().len() as u32);
        for (csn, bits) in rows.many() {
            out.put_u64_le(csn.0);
            put_bits(out, bits);
        }
        out.put_u32_le(rows.few_len() as u32);
        for (row, csn) in rows.few() {
            out.put_u16_le(row);
            out.put_u64_le(csn.0);
        }
    }
}

/// Reads what [`put_tombstones`] wrote; `None` if it is not that.
pub(super) fn get_tombstones(payload: &mut Bytes) -> Option<Tombstones> {
    let mut ended = Tombstones::default();
    for _ in 0..payload.try_get_u32_le().ok()? {
        let chunk = payload.try_get_u32_le().ok().filter(|chunk| *chunk < CHUNKS)?;
        for _ in 0..payload.try_get_u32_le().ok()? {
            let csn = Csn(payload.try_get_u64_le().ok()?);
            let mut rows = RowSet::default();
            rows.push(chunk, get_rows(payload)?);
            ended.end(&rows, csn).ok()?;
        }
        for _ in 0..payload.try_get_u32_le().ok()? {
            let row = chunk * CHUNK_ROWS + u32::from(payload.try_get_u16_le().ok()?);
            ended.insert(row, Csn(payload.try_get_u64_le().ok()?)).then_some(())?;
        }
    }
    Some(ended)
}

fn put_bits(out: &mut Vec<u8>, bits: &RowBits) {
    match bits.len() as usize {
        few if few <= LISTED => put_list(out, few, bits.iter()),
        many => {
            out.put_u32_le(many as u32);
            bits.words().iter().for_each(|word| out.put_u64_le(*word));
        }
    }
}

fn put_list(out: &mut Vec<u8>, count: usize, rows: impl Iterator<Item = u16>) {
    out.put_u32_le(count as u32);
    rows.for_each(|row| out.put_u16_le(row));
}

/// Rows of one chunk, at least one.
fn get_rows(payload: &mut Bytes) -> Option<ChunkRows> {
    let count = payload.try_get_u32_le().ok().filter(|count| *count > 0)? as usize;
    if count > LISTED {
        let mut words = [0; WORDS];
        for word in &mut words {
            *word = payload.try_get_u64_le().ok()?;
        }
        let bits = RowBits::new(words);
        return (bits.len() as usize == count).then_some(ChunkRows::Many(bits));
    }
    let mut rows = ChunkRows::default();
    for _ in 0..count {
        rows.insert(payload.try_get_u16_le().ok()?).then_some(())?;
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_rows() -> TableRows {
        let few = [3, 70_000].map(|row| RowId::new(4, row));
        let many = (0..65_536).step_by(100).map(|row| RowId::new(5, row));
        let most = (131_072..190_000).map(|row| RowId::new(5, row));
        few.into_iter().chain(many).chain(most).collect()
    }

    #[test]
    fn rows_read_back_as_they_were_written() {
        let rows = some_rows();
        let mut out = Vec::new();
        put_table_rows(&mut out, &rows);
        assert!(out.len() < 10_000, "{} bytes for {} rows", out.len(), rows.len());
        let mut payload = Bytes::from(out.clone());
        assert_eq!(get_table_rows(&mut payload), Some(rows));
        assert!(payload.is_empty());
        for cut in 0..out.len() {
            assert_eq!(get_table_rows(&mut Bytes::from(out[..cut].to_vec())), None, "cut at {cut}");
        }
    }

    #[test]
    fn ended_rows_read_back_with_their_commits() {
        let mut ended = Tombstones::default();
        for (csn, segment) in [(Csn(5), 4), (Csn(6), 5)] {
            for (_, rows) in some_rows().segments().filter(|(id, _)| *id == segment) {
                let rows: Vec<u32> = rows.iter().filter(|row| ended.get(*row).is_none()).collect();
                for row in rows {
                    ended.insert(row, csn);
                }
            }
        }
        let mut out = Vec::new();
        put_tombstones(&mut out, &ended);
        let again = get_tombstones(&mut Bytes::from(out.clone())).expect("it is whole");
        assert!(again.iter().eq(ended.iter()));
        assert!(get_tombstones(&mut Bytes::from(out[..out.len() - 1].to_vec())).is_none());
    }
}
