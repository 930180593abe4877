//! What may become of a commit.

use super::super::catalog::TableDef;
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
};

/// What became of a commit.
#[derive(Debug, Clone)]
#[must_use = "a commit may have been refused"]
pub enum CommitOutcome {
    /// All writes are visible, and durable as the settings promise.
    Committed {
        /// The commit's number.
        csn: Csn,
    },
    /// Nothing was written: another transaction committed first. It may be retried from the start.
    Conflict(Conflict),
}

/// Why a commit was refused.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The table.
    pub table: String,
    /// The key, as SQL would write it, or the row.
    pub key: String,
    /// The commit that came first.
    pub committed: Csn,
}

impl CommitOutcome {
    /// The commit's number, or the conflict as an [`Error`] of kind `Conflict` (SQLSTATE 40001).
    pub fn into_result(self) -> Result<Csn> {
        match self {
            Self::Committed { csn } => Ok(csn),
            Self::Conflict(conflict) => Err(conflict.into()),
        }
    }
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        let Conflict { table, key, committed } = conflict;
        let message = format!(
            "could not serialize access: table '{table}' key {key} was changed by commit {committed}; the transaction \
             may be retried"
        );
        Self::new(ErrorKind::Conflict, message)
    }
}

/// A duplicate key, as an error.
pub(crate) fn unique_violation(table: &TableDef, index: &str, key: &str) -> Error {
    let table = table.display_name();
    Error::new(ErrorKind::UniqueViolation, format!("table '{table}' already has key {key} in unique index '{index}'"))
}
