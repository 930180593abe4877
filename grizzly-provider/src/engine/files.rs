//! Where the files of segments are: on storage, and their chunks in memory.

use std::{collections::HashSet, sync::Arc};

use arrow::datatypes::SchemaRef;

use super::{
    segment::{
        BuiltSegment, ChunkCache, SegmentFile,
        cold::{ColdSegment, SegmentBytes, SegmentMeta},
        removal::Removal,
    },
    version::TableVersion,
};
use crate::error::Result;

/// What every segment file of a database is read through, and goes by.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) removal: Arc<Removal>,
    pub(crate) cache: Arc<ChunkCache>,
}

impl Files {
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
}
