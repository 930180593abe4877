//! The one thread that writes the log: take what is buffered, write it, sync once, tell everybody. Repeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::codec::{FILE_HEADER, FileHeader, finish_group, seal_frame};
use crate::encryption::FileCipher;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ids::Lsn;
use crate::storage::AppendFile;
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
    on_durable: Option<OnDurable>,
    fence: Option<Fence>,
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
        segment_bytes: u64,
        on_durable: Option<OnDurable>,
        fence: Option<Fence>,
    ) -> Result<Self> {
        let last = shared.progress.durable();
        let cipher = files::cipher(shared.storage.as_ref(), &shared.dir, &header)?;
        Ok(Self { shared, file, header, cipher, written: FILE_HEADER as u64, last, segment_bytes, on_durable, fence })
    }

    pub(crate) fn spawn(self) -> Result<JoinHandle<()>> {
        thread::Builder::new()
            .name("grizzly-log".into())
            .spawn(move || self.run())
            .map_err(|error| Error::io("start", "the log thread", error))
    }

    fn run(mut self) {
        let ending = Ending(Arc::clone(&self.shared));
        match self.write_until_closed().and_then(|()| self.check_fence()).and_then(|()| self.seal()) {
            Ok(()) => ending.0.progress.close(),
            Err(error) => {
                tracing::error!(%error, dir = ending.0.dir, "the write-ahead log failed");
                ending.0.progress.fail(error);
            }
        }
    }

    fn write_until_closed(&mut self) -> Result<()> {
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
    fn commit(&mut self, group: &mut [u8]) -> Result<()> {
        if group.is_empty() {
            return Ok(());
        }
        if self.written >= self.segment_bytes {
            self.rotate(self.last.next())?;
        }
        let records = finish_group(group, self.header.salt, self.cipher.as_ref())?;
        self.file.append(group)?;
        self.file.sync()?;
        self.check_fence()?;
        self.written += group.len() as u64;
        self.last = Lsn(self.last.0 + records);
        self.shared.counters.count(records, group.len() as u64);
        if let Some(on_durable) = &self.on_durable {
            on_durable(self.last);
        }
        self.shared.progress.advance(self.last);
        Ok(())
    }

    /// Whether what was just synced still counts.
    fn check_fence(&self) -> Result<()> {
        // Whoever gave up has told everybody who waited.
        self.check_given_up()?;
        self.fence.as_ref().map_or(Ok(()), |fence| fence())
    }

    fn check_given_up(&self) -> Result<()> {
        self.shared.progress.failure().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Ends the file and starts the next one, whose first record is `first`.
    fn rotate(&mut self, first: Lsn) -> Result<()> {
        if first > self.header.first_lsn {
            self.seal()?;
            let shared = &self.shared;
            let number = self.header.number + 1;
            let (file, named, header) = files::create(
                shared.storage.as_ref(),
                &shared.dir,
                number,
                first,
                self.header.epoch,
                self.segment_bytes,
            )?;
            self.cipher = files::cipher(shared.storage.as_ref(), &named.path, &header)?;
            shared.files.lock().push(named);
            (self.file, self.header, self.written) = (file, header, FILE_HEADER as u64);
            shared.queue.lock().file_first = first;
        }
        self.shared.room.notify_all();
        Ok(())
    }

    /// Marks the end of the file, so that damage anywhere in it can be told from the end a crash leaves.
    fn seal(&mut self) -> Result<()> {
        self.file.append(&seal_frame(self.last.next(), self.header.salt)?)?;
        self.file.sync()
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
