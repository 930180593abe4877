//! Things a client refers to by an opaque handle: transactions, prepared statements, planned statements.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use grizzly_provider::{Error, ErrorKind};
use parking_lot::Mutex;
use tonic::Status;
use uuid::Uuid;

use crate::error::{not_found, status};

/// Values by handle, each with the time it was last asked for.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    what: &'static str,
    capacity: usize,
    entries: Mutex<HashMap<Bytes, Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    touched: Instant,
}

impl<T> Handles<T> {
    /// Empty; `what` names the things in errors, `capacity` is how many may be open at once.
    pub(crate) fn new(what: &'static str, capacity: usize) -> Self {
        Self { what, capacity, entries: Mutex::default() }
    }

    /// Keeps `value` and returns its new handle, which nobody can guess.
    pub(crate) fn insert(&self, value: T) -> Result<Bytes, Status> {
        let mut entries = self.entries.lock();
        if entries.len() >= self.capacity {
            let message = format!("{} {}s are open; close some", entries.len(), self.what);
            return Err(status(&Error::new(ErrorKind::Resource, message)));
        }
        let handle = Bytes::copy_from_slice(Uuid::new_v4().as_bytes());
        entries.insert(handle.clone(), Entry { value: Arc::new(value), touched: Instant::now() });
        Ok(handle)
    }

    /// The value of a handle; asking keeps it alive.
    pub(crate) fn get(&self, handle: &[u8]) -> Result<Arc<T>, Status> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(handle).ok_or_else(|| self.unknown(handle))?;
        entry.touched = Instant::now();
        Ok(Arc::clone(&entry.value))
    }

    /// Forgets a handle and returns its value.
    pub(crate) fn remove(&self, handle: &[u8]) -> Result<Arc<T>, Status> {
        let removed = self.entries.lock().remove(handle);
        removed.map(|entry| entry.value).ok_or_else(|| self.unknown(handle))
    }

    /// Forgets the values for which `keep` is false, given how long nobody asked for them, and returns them.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&T, Duration) -> bool) -> Vec<Arc<T>> {
        let now = Instant::now();
        let mut dropped = Vec::new();
        self.entries.lock().retain(|_, entry| {
            let keep = keep(&entry.value, now.duration_since(entry.touched));
            if !keep {
                dropped.push(Arc::clone(&entry.value));
            }
            keep
        });
        dropped
    }

    fn unknown(&self, handle: &[u8]) -> Status {
        let id = Uuid::from_slice(handle).map_or_else(|_| "malformed handle".to_owned(), |id| id.to_string());
        not_found(format!("no {} {id}: it was closed, or it expired", self.what))
    }
}

/// A Flight SQL message as it stands in descriptors and tickets.
pub(crate) fn packed(message: &impl arrow_flight::sql::ProstMessageExt) -> Bytes {
    prost::Message::encode_to_vec(&message.as_any()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_lives_until_removed_or_expired() {
        let handles = Handles::new("thing", 2);
        let one = handles.insert(1).expect("room for two");
        let two = handles.insert(2).expect("room for two");
        assert_eq!(handles.insert(3).expect_err("full").code(), tonic::Code::ResourceExhausted);
        assert_eq!(*handles.get(&one).expect("open"), 1);
        assert_eq!(handles.retain(|value, _| *value != 2).len(), 1);
        assert_eq!(handles.get(&two).expect_err("dropped").code(), tonic::Code::NotFound);
        assert_eq!(*handles.remove(&one).expect("open"), 1);
        assert!(handles.remove(&one).is_err());
    }
}
