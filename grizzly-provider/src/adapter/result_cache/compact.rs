//! Many small batches as fewer.

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef, error::ArrowError};

/// Batches of fewer rows are joined up to this many.
const ROWS: usize = 8192;

/// The same rows in fewer batches, where there are many small ones.
pub(super) fn joined(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut joined = Vec::new();
    let mut group: Vec<RecordBatch> = Vec::new();
    let mut rows = 0;
    for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
        if rows + batch.num_rows() > ROWS && !group.is_empty() {
            joined.push(one(schema, &mut group)?);
            rows = 0;
        }
        rows += batch.num_rows();
        group.push(batch);
    }
    if !group.is_empty() {
        joined.push(one(schema, &mut group)?);
    }
    Ok(joined)
}

fn one(schema: &SchemaRef, group: &mut Vec<RecordBatch>) -> Result<RecordBatch, ArrowError> {
    let all = std::mem::take(group);
    match <[RecordBatch; 1]>::try_from(all) {
        Ok([only]) => Ok(only),
        Err(all) => concat_batches(schema, &all),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::RecordBatchOptions,
        datatypes::{Field, Schema},
    };

    use super::*;
    use crate::batch::{tests::large, without_waste};

    #[test]
    fn small_batches_are_joined_and_rows_without_columns_counted() {
        let all = large();
        let pieces: Vec<_> = (0..100).map(|piece| without_waste(&all.slice(piece * 100, 100))).collect();
        let joined = joined(&all.schema(), pieces).expect("one schema");
        assert_eq!(joined.len(), 2);
        assert_eq!(concat_batches(&all.schema(), &joined).expect("one schema"), all);

        let nothing = Arc::new(Schema::new(Vec::<Field>::new()));
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&nothing), vec![], &options).expect("no columns");
        let joined = super::joined(&nothing, vec![without_waste(&rows), rows]).expect("one schema");
        assert_eq!(joined.iter().map(RecordBatch::num_rows).sum::<usize>(), 14);
    }
}
