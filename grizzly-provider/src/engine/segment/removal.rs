//! Files that nothing in this process reads any more. Readers in other processes may still, so they stay for a while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use grizzly_wal::Storage;
use parking_lot::Mutex;

/// Removes files, at once or after some time.
#[derive(Debug)]
pub(crate) struct Removal {
    storage: Arc<dyn Storage>,
    /// How long they stay.
    grace: Duration,
    waiting: Mutex<Vec<(Instant, String)>>,
}

impl Removal {
    pub(crate) fn new(storage: Arc<dyn Storage>, grace: Duration) -> Self {
        Self { storage, grace, waiting: Mutex::default() }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Removes a file, or marks it to go later. What is not removed is found by the next start.
    pub(crate) fn remove(&self, path: String) {
        match self.grace.is_zero() {
            true => self.remove_now(&path),
            false => self.waiting.lock().push((Instant::now() + self.grace, path)),
        }
    }

    /// Removes the files whose time has come.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let due: Vec<_> = self.waiting.lock().extract_if(.., |(at, _)| *at <= now).collect();
        due.iter().for_each(|(_, path)| self.remove_now(path));
    }

    fn remove_now(&self, path: &str) {
        if let Err(error) = self.storage.remove(path) {
            tracing::warn!(file = path, %error, "an obsolete file stays until the next start");
        }
    }
}
