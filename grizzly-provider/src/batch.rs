//! Batches by what their rows hold: strings and binaries are often views into buffers of many more rows, which are
//! sent, kept and counted with them unless somebody lets go of them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch, RecordBatchOptions, UInt32Array},
    buffer::Buffer,
    compute::take,
    datatypes::{ByteViewType, DataType},
};

/// Bytes that an array may waste without being copied.
const SLACK: usize = 256;

/// Bytes of an array's own rows, whatever the size of the buffers they lie in.
pub fn value_bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8View => 16 * array.len() + array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => 16 * array.len() + array.as_binary_view().total_buffer_bytes_used(),
        DataType::Struct(_) => array.as_struct().columns().iter().map(value_bytes).sum(),
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

/// Bytes of a batch's own rows, whatever the size of the buffers they lie in.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(value_bytes).sum()
}

/// The same rows, with columns copied that hold on to much more memory than they need.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
///
/// let texts: StringViewArray = (0..1_000).map(|n| Some(format!("a text that is not short, number {n}"))).collect();
/// let all = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)])?;
/// let one = grizzly_provider::batch::without_waste(&all.slice(500, 1));
/// assert!(one.get_array_memory_size() < 500);
/// # Ok::<_, arrow::error::ArrowError>(())
/// ```
pub fn without_waste(batch: &RecordBatch) -> RecordBatch {
    with_columns(batch, array_without_waste)
}

/// The batch with each column copied, or not, by `copy`.
fn with_columns(batch: &RecordBatch, copy: impl Fn(&ArrayRef) -> ArrayRef) -> RecordBatch {
    let columns = batch.columns().iter().map(copy).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).unwrap_or_else(|_| batch.clone())
}

/// The batch in pieces of at most about `bytes` each, as far as single rows are not larger, each without the memory
/// of the others.
pub fn pieces(batch: &RecordBatch, bytes: usize) -> Vec<RecordBatch> {
    let (rows, all) = (batch.num_rows(), batch_bytes(batch));
    if all <= bytes || rows <= 1 {
        return vec![with_columns(batch, own_strings)];
    }
    // Rows may differ much in size, so halves are looked at again.
    let half = rows / 2;
    let mut both = pieces(&batch.slice(0, half), bytes);
    both.extend(pieces(&batch.slice(half, rows - half), bytes));
    both
}

/// A column of views that lies in buffers of its own, as messages carry whole buffers.
fn own_strings(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => own_views(array, array.as_string_view()),
        DataType::BinaryView => own_views(array, array.as_binary_view()),
        _ => array_without_waste(array),
    }
}

fn own_views<T: ByteViewType + ?Sized>(array: &ArrayRef, views: &GenericByteViewArray<T>) -> ArrayRef {
    let (held, used) = (views.data_buffers().iter().map(Buffer::len).sum::<usize>(), views.total_buffer_bytes_used());
    if held <= used + used / 8 + SLACK { Arc::clone(array) } else { Arc::new(views.gc()) }
}

fn array_without_waste(array: &ArrayRef) -> ArrayRef {
    if array.get_array_memory_size() <= 2 * value_bytes(array) + SLACK {
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

#[cfg(test)]
pub(crate) mod tests {
    use arrow::array::{Int64Array, StringArray, StringViewArray};

    use super::*;

    /// 10,000 rows with a number and two texts.
    pub(crate) fn large() -> RecordBatch {
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
    fn pieces_are_all_rows_in_order_and_small() {
        let all = large();
        let pieces = pieces(&all, 10_000);
        assert!(pieces.iter().all(|piece| batch_bytes(piece) <= 10_000));
        assert_eq!(arrow::compute::concat_batches(&all.schema(), &pieces).expect("one schema"), all);
    }

    #[test]
    fn a_large_row_among_small_ones_is_a_piece_of_its_own() {
        let long = "x".repeat(100_000);
        let texts = StringViewArray::from_iter_values(["a", &long, "b", "c", &long]);
        let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).expect("one column");
        let sizes: Vec<_> = pieces(&batch, 1_000).iter().map(|piece| batch_bytes(piece) / 100_000).collect();
        assert_eq!(sizes.iter().filter(|size| **size >= 1).count(), 2, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 1), "{sizes:?}");
    }
}
