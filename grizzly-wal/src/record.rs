//! What the log carries: opaque payloads behind a header that backup and recovery can act on by itself.

use bytes::Bytes;

use crate::ids::Lsn;

/// What is known about a record without looking into its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its place in the log.
    pub lsn: Lsn,
    /// The transaction that wrote it, as the engine numbers them.
    pub txn: u64,
    /// When that transaction committed, in the engine's own order or clock.
    pub commit_ts: u64,
    /// What the payload is; the log does not interpret it.
    pub kind: u8,
}

/// A record read back from the log.
///
/// A large uncompressed payload is a slice of the log file's buffer and keeps all of it in memory; small ones own
/// their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place and origin.
    pub header: RecordHeader,
    /// The bytes as they were appended.
    pub payload: Bytes,
}

/// A record to append; the log gives it its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// See [`RecordHeader::txn`].
    pub txn: u64,
    /// See [`RecordHeader::commit_ts`].
    pub commit_ts: u64,
    /// See [`RecordHeader::kind`].
    pub kind: u8,
    /// Opaque to the log; at most [`MAX_PAYLOAD`](crate::MAX_PAYLOAD) bytes.
    pub payload: Bytes,
}
