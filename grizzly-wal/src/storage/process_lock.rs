//! Writers of this process, by the storage they own: the lock of storages that have no lock file.

use std::any::Any;
use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::world::Mutex;

/// How many hold a storage together; `None` is one alone.
static OWNED: Mutex<BTreeMap<String, Option<usize>>> = Mutex::new(BTreeMap::new());

/// Held by the writer; dropping it lets the next one in.
struct ProcessLock(String);

/// Makes the caller the only writer of `storage` in this process.
pub(super) fn acquire(storage: &str) -> Result<Box<dyn Any + Send + Sync>> {
    let mut owned = OWNED.lock();
    if owned.contains_key(storage) {
        return Err(taken(storage));
    }
    owned.insert(storage.to_owned(), None);
    Ok(Box::new(ProcessLock(storage.to_owned())))
}

/// Makes the caller one of several in this process that share `storage`.
pub(super) fn acquire_shared(storage: &str) -> Result<Box<dyn Any + Send + Sync>> {
    match OWNED.lock().entry(storage.to_owned()).or_insert(Some(0)) {
        Some(holders) => *holders += 1,
        None => return Err(taken(storage)),
    }
    Ok(Box::new(ProcessLock(storage.to_owned())))
}

fn taken(storage: &str) -> Error {
    let holder = std::process::id();
    Error::new(ErrorKind::Locked, format!("{storage} is already open for writing in this process ({holder})"))
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        let mut owned = OWNED.lock();
        match owned.get_mut(&self.0) {
            Some(Some(holders)) if *holders > 1 => *holders -= 1,
            _ => drop(owned.remove(&self.0)),
        }
    }
}
