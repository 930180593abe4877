//! Indexes: sorted keys and the rows they belong to.
//!
//! A cold segment has one immutable [`IndexRun`] per index, whose bytes are the same in memory and on disk; the hot
//! segment has one live [`HotIndex`]. Both hold keys of one [`KeyEncoder`](super::key::KeyEncoder) and row numbers of
//! their segment, and both answer a [`KeyRange`](crate::access::KeyRange) in key order. Neither knows which rows are
//! visible: whoever asks checks that, and runs the original predicate again.

use std::ops::ControlFlow;

mod bits;
mod block;
mod builder;
mod cursor;
mod format;
mod hot;
mod run;
mod sorter;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use builder::RunBuilder;
#[cfg(test)]
pub(crate) use cursor::first_common_key;
pub(crate) use cursor::for_each_common_key;
pub(crate) use hot::HotIndex;
pub(crate) use run::IndexRun;
pub(crate) use sorter::RunSorter;

/// Why an index could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IndexError {
    /// The file is of a kind or version that this program does not know.
    #[error("{what}")]
    Unsupported {
        /// What was found.
        what: String,
    },
    /// The bytes are not an index run.
    #[error("corrupt index run at byte {offset}: {what}")]
    Corrupt {
        /// What was expected there.
        what: String,
        /// Bytes from the start of the run.
        offset: usize,
    },
}

/// What is called with a key and two rows that have it.
pub(crate) type PairVisitor<'a> = dyn FnMut(&[u8], u32, u32) -> ControlFlow<()> + 'a;

/// Is told a key that two runs have, and its rows in each, and says whether to go on.
pub(crate) type CommonKeyVisitor<'a> = dyn FnMut(&[u8], &[u32], &[u32]) -> ControlFlow<()> + 'a;

/// The result of reading an index.
pub(crate) type Result<T, E = IndexError> = std::result::Result<T, E>;
