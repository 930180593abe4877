//! Why a key could not be made or read.

/// Why a key could not be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyError {
    /// The value or type cannot be part of a key, or is not what the key's columns say.
    #[error("{what}")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// The bytes are not a key of these columns.
    #[error("corrupt key at byte {offset}: {what}")]
    Corrupt {
        /// What was expected there.
        what: String,
        /// Bytes from the start of the key.
        offset: usize,
    },
}

/// The result of making or reading a key.
pub(crate) type Result<T, E = KeyError> = std::result::Result<T, E>;
