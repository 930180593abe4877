//! Reading a handful of rows out of an encoded column: each encoding looks up single values, nothing is unpacked.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BinaryViewArray, BooleanArray, LargeBinaryArray, LargeStringArray,
    NullArray, PrimitiveArray, StringArray, StringViewArray,
};
use arrow::datatypes::{self as types, DataType, i256};
use vortex_array::scalar::{DecimalValue, PValue, ScalarValue};
use vortex_array::{ArrayRef as VortexArray, ExecutionCtx};
use vortex_error::{VortexResult, vortex_bail, vortex_err};

type Values = Vec<Option<ScalarValue>>;

/// The values at `rows`, in that order, as Arrow of type `data_type`.
pub(super) fn read(
    array: &VortexArray,
    data_type: &DataType,
    rows: &[u32],
    context: &mut ExecutionCtx,
) -> VortexResult<ArrayRef> {
    use DataType::*;
    let values = values(array, rows, context)?;
    match data_type {
        Null => Ok(Arc::new(NullArray::new(rows.len()))),
        Boolean => Ok(Arc::new(BooleanArray::from(each(&values, boolean)?))),
        Int8 => primitive::<types::Int8Type>(&values, data_type),
        Int16 => primitive::<types::Int16Type>(&values, data_type),
        Int32 => primitive::<types::Int32Type>(&values, data_type),
        Int64 => primitive::<types::Int64Type>(&values, data_type),
        UInt8 => primitive::<types::UInt8Type>(&values, data_type),
        UInt16 => primitive::<types::UInt16Type>(&values, data_type),
        UInt32 => primitive::<types::UInt32Type>(&values, data_type),
        UInt64 => primitive::<types::UInt64Type>(&values, data_type),
        Float32 => primitive::<types::Float32Type>(&values, data_type),
        Float64 => primitive::<types::Float64Type>(&values, data_type),
        Decimal128(..) => primitive::<types::Decimal128Type>(&values, data_type),
        Decimal256(..) => primitive::<types::Decimal256Type>(&values, data_type),
        Utf8 => Ok(Arc::new(StringArray::from_iter(each(&values, text)?))),
        LargeUtf8 => Ok(Arc::new(LargeStringArray::from_iter(each(&values, text)?))),
        Utf8View => Ok(Arc::new(StringViewArray::from_iter(each(&values, text)?))),
        Binary => Ok(Arc::new(BinaryArray::from_iter(each(&values, binary)?))),
        LargeBinary => Ok(Arc::new(LargeBinaryArray::from_iter(each(&values, binary)?))),
        BinaryView => Ok(Arc::new(BinaryViewArray::from_iter(each(&values, binary)?))),
        other => vortex_bail!("no single values of {other}"),
    }
}

fn values(array: &VortexArray, rows: &[u32], context: &mut ExecutionCtx) -> VortexResult<Values> {
    if let [row] = rows {
        return Ok(vec![array.execute_scalar(*row as usize, context)?.into_value()]);
    }
    let mut probe = array.repeated_probe();
    rows.iter().map(|row| Ok(probe.execute_scalar(*row as usize, context)?.into_value())).collect()
}

/// `get` of every value that is not NULL.
fn each<'a, T>(values: &'a Values, get: impl Fn(&'a ScalarValue) -> Option<T>) -> VortexResult<Vec<Option<T>>> {
    let get = |value: &'a ScalarValue| get(value).ok_or_else(|| vortex_err!("a value of another type: {value:?}"));
    values.iter().map(|value| value.as_ref().map(get).transpose()).collect()
}

fn primitive<T>(values: &Values, data_type: &DataType) -> VortexResult<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: FromScalar,
{
    let array: PrimitiveArray<T> = each(values, T::Native::from_scalar)?.into_iter().collect();
    Ok(Arc::new(array.with_data_type(data_type.clone())))
}

fn boolean(value: &ScalarValue) -> Option<bool> {
    match value {
        ScalarValue::Bool(value) => Some(*value),
        _ => None,
    }
}

fn text(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(value) => Some(value.as_str()),
        _ => None,
    }
}

fn binary(value: &ScalarValue) -> Option<&[u8]> {
    match value {
        ScalarValue::Binary(value) => Some(value.as_slice()),
        _ => None,
    }
}

/// The native value of a scalar, if it is of exactly this type.
trait FromScalar: Sized {
    fn from_scalar(value: &ScalarValue) -> Option<Self>;
}

macro_rules! from_primitive {
    ($($native:ty => $variant:ident),* $(,)?) => {$(
        impl FromScalar for $native {
            fn from_scalar(value: &ScalarValue) -> Option<Self> {
                match value {
                    ScalarValue::Primitive(PValue::$variant(value)) => Some(*value),
                    _ => None,
                }
            }
        }
    )*};
}

from_primitive! {
    i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64, f32 => F32, f64 => F64,
}

fn decimal(value: &ScalarValue) -> Option<DecimalValue> {
    match value {
        ScalarValue::Decimal(value) => Some(*value),
        _ => None,
    }
}

impl FromScalar for i128 {
    fn from_scalar(value: &ScalarValue) -> Option<Self> {
        decimal(value)?.cast()
    }
}

impl FromScalar for i256 {
    fn from_scalar(value: &ScalarValue) -> Option<Self> {
        Some(decimal(value)?.as_i256().into())
    }
}
