//! What can go wrong while a segment is written, read or searched.

use std::error::Error as StdError;

use arrow::error::ArrowError;

/// The result of everything in this folder.
pub(crate) type Result<T, E = SegmentError> = std::result::Result<T, E>;

/// Why a segment could not be written, read or searched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    /// Bytes that are not what was written: the file must be restored from somewhere else.
    #[error("{file} is corrupt: {what}")]
    Corrupt {
        /// The file, and where known the column and chunk in it.
        file: String,
        /// What was expected and what was found.
        what: String,
    },
    /// A request this storage cannot serve, such as ordering a type that has no order.
    #[error("not supported: {what}")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// The storage below failed.
    #[error("reading {file}: {source}")]
    Storage {
        /// The file asked for.
        file: String,
        /// What the storage said.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A bug: the encodings or kernels refused something they should take.
    #[error("internal error: {what}")]
    Internal {
        /// What was being done, and what was said about it.
        what: String,
    },
}

impl SegmentError {
    pub(crate) fn corrupt(file: impl Into<String>, what: impl ToString) -> Self {
        Self::Corrupt { file: file.into(), what: what.to_string() }
    }

    pub(crate) fn internal(doing: &str, said: impl ToString) -> Self {
        Self::Internal { what: format!("{doing}: {}", said.to_string()) }
    }
}

impl From<ArrowError> for SegmentError {
    fn from(error: ArrowError) -> Self {
        Self::Internal { what: error.to_string() }
    }
}
