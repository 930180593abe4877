//! What the log carries, and with `redo_rows` the only file that knows it: the writes of a commit, a change of the catalog, or the
//! exchange of segments that compaction makes.

use std::{collections::HashMap, sync::Arc};

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
use grizzly_wal::{NewRecord, Record};
use serde::{Deserialize, Serialize};

use super::{
    catalog::CatalogChange,
    key::Keys,
    mvcc::{row_set::TableRows, tombstones::Tombstones},
    redo_rows::{get_row_ids, get_table_rows, get_tombstones, put_table_rows, put_tombstones},
    segment::{cold::ColdSegment, meta::SegmentMeta},
    stamps::Stamps,
};
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
    foreign::guarded,
};

/// Record kinds in the log's headers. Commits of older versions: ended rows are listed one by one.
const KIND_LISTING_COMMIT: u8 = 1;
/// A change of the catalog: JSON of [`CatalogChange`].
const KIND_CATALOG: u8 = 2;
/// Exchanges of older versions: JSON of [`Replace`], ended rows included.
const KIND_LISTING_REPLACE: u8 = 3;
/// The writes of a commit.
const KIND_COMMIT: u8 = 4;
/// Segments exchanged by compaction.
const KIND_REPLACE: u8 = 5;

const TAG_INSERT: u8 = 1;
/// Ended rows, listed.
const TAG_DELETE_LIST: u8 = 2;
/// A segment, the rows of it that had ended among the JSON.
const TAG_ATTACH_LIST: u8 = 3;
const TAG_DEFINE: u8 = 4;
const TAG_DELETE: u8 = 5;
const TAG_ATTACH: u8 = 6;

/// One write of a commit.
#[derive(Debug, Clone)]
pub(crate) enum RedoOp {
    /// Rows appended to a hot segment.
    Insert { table: u64, shard: u32, segment: u32, first_row: u32, versions: Stamps, rows: LoggedRows },
    /// Rows ended.
    Delete { table: u64, rows: TableRows },
    /// A segment file that the transaction wrote before it committed.
    Attach(Attach),
    /// A change of the catalog that is part of the commit.
    Define(CatalogChange),
}

/// What a record says.
#[derive(Debug)]
pub(crate) enum Change {
    /// A transaction's writes.
    Commit(Vec<RedoOp>),
    /// A definition.
    Catalog(CatalogChange),
    /// A merge of segments.
    Replace(Replace),
}

/// Rows of a record, and what they are made into, where that is known already.
#[derive(Debug, Clone)]
pub(crate) struct LoggedRows {
    pub(crate) encoded: EncodedRows,
    pub(crate) keyed: Option<Arc<KeyedRows>>,
}

/// Rows with their keys in each index of their table.
#[derive(Debug)]
pub(crate) struct KeyedRows {
    pub(crate) batch: RecordBatch,
    pub(crate) keys: Vec<Keys>,
}

/// A segment file joins a shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attach {
    pub(crate) table: u64,
    pub(crate) shard: u32,
    pub(crate) meta: SegmentMeta,
    /// Rows that their own transaction ended, as older versions list them.
    #[serde(rename = "ended", default, skip_serializing_if = "Vec::is_empty")]
    listed: Vec<u32>,
    /// Rows that their own transaction ended.
    #[serde(skip)]
    pub(crate) ended: Tombstones,
    /// The segment, where it is open already.
    #[serde(skip)]
    pub(crate) file: Option<Arc<ColdSegment>>,
}

/// Compaction's exchange of segments within a shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Replace {
    pub(crate) table: u64,
    pub(crate) shard: u32,
    pub(crate) removed: Vec<u32>,
    pub(crate) added: Option<SegmentMeta>,
    /// Ended rows of the new segment with the commits that ended them, as older versions list them.
    #[serde(rename = "ended", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) listed: Vec<(u32, u64)>,
    /// Ended rows of the new segment.
    #[serde(skip)]
    pub(crate) ended: Tombstones,
    pub(crate) history_from: u64,
    /// The new segment, where it is open already.
    #[serde(skip)]
    pub(crate) file: Option<Arc<ColdSegment>>,
}

impl Attach {
    pub(crate) fn new(table: u64, shard: u32, file: Arc<ColdSegment>, ended: Tombstones) -> Self {
        Self { table, shard, meta: file.meta.clone(), listed: Vec::new(), ended, file: Some(file) }
    }
}

impl Change {
    /// What a record of the log says.
    ///
    /// # Errors
    /// `Corrupt` if its payload is damaged, `Unsupported` if it is of a kind that a later version writes.
    pub(crate) fn of(record: &Record) -> Result<Self> {
        let payload = record.payload.clone();
        match record.header.kind {
            KIND_COMMIT | KIND_LISTING_COMMIT => decode_commit(payload).map(Self::Commit),
            KIND_CATALOG => decode_json("a catalog change in the log", &payload).map(Self::Catalog),
            kind @ (KIND_REPLACE | KIND_LISTING_REPLACE) => decode_replace(kind, payload).map(Self::Replace),
            kind => Err(Error::new(
                ErrorKind::Unsupported,
                format!("log record {} is of kind {kind}, which this version does not know", record.header.lsn.0),
            )),
        }
    }

    /// The record of commit `csn`, of transaction `txn` if it is one's.
    pub(crate) fn record(&self, txn: u64, csn: Csn) -> Result<NewRecord> {
        let (kind, payload) = match self {
            Self::Commit(ops) => (KIND_COMMIT, encode_commit(ops)?),
            Self::Catalog(change) => (KIND_CATALOG, encode_json(change)?),
            Self::Replace(replace) => (KIND_REPLACE, encode_replace(replace)?),
        };
        Ok(NewRecord { txn, commit_ts: csn.0, kind, payload })
    }
}

impl LoggedRows {
    pub(crate) fn new(encoded: EncodedRows, keyed: Arc<KeyedRows>) -> Self {
        Self { encoded, keyed: Some(keyed) }
    }
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
        let damaged = |said: &str| Error::corrupt(format!("rows in the log are damaged: {said}"));
        let batch = guarded(|| self.decode_message(schema)).map_err(|panic| damaged(&panic))??;
        match batch.num_rows() == self.count as usize {
            true => Ok(batch),
            false => Err(damaged(&format!("{} instead of {}", batch.num_rows(), self.count))),
        }
    }

    fn decode_message(&self, schema: &SchemaRef) -> Result<RecordBatch> {
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
fn encode_commit(ops: &[RedoOp]) -> Result<Bytes> {
    let mut out = Vec::with_capacity(512);
    for op in ops {
        match op {
            RedoOp::Insert { table, shard, segment, first_row, versions, rows } => {
                out.put_u8(TAG_INSERT);
                out.put_u64_le(*table);
                out.put_u32_le(*shard);
                out.put_u32_le(*segment);
                out.put_u32_le(*first_row);
                let rows = &rows.encoded;
                out.put_u32_le(rows.count);
                put_stamps(&mut out, versions);
                put_bytes(&mut out, &rows.message);
                put_bytes(&mut out, &rows.body);
            }
            RedoOp::Delete { table, rows } => {
                out.put_u8(TAG_DELETE);
                out.put_u64_le(*table);
                put_table_rows(&mut out, rows);
            }
            RedoOp::Attach(attach) => {
                out.put_u8(TAG_ATTACH);
                put_bytes(&mut out, &encode_json(attach)?);
                put_tombstones(&mut out, &attach.ended);
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
fn decode_commit(mut payload: Bytes) -> Result<Vec<RedoOp>> {
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
            let rows = LoggedRows { encoded: EncodedRows { count, message, body }, keyed: None };
            Some(RedoOp::Insert { table, shard, segment, first_row, versions, rows })
        }
        TAG_DELETE_LIST => {
            let table = payload.try_get_u64_le().ok()?;
            Some(RedoOp::Delete { table, rows: get_row_ids(payload)? })
        }
        TAG_DELETE => {
            let table = payload.try_get_u64_le().ok()?;
            Some(RedoOp::Delete { table, rows: get_table_rows(payload)? })
        }
        TAG_ATTACH_LIST => {
            let mut attach: Attach = serde_json::from_slice(&get_bytes(payload)?).ok()?;
            attach.ended = std::mem::take(&mut attach.listed).into_iter().map(|row| (row, Csn(0))).collect();
            Some(RedoOp::Attach(attach))
        }
        TAG_ATTACH => {
            let attach = serde_json::from_slice(&get_bytes(payload)?).ok()?;
            Some(RedoOp::Attach(Attach { ended: get_tombstones(payload)?, ..attach }))
        }
        TAG_DEFINE => serde_json::from_slice(&get_bytes(payload)?).ok().map(RedoOp::Define),
        _ => None,
    }
}

/// The payload of a record of compaction.
fn encode_replace(replace: &Replace) -> Result<Bytes> {
    let mut out = Vec::with_capacity(512);
    put_bytes(&mut out, &encode_json(replace)?);
    put_tombstones(&mut out, &replace.ended);
    Ok(out.into())
}

/// The exchange in a record of `kind`.
fn decode_replace(kind: u8, mut payload: Bytes) -> Result<Replace> {
    let what = "a merge of segments in the log";
    if kind == KIND_LISTING_REPLACE {
        let mut replace: Replace = decode_json(what, &payload)?;
        let listed = std::mem::take(&mut replace.listed);
        replace.ended = listed.into_iter().map(|(row, csn)| (row, Csn(csn))).collect();
        return Ok(replace);
    }
    let damaged = || Error::corrupt(format!("{what} does not have the form of one"));
    let replace: Replace = decode_json(what, &get_bytes(&mut payload).ok_or_else(damaged)?)?;
    let ended = get_tombstones(&mut payload).filter(|_| payload.is_empty());
    Ok(Replace { ended: ended.ok_or_else(damaged)?, ..replace })
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
    use arrow::{
        array::{Int64Array, StringViewArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;
    use crate::access::RowId;

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
        let rows = LoggedRows { encoded: EncodedRows::encode(&batch()).expect("rows encode"), keyed: None };
        let insert = RedoOp::Insert {
            table: 3,
            shard: 1,
            segment: 9,
            first_row: 5,
            versions: Stamps::Each([1, 4].into()),
            rows,
        };
        let delete = RedoOp::Delete { table: 3, rows: [RowId::new(2, 7)].into_iter().collect() };
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
        assert_eq!(rows.encoded.decode(&batch().schema()).expect("rows decode"), batch());
        assert_eq!(deleted, &[RowId::new(2, 7)].into_iter().collect());
    }

    #[test]
    fn a_cut_payload_is_an_error() {
        let whole = payload();
        let (insert_only, cuts) = (whole.len() - 31, 1..whole.len());
        for cut in cuts.filter(|cut| *cut != insert_only) {
            assert!(decode_commit(whole.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_older_versions_wrote_is_read() {
        let mut old = Vec::new();
        old.put_u8(2);
        old.put_u64_le(3);
        old.put_u32_le(2);
        [RowId::new(2, 7), RowId::new(9, 1)].iter().for_each(|row| old.put_u64_le(row.0));
        old.put_u8(3);
        let attach =
            br#"{"table":3,"shard":1,"meta":{"id":8,"rows":9,"file_bytes":5,"created":4,"row_version":1},"ended":[2,6]}"#;
        put_bytes(&mut old, attach);
        let ops = decode_commit(old.into()).expect("it is whole");
        let [RedoOp::Delete { table: 3, rows }, RedoOp::Attach(attach)] = ops.as_slice() else {
            unreachable!("a delete and a segment were written: {ops:?}");
        };
        assert_eq!(rows, &[RowId::new(2, 7), RowId::new(9, 1)].into_iter().collect());
        assert!(attach.ended.iter().eq([(2, Csn(0)), (6, Csn(0))]));
        let json = br#"{"table":3,"shard":1,"removed":[4,5],"added":null,"ended":[[1,70],[3,71]],"history_from":9}"#;
        let replace = decode_replace(KIND_LISTING_REPLACE, Bytes::from_static(json)).expect("it is whole");
        assert!(replace.ended.iter().eq([(1, Csn(70)), (3, Csn(71))]));
        let new = encode_replace(&replace).expect("it can be written");
        let again = decode_replace(KIND_REPLACE, new.clone()).expect("it is whole");
        assert!(again.ended.iter().eq(replace.ended.iter()) && again.removed == [4, 5]);
        assert!(decode_replace(KIND_REPLACE, new.slice(..new.len() - 1)).is_err());
    }
}
