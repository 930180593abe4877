//! A storage that stops in the middle of a call, and everything with it, as a process does on SIGSTOP.

use std::{any::Any, ops::Range, sync::Arc};

use bytes::Bytes;
use grizzly_provider::storage::{AppendFile, Error, ErrorKind, ObjectMeta, PutMode, Result, Storage};
use parking_lot::{Condvar, Mutex};

/// Where a process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before bytes are added to the log.
    Append,
    /// Between that and its sync.
    Sync,
    /// When the sync is done, before anybody knows.
    Synced,
    /// Before an object below this folder is stored.
    Put(&'static str),
    /// After that.
    Stored(&'static str),
    /// Before an object below this folder is removed.
    Remove(&'static str),
    /// Before this folder is listed.
    List(&'static str),
    /// Before a log file is created.
    Create,
    /// Before a log file is removed.
    Truncate,
}

/// One process's view of a storage. Clones are the same process.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    inner: Arc<dyn Storage>,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    trap: Option<Point>,
    frozen: bool,
    /// Objects below this folder are stored, and reported as failed, so often.
    lies: Option<(&'static str, usize)>,
    /// There is no room for objects below this folder.
    full: Option<&'static str>,
    /// The listing of this folder behind so many others fails.
    unlisted: Option<(&'static str, usize)>,
    /// Nothing below this folder is removed.
    kept: Option<&'static str>,
    /// Calls that asked for something.
    reads: u64,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Stops at this point when it is next reached.
    pub(crate) fn stop_at(&self, point: Point) {
        self.state.0.lock().trap = Some(point);
    }

    /// Stops at once.
    pub(crate) fn freeze(&self) {
        self.state.0.lock().frozen = true;
    }

    /// Stores the next objects below a folder, and says that it failed, as storage does whose answer gets lost.
    pub(crate) fn lie_about(&self, folder: &'static str, times: usize) {
        self.state.0.lock().lies = Some((folder, times));
    }

    /// Refuses objects below a folder as a disk without room does.
    pub(crate) fn fill(&self, folder: &'static str) {
        self.state.0.lock().full = Some(folder);
    }

    /// Fails the listing of a folder that comes after `others`.
    pub(crate) fn fail_listing(&self, folder: &'static str, others: usize) {
        self.state.0.lock().unlisted = Some((folder, others));
    }

    /// Refuses to remove what is below a folder.
    pub(crate) fn fail_removals(&self, folder: &'static str) {
        self.state.0.lock().kept = Some(folder);
    }

    fn check_removal(&self, path: &str) -> Result<()> {
        match self.state.0.lock().kept.is_some_and(|folder| path.starts_with(folder)) {
            true => Err(Error::new(ErrorKind::Io, format!("cannot remove {path}: the connection was reset"))),
            false => Ok(()),
        }
    }

    fn is_unlisted(&self, prefix: &str) -> bool {
        let unlisted = &mut self.state.0.lock().unlisted;
        match unlisted {
            Some((folder, 0)) if prefix == *folder => {
                *unlisted = None;
                true
            }
            Some((folder, others)) if prefix == *folder => {
                *others -= 1;
                false
            }
            _ => false,
        }
    }

    fn lies(&self, path: &str) -> bool {
        match &mut self.state.0.lock().lies {
            Some((folder, times)) if *times > 0 && path.starts_with(*folder) => {
                *times -= 1;
                true
            }
            _ => false,
        }
    }

    /// Waits until everything stands still.
    pub(crate) fn wait(&self) {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        while !state.frozen {
            changed.wait(&mut state);
        }
    }

    /// Goes on, to stop at this point when it is next reached.
    pub(crate) fn go_on_to(&self, point: Point) {
        let mut state = self.state.0.lock();
        (state.trap, state.frozen) = (Some(point), false);
        drop(state);
        self.state.1.notify_all();
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.state.0.lock().frozen
    }

    /// How often this process has read or listed something since it was last told to go on.
    pub(crate) fn reads(&self) -> u64 {
        self.state.0.lock().reads
    }

    pub(crate) fn thaw(&self) {
        *self.state.0.lock() = State::default();
        self.state.1.notify_all();
    }

    /// Gets past this point unless everything stands still.
    fn pass(&self, reached: impl Fn(Point) -> bool) {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        if state.trap.is_some_and(reached) {
            (state.trap, state.frozen) = (None, true);
            changed.notify_all();
        }
        while state.frozen {
            changed.wait(&mut state);
        }
    }

    fn any(&self) -> &dyn Storage {
        self.pass(|_| false);
        self.state.0.lock().reads += 1;
        self.inner.as_ref()
    }
}

impl Storage for Gate {
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> Result<()> {
        self.pass(|point| matches!(point, Point::Put(folder) if path.starts_with(folder)));
        if self.state.0.lock().full.is_some_and(|folder| path.starts_with(folder)) {
            return Err(Error::new(ErrorKind::Full, format!("cannot write {path}: no space left on device")));
        }
        let stored = self.inner.put(path, parts, mode);
        self.pass(|point| matches!(point, Point::Stored(folder) if path.starts_with(folder)));
        if self.lies(path) {
            return Err(Error::new(ErrorKind::Io, format!("cannot write {path}: the connection was reset")));
        }
        stored
    }

    fn get(&self, path: &str) -> Result<Bytes> {
        self.any().get(path)
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        self.any().get_range(path, range)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.pass(|point| matches!(point, Point::List(folder) if prefix == folder));
        self.state.0.lock().reads += 1;
        if self.is_unlisted(prefix) {
            return Err(Error::new(ErrorKind::Io, format!("cannot list {prefix}: the connection was reset")));
        }
        self.inner.list(prefix)
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.pass(|point| matches!(point, Point::Remove(folder) if path.starts_with(folder)));
        self.check_removal(path)?;
        self.inner.remove(path)
    }

    fn create_append(&self, path: &str, preallocate: u64) -> Result<Box<dyn AppendFile>> {
        self.pass(|point| point == Point::Create);
        let file = self.inner.create_append(path, preallocate)?;
        Ok(Box::new(GatedFile { gate: self.clone(), file }))
    }

    fn read_append(&self, path: &str) -> Result<Bytes> {
        self.any().read_append(path)
    }

    fn read_append_from(&self, path: &str, offset: u64) -> Result<Bytes> {
        self.any().read_append_from(path, offset)
    }

    fn peek_append(&self, path: &str, len: usize) -> Result<Bytes> {
        self.any().peek_append(path, len)
    }

    fn size_append(&self, path: &str) -> Result<u64> {
        self.any().size_append(path)
    }

    fn seal_append(&self, path: &str) -> Result<Bytes> {
        self.any().seal_append(path)
    }

    fn list_append(&self, prefix: &str) -> Result<Vec<String>> {
        self.any().list_append(prefix)
    }

    fn remove_append(&self, path: &str) -> Result<()> {
        self.pass(|point| point == Point::Truncate);
        self.check_removal(path)?;
        self.inner.remove_append(path)
    }

    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock()
    }

    fn lock_shared(&self) -> Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock_shared()
    }

    fn lock_excludes(&self) -> bool {
        self.inner.lock_excludes()
    }

    fn seal_shuts_out(&self) -> bool {
        self.inner.seal_shuts_out()
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

struct GatedFile {
    gate: Gate,
    file: Box<dyn AppendFile>,
}

impl AppendFile for GatedFile {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        self.gate.pass(|point| point == Point::Append);
        self.file.append(data)
    }

    fn sync(&mut self) -> Result<()> {
        self.gate.pass(|point| point == Point::Sync);
        let synced = self.file.sync();
        self.gate.pass(|point| point == Point::Synced);
        synced
    }
}
