//! Of rows with equal keys, the first: what `ON CONFLICT DO NOTHING` keeps of the rows it is given.

use std::collections::HashSet;

use arrow::{
    array::{Array, BooleanArray},
    compute::filter_record_batch,
    datatypes::SchemaRef,
    record_batch::RecordBatch,
    row::{OwnedRow, RowConverter, Rows, SortField},
};

use crate::Result;

/// Remembers the keys of the rows it has kept.
pub(super) struct DistinctRows {
    keys: Vec<Key>,
}

struct Key {
    columns: Vec<usize>,
    converter: RowConverter,
    seen: HashSet<OwnedRow>,
}

impl DistinctRows {
    /// For rows of `schema`; each entry of `keys` is one set of columns that must be distinct.
    pub(super) fn new(schema: &SchemaRef, keys: &[Vec<usize>]) -> Result<Self> {
        let key = |columns: &Vec<usize>| -> Result<Key> {
            let fields = columns.iter().map(|column| SortField::new(schema.field(*column).data_type().clone()));
            let converter = RowConverter::new(fields.collect())?;
            Ok(Key { columns: columns.clone(), converter, seen: HashSet::new() })
        };
        Ok(Self { keys: keys.iter().map(key).collect::<Result<_>>()? })
    }

    /// The rows of `batch` none of whose keys was seen in a row kept before. Keys with NULLs equal no other.
    pub(super) fn filter(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = self.keys.iter().map(|key| key.rows(batch)).collect::<Result<Vec<_>>>()?;
        let mut keep = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let fresh =
                |(key, rows): (&Key, &Rows)| key.has_null(batch, row) || !key.seen.contains(&rows.row(row).owned());
            let kept = self.keys.iter().zip(&rows).all(fresh);
            if kept {
                for (key, rows) in self.keys.iter_mut().zip(&rows) {
                    if !key.has_null(batch, row) {
                        key.seen.insert(rows.row(row).owned());
                    }
                }
            }
            keep.push(kept);
        }
        Ok(filter_record_batch(batch, &BooleanArray::from(keep))?)
    }
}

impl Key {
    fn rows(&self, batch: &RecordBatch) -> Result<Rows> {
        let columns: Vec<_> = self.columns.iter().map(|column| batch.column(*column).clone()).collect();
        Ok(self.converter.convert_columns(&columns)?)
    }

    fn has_null(&self, batch: &RecordBatch, row: usize) -> bool {
        self.columns.iter().any(|column| batch.column(*column).is_null(row))
    }
}
