//! How failures below the engine become the crate's one error.

use grizzly_wal::ErrorKind as Below;

use super::{index::IndexError, key::KeyError, segment::SegmentError};
use crate::error::{Error, ErrorKind};

impl From<grizzly_wal::Error> for Error {
    fn from(error: grizzly_wal::Error) -> Self {
        let kind = match error.kind() {
            Below::NotFound | Below::Corrupt => ErrorKind::Corrupt,
            Below::AlreadyExists | Below::Locked | Below::Io => ErrorKind::Unavailable,
            Below::Unsupported => ErrorKind::Unsupported,
            Below::Poisoned | Below::Closed => ErrorKind::Closed,
            Below::Full => ErrorKind::DiskFull,
            Below::Permission => ErrorKind::Permission,
            Below::Invalid => ErrorKind::Invalid,
        };
        Self::new(kind, error.message().to_owned()).with_source(error)
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        let kind = match error {
            KeyError::Unsupported { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<IndexError> for Error {
    fn from(error: IndexError) -> Self {
        let kind = match error {
            IndexError::Unsupported { .. } => ErrorKind::Unsupported,
            IndexError::Corrupt { .. } => ErrorKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<SegmentError> for Error {
    fn from(error: SegmentError) -> Self {
        let kind = match &error {
            SegmentError::Corrupt { .. } => ErrorKind::Corrupt,
            SegmentError::Unsupported { .. } => ErrorKind::Unsupported,
            SegmentError::Storage { .. } => ErrorKind::Unavailable,
            SegmentError::Internal { .. } => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
