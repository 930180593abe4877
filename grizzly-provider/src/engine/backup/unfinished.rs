//! The mark of a restore that is under way.

use std::sync::Arc;

use bytes::Bytes;
use grizzly_wal::{PutMode, Storage};

use crate::error::{Error, Result};

/// Stands in a folder while it is being restored to, and keeps it from being taken for an empty database.
const MARKER: &str = "restore-incomplete";

/// Marks a place that a restore begins to fill.
pub(super) fn mark(into: &Arc<dyn Storage>) -> Result<()> {
    let text = Bytes::from_static(b"a restore was begun here and not finished\n");
    Ok(into.put(MARKER, &[text], PutMode::Create)?)
}

/// The restore is finished.
pub(super) fn unmark(into: &Arc<dyn Storage>) -> Result<()> {
    Ok(into.remove(MARKER)?)
}

/// An error if a restore was begun here and not finished: what is there looks like a database, and lacks parts.
pub(crate) fn check_whole(storage: &Arc<dyn Storage>) -> Result<()> {
    match storage.get(MARKER) {
        Err(error) if error.kind() == grizzly_wal::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Error::invalid(format!(
            "a restore into '{}' was not finished: remove everything there and restore again",
            storage.url()
        ))),
    }
}
