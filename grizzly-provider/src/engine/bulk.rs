//! Loading many rows: they become segment files while they arrive, and one small log record makes them visible.

use std::sync::Arc;

use arrow::{array::ArrayRef, record_batch::RecordBatch};

use super::{
    catalog::TableDef,
    core::Inner,
    index::RunSorter,
    made::{FileStamps, MadeSegment},
    segment::{SegmentBuilder, cold::ColdSegment, meta::file_schema},
    txn::outcome::unique_violation,
    version::{TableCodecs, TableVersion},
};
use crate::{batch::batch_bytes, error::Result};

/// Rows of one segment file.
pub(crate) const SEGMENT_ROWS: usize = 1 << 20;
/// Bytes of rows, not encoded yet, that become a file even if they are fewer.
pub(crate) const SEGMENT_BYTES: usize = 256 << 20;

/// A segment in the making.
pub(crate) struct BulkLoad {
    builder: SegmentBuilder,
    /// Per index of the table.
    keys: Vec<RunSorter>,
    rows: usize,
    bytes: usize,
    stamps: FileStamps,
}

impl std::fmt::Debug for BulkLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkLoad").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl BulkLoad {
    /// Batches carry the stamps that `stamps` names behind the table's own columns.
    pub(crate) fn with_stamps(table: &TableDef, stamps: FileStamps) -> Result<Self> {
        let builder = SegmentBuilder::new(file_schema(&table.schema, stamps.created, stamps.versions));
        Ok(Self {
            builder,
            keys: table.indexes.iter().map(|_| RunSorter::default()).collect(),
            rows: 0,
            bytes: 0,
            stamps,
        })
    }

    pub(crate) fn push(&mut self, codecs: &TableCodecs, rows: &RecordBatch) -> Result<()> {
        for ((index, encoder), keys) in codecs.keys.iter().zip(&mut self.keys) {
            let columns: Vec<ArrayRef> = index.columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
            keys.push(&encoder.encode_columns(&columns)?);
        }
        self.rows += rows.num_rows();
        self.bytes += batch_bytes(rows);
        self.builder.push(rows.clone())?;
        Ok(())
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory held, about.
    pub(crate) fn nbytes(&self) -> usize {
        self.builder.nbytes() + self.keys.iter().map(RunSorter::nbytes).sum::<usize>()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows >= SEGMENT_ROWS || self.bytes >= SEGMENT_BYTES
    }

    /// Writes the file and its index runs. Two rows with one unique key are an error (unless they are of several
    /// commits: then old versions of a row share its key).
    pub(crate) fn finish(self, db: &Inner, table: &TableVersion) -> Result<Arc<ColdSegment>> {
        let segment = store(db, table, db.next_segment_id(), self.stamps, self.builder)?;
        for ((index, encoder), keys) in table.codecs.keys.iter().zip(self.keys) {
            let run = keys.finish();
            let repeated = if index.unique && !self.stamps.created {
                run.first_live_duplicate(|key| !encoder.has_null(key), |_| true)
            } else {
                None
            };
            if let Some(key) = repeated {
                segment.mark_obsolete();
                return Err(unique_violation(&table.def, &index.name, &encoder.display(&key)));
            }
            segment.add_run(index.id, run)?;
        }
        Ok(segment)
    }
}

/// Makes the file of segment `id` of batches that carry the commit and version of each row behind the table's columns.
pub(crate) fn make_segment(
    db: &Inner,
    table: &TableVersion,
    id: u32,
    batches: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<MadeSegment> {
    let mut builder = SegmentBuilder::new(file_schema(&table.def.schema, true, true));
    for batch in batches {
        builder.push(batch?)?;
    }
    MadeSegment::new((db.identity, db.file_epoch()?), table, id, FileStamps::ALL, builder)
}

fn store(
    db: &Inner,
    table: &TableVersion,
    id: u32,
    stamps: FileStamps,
    builder: SegmentBuilder,
) -> Result<Arc<ColdSegment>> {
    let made = MadeSegment::new((db.identity, db.file_epoch()?), table, id, stamps, builder)?;
    made.put(&db.files, table).map_err(|(_, error)| error)
}
