//! The only door to the outside: log, column segments and manifests all go through [`Storage`].
//!
//! Two shapes of data pass it. An *object* is written whole, atomically, and never changed in place. An *append file*
//! grows at its end and is the log's. Both are named by relative paths like `orders/00000017.seg`; see [`Storage`] for
//! what a path may be. All calls block; they may be made from any thread, also from inside an async runtime.

mod encrypted;
mod fs;
mod memory;
mod object;
mod path;
mod process_lock;
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
mod remote;
mod url;

pub mod conformance;
pub mod faulty;

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;

pub use self::encrypted::{EncryptedStorage, check_plain};
pub use self::fs::FsStorage;
pub use self::memory::MemoryStorage;
pub use self::object::ObjectStorage;
pub use self::url::{lies_within, open_storage};
use crate::encryption::EncryptionKey;
use crate::error::{ErrorKind, Result};

/// Whether [`Storage::put`] may replace what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Fail with [`ErrorKind::AlreadyExists`] if the path exists. Of several
    /// concurrent calls exactly one succeeds. What is there with exactly these bytes may count as created by this
    /// call, since on an object store a call can seem to fail and have succeeded; whoever must know who of several
    /// created it puts something of its own into the bytes.
    Create,
    /// Replace what is there, atomically.
    Overwrite,
}

/// An object as [`Storage::list`] sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its path, as the other calls take it.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
}

/// A folder or object-store prefix.
///
/// Paths are relative, separated by `/`, and no part of them is empty or starts with a dot; the top-level name `LOCK`
/// is taken. Anything else is [`ErrorKind::Invalid`]. Append files live in folders of
/// their own; what [`list`](Self::list) says about such a folder differs between implementations.
///
/// # Errors
/// A missing object or file is [`ErrorKind::NotFound`] everywhere. After any other error
/// of a writing call it is unknown whether the write happened.
pub trait Storage: Debug + Send + Sync + 'static {
    /// Writes `parts`, one after the other, as one object. Atomic, and durable when it returns.
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> Result<()>;

    /// A whole object.
    fn get(&self, path: &str) -> Result<Bytes>;

    /// Some bytes of an object. A range that does not lie inside it is an error.
    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes>;

    /// All objects below the folder `prefix` (`""` is everything), sorted by path, at any depth. An unknown folder is
    /// empty.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>>;

    /// Removes an object. Fine if there is none. A crash soon after may bring it back.
    fn remove(&self, path: &str) -> Result<()>;

    /// Starts a new append file, which must not exist. Up to `preallocate` bytes may be reserved for it; they read as
    /// zeros. On an object store the file exists from its first sync on, and that sync fails if another writer was
    /// faster.
    fn create_append(&self, path: &str, preallocate: u64) -> Result<Box<dyn AppendFile>>;

    /// Everything durably appended to a file, perhaps followed by zeros.
    fn read_append(&self, path: &str) -> Result<Bytes>;

    /// The first bytes of [`read_append`](Self::read_append): at most `len`, fewer if the file is shorter.
    fn peek_append(&self, path: &str, len: usize) -> Result<Bytes> {
        let file = self.read_append(path)?;
        Ok(file.slice(..len.min(file.len())))
    }

    /// Whether an append file has its first bytes. Cheap, so that it can be asked often.
    fn has_begun(&self, path: &str) -> Result<bool> {
        match self.peek_append(path, 1) {
            Ok(start) => Ok(!start.is_empty()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What [`read_append`](Self::read_append) has behind its first `offset` bytes. Empty, or zeros, if there is
    /// nothing yet; cheap then, so that it can be asked often.
    fn read_append_from(&self, path: &str, offset: u64) -> Result<Bytes> {
        let file = self.read_append(path)?;
        Ok(file.slice((offset as usize).min(file.len())..))
    }

    /// The bytes an append file takes.
    fn size_append(&self, path: &str) -> Result<u64> {
        Ok(self.read_append(path)?.len() as u64)
    }

    /// Ends an append file that a writer before us may have left open, and returns all it will ever hold. What it
    /// returns is durable even if an earlier sync of that writer failed. A writer that is still alive gets an error
    /// from its next sync (on a local disk [`lock`](Self::lock) keeps it out).
    fn seal_append(&self, path: &str) -> Result<Bytes>;

    /// The paths of all append files directly in the folder `prefix`, sorted.
    fn list_append(&self, prefix: &str) -> Result<Vec<String>>;

    /// Removes an append file. Fine if there is none. A file that was sealed on an object store stays listed, and
    /// empty, so that the writer it was taken from stays locked out.
    fn remove_append(&self, path: &str) -> Result<()>;

    /// Makes the caller the only writer until the guard is dropped; fails with
    /// [`ErrorKind::Locked`] and the holder's name if there is one. On an object store this
    /// covers one process only: writers elsewhere are fenced by `put` with [`PutMode::Create`] and by
    /// [`seal_append`](Self::seal_append).
    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>>;

    /// Whether [`lock`](Self::lock) keeps out every other process that could write here, wherever it runs.
    fn lock_excludes(&self) -> bool {
        true
    }

    /// Makes the caller one of several that agree among themselves who writes; fails with
    /// [`ErrorKind::Locked`] while somebody holds [`lock`](Self::lock), and keeps that from
    /// others until the guard is dropped. Covers one machine, or one process, as [`lock`](Self::lock) does.
    fn lock_shared(&self) -> Result<Box<dyn Any + Send + Sync>>;

    /// Whether [`seal_append`](Self::seal_append) makes every later sync of the file's old writer fail. Where it does
    /// not, that writer must ask before it trusts a sync, see [`WalOptions::fence`](crate::WalOptions::fence).
    fn seal_shuts_out(&self) -> bool {
        false
    }

    /// Where this is, as [`open_storage`] takes it, without credentials.
    fn url(&self) -> String;

    /// The key under which objects are encrypted here. Append files are not the storage's to encrypt: their writer
    /// does it, record by record, with this key.
    fn key(&self) -> Option<&EncryptionKey> {
        None
    }
}

/// A file that grows at its end. One writer at a time.
pub trait AppendFile: Send {
    /// Adds bytes at the end. They are not durable yet.
    fn append(&mut self, data: &[u8]) -> Result<()>;

    /// Makes everything appended so far durable. After an error the file must not be written any more: what is
    /// stored is unknown.
    fn sync(&mut self) -> Result<()>;

    /// After an append that failed: takes back, durably, everything that was appended since the last sync, and ends the
    /// file there. It must not be written any more. After an error of this call, and where storage cannot do it
    /// ([`ErrorKind::Unsupported`]), what is stored is unknown.
    fn withdraw(&mut self) -> Result<()> {
        Err(crate::error::Error::new(ErrorKind::Unsupported, "this storage does not take back what was appended"))
    }
}
