//! Tests on plain Arrow arrays: hot rows, decoded columns, the values of a dictionary.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayAccessor, ArrayRef, AsArray, BooleanArray, Datum, Scalar};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp;
use arrow::datatypes::{ArrowNativeType, DataType, i256};

use super::hash::FastHash;
use super::{Result, SegmentError};
use crate::access::{ColumnTest, CompareOp};

/// In-lists longer than this are looked up in a hash set.
const SHORT_LIST: usize = 4;

/// Rows of `array` for which all `tests` are TRUE.
pub(super) fn test_all(array: &ArrayRef, tests: &[&ColumnTest]) -> Result<BooleanBuffer> {
    let mut kept = BooleanBuffer::new_set(array.len());
    for test in tests {
        kept = &kept & &test_array(array, test)?;
    }
    Ok(kept)
}

/// Rows of `array` for which `test` is TRUE.
pub(super) fn test_array(array: &ArrayRef, test: &ColumnTest) -> Result<BooleanBuffer> {
    match test {
        ColumnTest::IsNull => Ok(match array.logical_nulls() {
            Some(nulls) => !nulls.inner(),
            None => BooleanBuffer::new_unset(array.len()),
        }),
        ColumnTest::IsNotNull => Ok(match array.logical_nulls() {
            Some(nulls) => nulls.into_inner(),
            None => BooleanBuffer::new_set(array.len()),
        }),
        ColumnTest::Compare { value, .. } if value.is_null(0) || array.data_type().is_null() => {
            Ok(BooleanBuffer::new_unset(array.len()))
        }
        ColumnTest::Compare { op, value } => compare(array, *op, &Scalar::new(Arc::clone(value))),
        ColumnTest::InList { values, negated } => in_list(array, values, *negated),
    }
}

/// Rows where `left op right` is TRUE.
///
/// # Errors
/// [`SegmentError::Unsupported`] for types without a comparison.
pub(super) fn compare(left: &dyn Datum, op: CompareOp, right: &dyn Datum) -> Result<BooleanBuffer> {
    let compared = match op {
        CompareOp::Eq => cmp::eq(left, right),
        CompareOp::NotEq => cmp::neq(left, right),
        CompareOp::Lt => cmp::lt(left, right),
        CompareOp::LtEq => cmp::lt_eq(left, right),
        CompareOp::Gt => cmp::gt(left, right),
        CompareOp::GtEq => cmp::gt_eq(left, right),
    };
    Ok(is_true(compared.map_err(|e| SegmentError::Unsupported { what: e.to_string() })?))
}

fn is_true(array: BooleanArray) -> BooleanBuffer {
    match array.into_parts() {
        (bits, Some(nulls)) => &bits & nulls.inner(),
        (bits, None) => bits,
    }
}

fn in_list(array: &ArrayRef, values: &ArrayRef, negated: bool) -> Result<BooleanBuffer> {
    if values.is_empty() {
        return Ok(if negated { BooleanBuffer::new_set(array.len()) } else { BooleanBuffer::new_unset(array.len()) });
    }
    let found = match find_in_set(array, values) {
        Some(found) if values.len() > SHORT_LIST => found,
        _ => {
            let mut found = BooleanBuffer::new_unset(array.len());
            for row in 0..values.len() {
                found = &found | &compare(array, CompareOp::Eq, &Scalar::new(values.slice(row, 1)))?;
            }
            found
        }
    };
    let found = if negated { !&found } else { found };
    Ok(match array.logical_nulls() {
        Some(nulls) => &found & nulls.inner(),
        None => found,
    })
}

/// Membership by hashing, for types whose equality is equality of bytes; NULL rows get any answer.
fn find_in_set(array: &ArrayRef, values: &ArrayRef) -> Option<BooleanBuffer> {
    if array.data_type() != values.data_type() {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(find(array.as_string::<i32>(), values.as_string::<i32>())),
        DataType::LargeUtf8 => Some(find(array.as_string::<i64>(), values.as_string::<i64>())),
        DataType::Utf8View => Some(find(array.as_string_view(), values.as_string_view())),
        DataType::Binary => Some(find(array.as_binary::<i32>(), values.as_binary::<i32>())),
        DataType::LargeBinary => Some(find(array.as_binary::<i64>(), values.as_binary::<i64>())),
        DataType::BinaryView => Some(find(array.as_binary_view(), values.as_binary_view())),
        // Made of parts, and aligned as those.
        DataType::Interval(_) => None,
        other => match other.primitive_width()? {
            1 => Some(find_native::<u8>(array, values)),
            2 => Some(find_native::<u16>(array, values)),
            4 => Some(find_native::<u32>(array, values)),
            8 => Some(find_native::<u64>(array, values)),
            16 => Some(find_native::<i128>(array, values)),
            32 => Some(find_native::<i256>(array, values)),
            _ => None,
        },
    }
}

fn find<A, T>(array: A, values: A) -> BooleanBuffer
where
    A: ArrayAccessor<Item = T>,
    T: Hash + Eq,
{
    let set: HashSet<T, FastHash> = (0..values.len()).map(|row| values.value(row)).collect();
    BooleanBuffer::collect_bool(array.len(), |row| set.contains(&array.value(row)))
}

fn find_native<T: ArrowNativeType + Hash + Eq + Ord>(array: &ArrayRef, values: &ArrayRef) -> BooleanBuffer {
    let (array, values) = (array.to_data(), values.to_data());
    let rows = &array.buffer::<T>(0)[..array.len()];
    let set: HashSet<T, FastHash> = values.buffer::<T>(0)[..values.len()].iter().copied().collect();
    // Most rows are outside of the range: two comparisons instead of a hash.
    let (Some(least), Some(most)) = (set.iter().min().copied(), set.iter().max().copied()) else {
        return BooleanBuffer::new_unset(rows.len());
    };
    BooleanBuffer::collect_bool(rows.len(), |row| {
        let value = rows[row];
        value >= least && value <= most && set.contains(&value)
    })
}
