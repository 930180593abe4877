//! Files that nothing in this process reads any more. Readers in other processes may still, so they stay for a while.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use grizzly_wal::{
    Storage,
    world::{self, Mutex},
};

use super::meta::{DATA_DIR, SegmentKey, segment_of_path};

/// Removes files, at once or after some time.
#[derive(Debug)]
pub(crate) struct Removal {
    storage: Arc<dyn Storage>,
    /// How long they stay.
    grace: Duration,
    waiting: Mutex<Vec<(Instant, String)>>,
    /// Segments whose files nothing reads any more.
    segments: Mutex<HashSet<SegmentKey>>,
    /// Segments that are open.
    open: Mutex<HashMap<SegmentKey, Weak<InUse>>>,
}

/// A segment's files are in use while this lives. One segment may be open several times: as it was read at a start, and as
/// it was read again when the log went on.
#[derive(Debug)]
pub(crate) struct InUse {
    segment: SegmentKey,
    removal: Arc<Removal>,
    obsolete: AtomicBool,
}

impl InUse {
    /// The files go with the last user.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // Unless it was opened again meanwhile.
        let mut open = self.removal.open.lock();
        if open.get(&self.segment).is_some_and(|in_use| in_use.strong_count() == 0) {
            open.remove(&self.segment);
        }
        drop(open);
        if self.obsolete.load(Ordering::Acquire) {
            self.removal.remove_segment(self.segment);
        }
    }
}

impl Removal {
    pub(crate) fn new(storage: Arc<dyn Storage>, grace: Duration) -> Self {
        Self { storage, grace, waiting: Mutex::default(), segments: Mutex::default(), open: Mutex::default() }
    }

    /// The files of a segment are used from here on.
    pub(crate) fn in_use(self: &Arc<Self>, segment: SegmentKey) -> Arc<InUse> {
        let mut open = self.open.lock();
        if let Some(in_use) = open.get(&segment).and_then(Weak::upgrade) {
            return in_use;
        }
        let in_use = Arc::new(InUse { segment, removal: Arc::clone(self), obsolete: AtomicBool::new(false) });
        open.insert(segment, Arc::downgrade(&in_use));
        in_use
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Removes a file, or marks it to go later. What is not removed is found by the next start.
    pub(crate) fn remove(&self, path: String) {
        match self.grace.is_zero() {
            true => self.remove_now(&path),
            false => self.waiting.lock().push((world::instant() + self.grace, path)),
        }
    }

    /// Notes that a file may go. A backup that is being made may be about to copy it, so it is removed by the next
    /// [`Removal::sweep`].
    pub(crate) fn remove_later(&self, path: String) {
        self.waiting.lock().push((world::instant() + self.grace, path));
    }

    /// A file is stored anew that was to go.
    pub(crate) fn keep(&self, path: &str) {
        self.waiting.lock().retain(|(_, waiting)| waiting != path);
    }

    /// Notes that a segment's files may go. Whoever lets go of a segment last may be a query or hold a lock, so the files
    /// are removed by the next [`Removal::sweep`].
    pub(crate) fn remove_segment(&self, segment: SegmentKey) {
        self.segments.lock().insert(segment);
    }

    /// Removes the files whose time has come.
    pub(crate) fn sweep(&self) {
        self.sweep_segments();
        let now = world::instant();
        let due: Vec<_> = self.waiting.lock().extract_if(.., |(at, _)| *at <= now).collect();
        due.iter().for_each(|(_, path)| self.remove_now(path));
    }

    fn sweep_segments(&self) {
        let segments = std::mem::take(&mut *self.segments.lock());
        if segments.is_empty() {
            return;
        }
        match self.storage.list(DATA_DIR) {
            Ok(files) => {
                let of_one = |path: &str| segment_of_path(path).is_some_and(|segment| segments.contains(&segment));
                files.into_iter().filter(|file| of_one(&file.path)).for_each(|file| self.remove(file.path));
            }
            Err(error) => {
                tracing::warn!(%error, "obsolete files stay for a while");
                self.segments.lock().extend(segments);
            }
        }
    }

    fn remove_now(&self, path: &str) {
        if let Err(error) = self.storage.remove(path) {
            tracing::warn!(file = path, %error, "an obsolete file stays until the next start");
        }
    }
}
