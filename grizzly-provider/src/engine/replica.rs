//! A database as its manifest and the records behind that make it: what a start, a follower and a restore go by.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use grizzly_wal::Record;

use super::{
    files::Files,
    maintenance::tombstone_file::ListFile,
    manifest::{Manifest, SegmentEntry},
    redo::Change,
    segment::{cold::ColdSegment, meta::SegmentKey},
    version::{
        DatabaseVersion, Segment, SegmentData, TableVersion,
        apply::{IndexEntries, apply},
    },
};
use crate::{
    access::Csn,
    error::{Error, Result},
};

/// What was read so far.
pub(super) struct Replica {
    files: Files,
    pub(super) version: DatabaseVersion,
    pub(super) next_segment: u32,
    /// Lists of ended rows that are on storage.
    pub(super) lists: BTreeMap<u32, ListFile>,
    /// Segments that were replaced, and that the manifest may name still.
    pub(super) replaced: Vec<Arc<ColdSegment>>,
    /// Segments that records of the log name, with those records.
    pub(super) named: BTreeMap<SegmentKey, u64>,
}

impl Replica {
    pub(super) fn from_manifest(files: Files, manifest: &Manifest) -> Result<Self> {
        let mut version = DatabaseVersion::empty(Csn(manifest.history_from));
        version.csn = Csn(manifest.csn);
        version.catalog = Arc::new(manifest.catalog.clone());
        let mut lists = BTreeMap::new();
        for (id, def) in &manifest.catalog.tables {
            let mut table = TableVersion::new(Arc::clone(def), version.csn)?;
            let shards = manifest.tables.get(id).into_iter().flatten();
            for (shard, entries) in (0_u32..).zip(shards) {
                for entry in entries {
                    let segment = files.open(&entry.meta, &table)?;
                    let ended = match &entry.tombstones {
                        Some(path) => {
                            let (ended, list) = entry.read_list(files.removal.storage(), path, &segment)?;
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
        Ok(Self { files, version, next_segment, lists, replaced, named })
    }

    /// Does again what a log record says.
    pub(super) fn apply(&mut self, record: &Record) -> Result<()> {
        let change = Change::of(record)?;
        let effects = apply(&mut self.version, &change, Csn(record.header.commit_ts), &self.files)?;
        effects.entries.into_iter().for_each(IndexEntries::insert);
        self.replaced.extend(effects.gone);
        self.named.extend(effects.named.into_iter().map(|segment| (segment, record.header.lsn.0)));
        self.next_segment = self.next_segment.max(effects.next_segment);
        Ok(())
    }

    /// Puts the files that a newer manifest names in the place of the rows in memory that they were written from.
    pub(super) fn adopt(&mut self, manifest: &Manifest) -> Result<()> {
        let mut named = HashSet::new();
        for (id, shards) in &manifest.tables {
            named.extend(shards.iter().flatten().map(|entry| entry.meta.key()));
            let Some(table) = self.version.tables.get(id).cloned() else { continue };
            for entry in shards.iter().flatten() {
                let differs = |segment: &Segment| match &segment.data {
                    SegmentData::Hot(hot) => hot.rows == entry.meta.rows,
                    // The file of a writer that was replaced since, which counts no more.
                    SegmentData::Cold(cold) => cold.meta.key() != entry.meta.key(),
                };
                if !table.segment(entry.meta.id).is_some_and(|segment| differs(segment)) {
                    continue;
                }
                let file = self.files.open(&entry.meta, &table)?;
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

    /// An error if rows are in memory, or in another file, that the manifest names in a file.
    pub(super) fn check_begun_from(&self, manifest: &Manifest) -> Result<()> {
        for (id, shards) in &manifest.tables {
            let Some(table) = self.version.tables.get(id) else { continue };
            let elsewhere = |entry: &&SegmentEntry| {
                let segment = table.segment(entry.meta.id);
                segment.is_some_and(|segment| segment.cold().is_none_or(|cold| cold.meta.key() != entry.meta.key()))
            };
            if let Some(entry) = shards.iter().flatten().find(elsewhere) {
                let (table, path) = (&table.def.name, entry.meta.path());
                let message = format!("rows of table '{table}' are in memory or in another file, and not in '{path}'");
                return Err(Error::internal(message));
            }
        }
        Ok(())
    }

    /// Index runs may have been written since they were first looked for.
    pub(super) fn look_again_for_runs(&self) {
        let segments = self.version.tables.values().flat_map(|table| table.segments());
        segments.filter_map(|(_, segment)| segment.cold()).for_each(|cold| cold.forget_missing_runs());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema},
    };
    use grizzly_wal::{Lsn, Storage};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Grizzly, Settings,
        access::{IfExists, IndexDefinition, TableDefinition},
        engine::manifest::LOG_DIR,
    };

    /// What may happen to a database.
    #[derive(Debug, Clone)]
    enum Step {
        Put {
            table: usize,
            first: i64,
            count: i64,
        },
        Delete {
            table: usize,
            first: i64,
            count: i64,
        },
        /// More rows than a transaction keeps in memory.
        Load {
            table: usize,
            first: i64,
        },
        /// In one transaction with a savepoint that is returned to.
        Both {
            first: i64,
            count: i64,
        },
        CreateIndex {
            table: usize,
        },
        DropIndex {
            table: usize,
        },
        /// In one commit with its rows.
        ReplaceTable {
            table: usize,
            count: i64,
        },
        Flush,
        Compact {
            table: usize,
        },
    }

    const TABLES: [&str; 2] = ["t", "u"];
    const MANY: i64 = 40_000;

    fn step() -> impl Strategy<Value = Step> {
        let (table, first, count) = (0..TABLES.len(), 0..400_i64, 1..60_i64);
        prop_oneof![
            6 => (table.clone(), first.clone(), count.clone()).prop_map(|(table, first, count)| Step::Put { table, first, count }),
            4 => (table.clone(), first.clone(), count.clone()).prop_map(|(table, first, count)| Step::Delete { table, first, count }),
            1 => (table.clone(), first.clone()).prop_map(|(table, first)| Step::Load { table, first }),
            3 => (first, count.clone()).prop_map(|(first, count)| Step::Both { first, count }),
            1 => table.clone().prop_map(|table| Step::CreateIndex { table }),
            1 => table.clone().prop_map(|table| Step::DropIndex { table }),
            1 => (table.clone(), count).prop_map(|(table, count)| Step::ReplaceTable { table, count }),
            1 => Just(Step::Flush),
            2 => table.prop_map(|table| Step::Compact { table }),
        ]
    }

    fn definition(table: usize) -> TableDefinition {
        TableDefinition {
            schema_name: "public".into(),
            name: TABLES[table].into(),
            schema: Arc::new(Schema::new(["id", "grp"].map(|name| Field::new(name, DataType::Int64, false)).to_vec())),
            primary_key: vec!["id".into()],
            shards: table as u32 + 1,
            shard_by: vec![],
            defaults: vec![],
            indexes: vec![],
        }
    }

    fn rows(first: i64, count: i64) -> Result<RecordBatch> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + count));
        let groups: ArrayRef = Arc::new(Int64Array::from_iter_values((first..first + count).map(|id| id % 7)));
        Ok(RecordBatch::try_from_iter([("id", ids), ("grp", groups)])?)
    }

    fn delete(transaction: &mut crate::Transaction, table: &str, first: i64, count: i64) -> Result<()> {
        for id in first..first + count {
            let key: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![id]))];
            if let Some((row, _)) = transaction.find(table, &key)? {
                transaction.delete(table, &[row])?;
            }
        }
        Ok(())
    }

    fn take(db: &Grizzly, step: &Step) -> Result<()> {
        match *step {
            Step::Put { table, first, count } => db.put(TABLES[table], rows(first, count)?).map(drop),
            Step::Delete { table, first, count } => {
                let mut transaction = db.begin()?;
                delete(&mut transaction, TABLES[table], first, count)?;
                transaction.commit()?.into_result().map(drop)
            }
            Step::Load { table, first } => {
                let mut transaction = db.begin()?;
                transaction.put(TABLES[table], rows(first, MANY)?)?;
                transaction.commit()?.into_result().map(drop)
            }
            Step::Both { first, count } => {
                let mut transaction = db.begin()?;
                transaction.put(TABLES[0], rows(first, count)?)?;
                let savepoint = transaction.savepoint()?;
                transaction.put(TABLES[1], rows(first + 5, count)?)?;
                transaction.rollback_to(savepoint)?;
                delete(&mut transaction, TABLES[1], first, count)?;
                transaction.commit()?.into_result().map(drop)
            }
            Step::CreateIndex { table } => {
                let index =
                    IndexDefinition { name: "by_grp".into(), columns: vec![("grp".into(), true)], unique: false };
                db.create_index(TABLES[table], index, true).map(drop)
            }
            Step::DropIndex { table } => db.drop_index(Some(TABLES[table]), "by_grp", true).map(drop),
            Step::ReplaceTable { table, count } => {
                let mut transaction = db.begin()?;
                transaction.create_table(definition(table), IfExists::Replace)?;
                transaction.insert(TABLES[table], rows(0, count)?)?;
                transaction.commit()?.into_result().map(drop)
            }
            Step::Flush => db.flush(),
            Step::Compact { table } => db.compact(TABLES[table]),
        }
    }

    /// All that a version consists of, but for what a checkpoint does not keep: how many merges there were, and when a table
    /// had changed before it.
    fn shape(version: &DatabaseVersion) -> Vec<String> {
        let catalog = version.catalog.as_ref();
        let mut shape = vec![format!("{:?} {:?} {catalog:?}", version.csn, version.history_from)];
        for (id, table) in &version.tables {
            for (shard, segment) in table.segments() {
                let (number, rows) = (segment.id(), segment.rows());
                let rest = match &segment.data {
                    SegmentData::Cold(cold) => format!("{:?}", cold.meta),
                    SegmentData::Hot(hot) => {
                        let chunks = hot.chunks.iter().map(|chunk| {
                            format!("{} {:?} {:?} {:?}", chunk.first_row, chunk.created, chunk.versions, chunk.batch)
                        });
                        let indexes =
                            hot.indexes.iter().map(|(index, _)| (*index, hot.run(*index).map(|run| run.to_bytes())));
                        format!("{} {:?} {:?}", hot.sealed, chunks.collect::<Vec<_>>(), indexes.collect::<Vec<_>>())
                    }
                };
                let ended: Vec<_> = segment.tombstones.iter().collect();
                shape.push(format!("table {id} shard {shard} segment {number} rows {rows}: {rest} ended {ended:?}"));
            }
        }
        shape
    }

    /// What a process reads that begins now.
    fn replica(storage: &Arc<dyn Storage>) -> Result<Replica> {
        let manifest = Manifest::load(storage)?.ok_or_else(|| Error::not_found("no manifest"))?;
        let files = Files::new(storage, Duration::ZERO, Settings::default().memory_bytes);
        let mut replica = Replica::from_manifest(files, &manifest)?;
        for record in &mut grizzly_wal::read(Arc::clone(storage), LOG_DIR, Lsn(manifest.replay_from))? {
            replica.apply(&record?)?;
        }
        Ok(replica)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Whoever reads the log has, after each step, what the writer has.
        #[test]
        fn a_replica_is_what_the_writer_made(steps in proptest::collection::vec(step(), 1..25)) {
            let storage: Arc<dyn Storage> = grizzly_wal::open_storage("memory://").expect("memory is always there");
            let settings = Settings { background: false, retention: Duration::ZERO, memory_bytes: 4 << 20, ..Settings::default() };
            let db = Grizzly::builder("memory://").settings(settings).storage(Arc::clone(&storage)).open().expect("it opens");
            for table in 0..TABLES.len() {
                db.create_table(definition(table), false).expect("there is none yet");
            }
            for step in &steps {
                take(&db, step).expect("nobody is in the way");
                let replica = replica(&storage).expect("it can be read");
                let written = Arc::clone(&db.inner.commit.lock().version);
                prop_assert_eq!(shape(&replica.version), shape(&written), "after {:?}", step);
            }
        }
    }
}
