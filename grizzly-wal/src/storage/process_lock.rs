//! Writers of this process, by the storage they own: the lock of storages that have no lock file.

use std::any::Any;
use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

static OWNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Held by the writer; dropping it lets the next one in.
struct ProcessLock(String);

/// Makes the caller the only writer of `storage` in this process.
pub(super) fn acquire(storage: &str) -> Result<Box<dyn Any + Send + Sync>> {
    if !OWNED.lock().insert(storage.to_owned()) {
        let holder = std::process::id();
        let message = format!("{storage} is already open for writing in this process ({holder})");
        return Err(Error::new(ErrorKind::Locked, message));
    }
    Ok(Box::new(ProcessLock(storage.to_owned())))
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        OWNED.lock().remove(&self.0);
    }
}
