//! One number per row (a commit or a row version), stored once where all rows share it.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};

/// A number for each row of a chunk or segment.
#[derive(Debug, Clone)]
pub(crate) enum Stamps {
    /// Every row has this one.
    All(u64),
    /// Row by row.
    Each(Arc<[u64]>),
}

impl Stamps {
    /// The number of row `row`.
    pub(crate) fn get(&self, row: usize) -> u64 {
        match self {
            Self::All(value) => *value,
            Self::Each(values) => values[row],
        }
    }

    /// The rows `from..from + len`.
    pub(crate) fn slice(&self, from: usize, len: usize) -> Self {
        match self {
            Self::All(value) => Self::All(*value),
            Self::Each(values) => Self::Each(values[from..from + len].into()),
        }
    }

    /// The numbers of the given rows as a column.
    pub(crate) fn column(&self, rows: impl ExactSizeIterator<Item = usize>) -> ArrayRef {
        match self {
            Self::All(value) => Arc::new(UInt64Array::from_value(*value, rows.len())),
            Self::Each(values) => Arc::new(rows.map(|row| values[row]).collect::<UInt64Array>()),
        }
    }

    /// All parts, one behind the other; each with its number of rows.
    pub(crate) fn concat<'a>(parts: impl Iterator<Item = (&'a Self, usize)> + Clone) -> Self {
        let mut shared = None;
        let uniform = parts.clone().all(|(part, _)| match part {
            Self::All(value) => *shared.get_or_insert(*value) == *value,
            Self::Each(_) => false,
        });
        if uniform {
            return Self::All(shared.unwrap_or_default());
        }
        Self::Each(parts.flat_map(|(part, rows)| (0..rows).map(|row| part.get(row))).collect())
    }
}
