//! Opening a database: the newest manifest, then the log behind it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use grizzly_wal::{ErrorKind as Below, Record, Storage, Wal, WalOptions};
use parking_lot::{Mutex, MutexGuard};

use super::{
    alone,
    backup::pins::Pins,
    catalog::CatalogChange,
    clock::now,
    cluster::{self, Member, lease::Lease},
    database::Inner,
    ddl,
    maintenance::{collect, compact, flush, tombstone_file::ListFile, worker::Signals},
    manifest::Manifest,
    redo::{
        self, Attach, KIND_CATALOG, KIND_COMMIT, KIND_LISTING_COMMIT, KIND_LISTING_REPLACE, KIND_REPLACE, RedoOp,
        Replace,
    },
    segment::{
        ChunkCache, SegmentFile,
        cold::{ColdSegment, DATA_DIR, SegmentBytes, SegmentKey, SegmentMeta, segment_of_path},
        removal::Removal,
    },
    settings::Settings,
    shard::hot::HotSegment,
    txn::{
        commit::{self, CommitState, append_rows, end_rows, index_keys},
        publish::{Publisher, SnapshotRegistry},
    },
    version::{DatabaseVersion, SegmentData, TableVersion},
};
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
};

pub(super) const LOG_DIR: &str = "log";
/// Share of the memory budget that encoded chunks may take; hot rows and index runs have the rest.
const CACHE_SHARE: f64 = 0.75;

/// What replay needs, and what it makes.
pub(super) struct Recovery {
    removal: Arc<Removal>,
    cache: Arc<ChunkCache>,
    pub(super) version: DatabaseVersion,
    next_segment: u32,
    /// Lists of ended rows that are on storage.
    lists: BTreeMap<u32, ListFile>,
    /// Segments that were replaced, and that the manifest may name still.
    replaced: Vec<Arc<ColdSegment>>,
    /// Segments that records of the log name, with those records.
    named: BTreeMap<SegmentKey, u64>,
}

/// What an open database is made of, whoever writes to it.
pub(super) struct Parts {
    pub(super) url: String,
    pub(super) settings: Settings,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) cache: Arc<ChunkCache>,
    pub(super) removal: Arc<Removal>,
    pub(super) lock: Box<dyn std::any::Any + Send + Sync>,
    pub(super) member: Option<Member>,
}

impl Inner {
    /// A database that can be read. To write, it needs a log: see [`install`].
    pub(super) fn new(parts: Parts, identity: uuid::Uuid) -> Self {
        let Parts { url, settings, storage, publisher, cache, removal, lock, member } = parts;
        let version = publisher.current();
        Self {
            url,
            settings,
            storage,
            wal: ArcSwapOption::empty(),
            publisher,
            commit: Mutex::new(CommitState::new(version)),
            checkpoint: Mutex::new(()),
            checkpoints: flush::Checkpoints::default(),
            pins: Pins::default(),
            torn: Mutex::default(),
            obsolete: Mutex::default(),
            snapshots: Arc::new(SnapshotRegistry::default()),
            cache,
            identity,
            epoch: AtomicU64::new(0),
            term: AtomicU64::new(0),
            member,
            alone: ArcSwapOption::empty(),
            grounded: Default::default(),
            removal,
            next_segment: AtomicU32::new(1),
            next_transaction: AtomicU64::new(1),
            transactions: AtomicUsize::new(0),
            next_table: AtomicU64::new(1),
            floor: AtomicU64::new(0),
            warned: AtomicU64::new(0),
            hot: Default::default(),
            signals: Arc::new(Signals::default()),
            extensions: Default::default(),
            now_and_then: Default::default(),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        }
    }
}

/// Opens or creates the database in `storage`.
pub(super) fn open(url: String, mut settings: Settings, storage: Arc<dyn Storage>) -> Result<Arc<Inner>> {
    match settings.cluster.take() {
        Some(_) if !settings.sync_commits => Err(Error::invalid(
            "a database in a cluster needs sync_commits: an acknowledged commit must outlive its writer",
        )),
        Some(cluster) => cluster::open(url, settings, cluster, storage),
        None => alone::open(url, settings, storage),
    }
}

/// The newest manifest.
pub(super) fn load_or_create(storage: &Arc<dyn Storage>, create: bool, url: &str) -> Result<Manifest> {
    match Manifest::load(storage)? {
        Some(manifest) => Ok(manifest),
        None if create => self::create(storage),
        None => Err(Error::new(ErrorKind::NotFound, format!("there is no database at '{url}'"))),
    }
}

pub(super) fn new_cache(settings: &Settings) -> Arc<ChunkCache> {
    Arc::new(ChunkCache::new((settings.memory_bytes as f64 * CACHE_SHARE) as u64))
}

/// How the log is written: what it has made durable becomes visible, unless the lease has run out by then.
pub(super) fn wal_options(
    publisher: &Arc<Publisher>,
    database: uuid::Uuid,
    epoch: u64,
    lease: Option<&Arc<Lease>>,
) -> WalOptions {
    let (published, lease) = (Arc::clone(publisher), lease.cloned());
    let fence = lease.map(|lease| -> grizzly_wal::Fence {
        Box::new(move || {
            lease.check().map_err(|error| grizzly_wal::Error::new(Below::AlreadyExists, error.to_string()))
        })
    });
    let on_durable: grizzly_wal::OnDurable = Box::new(move |lsn| published.durable(lsn));
    let owner = Some(database.as_u128());
    WalOptions { on_durable: Some(on_durable), fence, epoch, owner, ..WalOptions::default() }
}

/// Lets a database write to `wal`, beginning with what was recovered; `torn` says where the log read before ended
/// within a record. `manifest` is the newest.
pub(super) fn install(
    db: &Inner,
    recovery: Recovery,
    (wal, torn): (Arc<Wal>, Vec<String>),
    manifest: &Manifest,
) -> Result<()> {
    let state = adopt(db, recovery, torn, manifest)?;
    // In this order: whoever sees that this process writes begins transactions that may commit.
    let term = db.term.fetch_add(1, Ordering::AcqRel);
    db.wal.store(Some(wal));
    drop(state);
    // Where one process alone goes on with a new log, its snapshots may hold files that the newest version does not name.
    if term == 0 || db.member.is_some() { collect::remove_orphans(db, manifest).map(drop) } else { Ok(()) }
}

/// Shows what was recovered as the state of a database, and returns the lock under which commits are made.
pub(super) fn adopt<'db>(
    db: &'db Inner,
    recovery: Recovery,
    torn: Vec<String>,
    manifest: &Manifest,
) -> Result<MutexGuard<'db, CommitState>> {
    // As they are now: the writer before may have taken backups since this process began to follow.
    db.pins.resume(&db.storage, db.identity, recovery.named)?;
    *db.torn.lock() = torn;
    let listed = db.storage.list(DATA_DIR)?;
    let listed = listed.iter().filter_map(|file| segment_of_path(&file.path)).map(|(id, _)| id + 1).max();
    let version = Arc::new(recovery.version);
    let mut state = db.commit.lock();
    db.next_segment.fetch_max(recovery.next_segment.max(listed.unwrap_or(0)), Ordering::AcqRel);
    db.checkpoints.resume(manifest.number, recovery.lists);
    *db.obsolete.lock() = recovery.replaced;
    db.epoch.store(manifest.epoch, Ordering::Release);
    db.publisher.restart(Arc::clone(&version));
    db.hot.set(&version);
    *state = CommitState::new(version);
    Ok(state)
}

fn create(storage: &Arc<dyn Storage>) -> Result<Manifest> {
    let manifest = Manifest::new(uuid::Uuid::new_v4(), now());
    manifest.store(storage)?;
    Ok(manifest)
}

impl Recovery {
    pub(super) fn from_manifest(removal: Arc<Removal>, cache: Arc<ChunkCache>, manifest: &Manifest) -> Result<Self> {
        let mut version = DatabaseVersion::empty(Csn(manifest.history_from));
        version.csn = Csn(manifest.csn);
        version.catalog = Arc::new(manifest.catalog.clone());
        let mut lists = BTreeMap::new();
        for (id, def) in &manifest.catalog.tables {
            let mut table = TableVersion::new(Arc::clone(def), version.csn)?;
            let shards = manifest.tables.get(id).into_iter().flatten();
            for (shard, entries) in (0_u32..).zip(shards) {
                for entry in entries {
                    let segment = cold_segment(&removal, &cache, &entry.meta, &table)?;
                    let ended = match &entry.tombstones {
                        Some(path) => {
                            let (ended, list) = entry.read_list(removal.storage(), path, &segment)?;
                            lists.insert(entry.meta.id, list);
                            ended
                        }
                        None => Default::default(),
                    };
                    table.shard_mut(shard)?.push(SegmentData::Cold(segment), ended);
                }
            }
            version.tables.insert(*id, Arc::new(table));
        }
        let (next_segment, replaced, named) = (manifest.next_segment, Vec::new(), manifest.named_by_log());
        Ok(Self { removal, cache, version, next_segment, lists, replaced, named })
    }

    /// Does again what a log record says.
    pub(super) fn apply(&mut self, record: &Record) -> Result<()> {
        let csn = Csn(record.header.commit_ts);
        match record.header.kind {
            KIND_COMMIT | KIND_LISTING_COMMIT => {
                for op in redo::decode_commit(record.payload.clone())? {
                    if let RedoOp::Attach(attach) = &op {
                        self.named.insert(attach.meta.key(), record.header.lsn.0);
                    }
                    self.apply_op(op, csn)?;
                }
            }
            KIND_CATALOG => {
                let change: CatalogChange = redo::decode_json("a catalog change in the log", &record.payload)?;
                self.define(&change, csn)?;
            }
            kind @ (KIND_REPLACE | KIND_LISTING_REPLACE) => {
                let replace = redo::decode_replace(kind, record.payload.clone())?;
                if let Some(added) = &replace.added {
                    self.named.insert(added.key(), record.header.lsn.0);
                }
                self.replace(replace)?;
            }
            kind => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("log record {} is of kind {kind}, which this version does not know", record.header.lsn.0),
                ));
            }
        }
        self.version.csn = self.version.csn.max(csn);
        Ok(())
    }

    fn define(&mut self, change: &CatalogChange, csn: Csn) -> Result<()> {
        if let CatalogChange::DropTable { table } = change
            && let Some(table) = self.version.tables.get(table)
        {
            self.replaced.extend(table.segments().filter_map(|(_, segment)| segment.cold().cloned()));
        }
        ddl::apply(&mut self.version, change, csn)
    }

    fn apply_op(&mut self, op: RedoOp, csn: Csn) -> Result<()> {
        match op {
            RedoOp::Insert { table, shard, segment, first_row, versions, rows } => {
                self.next_segment = self.next_segment.max(segment + 1);
                let table = self.version.change_table(table, csn)?;
                let batch = rows.decode(&table.def.schema)?;
                let keys = index_keys(table, &batch)?;
                let definition = table.clone();
                let hot = growing(table, shard, segment)?;
                if hot.rows != first_row {
                    return Err(Error::corrupt(format!(
                        "the log adds row {first_row} to segment {segment} of table '{}', which has {} rows",
                        definition.def.name, hot.rows
                    )));
                }
                append_rows(hot, &batch, csn, &versions, &definition, &keys)?.insert();
                Ok(())
            }
            RedoOp::Delete { table, rows } => end_rows(self.version.change_table(table, csn)?, &rows, csn),
            RedoOp::Define(change) => self.define(&change, csn),
            RedoOp::Attach(Attach { table, shard, meta, ended, .. }) => {
                self.next_segment = self.next_segment.max(meta.id + 1);
                let table = self.version.change_table(table, csn)?;
                let segment = cold_segment(&self.removal, &self.cache, &meta, table)?;
                commit::attach(table, shard, segment, ended)
            }
        }
    }

    fn replace(&mut self, replace: Replace) -> Result<()> {
        let table = self.version.table_mut(replace.table)?;
        let added = match &replace.added {
            Some(meta) => {
                self.next_segment = self.next_segment.max(meta.id + 1);
                Some(cold_segment(&self.removal, &self.cache, meta, table)?)
            }
            None => None,
        };
        let removed: HashSet<u32> = replace.removed.iter().copied().collect();
        self.replaced.extend(removed.iter().filter_map(|id| table.segment(*id)?.cold().cloned()));
        compact::exchange(table, replace.shard, &removed, added, replace.ended)?;
        self.version.history_from = Csn(replace.history_from);
        Ok(())
    }

    /// Puts the files that a newer manifest names in the place of the rows in memory that they were written from.
    pub(super) fn adopt(&mut self, manifest: &Manifest) -> Result<()> {
        let mut named = HashSet::new();
        for (id, shards) in &manifest.tables {
            named.extend(shards.iter().flatten().map(|entry| entry.meta.key()));
            let Some(table) = self.version.tables.get(id).cloned() else { continue };
            for entry in shards.iter().flatten() {
                let hot = table.segment(entry.meta.id).and_then(|segment| segment.hot());
                if hot.is_none_or(|hot| hot.rows != entry.meta.rows) {
                    continue;
                }
                let file = cold_segment(&self.removal, &self.cache, &entry.meta, &table)?;
                if let Some(segment) = self.version.table_mut(*id)?.segment_mut(entry.meta.id) {
                    segment.data = SegmentData::Cold(file);
                }
            }
        }
        self.replaced.retain(|segment| named.contains(&segment.meta.key()));
        self.lists.clear();
        self.named.retain(|_, lsn| *lsn >= manifest.replay_from);
        self.named.extend(manifest.named_by_log());
        self.next_segment = self.next_segment.max(manifest.next_segment);
        Ok(())
    }

    /// Index runs may have been written since they were first looked for.
    pub(super) fn look_again_for_runs(&self) {
        let segments = self.version.tables.values().flat_map(|table| table.segments());
        segments.filter_map(|(_, segment)| segment.cold()).for_each(|cold| cold.forget_missing_runs());
    }
}

/// A segment on storage, read through the cache.
fn cold_segment(
    removal: &Arc<Removal>,
    cache: &Arc<ChunkCache>,
    meta: &SegmentMeta,
    table: &TableVersion,
) -> Result<Arc<ColdSegment>> {
    let bytes = Arc::new(SegmentBytes { storage: Arc::clone(removal.storage()), len: meta.file_bytes });
    let file = SegmentFile::open(bytes, &meta.path(), meta.file_schema(&table.def.schema), Arc::clone(cache))?;
    ColdSegment::check(meta, &file, table.def.id)?;
    let columns = table.def.schema.fields().len();
    Ok(Arc::new(ColdSegment::new(meta.clone(), file, columns, Arc::clone(removal))))
}

/// The hot segment with this number, made if the log mentions it for the first time; earlier ones grow no more.
fn growing(table: &mut TableVersion, shard: u32, segment: u32) -> Result<&mut HotSegment> {
    let indexes: Vec<u32> = table.def.indexes.iter().map(|index| index.id).collect();
    let name = table.def.name.clone();
    let version = table.shard_mut(shard)?;
    if version.active().is_none_or(|hot| hot.id != segment) {
        if let Some(before) = version.active() {
            before.sealed = true;
        }
        version.push_hot(HotSegment::new(segment, indexes.into_iter()));
    }
    version.active().ok_or_else(|| Error::internal(format!("table '{name}' has no growing segment in shard {shard}")))
}
