//! The write-ahead log and the storage seam of Grizzly.
#![doc = include_str!("../README.md")]

#[doc = include_str!("../FORMAT.md")]
pub mod format {}

pub mod backup;
mod check;
mod codec;
mod encryption;
mod error;
mod files;
mod ids;
mod known;
mod log_thread;
mod progress;
mod reader;
mod record;
mod recovery;
pub mod storage;
mod tail;
mod unpack;
pub mod world;
mod writer;

pub use check::{LogCheck, check_log};
pub use codec::MAX_PAYLOAD;
pub use encryption::EncryptionKey;
pub use error::{Error, ErrorKind, Result};
pub use ids::Lsn;
pub use known::Known;
pub use progress::Durable;
pub use reader::{LogReader, read};
pub use record::{NewRecord, Record, RecordHeader};
pub use recovery::{Replay, open};
pub use storage::{
    AppendFile, EncryptedStorage, FsStorage, MemoryStorage, ObjectMeta, ObjectStorage, PutMode, Storage, lies_within,
    open_storage,
};
pub use tail::LogTail;
pub use unpack::unpack;
pub use writer::{Fence, OnDurable, Wal, WalOptions, WalStats};
