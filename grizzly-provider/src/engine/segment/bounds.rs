//! The smallest and largest value of a column chunk, and values as key bytes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, BooleanArray, LargeBinaryArray,
    LargeStringArray, PrimitiveArray, StringArray, StringViewArray, downcast_primitive_array,
};
use arrow::compute;
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use super::super::key;
use super::{Result, SegmentError};

/// Types whose values have an order and key bytes.
pub(super) fn is_ordered(data_type: &DataType) -> bool {
    use DataType::*;
    let is_text = matches!(data_type, Boolean | Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView);
    let is_time = matches!(data_type, Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..));
    let is_number = data_type.is_integer() || matches!(data_type, Float32 | Float64 | Decimal128(..) | Decimal256(..));
    is_text || is_time || is_number
}

/// The smallest and the largest value, each as an array of one row; `None` if there are only NULLs, if the type has no
/// order, or if there is a NaN.
pub(super) fn extremes(array: &ArrayRef) -> Result<Option<(ArrayRef, ArrayRef)>> {
    if !is_ordered(array.data_type()) || array.null_count() == array.len() || has_nan(array) {
        return Ok(None);
    }
    let array: &dyn Array = array;
    let pair = downcast_primitive_array!(
        array => {
            match (compute::min(array), compute::max(array)) {
                (Some(min), Some(max)) => {
                    let pair = one_type(array, min, max);
                    Some((Arc::new(pair.slice(0, 1)) as ArrayRef, Arc::new(pair.slice(1, 1)) as ArrayRef))
                }
                _ => None,
            }
        }
        other => other_extremes(array, other),
    );
    Ok(pair)
}

fn one_type<T: ArrowPrimitiveType>(like: &PrimitiveArray<T>, min: T::Native, max: T::Native) -> PrimitiveArray<T> {
    PrimitiveArray::<T>::from_iter_values([min, max]).with_data_type(like.data_type().clone())
}

fn other_extremes(array: &dyn Array, data_type: &DataType) -> Option<(ArrayRef, ArrayRef)> {
    macro_rules! pair {
        ($array:expr, $min:ident, $max:ident, $out:ty) => {{
            let array = $array;
            let (min, max) = (compute::$min(array)?, compute::$max(array)?);
            (Arc::new(<$out>::from(vec![min])) as ArrayRef, Arc::new(<$out>::from(vec![max])) as ArrayRef)
        }};
    }
    Some(match data_type {
        DataType::Boolean => pair!(array.as_boolean(), min_boolean, max_boolean, BooleanArray),
        DataType::Utf8 => pair!(array.as_string::<i32>(), min_string, max_string, StringArray),
        DataType::LargeUtf8 => pair!(array.as_string::<i64>(), min_string, max_string, LargeStringArray),
        DataType::Utf8View => pair!(array.as_string_view(), min_string_view, max_string_view, StringViewArray),
        DataType::Binary => pair!(array.as_binary::<i32>(), min_binary, max_binary, BinaryArray),
        DataType::LargeBinary => pair!(array.as_binary::<i64>(), min_binary, max_binary, LargeBinaryArray),
        DataType::BinaryView => pair!(array.as_binary_view(), min_binary_view, max_binary_view, BinaryViewArray),
        _ => return None,
    })
}

fn has_nan(array: &ArrayRef) -> bool {
    match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().values().iter().any(|v| v.is_nan()),
        DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().any(|v| v.is_nan()),
        _ => false,
    }
}

/// Whether a literal's place among key bytes is not its place in a comparison: keys know one zero and one NaN, total
/// order knows two zeros and many.
pub(super) fn is_unordered_literal(literal: &ArrayRef, row: usize) -> bool {
    match literal.data_type() {
        DataType::Float32 => {
            let value = literal.as_primitive::<Float32Type>().value(row);
            value == 0.0 || value.is_nan()
        }
        DataType::Float64 => {
            let value = literal.as_primitive::<Float64Type>().value(row);
            value == 0.0 || value.is_nan()
        }
        _ => false,
    }
}

/// The key bytes of one value, `None` if its type has none.
pub(super) fn key_of(array: &ArrayRef, row: usize) -> Result<Option<Vec<u8>>> {
    if !is_ordered(array.data_type()) {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(17);
    key::encode_value(array, row, &mut bytes).map_err(|e| SegmentError::Unsupported { what: e.to_string() })?;
    Ok(Some(bytes))
}
