//! The public face of a database.

use std::sync::Arc;

use arrow::{array::ArrayRef, record_batch::RecordBatch};
use grizzly_wal::{EncryptedStorage, EncryptionKey, Storage};

use super::{
    alone::begin::begin_to_write,
    backup::unfinished,
    clock::now,
    close,
    consent::{Consent, Given},
    core::Grizzly,
    ddl, lookup,
    maintenance::{compact, flush},
    open, rows,
    segment::meta::{DATA_DIR, segment_of_path},
    settings::{ClusterSettings, Settings},
    snapshot::Snapshot,
    txn::{
        outcome::{CommitOutcome, Conflict},
        transaction::Transaction,
    },
    verify::{self, VerifyReport},
    version::SegmentData,
};
use crate::{
    access::{AsOf, Csn, IfExists, IndexDefinition, TableDefinition},
    error::{Error, Result},
};

/// Times a blind write is tried before its conflicts are reported.
const PUT_ATTEMPTS: usize = 16;
/// Opens a database with settings of its own.
#[derive(Debug)]
pub struct GrizzlyBuilder {
    url: String,
    settings: Settings,
    storage: Option<Arc<dyn Storage>>,
    key: Option<EncryptionKey>,
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
        unfinished::check_whole(&storage)?;
        Ok(Grizzly { inner: open::open(self.url, self.settings, storage)? })
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

    /// Opens a database that another process may be writing, as a member of a cluster that never writes itself.
    ///
    /// # Errors
    /// See [`GrizzlyBuilder::open`](crate::GrizzlyBuilder::open); `NotFound` if there is no database yet.
    pub fn follow(url: &str) -> Result<Self> {
        Self::builder(url).cluster(ClusterSettings { candidate: false, ..ClusterSettings::default() }).open()
    }

    /// The URL it was opened with.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The present: the clock's, or the newest commit's where the clock is behind that, as after it was set back.
    pub(crate) fn present(&self) -> Csn {
        now().max(self.inner.publisher.current().csn)
    }

    /// What can be read now: every commit acknowledged so far.
    pub fn snapshot(&self) -> Snapshot {
        // In this order: a term that has begun meanwhile may have taken back some of what is seen.
        let term = self.inner.term();
        let (version, guard) = self.inner.snapshots.take(&self.inner.publisher);
        let csn = version.csn;
        Snapshot::new(version, csn, guard, term)
    }

    /// What could be read then.
    ///
    /// # Errors
    /// `Invalid` if that is in the future or before the history that is kept.
    pub fn snapshot_at(&self, at: AsOf) -> Result<Snapshot> {
        let term = self.inner.term();
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
        Ok(Snapshot::new(version, csn, guard, term))
    }

    /// Starts a transaction on the present snapshot.
    ///
    /// # Errors
    /// `Closed` after [`Grizzly::close`].
    pub fn begin(&self) -> Result<Transaction> {
        begin_to_write(&self.inner);
        self.begin_at(self.snapshot())
    }

    /// Starts a transaction that reads, and is validated against, an earlier snapshot.
    ///
    /// # Errors
    /// `Closed` after [`Grizzly::close`], `Invalid` for a snapshot of the past (see [`Grizzly::snapshot_at`]). Its commit is
    /// refused with `Unavailable` if this process began or ended to write since the snapshot was taken.
    pub fn begin_at(&self, snapshot: Snapshot) -> Result<Transaction> {
        self.inner.check_open()?;
        if snapshot.csn() != snapshot.version().csn {
            return Err(Error::invalid("a snapshot of the past cannot be written to"));
        }
        begin_to_write(&self.inner);
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

    /// Stores a view by its SQL text; returns whether it did. To replace one is one change: at each moment there is one of
    /// the two.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken, unless by a view that is to be replaced, or `existing` stays.
    pub fn create_view(&self, name: &str, sql: &str, existing: IfExists) -> Result<bool> {
        ddl::create_view(&self.inner, name, sql, existing)
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
        self.create_index_with(table, index, if_not_exists, &Given)
    }

    /// The same, as long as `consent` is given.
    ///
    /// # Errors
    /// Those of [`Self::create_index`], and those of `consent`.
    pub fn create_index_with(
        &self,
        table: &str,
        index: IndexDefinition,
        if_not_exists: bool,
        consent: &dyn Consent,
    ) -> Result<bool> {
        ddl::create_index(&self.inner, table, &index, if_not_exists, consent)
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
        let key = lookup::primary_key(table, key)?;
        let Some(row) = lookup::find_committed(table, &key)? else { return Ok(None) };
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
                let bytes = lookup::primary_key(&version, &key)?.bytes;
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
        close::close(&self.inner)
    }

    /// A number that changes with every change of the catalog (tables, indexes, views), for caches of plans.
    pub fn catalog_version(&self) -> u64 {
        self.inner.publisher.current().catalog.version
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
