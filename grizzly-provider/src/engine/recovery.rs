//! Opening a database: the newest manifest, then the log behind it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
};

use grizzly_wal::{Lsn, Record, Storage, WalOptions};
use parking_lot::Mutex;

use super::{
    backup::pins::Pins,
    catalog::CatalogChange,
    database::{Inner, hot_rows, now, open_segment},
    ddl,
    maintenance::{
        collect, compact, flush, tombstone_file,
        worker::{self, Signals},
    },
    manifest::{FORMAT, Manifest},
    redo::{self, Attach, KIND_CATALOG, KIND_COMMIT, KIND_REPLACE, RedoOp, Replace},
    segment::{
        ChunkCache,
        cold::{ColdSegment, DATA_DIR, SegmentMeta, segment_of_path},
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
struct Recovery {
    storage: Arc<dyn Storage>,
    cache: Arc<ChunkCache>,
    version: DatabaseVersion,
    next_segment: u32,
    /// Lists of ended rows that are on storage.
    lists: BTreeMap<u32, (String, u32)>,
    replaced: Vec<Arc<ColdSegment>>,
    pins: Pins,
}

/// Opens or creates the database in `storage`.
pub(super) fn open(url: String, settings: Settings, storage: Arc<dyn Storage>) -> Result<Arc<Inner>> {
    let lock = storage.lock()?;
    let manifest = match Manifest::load(&storage)? {
        Some(manifest) => manifest,
        None if settings.create => create(&storage)?,
        None => return Err(Error::new(ErrorKind::NotFound, format!("there is no database at '{url}'"))),
    };
    let cache = Arc::new(ChunkCache::new((settings.memory_bytes as f64 * CACHE_SHARE) as u64));
    let mut recovery = Recovery::from_manifest(Arc::clone(&storage), cache, &manifest)?;
    let publisher = Arc::new(Publisher::new(recovery.version.clone()));
    let published = Arc::clone(&publisher);
    let options = WalOptions { on_durable: Some(Box::new(move |lsn| published.durable(lsn))), ..WalOptions::default() };
    let mut replay = grizzly_wal::open(Arc::clone(&storage), LOG_DIR, Lsn(manifest.replay_from), options)?;
    let mut records = 0_u64;
    for record in &mut replay {
        recovery.apply(&record?)?;
        records += 1;
    }
    let torn = replay.torn().to_vec();
    let wal = replay.into_writer()?;
    tracing::info!(url, records, csn = recovery.version.csn.0, "the database is open");
    recovery.finish(url, settings, manifest, publisher, (wal, torn), lock)
}

fn create(storage: &Arc<dyn Storage>) -> Result<Manifest> {
    let csn = now();
    let manifest = Manifest {
        format: FORMAT,
        database: uuid::Uuid::new_v4(),
        number: 1,
        epoch: 0,
        csn: csn.0,
        history_from: csn.0,
        replay_from: 1,
        next_segment: 1,
        catalog: Default::default(),
        tables: BTreeMap::new(),
        named_by_log: BTreeMap::new(),
    };
    manifest.store(storage)?;
    Ok(manifest)
}

impl Recovery {
    fn from_manifest(storage: Arc<dyn Storage>, cache: Arc<ChunkCache>, manifest: &Manifest) -> Result<Self> {
        let mut version = DatabaseVersion::empty(Csn(manifest.history_from));
        version.csn = Csn(manifest.csn);
        version.catalog = Arc::new(manifest.catalog.clone());
        let mut lists = BTreeMap::new();
        for (id, def) in &manifest.catalog.tables {
            let mut table = TableVersion::new(Arc::clone(def))?;
            let shards = manifest.tables.get(id).into_iter().flatten();
            for (shard, entries) in (0_u32..).zip(shards) {
                for entry in entries {
                    let segment = cold_segment(&storage, &cache, &entry.meta, &table)?;
                    let ended = match &entry.tombstones {
                        Some(path) => {
                            let ended = tombstone_file::read(&storage, path)?;
                            lists.insert(entry.meta.id, (path.clone(), ended.len()));
                            ended
                        }
                        None => Default::default(),
                    };
                    table.shard_mut(shard)?.push(SegmentData::Cold(segment), ended);
                }
            }
            version.tables.insert(*id, Arc::new(table));
        }
        let pins = Pins::load(&storage, manifest.named_by_log.clone())?;
        Ok(Self { storage, cache, version, next_segment: manifest.next_segment, lists, replaced: Vec::new(), pins })
    }

    /// Does again what a log record says.
    fn apply(&mut self, record: &Record) -> Result<()> {
        let csn = Csn(record.header.commit_ts);
        match record.header.kind {
            KIND_COMMIT => {
                for op in redo::decode_commit(record.payload.clone())? {
                    if let RedoOp::Attach(attach) = &op {
                        self.pins.note(record.header.lsn, attach.meta.id);
                    }
                    self.apply_op(op, csn)?;
                }
            }
            KIND_CATALOG => {
                let change: CatalogChange = redo::decode_json("a catalog change in the log", &record.payload)?;
                ddl::apply(&mut self.version, &change)?;
            }
            KIND_REPLACE => {
                let replace: Replace = redo::decode_json("a merge of segments in the log", &record.payload)?;
                if let Some(added) = &replace.added {
                    self.pins.note(record.header.lsn, added.id);
                }
                self.replace(&replace)?;
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

    fn apply_op(&mut self, op: RedoOp, csn: Csn) -> Result<()> {
        match op {
            RedoOp::Insert { table, shard, segment, first_row, versions, rows } => {
                self.next_segment = self.next_segment.max(segment + 1);
                let table = self.version.table_mut(table)?;
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
                append_rows(hot, &batch, csn, &versions, &definition, &keys)
            }
            RedoOp::Delete { table, rows } => {
                end_rows(self.version.table_mut(table)?, &rows, csn);
                Ok(())
            }
            RedoOp::Attach(Attach { table, shard, meta, ended }) => {
                self.next_segment = self.next_segment.max(meta.id + 1);
                let table = self.version.table_mut(table)?;
                let segment = cold_segment(&self.storage, &self.cache, &meta, table)?;
                commit::attach(table, shard, segment, ended.into_iter().map(|row| (row, Csn(0))).collect())
            }
        }
    }

    fn replace(&mut self, replace: &Replace) -> Result<()> {
        let table = self.version.table_mut(replace.table)?;
        let added = match &replace.added {
            Some(meta) => {
                self.next_segment = self.next_segment.max(meta.id + 1);
                Some(cold_segment(&self.storage, &self.cache, meta, table)?)
            }
            None => None,
        };
        let removed: HashSet<u32> = replace.removed.iter().copied().collect();
        self.replaced.extend(removed.iter().filter_map(|id| table.segment(*id)?.cold().cloned()));
        let ended = replace.ended.iter().map(|(row, csn)| (*row, Csn(*csn))).collect();
        compact::exchange(table, replace.shard, &removed, added, ended)?;
        self.version.history_from = Csn(replace.history_from);
        Ok(())
    }

    fn finish(
        self,
        url: String,
        settings: Settings,
        manifest: Manifest,
        publisher: Arc<Publisher>,
        (wal, torn): (grizzly_wal::Wal, Vec<String>),
        lock: Box<dyn std::any::Any + Send + Sync>,
    ) -> Result<Arc<Inner>> {
        let version = Arc::new(self.version);
        publisher.publish_now(Arc::clone(&version));
        let listed = self.storage.list(DATA_DIR)?;
        let next_segment = listed.iter().filter_map(|file| segment_of_path(&file.path)).map(|id| id + 1).max();
        let checkpoints = flush::Checkpoints::default();
        checkpoints.resume(manifest.number, self.lists);
        let background = settings.background;
        let inner = Arc::new(Inner {
            url,
            settings,
            storage: self.storage,
            wal: Arc::new(wal),
            publisher,
            hot_rows: AtomicU64::new(hot_rows(&version)),
            commit: Mutex::new(CommitState { version, moved: Default::default() }),
            checkpoint: Mutex::new(()),
            checkpoints,
            pins: self.pins,
            torn,
            obsolete: Mutex::new(self.replaced),
            snapshots: Arc::new(SnapshotRegistry::default()),
            cache: self.cache,
            identity: manifest.database,
            epoch: manifest.epoch + 1,
            next_segment: AtomicU32::new(self.next_segment.max(next_segment.unwrap_or(0))),
            next_transaction: AtomicU64::new(1),
            signals: Arc::new(Signals::default()),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        });
        collect::remove_orphans(&inner, &manifest)?;
        if background {
            let (weak, signals) = (Arc::downgrade(&inner), Arc::clone(&inner.signals));
            let thread = std::thread::Builder::new().name("grizzly-maintenance".into());
            thread.spawn(move || worker::run(&weak, &signals)).map_err(|error| {
                Error::new(ErrorKind::Resource, "the maintenance thread cannot be started").with_source(error)
            })?;
        }
        Ok(inner)
    }
}

fn cold_segment(
    storage: &Arc<dyn Storage>,
    cache: &Arc<ChunkCache>,
    meta: &SegmentMeta,
    table: &TableVersion,
) -> Result<Arc<ColdSegment>> {
    let file = open_segment(storage, cache, meta, &table.def.schema)?;
    let columns = table.def.schema.fields().len();
    Ok(Arc::new(ColdSegment::new(meta.clone(), file, columns, Arc::clone(storage))))
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
