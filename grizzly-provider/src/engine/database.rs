//! A database: what it is made of, and its public face.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use arrow::{array::ArrayRef, record_batch::RecordBatch};
use grizzly_wal::{EncryptedStorage, EncryptionKey, Storage, Wal, world::Mutex};

use super::{
    alone::Grounded,
    backup::{pins::Pins, restore},
    catalog::{Catalog, TableDef},
    cluster::{Member, lease::Lease},
    ddl,
    extension::Extensions,
    files::Files,
    maintenance::{collect, compact, flush, room::HotRows, worker::Signals},
    recovery, rows,
    segment::cold::{ColdSegment, DATA_DIR, segment_of_path},
    settings::{ClusterSettings, Settings},
    snapshot::Snapshot,
    txn::{
        commit::CommitState,
        publish::{Publisher, SnapshotRegistry},
        transaction::{self, CommitOutcome, Conflict, Transaction},
    },
    verify::{self, VerifyReport},
    version::{DatabaseVersion, SegmentData},
};
use crate::{
    access::{AsOf, Csn, IndexDefinition, TableDefinition},
    error::{Error, ErrorKind, Result},
};

/// Times a blind write is tried before its conflicts are reported.
const PUT_ATTEMPTS: usize = 16;
/// An open database. Cheap to clone; every clone is the same database. It is closed by [`Grizzly::close`] or when
/// the last clone is dropped.
#[derive(Clone)]
pub struct Grizzly {
    pub(super) inner: Arc<Inner>,
}

/// Opens a database with settings of its own.
#[derive(Debug)]
pub struct GrizzlyBuilder {
    url: String,
    settings: Settings,
    storage: Option<Arc<dyn Storage>>,
    key: Option<EncryptionKey>,
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
    pub(super) checkpoints: flush::Checkpoints,
    /// What backups need to stay on storage.
    pub(super) pins: Pins,
    /// Where the log ended within a record when this process began to write.
    pub(super) torn: Mutex<Vec<String>>,
    /// Segments that were replaced or dropped, until a checkpoint no longer names them.
    pub(super) obsolete: Mutex<Vec<Arc<ColdSegment>>>,
    /// Until it was removed.
    pub(super) left_over: Mutex<Option<collect::LeftOver>>,
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
    /// The latest time about which something was said: later commits have greater numbers.
    pub(super) floor: AtomicU64,
    /// When the clock was last found to be behind, in microseconds since 1970.
    pub(super) warned: AtomicU64,
    pub(super) hot: HotRows,
    pub(super) signals: Arc<Signals>,
    pub(super) extensions: Extensions,
    /// What whoever uses the database wants done now and then.
    pub(super) now_and_then: OnceLock<fn()>,
    pub(super) closed: AtomicBool,
    /// Keeps other writers out while it lives.
    pub(super) lock: Mutex<Option<Box<dyn std::any::Any + Send + Sync>>>,
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

impl GrizzlyBuilder {
    /// Replaces all settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Bytes of encoded chunks and hot rows to keep in memory.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.settings.memory_bytes = bytes;
        self
    }

    /// Shares the database with other processes, of which one writes.
    #[must_use]
    pub fn cluster(mut self, cluster: ClusterSettings) -> Self {
        self.settings.cluster = Some(cluster);
        self
    }

    /// Uses a storage of the caller's instead of the one the URL names.
    #[must_use]
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Encrypts everything but paths and lengths with this key. A database is encrypted from its creation on, or
    /// never.
    #[must_use]
    pub fn key(mut self, key: EncryptionKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Opens the database, replaying its log.
    ///
    /// # Errors
    /// `Invalid` if the place holds something else, or a key was given for a database without one; `Permission` for
    /// a wrong or missing key; `Unsupported` for a newer format, `Corrupt` for damage, and `Unavailable` if another
    /// process has it open for writing or the storage cannot be reached.
    pub fn open(self) -> Result<Grizzly> {
        let storage = match self.storage {
            Some(storage) => storage,
            None => grizzly_wal::open_storage(&self.url)?,
        };
        let storage = match self.key {
            Some(key) => Arc::new(EncryptedStorage::new(storage, key)),
            None => storage,
        };
        restore::check_whole(&storage)?;
        Ok(Grizzly { inner: recovery::open(self.url, self.settings, storage)? })
    }
}

impl Grizzly {
    /// Opens `file:///path`, a plain path, `memory://`, or any object-store URL with default settings.
    ///
    /// # Errors
    /// See [`GrizzlyBuilder::open`].
    pub fn open(url: &str) -> Result<Self> {
        Self::builder(url).open()
    }

    /// Like [`Grizzly::open`], with settings.
    pub fn builder(url: &str) -> GrizzlyBuilder {
        GrizzlyBuilder { url: url.to_owned(), settings: Settings::default(), storage: None, key: None }
    }

    /// The URL it was opened with.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// What can be read now: every commit acknowledged so far.
    pub fn snapshot(&self) -> Snapshot {
        let (version, guard) = self.inner.snapshots.take(&self.inner.publisher);
        let csn = version.csn;
        Snapshot::new(version, csn, guard)
    }

    /// What could be read then.
    ///
    /// # Errors
    /// `Invalid` if that is in the future or before the history that is kept.
    pub fn snapshot_at(&self, at: AsOf) -> Result<Snapshot> {
        let (version, guard) = self.inner.snapshots.take(&self.inner.publisher);
        let csn = match at {
            AsOf::Csn(csn) if csn > version.csn => {
                return Err(Error::invalid(format!("commit {csn} has not happened yet; the last is {}", version.csn)));
            }
            AsOf::Csn(csn) => csn,
            AsOf::TimestampMicros(micros) => {
                let wanted = Csn(u64::try_from(micros).unwrap_or_default());
                if wanted > self.present() {
                    return Err(Error::invalid(format!("timestamp {micros} us lies in the future")));
                }
                if wanted > version.csn && self.inner.settle(wanted)? > version.csn {
                    // A commit from before that time has become visible meanwhile.
                    return self.snapshot_at(at);
                }
                wanted.min(version.csn)
            }
        };
        if csn < version.history_from {
            let kept = version.history_from;
            return Err(Error::invalid(format!("the state as of {csn} is no longer kept; history begins at {kept}")));
        }
        Ok(Snapshot::new(version, csn, guard))
    }

    /// Starts a transaction on the present snapshot.
    ///
    /// # Errors
    /// `Closed` after [`Grizzly::close`].
    pub fn begin(&self) -> Result<Transaction> {
        self.begin_at(self.snapshot())
    }

    /// Starts a transaction that reads, and is validated against, an earlier snapshot.
    ///
    /// # Errors
    /// `Closed` after [`Grizzly::close`], `Invalid` for a snapshot of the past (see [`Grizzly::snapshot_at`]).
    pub fn begin_at(&self, snapshot: Snapshot) -> Result<Transaction> {
        self.inner.check_open()?;
        if snapshot.csn() != snapshot.version().csn {
            return Err(Error::invalid("a snapshot of the past cannot be written to"));
        }
        self.inner.begin_to_write();
        Ok(Transaction::new(Arc::clone(&self.inner), snapshot))
    }

    /// Creates a table. `if_not_exists` makes an existing one no error; returns whether it was created.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for the schema, `Invalid` or `Unsupported` for the definition.
    pub fn create_table(&self, definition: TableDefinition, if_not_exists: bool) -> Result<bool> {
        ddl::create_table(&self.inner, definition, if_not_exists)
    }

    /// Drops a table; returns whether there was one. Table names are `name` or `schema.name` everywhere.
    ///
    /// # Errors
    /// `NotFound` unless `if_exists`.
    pub fn drop_table(&self, table: &str, if_exists: bool) -> Result<bool> {
        ddl::drop_table(&self.inner, table, if_exists)
    }

    /// Creates a schema (namespace); `public` exists always.
    ///
    /// # Errors
    /// `AlreadyExists` unless `if_not_exists`.
    pub fn create_schema(&self, name: &str, if_not_exists: bool) -> Result<bool> {
        ddl::create_schema(&self.inner, name, if_not_exists)
    }

    /// Drops an empty schema.
    ///
    /// # Errors
    /// `NotFound` unless `if_exists`; `Invalid` if something is in it.
    pub fn drop_schema(&self, name: &str, if_exists: bool) -> Result<bool> {
        ddl::drop_schema(&self.inner, name, if_exists)
    }

    /// Stores or replaces a view by its SQL text.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken by a table, or by a view unless `or_replace`.
    pub fn create_view(&self, name: &str, sql: &str, or_replace: bool) -> Result<()> {
        ddl::create_view(&self.inner, name, sql, or_replace)
    }

    /// Drops a view; returns whether there was one.
    ///
    /// # Errors
    /// `NotFound` unless `if_exists`.
    pub fn drop_view(&self, name: &str, if_exists: bool) -> Result<bool> {
        ddl::drop_view(&self.inner, name, if_exists)
    }

    /// Builds an index over all rows and keeps it up to date from then on. Rows can be read and written meanwhile.
    ///
    /// # Errors
    /// `AlreadyExists` unless `if_not_exists`; `NotFound` for table or columns; `UniqueViolation`.
    pub fn create_index(&self, table: &str, index: IndexDefinition, if_not_exists: bool) -> Result<bool> {
        ddl::create_index(&self.inner, table, &index, if_not_exists)
    }

    /// Drops an index. Without `table` the name must be unique in the database.
    ///
    /// # Errors
    /// `NotFound` unless `if_exists`; `Invalid` for a primary key or an ambiguous name.
    pub fn drop_index(&self, table: Option<&str>, index: &str, if_exists: bool) -> Result<bool> {
        ddl::drop_index(&self.inner, table, index, if_exists)
    }

    /// The live row with this primary key (one array of length 1 per key column), with all columns of the table.
    ///
    /// # Errors
    /// `NotFound` for the table, `Invalid` if it has no primary key or the key does not fit it.
    pub fn get(&self, table: &str, key: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        self.inner.check_open()?;
        let version = self.inner.publisher.current();
        let table = version.table_named(table)?;
        let key = transaction::primary_key(table, key)?;
        let Some(row) = transaction::find_committed(table, &key)? else { return Ok(None) };
        let segment = table.segment(row.segment()).ok_or_else(|| Error::internal("a row that was found is gone"))?;
        Ok(Some(rows::take_rows(table, segment, &[row.row()])?))
    }

    /// Inserts rows, or replaces those whose primary key exists (row_version + 1), in one commit. Conflicts with
    /// other writers are resolved by writing again, since this write depends on nothing that was read.
    ///
    /// # Errors
    /// As [`Transaction::put`]; `Conflict` if other writers keep coming first.
    pub fn put(&self, table: &str, rows: RecordBatch) -> Result<Csn> {
        let mut attempts = 0;
        loop {
            let mut transaction = self.begin()?;
            transaction.put(table, rows.clone())?;
            match transaction.commit()? {
                CommitOutcome::Committed { csn } => return Ok(csn),
                CommitOutcome::Conflict(conflict) if attempts >= PUT_ATTEMPTS => return Err(conflict.into()),
                CommitOutcome::Conflict(_) => attempts += 1,
            }
        }
    }

    /// Replaces the row with the primary key found in `row` if its row_version is `expected`; otherwise
    /// [`CommitOutcome::Conflict`].
    ///
    /// # Errors
    /// `Invalid` unless `row` is one row of a table with a primary key.
    pub fn compare_and_set(&self, table: &str, row: RecordBatch, expected: u64) -> Result<CommitOutcome> {
        let mut transaction = self.begin()?;
        let version = Arc::clone(transaction.base().version().table_named(table)?);
        if row.num_rows() != 1 {
            return Err(Error::invalid(format!("compare_and_set takes one row, not {}", row.num_rows())));
        }
        let columns = version.def.primary_key.iter().map(|column| {
            let missing = || Error::invalid(format!("the row has no column {column} of table '{table}'"));
            row.columns().get(*column).cloned().ok_or_else(missing)
        });
        let key = columns.collect::<Result<Vec<_>>>()?;
        match transaction.find(table, &key)? {
            Some((id, found)) if found == expected => {
                transaction.update(table, &[id], row)?;
                transaction.commit()
            }
            found => {
                let bytes = transaction::primary_key(&version, &key)?.bytes;
                let key = version.codecs.primary().map(|(_, encoder)| encoder.display(&bytes)).unwrap_or_default();
                let committed = match found.and_then(|(row, _)| Some((version.segment(row.segment())?, row))) {
                    Some((segment, row)) => segment.created(row.row())?,
                    None => Csn(0),
                };
                Ok(CommitOutcome::Conflict(Conflict { table: table.to_owned(), key, committed }))
            }
        }
    }

    /// Writes hot rows to segment files and lets the log be cut.
    ///
    /// # Errors
    /// `Closed`, or whatever the storage reports; nothing is lost then.
    pub fn flush(&self) -> Result<()> {
        flush::checkpoint(&self.inner)
    }

    /// Merges each shard's segments into as few as one merge may take in, mostly one, and drops rows that nobody may
    /// read any more.
    ///
    /// # Errors
    /// `NotFound` for the table, or whatever the storage reports; nothing is lost then.
    pub fn compact(&self, table: &str) -> Result<()> {
        let id = self.inner.publisher.current().catalog.table(table)?.id;
        flush::checkpoint(&self.inner)?;
        compact::compact_table(&self.inner, id)?;
        flush::checkpoint(&self.inner)
    }

    /// Checks every checksum, decodes every chunk and compares every index with the rows.
    ///
    /// # Errors
    /// Only if checking itself is impossible; what is wrong with the data is in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        verify::verify(&self.inner)
    }

    /// Bytes on storage that belong to the table: segment files and index runs.
    ///
    /// # Errors
    /// `NotFound` for the table.
    pub fn table_bytes(&self, table: &str) -> Result<u64> {
        let version = self.inner.publisher.current();
        let table = version.table_named(table)?;
        let files = self.inner.storage.list(DATA_DIR)?;
        let files: Vec<_> = files.iter().map(|file| (segment_of_path(&file.path), file.size)).collect();
        let mut bytes = 0;
        for (_, segment) in table.segments() {
            if let SegmentData::Cold(cold) = &segment.data {
                bytes +=
                    files.iter().filter(|(key, _)| *key == Some(cold.meta.key())).map(|(_, size)| size).sum::<u64>();
            }
        }
        Ok(bytes)
    }

    /// Bytes of encoded chunks and index runs that are in memory, over all tables.
    pub fn cached_bytes(&self) -> u64 {
        let stats = self.inner.files.cache.stats();
        stats.bytes + stats.charged
    }

    /// Ends all work and lets go of the storage. Later calls fail with `Closed`.
    ///
    /// # Errors
    /// Whatever the storage reports; everything acknowledged is safe in the log then.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }

    /// A number that changes with every change of the catalog (tables, indexes, views), for caches of plans.
    pub fn catalog_version(&self) -> u64 {
        self.inner.publisher.current().catalog.version
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Lets the maintenance thread do something small now and then, on a database at rest too: the first that is given.
    pub fn now_and_then(&self, work: fn()) {
        self.inner.now_and_then.get_or_init(|| work);
    }

    /// Two handles on the same open database.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
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
        given.end = given.end.max(first);
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
        let last = grizzly_wal::Lsn(log.next_lsn().0.saturating_sub(1));
        self.publisher.enqueue(last, Arc::clone(&state.version));
        self.publisher.durable(log.durable_lsn());
        if !self.settings.sync_commits {
            self.publisher.publish_now(Arc::clone(&state.version));
        }
        self.hot.set(&state.version);
    }
}
