//! How much memory rows take that are in no file yet, and who waits when it is too much.

use std::time::Duration;

use super::super::core::Inner;
use crate::error::{Error, ErrorKind, Result};

/// The part of the memory that rows without files may take before writers wait, as a divisor. A quarter of it is
/// enough for a flush.
const HOT_SHARE: u64 = 4;
/// How long a writer waits for a flush at a time when memory is full.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// Waits while memory is full of rows that are not in files.
///
/// # Errors
/// `DiskFull` or `Resource`, with the reason, if they cannot be stored.
pub(crate) fn wait_for_room(db: &Inner) -> Result<()> {
    let (rows, bytes) = (8 * db.settings.flush_rows as u64, db.settings.memory_bytes as u64 / HOT_SHARE);
    while db.settings.background && db.hot.exceed(rows, bytes) {
        let failure = db.signals.wait_for_flush(ROOM_WAIT);
        db.check_writable()?;
        if let Some((kind, failure)) = failure {
            let message = "memory is full of rows that could not be stored in files";
            let kind = if kind == ErrorKind::DiskFull { kind } else { ErrorKind::Resource };
            return Err(Error::new(kind, format!("{message} ('{}'): {failure}", db.url)));
        }
    }
    Ok(())
}

/// A commit added rows.
pub(crate) fn added(db: &Inner, rows: u64, bytes: u64) {
    let before = needs_flush(db);
    db.hot.add(rows, bytes);
    if db.settings.background && !before && needs_flush(db) {
        db.signals.wake();
    }
}

/// Whether hot rows should become files.
pub(super) fn needs_flush(db: &Inner) -> bool {
    let bytes = db.settings.memory_bytes as u64 / (4 * HOT_SHARE);
    db.hot.exceed(db.settings.flush_rows as u64, bytes.max(1))
}
