//! Things a client refers to by an opaque handle: transactions, prepared statements, planned statements.
//!
//! Each belongs to whoever opened it, and so does the limit on their number: one client that closes nothing is in
//! nobody's way but its own.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use grizzly_provider::{Error, ErrorKind};
use parking_lot::Mutex;
use tonic::Status;
use uuid::Uuid;

use crate::error::{not_found, status};

/// Who opens things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner(u64);

impl Owner {
    /// The one that `key` names.
    pub(crate) fn of(key: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What happens to an owner who opens more than he may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// The new thing is refused.
    Refuse,
    /// His oldest thing goes.
    DropOldest,
}

/// Values by handle, each with the time it was last asked for.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    what: &'static str,
    capacity: usize,
    when_full: WhenFull,
    entries: Mutex<Entries<T>>,
}

#[derive(Debug)]
struct Entries<T> {
    by_handle: HashMap<Bytes, Entry<T>>,
    /// Handles of each owner, oldest first.
    by_owner: HashMap<Owner, VecDeque<Bytes>>,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    owner: Owner,
    touched: Instant,
}

impl<T> Handles<T> {
    /// Empty; `what` names the things in errors, `capacity` is how many each owner may have open at once.
    pub(crate) fn new(what: &'static str, capacity: usize, when_full: WhenFull) -> Self {
        let entries = Entries { by_handle: HashMap::new(), by_owner: HashMap::new() };
        Self { what, capacity, when_full, entries: Mutex::new(entries) }
    }

    /// Keeps `value` and returns its new handle, which nobody can guess.
    pub(crate) fn insert(&self, owner: Owner, value: T) -> Result<Bytes, Status> {
        let mut entries = self.entries.lock();
        let own = entries.by_owner.get(&owner).map_or(0, VecDeque::len);
        // Dropped without the lock: it may take a while.
        let mut gone = None;
        if own >= self.capacity {
            match self.when_full {
                WhenFull::Refuse => {
                    let message = format!("{own} {}s are open; close some", self.what);
                    return Err(status(&Error::new(ErrorKind::Resource, message)));
                }
                WhenFull::DropOldest => {
                    let oldest = entries.by_owner.get(&owner).and_then(|own| own.front().cloned());
                    gone = oldest.and_then(|oldest| entries.remove(&oldest));
                }
            }
        }
        let handle = Bytes::copy_from_slice(Uuid::new_v4().as_bytes());
        entries.by_owner.entry(owner).or_default().push_back(handle.clone());
        entries.by_handle.insert(handle.clone(), Entry { value: Arc::new(value), owner, touched: Instant::now() });
        drop(entries);
        drop(gone);
        Ok(handle)
    }

    /// The value of a handle; asking keeps it alive.
    pub(crate) fn get(&self, handle: &[u8]) -> Result<Arc<T>, Status> {
        let mut entries = self.entries.lock();
        let entry = entries.by_handle.get_mut(handle).ok_or_else(|| self.unknown(handle))?;
        entry.touched = Instant::now();
        Ok(Arc::clone(&entry.value))
    }

    /// Forgets a handle and returns its value.
    pub(crate) fn remove(&self, handle: &[u8]) -> Result<Arc<T>, Status> {
        let removed = self.entries.lock().remove(handle);
        removed.map(|entry| entry.value).ok_or_else(|| self.unknown(handle))
    }

    /// Forgets everything of an owner, and returns it.
    pub(crate) fn remove_all(&self, owner: Owner) -> Vec<Arc<T>> {
        let mut entries = self.entries.lock();
        let own = entries.by_owner.remove(&owner).unwrap_or_default();
        own.iter().filter_map(|handle| entries.by_handle.remove(handle)).map(|entry| entry.value).collect()
    }

    /// Forgets the values for which `keep` is false, given how long nobody asked for them, and returns them.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&T, Duration) -> bool) -> Vec<Arc<T>> {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        let gone = entries.by_handle.iter().filter(|(_, entry)| !keep(&entry.value, now.duration_since(entry.touched)));
        let gone: Vec<Bytes> = gone.map(|(handle, _)| handle.clone()).collect();
        gone.iter().filter_map(|handle| entries.remove(handle)).map(|entry| entry.value).collect()
    }

    fn unknown(&self, handle: &[u8]) -> Status {
        let id = Uuid::from_slice(handle).map_or_else(|_| "malformed handle".to_owned(), |id| id.to_string());
        not_found(format!("no {} {id}: it was closed, or it expired", self.what))
    }
}

impl<T> Entries<T> {
    fn remove(&mut self, handle: &[u8]) -> Option<Entry<T>> {
        let entry = self.by_handle.remove(handle)?;
        if let Some(own) = self.by_owner.get_mut(&entry.owner) {
            if let Some(at) = own.iter().position(|candidate| candidate == handle) {
                own.remove(at);
            }
            if own.is_empty() {
                self.by_owner.remove(&entry.owner);
            }
        }
        Some(entry)
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
        let handles = Handles::new("thing", 2, WhenFull::Refuse);
        let (me, you) = (Owner::of(&1), Owner::of(&2));
        let one = handles.insert(me, 1).expect("room for two");
        let two = handles.insert(me, 2).expect("room for two");
        assert_eq!(handles.insert(me, 3).expect_err("full").code(), tonic::Code::ResourceExhausted);
        handles.insert(you, 4).expect("somebody else's things are in nobody's way");
        assert_eq!(*handles.get(&one).expect("open"), 1);
        assert_eq!(handles.retain(|value, _| *value != 2).len(), 1);
        assert_eq!(handles.get(&two).expect_err("dropped").code(), tonic::Code::NotFound);
        assert_eq!(*handles.remove(&one).expect("open"), 1);
        assert!(handles.remove(&one).is_err());
        handles.insert(me, 5).expect("there is room again");
        assert_eq!(handles.remove_all(me).len(), 1);
        assert_eq!(handles.remove_all(you).len(), 1);
        assert!(handles.entries.lock().by_owner.is_empty());
    }

    #[test]
    fn the_oldest_goes_where_that_is_the_rule() {
        let handles = Handles::new("thing", 2, WhenFull::DropOldest);
        let me = Owner::of(&1);
        let all: Vec<_> = (0..5).map(|n| handles.insert(me, n).expect("there is always room")).collect();
        let open: Vec<_> = all.iter().filter_map(|handle| handles.get(handle).ok()).map(|value| *value).collect();
        assert_eq!(open, [3, 4]);
    }
}
