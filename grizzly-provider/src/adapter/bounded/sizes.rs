//! Arguments of functions, as numbers.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array},
        compute::{cast, kernels::length::length},
        datatypes::{DataType, Int64Type, TimeUnit},
    },
    common::ScalarValue,
    error::Result,
    logical_expr::ColumnarValue,
};

use crate::batch::value_bytes;

/// A number for each row; what has none is NULL.
#[derive(Debug)]
pub(super) enum Numbers {
    Same(Option<i128>),
    Each(ArrayRef),
}

impl Numbers {
    pub(super) fn get(&self, row: usize) -> Option<i128> {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => {
                let values = values.as_primitive::<Int64Type>();
                (row < values.len() && values.is_valid(row)).then(|| i128::from(values.value(row)))
            }
        }
    }

    fn each(array: &ArrayRef) -> Result<Self> {
        Ok(Self::Each(cast(array, &DataType::Int64)?))
    }
}

/// Integers, and points in time in microseconds; what is neither is NULL.
pub(super) fn numbers(value: &ColumnarValue) -> Result<Numbers> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let is_time = matches!(value.data_type(), DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    if !is_time && !value.data_type().is_integer() {
        return Ok(Numbers::Same(None));
    }
    match value {
        ColumnarValue::Array(array) if is_time => Numbers::each(&cast(array, &time)?),
        ColumnarValue::Array(array) => Numbers::each(array),
        ColumnarValue::Scalar(scalar) => {
            let scalar = if is_time { scalar.cast_to(&time)? } else { scalar.clone() };
            let number = match scalar.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(number) => number.map(i128::from),
                _ => None,
            };
            Ok(Numbers::Same(number))
        }
    }
}

/// The microseconds of an interval of `range`, no less than one of them.
pub(super) fn interval(value: &ColumnarValue) -> Numbers {
    const DAY: i128 = 86_400_000_000;
    Numbers::Same(match value {
        ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(step))) => {
            let days = i128::from(step.months) * 28 + i128::from(step.days);
            Some((days * DAY + i128::from(step.nanoseconds) / 1_000).abs().max(1))
        }
        _ => Some(1),
    })
}

/// Bytes of each row.
pub(super) fn sizes(value: &ColumnarValue) -> Result<Numbers> {
    match value {
        ColumnarValue::Array(array) => sizes_of_each(array),
        ColumnarValue::Scalar(scalar) => {
            let text = scalar.try_as_str().flatten().map(str::len);
            Ok(Numbers::Same((!scalar.is_null()).then(|| text.unwrap_or_else(|| scalar.size()) as i128)))
        }
    }
}

fn sizes_of_each(array: &ArrayRef) -> Result<Numbers> {
    use DataType as D;
    match array.data_type() {
        D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Binary | D::LargeBinary | D::BinaryView => {
            Numbers::each(&length(array)?)
        }
        D::List(_) => lists(array, array.as_list::<i32>().values()),
        D::LargeList(_) => lists(array, array.as_list::<i64>().values()),
        _ => Ok(Numbers::Same(Some(of_one(array)))),
    }
}

/// Lists have their share of the bytes of all elements.
fn lists(array: &ArrayRef, elements: &ArrayRef) -> Result<Numbers> {
    let (of_element, lengths) = (of_one(elements), cast(&length(array)?, &DataType::Int64)?);
    let lengths = lengths.as_primitive::<Int64Type>();
    let bytes = |length: i64| i64::try_from(16 + i128::from(length) * of_element).unwrap_or(i64::MAX);
    let bytes: Int64Array = lengths.unary(bytes);
    Ok(Numbers::Each(Arc::new(bytes)))
}

/// Bytes of one value, on average.
fn of_one(array: &ArrayRef) -> i128 {
    value_bytes(array).div_ceil(array.len().max(1)) as i128
}

/// Bytes of one value of an argument, on average.
pub(super) fn size_of_one(value: &ColumnarValue) -> i128 {
    match value {
        ColumnarValue::Array(array) => of_one(array),
        ColumnarValue::Scalar(scalar) => scalar.size() as i128,
    }
}

/// How many elements each row's list has, those of lists within it included; of what is no list, NULL.
pub(super) fn elements(value: &ColumnarValue) -> Result<Numbers> {
    let count = |array: &ArrayRef| {
        let mut array = Arc::clone(array);
        let rows = array.len().max(1);
        loop {
            let within = match array.data_type() {
                DataType::List(_) => Arc::clone(array.as_list::<i32>().values()),
                DataType::LargeList(_) => Arc::clone(array.as_list::<i64>().values()),
                DataType::FixedSizeList(..) => Arc::clone(array.as_fixed_size_list().values()),
                _ => return (array.len(), rows),
            };
            array = within;
        }
    };
    match value {
        ColumnarValue::Scalar(scalar) => {
            let (elements, _) = count(&scalar.to_array()?);
            Ok(Numbers::Same(Some(elements as i128)))
        }
        ColumnarValue::Array(array) => match array.data_type() {
            // Rows of lists of values, as most are.
            DataType::List(element) | DataType::LargeList(element) if !element.data_type().is_nested() => {
                Numbers::each(&length(array)?)
            }
            _ => {
                let (elements, rows) = count(array);
                Ok(Numbers::Same(Some(elements.div_ceil(rows) as i128)))
            }
        },
    }
}
