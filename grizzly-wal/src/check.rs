//! Reading a whole log only to see whether it is whole.

use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::files;
use crate::ids::Lsn;
use crate::known::Known;
use crate::reader;
use crate::storage::Storage;

/// How often reading begins again because the log's writer removed the file that was to be read.
const ATTEMPTS: usize = 5;

/// What [`check_log`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogCheck {
    /// Records that are sound.
    pub records: u64,
    /// Where files end within a record; see [`LogReader::torn`](crate::LogReader::torn).
    pub torn: Vec<String>,
    /// What is damaged, naming file and byte.
    pub problem: Option<String>,
}

/// Reads every record of the log in folder `dir` that is needed, also while it is being written: from `needed` on, and
/// from `wanted` on if the log reaches back so far. What is `known` of it is compared.
///
/// # Errors
/// Only if reading is impossible; damage is in the result.
pub fn check_log(storage: &Arc<dyn Storage>, dir: &str, needed: Lsn, wanted: Lsn, known: Known) -> Result<LogCheck> {
    for _ in 1..ATTEMPTS {
        match attempt(storage, dir, needed, wanted, known) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            outcome => return outcome,
        }
    }
    attempt(storage, dir, needed, wanted, known)
}

fn attempt(storage: &Arc<dyn Storage>, dir: &str, needed: Lsn, wanted: Lsn, known: Known) -> Result<LogCheck> {
    let mut check = LogCheck::default();
    let outcome = oldest(storage, dir).and_then(|oldest| {
        let from = if oldest.is_some_and(|oldest| oldest <= wanted) { wanted } else { needed };
        let mut reader = reader::read(Arc::clone(storage), dir, from)?.knowing(known);
        for record in &mut reader {
            record?;
            check.records += 1;
        }
        check.torn = reader.torn().to_vec();
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(check),
        Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::NotFound | ErrorKind::Permission) => Err(error),
        Err(error) => Ok(LogCheck { problem: Some(error.message().to_owned()), ..check }),
    }
}

/// The first record of the oldest file that was ever started.
fn oldest(storage: &Arc<dyn Storage>, dir: &str) -> Result<Option<Lsn>> {
    for file in files::list(storage.as_ref(), dir)? {
        if let Some(header) = files::probe(storage.as_ref(), &file)? {
            return Ok(Some(header.first_lsn));
        }
    }
    Ok(None)
}
