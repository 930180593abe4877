//! Reading a whole log only to see whether it is whole.

use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::ids::Lsn;
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
/// from `wanted` on if the log reaches back so far.
///
/// # Errors
/// Only if reading is impossible; damage is in the result.
pub fn check_log(storage: &Arc<dyn Storage>, dir: &str, needed: Lsn, wanted: Lsn) -> Result<LogCheck> {
    for _ in 1..ATTEMPTS {
        match attempt(storage, dir, needed, wanted) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            outcome => return outcome,
        }
    }
    attempt(storage, dir, needed, wanted)
}

fn attempt(storage: &Arc<dyn Storage>, dir: &str, needed: Lsn, wanted: Lsn) -> Result<LogCheck> {
    let mut check = LogCheck::default();
    let read = |from| reader::read(Arc::clone(storage), dir, from);
    let reader = match read(wanted) {
        // A removal that a crash has undone may have left older files with a gap behind them.
        Err(error) if error.kind() == ErrorKind::Corrupt => read(needed),
        reader => reader,
    };
    let outcome = reader.and_then(|mut reader| {
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
