//! What an open database consists of, and what all that happens to it goes by: whether it may be written, its numbers, its log.
//!
//! Everything that is done with a database is above this, and what it is made of below.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use grizzly_wal::{Lsn, NewRecord, Storage, Wal, world::Mutex};

use super::{
    alone::grounded::Grounded,
    backup::pins::Pins,
    catalog::{Catalog, TableDef},
    clock::CommitClock,
    cluster::{lease::Lease, member::Member},
    files::Files,
    maintenance::{checkpoints::Checkpoints, hot_rows::HotRows, left_over::LeftOver, signals::Signals},
    segment::cold::ColdSegment,
    settings::Settings,
    txn::{
        order::{CommitState, Logged},
        publish::{Publisher, SnapshotRegistry},
    },
    version::DatabaseVersion,
};
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
};

/// An open database. Cheap to clone; every clone is the same database. It is closed by [`Grizzly::close`] or when
/// the last clone is dropped.
#[derive(Clone)]
pub struct Grizzly {
    pub(super) inner: Arc<Inner>,
}

/// What layers above keep with an open database: at most one value of each type.
pub(super) type Extensions = Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>;

/// What an open database is made of, whoever writes to it.
pub(super) struct Parts {
    pub(super) url: String,
    pub(super) settings: Settings,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) files: Files,
    pub(super) lock: Box<dyn Any + Send + Sync>,
    pub(super) member: Option<Member>,
}

/// What an open database consists of.
pub(crate) struct Inner {
    pub(super) url: String,
    pub(super) settings: Settings,
    pub(super) storage: Arc<dyn Storage>,
    /// The log, while this process writes.
    pub(super) wal: ArcSwapOption<Wal>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) commit: Mutex<CommitState>,
    /// Held by the one flush or compaction that runs.
    pub(super) checkpoint: Mutex<()>,
    pub(super) checkpoints: Checkpoints,
    /// What backups need to stay on storage.
    pub(super) pins: Pins,
    /// Where the log ended within a record when this process began to write.
    pub(super) torn: Mutex<Vec<String>>,
    /// Segments that were replaced or dropped, until a checkpoint no longer names them.
    pub(super) obsolete: Mutex<Vec<Arc<ColdSegment>>>,
    /// Until it was removed.
    pub(super) left_over: Mutex<Option<LeftOver>>,
    pub(super) snapshots: Arc<SnapshotRegistry>,
    pub(super) files: Files,
    pub(super) identity: uuid::Uuid,
    pub(super) epoch: AtomicU64,
    /// Counts the times that this process began or ended writing. A transaction commits in the term it began in.
    pub(super) term: AtomicU64,
    /// Among several processes that share the database.
    pub(super) member: Option<Member>,
    /// Without a cluster, while this process writes.
    pub(super) alone: ArcSwapOption<Lease>,
    pub(super) grounded: Grounded,
    pub(super) next_segment: AtomicU32,
    pub(super) next_transaction: AtomicU64,
    /// Transactions that are open.
    pub(super) transactions: AtomicUsize,
    /// The least number that no table was offered yet, unless the catalog is ahead of it.
    pub(super) next_table: AtomicU64,
    /// The same for the indexes of each table. A number whose runs are on storage without their index, as a failure leaves
    /// them, must not come again.
    pub(super) next_index: Mutex<HashMap<u64, Range<u32>>>,
    /// Files may lack runs of their table's indexes, or have others.
    pub(super) runs_differ: AtomicBool,
    pub(super) clock: CommitClock,
    pub(super) hot: HotRows,
    pub(super) signals: Arc<Signals>,
    pub(super) extensions: Extensions,
    /// What whoever uses the database wants done now and then.
    pub(super) now_and_then: OnceLock<fn()>,
    pub(super) closed: AtomicBool,
    /// Keeps other writers out while it lives.
    pub(super) lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

impl fmt::Debug for Grizzly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grizzly").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("url", &self.url).finish_non_exhaustive()
    }
}

/// So many indexes may be created on a table in one epoch.
const INDEXES_PER_EPOCH: u32 = 1 << 14;

/// The least number of an index that is created in an epoch.
pub(super) fn first_index(epoch: u64) -> u32 {
    const EPOCHS: u32 = u32::MAX / INDEXES_PER_EPOCH;
    u32::try_from(epoch).unwrap_or(u32::MAX).min(EPOCHS - 1) * INDEXES_PER_EPOCH
}

impl Inner {
    /// A database that can be read. To write, it needs a log.
    pub(super) fn new(parts: Parts, identity: uuid::Uuid) -> Self {
        let Parts { url, settings, storage, publisher, files, lock, member } = parts;
        let version = publisher.current();
        Self {
            url,
            settings,
            storage,
            wal: ArcSwapOption::empty(),
            publisher,
            commit: Mutex::new(CommitState::new(version)),
            checkpoint: Mutex::new(()),
            checkpoints: Checkpoints::default(),
            pins: Pins::default(),
            torn: Mutex::default(),
            obsolete: Mutex::default(),
            left_over: Mutex::default(),
            snapshots: Arc::new(SnapshotRegistry::default()),
            files,
            identity,
            epoch: AtomicU64::new(0),
            term: AtomicU64::new(0),
            member,
            alone: ArcSwapOption::empty(),
            grounded: Default::default(),
            next_segment: AtomicU32::new(1),
            next_transaction: AtomicU64::new(1),
            transactions: AtomicUsize::new(0),
            next_table: AtomicU64::new(1),
            next_index: Mutex::default(),
            runs_differ: AtomicBool::new(true),
            clock: CommitClock::default(),
            hot: Default::default(),
            signals: Arc::new(Signals::default()),
            extensions: Default::default(),
            now_and_then: Default::default(),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Closed, format!("database '{}' is closed", self.url))),
            false => Ok(()),
        }
    }

    /// An error once the database is closed or its log failed.
    pub(super) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        let log = self.log()?;
        match log.poisoned() {
            Some(_) if log.can_go_on() => {
                let refused = log.check().map_err(Error::from);
                refused.map_err(|error| error.at(&format!("database '{}' can be read but not written now", self.url)))
            }
            Some(cause) => Err(Error::new(
                ErrorKind::Closed,
                format!("database '{}' refuses writes since its log failed: {cause}", self.url),
            )),
            None => Ok(()),
        }
    }

    /// The log to write to.
    ///
    /// # Errors
    /// `Unavailable`, naming the writer, if this process is not it; whatever keeps it from writing if it is alone.
    pub(super) fn log(&self) -> Result<Arc<Wal>> {
        let log = self.wal.load_full();
        match &self.member {
            None => log.ok_or_else(|| self.grounded.refusal(&self.url)),
            Some(member) => log.filter(|_| member.may_write()).ok_or_else(|| self.not_writer()),
        }
    }

    /// Why this process cannot write.
    pub(super) fn not_writer(&self) -> Error {
        let url = &self.url;
        let message = match self.member.as_ref().and_then(Member::writer) {
            Some(writer) => format!("database '{url}' is written by node '{}' at {}", writer.node, writer.url),
            None => format!("nobody writes to database '{url}' at the moment; try again"),
        };
        Error::new(ErrorKind::Unavailable, message)
    }

    /// An error if somebody else may be writing by now. What was stored before this call is safe if it passes.
    pub(super) fn check_lease(&self) -> Result<()> {
        match &self.member {
            None => self.alone.load().as_ref().map_or(Ok(()), |lease| lease.check()),
            Some(member) => member.lease.load().as_ref().ok_or_else(|| self.not_writer())?.check(),
        }
    }

    /// What the names of new files carry.
    pub(super) fn file_epoch(&self) -> Result<u64> {
        match &self.member {
            None => Ok(self.epoch.load(Ordering::Acquire)),
            Some(member) => member.lease().map(|lease| lease.epoch()).ok_or_else(|| self.not_writer()),
        }
    }

    /// The newest record of the log, durable or not.
    pub(super) fn last_logged(&self) -> Result<Logged> {
        let log = self.log()?;
        let last = Lsn(log.next_lsn().0.saturating_sub(1));
        Ok(Logged::new(log, last))
    }

    /// Changes whenever this process begins or ends to write. Transactions end with the term they began in.
    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    pub(super) fn writer_changed(&self) -> Error {
        let message = "changed since the transaction began; it may be retried";
        Error::new(ErrorKind::Unavailable, format!("the writer of database '{}' {message}", self.url))
    }

    pub(super) fn next_segment_id(&self) -> u32 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn peek_segment_id(&self) -> u32 {
        self.next_segment.load(Ordering::Relaxed)
    }

    /// A number for a new table that no other has or gets, in `catalog` or beside it.
    pub(super) fn next_table_id(&self, catalog: &Catalog) -> u64 {
        self.next_table.fetch_max(catalog.next_table_id, Ordering::Relaxed);
        self.next_table.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a new index that no other of the table has or had. A failure may leave runs of an index that is not
    /// there, so each epoch has numbers of its own.
    ///
    /// # Errors
    /// `Resource` if this epoch has given the table all of its numbers.
    pub(super) fn next_index_id(&self, table: &TableDef) -> Result<u32> {
        let first = first_index(self.epoch.load(Ordering::Acquire)).max(table.next_index_id);
        let mut given = self.next_index.lock();
        let given = given.entry(table.id).or_insert(first..first);
        if given.end < first {
            *given = first..first;
        }
        if given.end - given.start >= INDEXES_PER_EPOCH {
            let message = "has had too many indexes since the database was opened; open it again to create more";
            return Err(Error::new(ErrorKind::Resource, format!("table '{}' {message}", table.display_name())));
        }
        given.end += 1;
        Ok(given.end - 1)
    }

    pub(super) fn next_transaction_id(&self) -> u64 {
        self.next_transaction.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a version that maintenance made the newest, visible as soon as the commits before it are.
    pub(super) fn republish(&self, log: &Wal, state: &mut CommitState, next: DatabaseVersion) {
        state.version = Arc::new(next);
        let last = Lsn(log.next_lsn().0.saturating_sub(1));
        self.publisher.enqueue(last, Arc::clone(&state.version));
        self.publisher.durable(log.durable_lsn());
        if !self.settings.sync_commits {
            self.publisher.publish_now(Arc::clone(&state.version));
        }
        self.hot.set(&state.version);
    }

    /// Makes sure that what is visible up to `time` stays as it is: waits for commits from before it that are on their
    /// way into the log, and lets all that follow have later numbers. Returns the newest commit that is visible then.
    pub(super) fn settle(&self, time: Csn) -> Result<Csn> {
        let Some(log) = self.wal.load_full() else { return Ok(self.publisher.current().csn) };
        let last = {
            let _no_commit = self.commit.lock();
            self.clock.leave_behind(time);
            Lsn(log.next_lsn().0.saturating_sub(1))
        };
        if last > log.durable_lsn() && self.settings.sync_commits {
            // What fails to become durable is never visible in this process.
            drop(log.wait_durable(last));
        }
        Ok(self.publisher.current().csn)
    }

    /// Writes a record to the log and makes `next` the newest version, visible once the record is durable. `share` then
    /// changes what versions have in common: nobody sees that before `next`, and a record that is refused leaves no trace.
    pub(super) fn append(
        &self,
        state: &mut CommitState,
        next: DatabaseVersion,
        record: NewRecord,
        share: impl FnOnce(),
    ) -> Result<Logged> {
        let log = self.log()?;
        let lsn = log.append(record)?;
        share();
        let next = Arc::new(next);
        self.publisher.enqueue(lsn, Arc::clone(&next));
        state.version = next;
        if !self.settings.sync_commits {
            self.publisher.publish_now(Arc::clone(&state.version));
        }
        Ok(Logged::new(log, lsn))
    }

    /// Takes note of segments that were replaced or dropped: they go when a checkpoint names them no more.
    pub(super) fn retire(&self, segments: impl IntoIterator<Item = Arc<ColdSegment>>) {
        let segments: Vec<_> = segments.into_iter().collect();
        self.files.let_go(&segments);
        self.obsolete.lock().extend(segments);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.signals.stop();
        if let Some(member) = &self.member {
            member.stop();
        }
        if let Some(lease) = self.alone.swap(None)
            && !self.closed.load(Ordering::Acquire)
        {
            // Ends the log, which syncs what is buffered; only then another may begin. It is held until its end is
            // in the lease.
            let log = self.wal.swap(None);
            let ended = log.clone().map_or(Ok(()), Wal::close);
            drop(ended.map(|()| lease.release()));
            drop(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::redo::Change;

    #[test]
    fn a_record_that_the_log_refuses_changes_nothing() -> Result<()> {
        let db = Grizzly::open("memory://")?;
        let inner = &db.inner;
        let mut state = inner.commit.lock();
        let before = Arc::clone(&state.version);
        let mut next = before.as_ref().clone();
        next.csn = inner.clock.next(next.csn, &inner.url);
        let record = Change::Commit(Vec::new()).record(0, next.csn)?;
        let record = NewRecord { payload: vec![0; grizzly_wal::MAX_PAYLOAD + 1].into(), ..record };
        let mut shared = false;
        assert!(inner.append(&mut state, next, record, || shared = true).is_err());
        assert!(!shared, "live indexes are not touched");
        assert!(Arc::ptr_eq(&before, &state.version));
        assert!(Arc::ptr_eq(&before, &inner.publisher.current()));
        Ok(())
    }
}
