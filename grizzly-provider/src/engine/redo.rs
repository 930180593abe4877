//! What the log carries, and the only file that knows it: the writes of a commit, a change of the catalog, or the
//! exchange of segments that compaction makes.

use std::collections::HashMap;

use arrow::{
    buffer::Buffer,
    datatypes::SchemaRef,
    ipc::{
        reader::read_record_batch,
        root_as_message,
        writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions},
    },
    record_batch::RecordBatch,
};
use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::{catalog::CatalogChange, segment::cold::SegmentMeta, stamps::Stamps};
use crate::{
    access::RowId,
    error::{Error, Result},
};

/// Record kinds in the log's headers.
pub(crate) const KIND_COMMIT: u8 = 1;
/// A change of the catalog: JSON of [`super::catalog::CatalogChange`].
pub(crate) const KIND_CATALOG: u8 = 2;
/// Segments exchanged by compaction: JSON of [`Replace`].
pub(crate) const KIND_REPLACE: u8 = 3;

const TAG_INSERT: u8 = 1;
const TAG_DELETE: u8 = 2;
const TAG_ATTACH: u8 = 3;
const TAG_DEFINE: u8 = 4;

/// One write of a commit.
#[derive(Debug, Clone)]
pub(crate) enum RedoOp {
    /// Rows appended to a hot segment.
    Insert { table: u64, shard: u32, segment: u32, first_row: u32, versions: Stamps, rows: EncodedRows },
    /// Rows ended.
    Delete { table: u64, rows: Vec<RowId> },
    /// A segment file that the transaction wrote before it committed.
    Attach(Attach),
    /// A change of the catalog that is part of the commit.
    Define(CatalogChange),
}

/// A segment file joins a shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attach {
    pub(crate) table: u64,
    pub(crate) shard: u32,
    pub(crate) meta: SegmentMeta,
    /// Rows that their own transaction ended.
    pub(crate) ended: Vec<u32>,
}

/// Compaction's exchange of segments within a shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Replace {
    pub(crate) table: u64,
    pub(crate) shard: u32,
    pub(crate) removed: Vec<u32>,
    pub(crate) added: Option<SegmentMeta>,
    /// Ended rows of the new segment with the commits that ended them.
    pub(crate) ended: Vec<(u32, u64)>,
    pub(crate) history_from: u64,
}

/// A batch as Arrow IPC without its schema, which the catalog has.
#[derive(Debug, Clone)]
pub(crate) struct EncodedRows {
    pub(crate) count: u32,
    message: Bytes,
    body: Bytes,
}

impl EncodedRows {
    pub(crate) fn encode(batch: &RecordBatch) -> Result<Self> {
        let mut tracker = DictionaryTracker::new(false);
        let options = IpcWriteOptions::default();
        let (_, encoded) =
            IpcDataGenerator::default().encode(batch, &mut tracker, &options, &mut Default::default())?;
        Ok(Self {
            count: batch.num_rows() as u32,
            message: encoded.ipc_message.into(),
            body: encoded.arrow_data.into(),
        })
    }

    pub(crate) fn decode(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let corrupt = |error: &dyn std::fmt::Display| Error::corrupt(format!("rows in the log are damaged: {error}"));
        let message = root_as_message(&self.message).map_err(|error| corrupt(&error))?;
        let header = message.header_as_record_batch().ok_or_else(|| corrupt(&"not a record batch"))?;
        let body = Buffer::from_slice_ref(&self.body);
        let batch =
            read_record_batch(&body, header, SchemaRef::clone(schema), &HashMap::new(), None, &message.version());
        batch.map_err(|error| corrupt(&error))
    }
}

/// The payload of a commit record.
pub(crate) fn encode_commit(ops: &[RedoOp]) -> Result<Bytes> {
    let mut out = Vec::with_capacity(512);
    for op in ops {
        match op {
            RedoOp::Insert { table, shard, segment, first_row, versions, rows } => {
                out.put_u8(TAG_INSERT);
                out.put_u64_le(*table);
                out.put_u32_le(*shard);
                out.put_u32_le(*segment);
                out.put_u32_le(*first_row);
                out.put_u32_le(rows.count);
                put_stamps(&mut out, versions);
                put_bytes(&mut out, &rows.message);
                put_bytes(&mut out, &rows.body);
            }
            RedoOp::Delete { table, rows } => {
                out.put_u8(TAG_DELETE);
                out.put_u64_le(*table);
                out.put_u32_le(rows.len() as u32);
                rows.iter().for_each(|row| out.put_u64_le(row.0));
            }
            RedoOp::Attach(attach) => {
                out.put_u8(TAG_ATTACH);
                put_bytes(&mut out, &encode_json(attach)?);
            }
            RedoOp::Define(change) => {
                out.put_u8(TAG_DEFINE);
                put_bytes(&mut out, &encode_json(change)?);
            }
        }
    }
    Ok(out.into())
}

/// The writes of a commit record.
pub(crate) fn decode_commit(mut payload: Bytes) -> Result<Vec<RedoOp>> {
    let mut ops = Vec::new();
    while payload.has_remaining() {
        let op = decode_op(&mut payload);
        ops.push(op.ok_or_else(|| Error::corrupt("a commit record in the log does not have the form of one"))?);
    }
    Ok(ops)
}

fn decode_op(payload: &mut Bytes) -> Option<RedoOp> {
    match payload.try_get_u8().ok()? {
        TAG_INSERT => {
            let table = payload.try_get_u64_le().ok()?;
            let shard = payload.try_get_u32_le().ok()?;
            let segment = payload.try_get_u32_le().ok()?;
            let first_row = payload.try_get_u32_le().ok()?;
            let count = payload.try_get_u32_le().ok()?;
            let versions = get_stamps(payload, count as usize)?;
            let (message, body) = (get_bytes(payload)?, get_bytes(payload)?);
            let rows = EncodedRows { count, message, body };
            Some(RedoOp::Insert { table, shard, segment, first_row, versions, rows })
        }
        TAG_DELETE => {
            let table = payload.try_get_u64_le().ok()?;
            let count = payload.try_get_u32_le().ok()? as usize;
            let bytes = take(payload, count.checked_mul(8)?)?;
            let rows =
                bytes.chunks_exact(8).filter_map(|row| row.try_into().ok()).map(|row| RowId(u64::from_le_bytes(row)));
            Some(RedoOp::Delete { table, rows: rows.collect() })
        }
        TAG_ATTACH => serde_json::from_slice(&get_bytes(payload)?).ok().map(RedoOp::Attach),
        TAG_DEFINE => serde_json::from_slice(&get_bytes(payload)?).ok().map(RedoOp::Define),
        _ => None,
    }
}

/// The payload of a record that is stored as JSON.
pub(crate) fn encode_json<T: Serialize>(value: &T) -> Result<Bytes> {
    let json = serde_json::to_vec(value);
    Ok(json.map_err(|error| Error::internal("a record cannot be written").with_source(error))?.into())
}

/// The record in a JSON payload.
pub(crate) fn decode_json<T: for<'de> Deserialize<'de>>(what: &str, payload: &[u8]) -> Result<T> {
    serde_json::from_slice(payload).map_err(|error| Error::corrupt(format!("{what} cannot be read")).with_source(error))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn get_bytes(payload: &mut Bytes) -> Option<Bytes> {
    let len = payload.try_get_u32_le().ok()? as usize;
    take(payload, len)
}

fn take(payload: &mut Bytes, len: usize) -> Option<Bytes> {
    (payload.remaining() >= len).then(|| payload.split_to(len))
}

fn put_stamps(out: &mut Vec<u8>, stamps: &Stamps) {
    match stamps {
        Stamps::All(value) => {
            out.put_u8(0);
            out.put_u64_le(*value);
        }
        Stamps::Each(values) => {
            out.put_u8(1);
            values.iter().for_each(|value| out.put_u64_le(*value));
        }
    }
}

fn get_stamps(payload: &mut Bytes, count: usize) -> Option<Stamps> {
    match payload.try_get_u8().ok()? {
        0 => payload.try_get_u64_le().ok().map(Stamps::All),
        1 => {
            let bytes = take(payload, count.checked_mul(8)?)?;
            let values = bytes.chunks_exact(8).filter_map(|value| value.try_into().ok()).map(u64::from_le_bytes);
            Some(Stamps::Each(values.collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, StringViewArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn batch() -> RecordBatch {
        let schema =
            Schema::new(vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8View, true)]);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 2])),
            Arc::new(StringViewArray::from(vec![Some("a string that is longer than twelve bytes"), None])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).expect("columns fit the schema")
    }

    fn payload() -> Bytes {
        let rows = EncodedRows::encode(&batch()).expect("rows encode");
        let insert = RedoOp::Insert {
            table: 3,
            shard: 1,
            segment: 9,
            first_row: 5,
            versions: Stamps::Each([1, 4].into()),
            rows,
        };
        let delete = RedoOp::Delete { table: 3, rows: vec![RowId::new(2, 7)] };
        encode_commit(&[insert, delete]).expect("commits encode")
    }

    #[test]
    fn a_commit_reads_back_as_it_was_written() {
        let ops = decode_commit(payload()).expect("it is whole");
        let [
            RedoOp::Insert { table: 3, shard: 1, segment: 9, first_row: 5, versions, rows },
            RedoOp::Delete { rows: deleted, .. },
        ] = ops.as_slice()
        else {
            unreachable!("one insert and one delete were written: {ops:?}");
        };
        assert_eq!((versions.get(0), versions.get(1)), (1, 4));
        assert_eq!(rows.decode(&batch().schema()).expect("rows decode"), batch());
        assert_eq!(deleted, &[RowId::new(2, 7)]);
    }

    #[test]
    fn a_cut_payload_is_an_error() {
        let whole = payload();
        let (insert_only, cuts) = (whole.len() - 21, 1..whole.len());
        for cut in cuts.filter(|cut| *cut != insert_only) {
            assert!(decode_commit(whole.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
