//! Batches without memory that they do not need: a slice of a few rows must not keep the buffers of many alive.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::{concat_batches, take},
    datatypes::{DataType, SchemaRef},
    error::ArrowError,
};

/// Batches of fewer rows are joined up to this many.
const ROWS: usize = 8192;
/// Bytes that an array may waste without being copied.
const SLACK: usize = 256;

/// `batch`, with columns copied that hold much more memory than their rows need.
pub(super) fn without_waste(batch: &RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter().map(array_without_waste).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).unwrap_or_else(|_| batch.clone())
}

fn array_without_waste(array: &ArrayRef) -> ArrayRef {
    let needed = array.to_data().get_slice_memory_size().unwrap_or(0);
    if array.get_array_memory_size() <= 2 * needed + SLACK {
        return Arc::clone(array);
    }
    match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => {
            let rows = u32::try_from(array.len()).unwrap_or(u32::MAX);
            let all: UInt32Array = (0..rows).collect();
            // What cannot be copied is counted as it is.
            take(array, &all, None).unwrap_or_else(|_| Arc::clone(array))
        }
    }
}

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
    use arrow::{
        array::{Int64Array, StringArray, StringViewArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    fn large() -> RecordBatch {
        let texts: Vec<String> = (0..10_000).map(|n| format!("a text too long for a view, number {n}")).collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from_iter_values(0..10_000))),
            ("text", Arc::new(StringArray::from_iter_values(&texts))),
            ("view", Arc::new(StringViewArray::from_iter_values(&texts))),
        ];
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    }

    #[test]
    fn a_slice_lets_go_of_what_it_was_cut_from() {
        let slice = large().slice(5_000, 3);
        assert!(slice.get_array_memory_size() > 100_000);
        let small = without_waste(&slice);
        assert!(small.get_array_memory_size() < 4_000, "{}", small.get_array_memory_size());
        assert_eq!(small, slice);
    }

    #[test]
    fn what_wastes_nothing_is_not_copied() {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
        assert!(Arc::ptr_eq(&array_without_waste(&values), &values));
    }

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
