//! Where the files of segments are: on storage, and their chunks in memory.

use std::{collections::HashSet, sync::Arc, time::Duration};

use arrow::datatypes::SchemaRef;
use grizzly_wal::Storage;

use super::{
    catalog::TableDef,
    segment::{
        BuiltSegment, ChunkCache, SegmentFile,
        cold::{ColdSegment, SegmentBytes},
        meta::SegmentMeta,
        removal::Removal,
    },
    version::TableVersion,
};
use crate::error::Result;

/// Share of the memory budget that encoded chunks may take; hot rows and index runs have the rest.
const CACHE_SHARE: f64 = 0.75;

/// What every segment file of a database is read through, and goes by.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) removal: Arc<Removal>,
    pub(crate) cache: Arc<ChunkCache>,
}

impl Files {
    /// Files of `storage`, which stay for `grace` when nothing here reads them any more, and `memory_bytes` for all of them.
    pub(crate) fn new(storage: &Arc<dyn Storage>, grace: Duration, memory_bytes: usize) -> Self {
        let removal = Arc::new(Removal::new(Arc::clone(storage), grace));
        Self { removal, cache: Arc::new(ChunkCache::new((memory_bytes as f64 * CACHE_SHARE) as u64)) }
    }

    /// A segment on storage: its footer is read, no rows.
    pub(crate) fn open(&self, meta: &SegmentMeta, table: &TableVersion) -> Result<Arc<ColdSegment>> {
        let (path, schema) = (meta.path(), meta.file_schema(&table.def.schema));
        let file = SegmentFile::open(self.bytes(meta), &path, schema, Arc::clone(&self.cache))?;
        ColdSegment::check(meta, &file, table.def.id)?;
        Ok(self.segment(meta.clone(), file, &table.def.schema))
    }

    /// A segment that was just written from `built`, its chunks in memory already.
    pub(crate) fn built(&self, meta: SegmentMeta, table: &TableVersion, built: BuiltSegment) -> Arc<ColdSegment> {
        let (path, schema) = (meta.path(), meta.file_schema(&table.def.schema));
        let file = SegmentFile::from_built(self.bytes(&meta), &path, schema, Arc::clone(&self.cache), built);
        self.segment(meta, file, &table.def.schema)
    }

    fn bytes(&self, meta: &SegmentMeta) -> Arc<SegmentBytes> {
        Arc::new(SegmentBytes { storage: Arc::clone(self.removal.storage()), len: meta.file_bytes })
    }

    fn segment(&self, meta: SegmentMeta, file: SegmentFile, schema: &SchemaRef) -> Arc<ColdSegment> {
        Arc::new(ColdSegment::new(meta, file, schema.fields().len(), Arc::clone(&self.removal)))
    }

    /// Lets go of what is in memory of segments. Whoever asks for it has it read again.
    pub(crate) fn let_go(&self, segments: &[Arc<ColdSegment>]) {
        segments.iter().for_each(|segment| segment.let_go_of_runs());
        let files: HashSet<u64> = segments.iter().map(|segment| segment.file.number()).collect();
        if !files.is_empty() {
            self.cache.forget(&files);
        }
    }

    /// Removes from a new segment the runs of indexes that were dropped while it was written.
    pub(crate) fn drop_unknown_runs(&self, def: &TableDef, segment: &ColdSegment) {
        for file in segment.drop_runs(|index| def.indexes.iter().any(|known| known.id == index)) {
            self.removal.remove_later(file);
        }
    }
}
