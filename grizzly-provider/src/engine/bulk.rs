//! Loading many rows: they become segment files while they arrive, and one small log record makes them visible.

use std::sync::Arc;

use arrow::{array::ArrayRef, record_batch::RecordBatch};

use super::{
    catalog::TableDef,
    database::Inner,
    index::IndexRun,
    key::Keys,
    segment::{
        SegmentBuilder,
        cold::{ColdSegment, SegmentMeta, file_schema},
    },
    txn::transaction::unique_violation,
    version::{TableCodecs, TableVersion},
};
use crate::error::Result;

/// Rows of one segment file.
pub(crate) const SEGMENT_ROWS: usize = 1 << 20;

/// A segment in the making.
pub(crate) struct BulkLoad {
    builder: SegmentBuilder,
    keys: Vec<Option<Keys>>,
    rows: usize,
    /// The stamps that are columns of the file instead of being shared by all rows.
    stamped: bool,
}

impl std::fmt::Debug for BulkLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkLoad").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl BulkLoad {
    /// New rows that will share one commit and have version 1.
    pub(crate) fn new(table: &TableDef) -> Result<Self> {
        Self::with_stamps(table, false)
    }

    /// With `stamped`, batches carry the commit and version of each row in two columns behind the table's own.
    pub(crate) fn with_stamps(table: &TableDef, stamped: bool) -> Result<Self> {
        let builder = SegmentBuilder::new(file_schema(&table.schema, stamped, stamped));
        Ok(Self { builder, keys: table.indexes.iter().map(|_| None).collect(), rows: 0, stamped })
    }

    pub(crate) fn push(&mut self, codecs: &TableCodecs, rows: &RecordBatch) -> Result<()> {
        for ((index, encoder), keys) in codecs.keys.iter().zip(&mut self.keys) {
            let columns: Vec<ArrayRef> = index.columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
            let encoded = encoder.encode_columns(&columns)?;
            match keys {
                Some(keys) => keys.extend(&encoded),
                None => *keys = Some(encoded),
            }
        }
        self.rows += rows.num_rows();
        self.builder.push(rows.clone())?;
        Ok(())
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows >= SEGMENT_ROWS
    }

    /// Writes the file and its index runs. Two rows with one unique key are an error (unless stamped: then old
    /// versions of a row share its key).
    pub(crate) fn finish(self, db: &Inner, table: &TableVersion) -> Result<Arc<ColdSegment>> {
        let segment = store(db, table, db.next_segment_id(), self.stamped, self.builder)?;
        for ((index, encoder), keys) in table.codecs.keys.iter().zip(self.keys) {
            let Some(keys) = keys else { continue };
            let run = IndexRun::build(&keys, None);
            let repeated = run.first_duplicate().filter(|key| index.unique && !self.stamped && !encoder.has_null(key));
            if let Some(key) = repeated {
                segment.mark_obsolete();
                return Err(unique_violation(&table.def, &index.name, &encoder.display(&key)));
            }
            segment.add_run(index.id, run)?;
        }
        Ok(segment)
    }
}

/// Writes batches as the file of segment `id`; with `stamped` they carry the commit and version of each row in two
/// columns behind the table's own. Index runs are the caller's matter.
pub(crate) fn write_segment(
    db: &Inner,
    table: &TableVersion,
    id: u32,
    stamped: bool,
    batches: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<Arc<ColdSegment>> {
    let mut builder = SegmentBuilder::new(file_schema(&table.def.schema, stamped, stamped));
    for batch in batches {
        builder.push(batch?)?;
    }
    store(db, table, id, stamped, builder)
}

fn store(
    db: &Inner,
    table: &TableVersion,
    id: u32,
    stamped: bool,
    builder: SegmentBuilder,
) -> Result<Arc<ColdSegment>> {
    let rows = builder.rows() as u32;
    let built = builder.finish()?;
    let file_bytes = built.parts.iter().map(|part| part.len() as u64).sum();
    let shared = |value| (!stamped).then_some(value);
    let (epoch, created, row_version) = (db.file_epoch()?, shared(0), shared(1));
    let meta = SegmentMeta { id, epoch, rows, file_bytes, created, row_version };
    db.storage.put(&meta.path(), &built.parts, grizzly_wal::PutMode::Overwrite)?;
    let file = db.built_segment(&meta, &table.def.schema, built)?;
    Ok(Arc::new(ColdSegment::new(meta, file, table.def.schema.fields().len(), Arc::clone(&db.removal))))
}
