//! A segment on storage: its file, its index runs, and what all its rows share.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use grizzly_wal::Storage;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::{
    super::{index::IndexRun, stamps::Stamps},
    BlobRead, Charge, SegmentFile,
};
use crate::error::{Error, Result};

/// Where segments and all that belongs to them are stored.
pub(crate) const DATA_DIR: &str = "data";
const CREATED: &str = "__created";
const VERSION: &str = "__row_version";

/// What the manifest and the log say of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentMeta {
    pub(crate) id: u32,
    pub(crate) rows: u32,
    pub(crate) file_bytes: u64,
    /// The commit that wrote every row, or `None` if the file has a column for it.
    pub(crate) created: Option<u64>,
    /// The version of every row, or `None` if the file has a column for it.
    pub(crate) row_version: Option<u64>,
}

/// A segment on storage. Its files are removed when the last version that names it is gone, once
/// [`ColdSegment::mark_obsolete`] was called.
pub(crate) struct ColdSegment {
    pub(crate) meta: SegmentMeta,
    pub(crate) file: SegmentFile,
    user_columns: usize,
    storage: Arc<dyn Storage>,
    runs: RwLock<HashMap<u32, Option<HeldRun>>>,
    obsolete: AtomicBool,
}

/// A run in memory, and the share of the memory budget that it takes.
#[derive(Clone)]
struct HeldRun {
    run: Arc<IndexRun>,
    _charge: Arc<Charge>,
}

impl fmt::Debug for ColdSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdSegment").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// Path of a segment's file.
pub(crate) fn segment_path(id: u32) -> String {
    format!("{DATA_DIR}/{id:08x}.seg")
}

/// Path of the run of one index over one segment.
pub(crate) fn run_path(segment: u32, index: u32) -> String {
    format!("{DATA_DIR}/{segment:08x}-{index}.idx")
}

/// The segment number in the name of a file under [`DATA_DIR`].
pub(crate) fn segment_of_path(path: &str) -> Option<u32> {
    let name = path.strip_prefix(DATA_DIR)?.strip_prefix('/')?;
    u32::from_str_radix(name.get(..8)?, 16).ok()
}

/// Segment and index in the name of a run.
pub(crate) fn run_of_path(path: &str) -> Option<(u32, u32)> {
    let segment = segment_of_path(path)?;
    let index = path.strip_suffix(".idx")?.rsplit_once('-')?.1;
    Some((segment, index.parse().ok()?))
}

/// A segment file as its reader wants it: its length is known beforehand.
#[derive(Debug)]
pub(crate) struct SegmentBytes {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) len: u64,
}

impl BlobRead for SegmentBytes {
    fn get_range(
        &self,
        path: &str,
        range: std::ops::Range<u64>,
    ) -> Result<bytes::Bytes, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.storage.get_range(path, range)?)
    }

    fn size(&self, _path: &str) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.len)
    }
}

/// The schema of a segment file: the table's columns, then those row stamps that differ within the segment.
pub(crate) fn file_schema(schema: &SchemaRef, created: bool, versions: bool) -> SchemaRef {
    let stamp = |name: &str| Arc::new(Field::new(name, DataType::UInt64, false));
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.extend(created.then(|| stamp(CREATED)));
    fields.extend(versions.then(|| stamp(VERSION)));
    Arc::new(Schema::new(fields))
}

impl SegmentMeta {
    /// The schema of this segment's file for a table with columns `schema`.
    pub(crate) fn file_schema(&self, schema: &SchemaRef) -> SchemaRef {
        file_schema(schema, self.created.is_none(), self.row_version.is_none())
    }
}

impl ColdSegment {
    /// A segment of a table with `user_columns` columns.
    pub(crate) fn new(meta: SegmentMeta, file: SegmentFile, user_columns: usize, storage: Arc<dyn Storage>) -> Self {
        Self { meta, file, user_columns, storage, runs: RwLock::default(), obsolete: AtomicBool::new(false) }
    }

    /// The same segment with the commit that its rows turned out to belong to.
    pub(crate) fn committed(&self, created: u64) -> Self {
        let meta = SegmentMeta { created: self.meta.created.map(|_| created), ..self.meta.clone() };
        Self {
            meta,
            file: self.file.clone(),
            user_columns: self.user_columns,
            storage: Arc::clone(&self.storage),
            runs: RwLock::new(self.runs.read().clone()),
            obsolete: AtomicBool::new(false),
        }
    }

    /// The run of an index, read when first asked for; `None` if there is none and the segment must be scanned.
    pub(crate) fn run(&self, index: u32) -> Result<Option<Arc<IndexRun>>> {
        if let Some(held) = self.runs.read().get(&index) {
            return Ok(held.as_ref().map(|held| Arc::clone(&held.run)));
        }
        let path = run_path(self.meta.id, index);
        let run = match self.storage.get(&path) {
            Ok(bytes) => Some(IndexRun::from_bytes(bytes).map_err(|error| Error::from(error).at(&path))?),
            Err(error) if error.kind() == grizzly_wal::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let held = run.map(|run| self.held(run));
        // Where several threads read it at once, the first to come back decides.
        let mut runs = self.runs.write();
        Ok(runs.entry(index).or_insert(held).as_ref().map(|held| Arc::clone(&held.run)))
    }

    fn held(&self, run: IndexRun) -> HeldRun {
        let charge = Arc::new(self.file.charge(run.nbytes()));
        HeldRun { run: Arc::new(run), _charge: charge }
    }

    /// Stores the run of an index and serves it from then on.
    pub(crate) fn add_run(&self, index: u32, run: IndexRun) -> Result<()> {
        let path = run_path(self.meta.id, index);
        self.storage.put(&path, &run.to_bytes(), grizzly_wal::PutMode::Overwrite)?;
        let held = self.held(run);
        self.runs.write().insert(index, Some(held));
        Ok(())
    }

    /// Lets go of the run of a dropped index.
    pub(crate) fn forget_run(&self, index: u32) {
        self.runs.write().remove(&index);
    }

    /// The commits that wrote the rows of a chunk.
    pub(crate) fn created(&self, chunk: usize) -> Result<Stamps> {
        match self.meta.created {
            Some(created) => Ok(Stamps::All(created)),
            None => self.stamp_column(chunk, self.user_columns),
        }
    }

    /// The versions of the rows of a chunk.
    pub(crate) fn versions(&self, chunk: usize) -> Result<Stamps> {
        match self.meta.row_version {
            Some(version) => Ok(Stamps::All(version)),
            None => self.stamp_column(chunk, self.user_columns + usize::from(self.meta.created.is_none())),
        }
    }

    fn stamp_column(&self, chunk: usize, column: usize) -> Result<Stamps> {
        let field = Field::new("stamp", DataType::UInt64, false);
        let values = self.file.column(chunk, column)?.decode(&field)?;
        let values = arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt64Type>(&values);
        Ok(Stamps::Each(values.values().as_ref().into()))
    }

    /// Lets the files go with the last version that names this segment.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for ColdSegment {
    fn drop(&mut self) {
        if !self.obsolete.load(Ordering::Acquire) {
            return;
        }
        let files = self.storage.list(DATA_DIR).unwrap_or_default();
        for file in files.into_iter().filter(|file| segment_of_path(&file.path) == Some(self.meta.id)) {
            if let Err(error) = self.storage.remove(&file.path) {
                tracing::warn!(file = file.path, %error, "an obsolete file stays until the next start");
            }
        }
    }
}
