//! The one thread that writes the log: take what is buffered, write it, sync once, tell everybody. Repeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::codec::{FileHeader, FilePlace, SealKind, finish_group, seal_frame};
use crate::encryption::FileCipher;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, NewFile};
use crate::ids::Lsn;
use crate::storage::AppendFile;
use crate::world::{self, JoinHandle};
use crate::writer::{Fence, OnDurable, Shared, WalStats};

/// A buffer that a burst has made larger than this is not kept.
const KEEP_BUFFER: usize = 8 << 20;

pub(crate) struct LogThread {
    shared: Arc<Shared>,
    file: Box<dyn AppendFile>,
    header: FileHeader,
    /// Encrypts the payloads of this file.
    cipher: Option<FileCipher>,
    /// Bytes in the file being written.
    written: u64,
    /// The last record that is durable.
    last: Lsn,
    segment_bytes: u64,
    /// Nobody reads what is not durable.
    sole: bool,
    then: AfterSync,
}

/// What happens after each sync.
pub(crate) struct AfterSync {
    pub(crate) on_durable: Option<OnDurable>,
    pub(crate) fence: Option<Fence>,
}

/// Why the thread ends before the log is closed.
enum Failure {
    /// What is stored of records that are not durable is unknown.
    Unknown(Error),
    /// Nothing is.
    TakenBack(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Unknown(error)
    }
}

/// What was buffered at one moment.
struct Batch {
    frames: Vec<u8>,
    split: Option<(usize, Lsn)>,
}

#[derive(Default)]
pub(crate) struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    largest_group: AtomicU64,
}

impl Counters {
    fn count(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.largest_group.fetch_max(records, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> WalStats {
        WalStats {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            largest_group: self.largest_group.load(Ordering::Relaxed),
        }
    }
}

impl LogThread {
    pub(crate) fn new(
        shared: Arc<Shared>,
        file: Box<dyn AppendFile>,
        header: FileHeader,
        (segment_bytes, sole): (u64, bool),
        then: AfterSync,
    ) -> Result<Self> {
        let last = shared.progress.durable();
        let cipher = files::cipher(shared.storage.as_ref(), &shared.dir, &header)?;
        let written = header.len() as u64;
        Ok(Self { shared, file, header, cipher, written, last, segment_bytes, sole, then })
    }

    pub(crate) fn spawn(self) -> Result<JoinHandle> {
        world::spawn("grizzly-log", move || self.run()).map_err(|error| Error::io("start", "the log thread", error))
    }

    fn run(mut self) {
        let ending = Ending(Arc::clone(&self.shared));
        match self.write_until_closed().and_then(|()| self.check_fence()).and_then(|()| self.seal(SealKind::Closed)) {
            Ok(()) => ending.0.progress.close(),
            Err(Failure::TakenBack(error)) => {
                tracing::error!(%error, dir = ending.0.dir, "the write-ahead log cannot be written");
                ending.0.progress.take_back(error);
            }
            Err(Failure::Unknown(error)) => {
                tracing::error!(%error, dir = ending.0.dir, "the write-ahead log failed");
                ending.0.progress.fail(error);
            }
        }
    }

    fn write_until_closed(&mut self) -> Result<(), Failure> {
        let mut spare = Vec::new();
        while let Some(Batch { mut frames, split }) = self.take(spare) {
            self.check_given_up()?;
            let (offset, first) = split.unwrap_or((frames.len(), Lsn::default()));
            let (before, after) = frames.split_at_mut(offset);
            self.commit(before)?;
            if split.is_some() {
                self.rotate(first)?;
            }
            self.commit(after)?;
            frames.clear();
            frames.shrink_to(KEEP_BUFFER);
            spare = frames;
        }
        Ok(())
    }

    /// Everything buffered, leaving `spare` as the next buffer. `None` when the log is being closed and all is written.
    fn take(&self, spare: Vec<u8>) -> Option<Batch> {
        let mut queue = self.shared.queue.lock();
        while queue.frames.is_empty() && queue.split.is_none() {
            if queue.closing {
                return None;
            }
            queue.idle = true;
            self.shared.work.wait(&mut queue);
            queue.idle = false;
        }
        let batch = Batch { frames: std::mem::replace(&mut queue.frames, spare), split: queue.split.take() };
        drop(queue);
        self.shared.room.notify_all();
        Some(batch)
    }

    /// Writes one group and makes it durable; then the engine hears of it, then who waits.
    fn commit(&mut self, group: &mut [u8]) -> Result<(), Failure> {
        if group.is_empty() {
            return Ok(());
        }
        if self.written >= self.segment_bytes {
            self.rotate(self.last.next())?;
        }
        let records = finish_group(group, self.header.salt, self.cipher.as_ref())?;
        self.append(group)?;
        self.file.sync()?;
        self.check_fence()?;
        self.written += group.len() as u64;
        self.last = Lsn(self.last.0 + records);
        self.shared.counters.count(records, group.len() as u64);
        if let Some(on_durable) = &self.then.on_durable {
            on_durable(self.last);
        }
        self.shared.progress.advance(self.last);
        Ok(())
    }

    /// Whether what was just synced still counts.
    fn check_fence(&self) -> Result<(), Failure> {
        self.then.fence.as_ref().map_or(Ok(()), |fence| fence())?;
        // Whoever gave up, perhaps while this was asked, has told everybody who waited.
        self.check_given_up()
    }

    fn check_given_up(&self) -> Result<(), Failure> {
        self.shared.progress.failure().map_or(Ok(()), |error| Err(error.clone().into()))
    }

    /// Adds bytes to the file, all of them or none if that can be.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Err(error) = self.file.append(bytes) else { return Ok(()) };
        if !self.sole {
            return Err(error.into());
        }
        // A part may be there. Nothing was synced since the last group, so nothing confirmed is at stake.
        match self.file.withdraw() {
            Ok(()) => Err(Failure::TakenBack(error)),
            Err(second) => {
                let message = format!("{}, and what it left could not be taken back: {second}", error.message());
                Err(Failure::Unknown(Error::new(error.kind(), message).with_source(error)))
            }
        }
    }

    /// Starts the next file, whose first record is `first`, and ends this one.
    fn rotate(&mut self, first: Lsn) -> Result<(), Failure> {
        if first > self.header.first_lsn {
            let previous = self.header.salt;
            let new = NewFile {
                number: self.header.number + 1,
                first_lsn: first,
                epoch: self.header.epoch,
                place: self.header.place.map(|place| FilePlace { previous, ..place }),
                preallocate: self.segment_bytes,
            };
            let shared = Arc::clone(&self.shared);
            let created = files::create(shared.storage.as_ref(), &shared.dir, new);
            let (file, named, header) = created.map_err(|error| match error.kind() {
                // The records that wait were written nowhere.
                ErrorKind::Full | ErrorKind::Io if self.sole => Failure::TakenBack(error),
                _ => Failure::Unknown(error),
            })?;
            // In this order: an end mark that says that a file follows is proof of it.
            self.seal(SealKind::Followed)?;
            self.cipher = files::cipher(shared.storage.as_ref(), &named.path, &header)?;
            let number = named.number;
            shared.files.lock().push(named);
            shared.newest.store(number, Ordering::Release);
            (self.file, self.header, self.written) = (file, header, header.len() as u64);
            shared.queue.lock().file_first = first;
        }
        self.shared.room.notify_all();
        Ok(())
    }

    /// Marks the end of the file, so that damage anywhere in it can be told from the end a crash leaves.
    fn seal(&mut self, kind: SealKind) -> Result<(), Failure> {
        self.append(&seal_frame(self.last.next(), self.header.salt, kind)?)?;
        Ok(self.file.sync()?)
    }
}

/// Whatever ends the thread, nobody may wait for it any longer.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.progress.fail(Error::new(ErrorKind::Io, "the log thread panicked"));
        }
        self.0.queue.lock().stopped = true;
        self.0.room.notify_all();
    }
}
