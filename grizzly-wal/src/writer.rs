//! The writing end of the log, used from many threads at once.
//!
//! `append` only puts a record into a buffer, in the order of the calls. One thread (see `log_thread`) takes all that
//! is there, writes and syncs it once, and wakes whoever waits: the more writers, the larger the group, the cheaper
//! each commit.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::codec::{FileHeader, Packed};
use crate::error::{Error, Result};
use crate::files::{self, LogFile};
use crate::ids::Lsn;
use crate::known::Known;
use crate::log_thread::{AfterSync, Counters, LogThread};
use crate::progress::{Durable, Progress};
use crate::record::{NewRecord, RecordHeader};
use crate::storage::{AppendFile, Storage};
use crate::world::{Condvar, JoinHandle, Mutex};

/// Called by the log thread with the last durable record, before anybody who waits for it wakes up.
pub type OnDurable = Box<dyn Fn(Lsn) + Send + Sync>;

/// Called by the log thread after each sync, before anybody hears of it. An error ends the log, as a failed sync does.
pub type Fence = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// How a log is written. Reading works the same whatever was set here.
pub struct WalOptions {
    /// A file that has this many bytes is followed by a new one. Space is reserved in steps up to this size.
    pub segment_bytes: u64,
    /// Payloads larger than this many bytes are compressed, if that makes them smaller.
    pub compress_above: usize,
    /// Bytes that may wait to be written; `append` blocks beyond that.
    pub buffer_bytes: usize,
    /// Called after each sync with the last durable record, in order, before the waiters wake up. It must not block
    /// on this log.
    pub on_durable: Option<OnDurable>,
    /// Asked after each sync whether this writer had not been replaced by then.
    pub fence: Option<Fence>,
    /// Which of several writers that replace each other this is: greater than that of all before, or 0 if the log
    /// never changes hands. With an epoch, whatever an earlier writer adds from now on is ignored by all readers.
    pub epoch: u64,
    /// Whose log it is. Files say it, and those that say something else are refused.
    pub owner: Option<u128>,
    /// Nobody reads the log while it is written. Then what an append that failed has left is taken back, and the records
    /// are known not to have been written; otherwise a reader may have seen them.
    pub sole: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        let (on_durable, fence) = (None, None);
        Self {
            segment_bytes: 64 << 20,
            compress_above: 4096,
            buffer_bytes: 64 << 20,
            on_durable,
            fence,
            epoch: 0,
            owner: None,
            sole: false,
        }
    }
}

impl WalOptions {
    pub(crate) fn check(&self) -> Result<()> {
        if self.segment_bytes == 0 || self.buffer_bytes == 0 {
            return Err(Error::invalid("segment_bytes and buffer_bytes of a log must not be zero"));
        }
        Ok(())
    }
}

impl fmt::Debug for WalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalOptions")
            .field("segment_bytes", &self.segment_bytes)
            .field("compress_above", &self.compress_above)
            .field("buffer_bytes", &self.buffer_bytes)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What a log has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalStats {
    /// Records made durable.
    pub records: u64,
    /// Bytes written for them, headers and padding included.
    pub bytes: u64,
    /// Groups written, each with one sync.
    pub syncs: u64,
    /// Records in the largest group.
    pub largest_group: u64,
}

impl WalStats {
    /// Records per sync.
    pub fn mean_group(&self) -> f64 {
        if self.syncs == 0 { 0.0 } else { self.records as f64 / self.syncs as f64 }
    }
}

/// A log that can be written. Dropping it syncs what is buffered, as [`close`](Self::close) does.
pub struct Wal {
    shared: Arc<Shared>,
    compress_above: usize,
    buffer_bytes: usize,
    owner: Option<u128>,
    thread: Mutex<Option<JoinHandle>>,
}

/// What the log thread and the callers have in common.
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: String,
    pub(crate) queue: Mutex<Queue>,
    /// The log thread sleeps here while there is nothing to write.
    pub(crate) work: Condvar,
    /// Callers sleep here while the buffer is full or a new file is being started.
    pub(crate) room: Condvar,
    pub(crate) progress: Arc<Progress>,
    /// Mirrors `Queue::next_lsn`.
    pub(crate) next_lsn: AtomicU64,
    /// All files that are there, oldest first; the last one is being written.
    pub(crate) files: Mutex<Vec<LogFile>>,
    /// Held while the oldest of them are removed.
    truncating: Mutex<()>,
    /// The number of the last one. Read by those who must not wait while old ones are removed.
    pub(crate) newest: AtomicU64,
    pub(crate) counters: Counters,
}

/// What waits to be written.
pub(crate) struct Queue {
    pub(crate) frames: Vec<u8>,
    pub(crate) next_lsn: Lsn,
    /// Frames from this offset on, which begin with this record, belong into a new file.
    pub(crate) split: Option<(usize, Lsn)>,
    /// The first record of the file being written.
    pub(crate) file_first: Lsn,
    /// The log thread sleeps and must be woken.
    pub(crate) idle: bool,
    pub(crate) closing: bool,
    /// The log thread has ended.
    pub(crate) stopped: bool,
}

impl Wal {
    /// Starts the log thread on a file whose header is durable.
    pub(crate) fn start(
        storage: Arc<dyn Storage>,
        dir: String,
        files: Vec<LogFile>,
        file: Box<dyn AppendFile>,
        header: FileHeader,
        options: WalOptions,
    ) -> Result<Self> {
        let next = header.first_lsn;
        let queue = Queue {
            frames: Vec::new(),
            next_lsn: next,
            split: None,
            file_first: next,
            idle: false,
            closing: false,
            stopped: false,
        };
        let shared = Arc::new(Shared {
            storage,
            dir,
            queue: Mutex::new(queue),
            work: Condvar::new(),
            room: Condvar::new(),
            progress: Arc::new(Progress::new(Lsn(next.0 - 1))),
            next_lsn: AtomicU64::new(next.0),
            newest: AtomicU64::new(files.last().map_or(0, |file| file.number)),
            files: Mutex::new(files),
            truncating: Mutex::default(),
            counters: Counters::default(),
        });
        let WalOptions { segment_bytes, compress_above, buffer_bytes, on_durable, fence, owner, sole, .. } = options;
        let then = AfterSync { on_durable, fence };
        let thread = LogThread::new(Arc::clone(&shared), file, header, (segment_bytes, sole), then)?.spawn()?;
        Ok(Self { shared, compress_above, buffer_bytes, owner, thread: Mutex::new(Some(thread)) })
    }

    /// Puts a record into the buffer and returns its number. The order of the calls is the order in the log. Blocks
    /// while the buffer is full.
    ///
    /// # Errors
    /// After a failure the same as of [`wait_durable`](Self::wait_durable), [`ErrorKind::Closed`](crate::ErrorKind)
    /// after the close, [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the payload is too large.
    pub fn append(&self, record: NewRecord) -> Result<Lsn> {
        let NewRecord { txn, commit_ts, kind, payload } = record;
        let packed = Packed::new(payload, self.compress_above, self.shared.storage.key().is_some())?;
        let mut queue = self.shared.queue.lock();
        loop {
            self.shared.refuse_if_ended(&queue)?;
            // A record larger than the whole buffer goes alone.
            if queue.frames.is_empty() || queue.frames.len() + packed.frame_len() <= self.buffer_bytes {
                break;
            }
            self.shared.room.wait(&mut queue);
        }
        let lsn = queue.next_lsn;
        queue.next_lsn = lsn.next();
        self.shared.next_lsn.store(queue.next_lsn.0, Ordering::Release);
        packed.encode(&RecordHeader { lsn, txn, commit_ts, kind }, &mut queue.frames);
        let idle = std::mem::replace(&mut queue.idle, false);
        drop(queue);
        if idle {
            self.shared.work.notify_one();
        }
        Ok(lsn)
    }

    /// Blocks the calling thread until the record and all before it are durable.
    ///
    /// # Errors
    /// If that will never be, with the first cause: [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) where it is
    /// unknown whether the next [`open`](crate::open) finds the record, [`ErrorKind::Full`](crate::ErrorKind::Full) or
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where nothing of it is stored. [`ErrorKind::Invalid`](crate::ErrorKind)
    /// for a number that was never given out.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.check_known(lsn)?;
        self.shared.progress.wait(lsn)
    }

    /// The same as [`wait_durable`](Self::wait_durable) for async code.
    pub fn durable(&self, lsn: Lsn) -> Durable {
        let progress = Arc::clone(&self.shared.progress);
        match self.check_known(lsn) {
            Ok(()) => Durable::new(progress, lsn),
            Err(error) => Durable::refused(progress, error),
        }
    }

    fn check_known(&self, lsn: Lsn) -> Result<()> {
        let next = self.next_lsn();
        if lsn < next {
            return Ok(());
        }
        Err(Error::invalid(format!("record {lsn} was never appended; the next one is {next}")))
    }

    /// The last record that is durable; zero if there is none.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.progress.durable()
    }

    /// What whoever reads this log later must find, for word of it to be left elsewhere.
    pub fn known(&self) -> Known {
        // In this order: a record is durable in a file that was there by then.
        let last = self.durable_lsn();
        Known { owner: self.owner, file: self.shared.newest.load(Ordering::Acquire), last }
    }

    /// The number the next record gets.
    pub fn next_lsn(&self) -> Lsn {
        Lsn(self.shared.next_lsn.load(Ordering::Acquire))
    }

    /// Lets later records go to a new file, and returns the first of them. Does nothing if the file being written has
    /// no record yet. Waits until the new file is there and everything before it is durable.
    pub fn rotate(&self) -> Result<Lsn> {
        let first = self.split()?;
        self.wait_split(first)?;
        Ok(first)
    }

    /// Lets later records go to a new file, as [`rotate`](Self::rotate) does, but does not wait for it: for callers that
    /// hold a lock. [`wait_split`](Self::wait_split) waits.
    ///
    /// # Errors
    /// Once the log has ended, as [`append`](Self::append).
    pub fn split(&self) -> Result<Lsn> {
        let mut queue = self.shared.queue.lock();
        while queue.split.is_some() {
            self.shared.refuse_if_ended(&queue)?;
            self.shared.room.wait(&mut queue);
        }
        self.shared.refuse_if_ended(&queue)?;
        let first = queue.next_lsn;
        if first > queue.file_first {
            queue.split = Some((queue.frames.len(), first));
            queue.idle = false;
            drop(queue);
            self.shared.work.notify_one();
        }
        Ok(first)
    }

    /// Waits until the file that begins with record `first`, which [`split`](Self::split) returned, is there and everything
    /// before it is durable.
    ///
    /// # Errors
    /// If the log ends before, the same as of [`append`](Self::append).
    pub fn wait_split(&self, first: Lsn) -> Result<()> {
        let mut queue = self.shared.queue.lock();
        while queue.file_first < first {
            if queue.stopped || self.shared.progress.failure().is_some() {
                return self.shared.refuse_if_ended(&queue);
            }
            self.shared.room.wait(&mut queue);
        }
        Ok(())
    }

    /// Removes files that hold only records before `lsn`, oldest first, and returns how many bytes that freed. The
    /// file being written stays.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<u64> {
        // A writer that was replaced must not remove what its successor needs.
        if self.shared.progress.failure().is_some() {
            return Err(self.shared.ended());
        }
        let _one_at_a_time = self.shared.truncating.lock();
        let storage = self.shared.storage.as_ref();
        // Not under their lock: removing takes as long as storage does, and the log's thread adds files.
        let mut files = self.shared.files.lock().clone();
        let mut freed = 0;
        while files.len() > 1 && begins_by(storage, &mut files[1..], lsn)? {
            let oldest = files.remove(0);
            let size = storage.size_append(&oldest.path)?;
            storage.remove_append(&oldest.path)?;
            self.shared.files.lock().retain(|file| file.path != oldest.path);
            freed += size;
        }
        Ok(freed)
    }

    /// Whether this log failed, but left nothing of the records that are not durable: another writer that
    /// [opens](crate::open) it goes on behind the last durable one.
    pub fn can_go_on(&self) -> bool {
        self.shared.progress.is_taken_back()
    }

    /// The error for a record that would be appended now, if there is one.
    pub fn check(&self) -> Result<()> {
        self.shared.refuse_if_ended(&self.shared.queue.lock())
    }

    /// Why this log takes no more records, if it failed.
    pub fn poisoned(&self) -> Option<String> {
        self.shared.progress.failure().map(|error| error.message().to_owned())
    }

    /// Ends the log at once: whoever waits for a record that is not durable yet hears `why`, and no more are taken.
    /// Does not wait for a write that is under way, now or at the close: its thread ends by itself when the storage
    /// has answered, and nobody hears of that. For a writer that knows that it may not acknowledge anything, while
    /// its storage is silent.
    pub fn give_up(&self, why: Error) {
        self.shared.progress.fail(why);
        // Those who look under this lock have either seen the failure or sleep by now.
        {
            let mut queue = self.shared.queue.lock();
            queue.closing = true;
            queue.idle = false;
        }
        self.shared.work.notify_one();
        self.shared.room.notify_all();
        // Whoever closes the log at this moment waits already.
        if let Some(mut thread) = self.thread.try_lock() {
            drop(thread.take());
        }
    }

    /// What was done since the log was opened.
    pub fn stats(&self) -> WalStats {
        self.shared.counters.read()
    }

    /// Makes everything durable that was appended, marks the end, and stops the log thread. Later calls of `append`
    /// fail with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn close(self: Arc<Self>) -> Result<()> {
        self.shut_down();
        match self.shared.progress.failure() {
            Some(_) => Err(self.shared.ended()),
            None => Ok(()),
        }
    }

    fn shut_down(&self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.closing = true;
            queue.idle = false;
        }
        self.shared.work.notify_one();
        self.shared.room.notify_all();
        let mut handle = self.thread.lock();
        let Some(thread) = handle.take() else { return };
        // The callback may hold the last reference; a thread cannot wait for itself.
        if !thread.is_current() && thread.join().is_err() {
            tracing::error!("the log thread panicked");
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.shared.dir)
            .field("durable", &self.durable_lsn())
            .field("next", &self.next_lsn())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The error for calls after the end, whatever ended it.
    fn ended(&self) -> Error {
        self.progress.refusal().unwrap_or_else(|| Error::new(crate::ErrorKind::Closed, "the log is being closed"))
    }

    fn refuse_if_ended(&self, queue: &Queue) -> Result<()> {
        if queue.stopped || queue.closing || self.progress.failure().is_some() {
            return Err(self.ended());
        }
        Ok(())
    }
}

/// Whether the first started one of `files` begins at or before `lsn`, so that nothing before them is needed for it.
fn begins_by(storage: &dyn Storage, files: &mut [LogFile], lsn: Lsn) -> Result<bool> {
    for file in files {
        if file.first_lsn.is_none() {
            file.first_lsn = files::probe(storage, file)?.map(|header| header.first_lsn);
        }
        if let Some(first) = file.first_lsn {
            return Ok(first <= lsn);
        }
    }
    Ok(false)
}
