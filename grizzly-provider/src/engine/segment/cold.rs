//! A segment on storage: its file, its index runs, and what all its rows share.

use std::{fmt, sync::Arc};

use arrow::datatypes::{DataType, Field};
use grizzly_wal::Storage;

use super::{
    super::{
        index::IndexRun,
        label::{self, Label, Part},
        stamps::Stamps,
    },
    BlobRead, SegmentError, SegmentFile,
    meta::SegmentMeta,
    removal::{InUse, Removal},
    runs::SegmentRuns,
};
use crate::{
    access::KeyRange,
    error::{Error, Result},
};

/// A segment on storage. Its files are removed when the last version that names it is gone, once
/// [`ColdSegment::mark_obsolete`] was called.
pub(crate) struct ColdSegment {
    pub(crate) meta: SegmentMeta,
    pub(crate) file: SegmentFile,
    /// What its file says that it is.
    label: Label,
    user_columns: usize,
    removal: Arc<Removal>,
    runs: Arc<SegmentRuns>,
    in_use: Arc<InUse>,
}

impl fmt::Debug for ColdSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdSegment").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// What a segment has for some ranges of an index's keys.
pub(crate) enum Found {
    /// Perhaps rows, which its run tells.
    Run(Arc<IndexRun>),
    /// No row.
    Nothing,
    /// No run: every row must be looked at.
    NoRun,
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
        self.storage.get_range(path, range).map_err(|error| match error.kind() {
            // Where something should be by the manifest or by the file itself, the file does not reach to.
            grizzly_wal::ErrorKind::Invalid => Box::new(SegmentError::corrupt(path, error)) as _,
            _ => error.into(),
        })
    }

    fn size(&self, _path: &str) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.len)
    }
}

impl ColdSegment {
    /// A segment of a table with `user_columns` columns.
    pub(crate) fn new(meta: SegmentMeta, file: SegmentFile, user_columns: usize, removal: Arc<Removal>) -> Self {
        let label = file.footer().label.clone().unwrap_or_else(|| Label::of_name(&meta));
        let runs = SegmentRuns::new(Arc::clone(file.cache()));
        let in_use = removal.in_use(meta.key());
        Self { meta, file, label, user_columns, removal, runs, in_use }
    }

    /// An error if the file is not the one that `meta` means, of table `table`.
    pub(crate) fn check(meta: &SegmentMeta, file: &SegmentFile, table: u64) -> Result<()> {
        let (path, found) = (meta.path(), file.footer().label.as_ref());
        let mut expected = Label::of_name(meta);
        if let Some(mark) = meta.mark {
            let database = found.map_or(expected.database, |found| found.database);
            expected = Label { database, table, mark, ..expected };
        }
        expected.check(&path, found)?;
        match file.footer().rows == u64::from(meta.rows) {
            true => Ok(()),
            false => {
                let (found, rows) = (file.footer().rows, meta.rows);
                Err(Error::corrupt(format!("'{path}' was exchanged: it has {found} rows, not {rows}")))
            }
        }
    }

    /// What the list of its ended rows says that it is.
    pub(crate) fn list_label(&self, checkpoint: u64, writer: u64) -> Label {
        self.label.with(Part::Ended { checkpoint, writer })
    }

    /// The same segment with the commit that its rows turned out to belong to.
    pub(crate) fn committed(&self, created: u64) -> Self {
        let meta = SegmentMeta { created: self.meta.created.map(|_| created), ..self.meta.clone() };
        Self {
            meta,
            file: self.file.clone(),
            label: self.label.clone(),
            user_columns: self.user_columns,
            removal: Arc::clone(&self.removal),
            runs: Arc::clone(&self.runs),
            in_use: Arc::clone(&self.in_use),
        }
    }

    /// The run of an index, read when it is not in memory; `None` if there is none and the segment must be scanned.
    pub(crate) fn run(&self, index: u32) -> Result<Option<Arc<IndexRun>>> {
        match self.runs.get(index) {
            Some(known) => Ok(known),
            None => self.read_run(index),
        }
    }

    /// The same, if the run may have keys in one of the ranges. One that is not in memory is not read to find that it has
    /// none.
    pub(crate) fn run_with(&self, index: u32, ranges: &[KeyRange]) -> Result<Found> {
        let run = match self.runs.get(index) {
            Some(known) => known,
            None if !self.runs.may_have(index, ranges) => return Ok(Found::Nothing),
            None => self.read_run(index)?,
        };
        Ok(run.map_or(Found::NoRun, Found::Run))
    }

    fn read_run(&self, index: u32) -> Result<Option<Arc<IndexRun>>> {
        let path = self.meta.run_path(index);
        let run = match self.removal.storage().get(&path) {
            Ok(bytes) => {
                let run = label::content(&path, &bytes, &self.label.with(Part::Run { index }))?;
                Some(IndexRun::from_bytes(run, self.meta.rows).map_err(|error| Error::from(error).at(&path))?)
            }
            Err(error) if error.kind() == grizzly_wal::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        Ok(self.runs.hold_read(index, run))
    }

    /// Stores the run of an index and serves it from then on.
    pub(crate) fn add_run(&self, index: u32, run: IndexRun) -> Result<()> {
        let path = self.meta.run_path(index);
        let parts = label::labelled(run.to_bytes(), &self.label.with(Part::Run { index }))?;
        self.removal.keep(&path);
        self.removal.storage().put(&path, &parts, grizzly_wal::PutMode::Overwrite)?;
        self.runs.hold(index, run);
        Ok(())
    }

    /// Lets go of a run. Whoever asks for it has it read again.
    pub(crate) fn forget_run(&self, index: u32) {
        self.runs.forget(index);
    }

    /// Lets go of the runs of all indexes but those that are `known`, and returns their files. Nobody finds them from now
    /// on: a query that began before the index was dropped looks at every row.
    pub(crate) fn drop_runs(&self, known: impl Fn(u32) -> bool) -> Vec<String> {
        self.runs.drop_unknown(known).into_iter().map(|index| self.meta.run_path(index)).collect()
    }

    /// The same for the run of one dropped index, which this may not have been asked for yet.
    pub(crate) fn drop_run(&self, index: u32) -> String {
        self.runs.drop_run(index);
        self.meta.run_path(index)
    }

    /// Lets go of its runs in memory. Whoever asks for one has it read again.
    pub(crate) fn let_go_of_runs(&self) {
        self.runs.let_go();
    }

    /// Looks again, when next asked, for runs that were not there.
    pub(crate) fn forget_missing_runs(&self) {
        self.runs.forget_missing();
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
        self.in_use.mark_obsolete();
    }
}
