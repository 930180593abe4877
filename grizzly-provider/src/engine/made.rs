//! A segment file before it is on storage.

use std::sync::Arc;

use super::{
    files::Files,
    label::Label,
    segment::{BuiltSegment, SegmentBuilder, cold::ColdSegment, meta::SegmentMeta},
    version::TableVersion,
};
use crate::error::{Error, Result};

/// The stamps that are columns of a file instead of being shared by all its rows. They are batches' last columns, in
/// this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamps {
    /// Commits. Without the column, one commit wrote all rows: the one that the segment joins with.
    pub(crate) created: bool,
    /// Versions. Without the column, all rows have version 1.
    pub(crate) versions: bool,
}

impl FileStamps {
    /// Rows of several commits.
    pub(crate) const ALL: Self = Self { created: true, versions: true };
}

/// A segment file with its name, perhaps not on storage yet.
#[derive(Debug)]
pub(crate) struct MadeSegment {
    meta: SegmentMeta,
    built: BuiltSegment,
}

impl MadeSegment {
    /// Of `database`, and of the writer of `epoch`.
    pub(crate) fn new(
        (database, epoch): (uuid::Uuid, u64),
        table: &TableVersion,
        id: u32,
        stamps: FileStamps,
        builder: SegmentBuilder,
    ) -> Result<Self> {
        let rows = builder.rows() as u32;
        let label = Label::new(database, table.def.id, id, epoch);
        let mark = Some(label.mark);
        let built = builder.labelled(label).finish()?;
        let file_bytes = built.parts.iter().map(|part| part.len() as u64).sum();
        let (created, row_version) = ((!stamps.created).then_some(0), (!stamps.versions).then_some(1));
        Ok(Self { meta: SegmentMeta { id, epoch, rows, file_bytes, created, row_version, mark }, built })
    }

    /// Stores it. After an error it may be there, now or later: only the same bytes may be stored under its name then.
    /// Index runs are the caller's matter.
    pub(crate) fn put(self, files: &Files, table: &TableVersion) -> Result<Arc<ColdSegment>, (Box<Self>, Error)> {
        match files.removal.storage().put(&self.meta.path(), &self.built.parts, grizzly_wal::PutMode::Overwrite) {
            Ok(()) => Ok(files.built(self.meta, table, self.built)),
            Err(error) => Err((Box::new(self), error.into())),
        }
    }
}
