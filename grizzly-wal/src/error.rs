//! The one error type of this crate: a kind to act on, a message that says what and where, and the cause.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named object or file does not exist.
    NotFound,
    /// The named object or file exists although it was to be created. On an object store this also means that
    /// another writer was faster.
    AlreadyExists,
    /// Stored bytes are damaged or missing. The message names file and offset.
    Corrupt,
    /// Written by a newer version, or a feature or URL scheme this build does not have.
    Unsupported,
    /// An earlier write failed; this log takes no more until it is opened again.
    Poisoned,
    /// Another live writer owns the storage. The message names the holder.
    Locked,
    /// The device or the network failed.
    Io,
    /// No space is left.
    Full,
    /// The caller lacks the right to read or write there.
    Permission,
    /// The request itself makes no sense: a bad path, a record number that was never given out.
    Invalid,
    /// The log was closed.
    Closed,
}

/// An error with its kind, a message that names the place, and the cause below it, if there is one.
///
/// Cheap to clone: the first cause of a poisoned log is handed to every waiter.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with the cause that led to it.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened, and where.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// An I/O error on `place`, under the kind that fits it.
    pub(crate) fn io(doing: &str, place: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::Full,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Permission,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("cannot {doing} {place}: {source}")).with_source(source)
    }

    pub(crate) fn corrupt(file: &str, offset: u64, what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Corrupt, format!("{file} is damaged at byte {offset}: {what}"))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}
