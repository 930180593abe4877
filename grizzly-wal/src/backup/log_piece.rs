//! Records of the log as the content of one piece: header and payload, one after the other.

use bytes::{Buf, BufMut, Bytes};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::Lsn;
use crate::record::{Record, RecordHeader};

/// Bytes before each payload: LSN, transaction, commit timestamp, kind, length.
const HEADER: usize = 8 + 8 + 8 + 1 + 4;

pub(super) fn encode(record: &Record, out: &mut Vec<u8>) {
    out.put_u64_le(record.header.lsn.0);
    out.put_u64_le(record.header.txn);
    out.put_u64_le(record.header.commit_ts);
    out.put_u8(record.header.kind);
    out.put_u32_le(record.payload.len() as u32);
    out.put_slice(&record.payload);
}

/// Tells records apart that have the same number: header and payload.
pub(super) fn checksum(record: &Record) -> u32 {
    let mut bytes = Vec::with_capacity(HEADER + record.payload.len());
    encode(record, &mut bytes);
    crc32c::crc32c(&bytes)
}

/// The records of a piece named `name`.
pub(super) fn decode(name: &str, mut content: Bytes) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while content.has_remaining() {
        let record = next(&mut content);
        records.push(record.ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("{name} does not consist of records: record {} is cut", records.len()),
            )
        })?);
    }
    Ok(records)
}

fn next(content: &mut Bytes) -> Option<Record> {
    let lsn = Lsn(content.try_get_u64_le().ok()?);
    let txn = content.try_get_u64_le().ok()?;
    let commit_ts = content.try_get_u64_le().ok()?;
    let kind = content.try_get_u8().ok()?;
    let len = content.try_get_u32_le().ok()? as usize;
    let payload = (content.remaining() >= len).then(|| content.split_to(len))?;
    Some(Record { header: RecordHeader { lsn, txn, commit_ts, kind }, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_cuts_are_errors() {
        let record = |lsn: u64| Record {
            header: RecordHeader { lsn: Lsn(lsn), txn: 2 * lsn, commit_ts: 3 * lsn, kind: lsn as u8 },
            payload: vec![7; lsn as usize].into(),
        };
        let mut bytes = Vec::new();
        (1..4).for_each(|lsn| encode(&record(lsn), &mut bytes));
        let bytes = Bytes::from(bytes);
        assert_eq!(decode("x", bytes.clone()).expect("it is whole"), [record(1), record(2), record(3)]);
        let ends = [0, HEADER + 1, 2 * HEADER + 3];
        for cut in (0..bytes.len()).filter(|cut| !ends.contains(cut)) {
            assert!(decode("x", bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
