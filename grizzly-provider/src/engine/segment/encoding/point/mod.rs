//! Reading chosen rows out of encoded columns: each encoding looks up single values, nothing is unpacked.

mod integers;
mod prefetch;
mod strings;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BinaryViewArray, BooleanArray, LargeBinaryArray,
    LargeStringArray, NullArray, PrimitiveArray, StringArray, StringViewArray, UInt32Array,
};
use arrow::compute;
use arrow::datatypes::{self as types, DataType, Field, TimeUnit, i256};
use vortex_array::dtype::DType;
use vortex_array::scalar::{DecimalValue, PValue, ScalarValue};
use vortex_array::{ArrayRef as VortexArray, ExecutionCtx};
use vortex_error::{VortexResult, vortex_bail, vortex_err};

use super::session::encodings;
use super::{EncodedColumn, Repr, failed, take_encoded};
use crate::engine::segment::{Result, SegmentError};
use integers::Integers;
use strings::{ByteStrings, Strings};

/// Up to this many rows of a chunk the short ways are shorter than the encodings' own kernels.
const SHORT_WAY: usize = 256;

/// Of more rows of a chunk than that, the processor finds the rest while it reads the first.
const PREFETCHED: usize = 8;

/// Up to this many rows are looked up one by one if there is no shorter way.
const ONE_BY_ONE: usize = 8;

/// How a column chunk is read where only a few of its values are wanted: its tree of encodings, taken in once, so that
/// a value costs no more than finding its bits.
#[derive(Debug)]
pub(super) enum ShortWay {
    Integers(Integers),
    Strings(Strings),
}

impl ShortWay {
    /// `None` for a chunk with NULLs, and where only the encoding's own code finds values.
    fn of(array: &VortexArray) -> Option<Self> {
        // What cannot be taken in is an error where it is read.
        match array.dtype() {
            DType::Utf8(_) | DType::Binary(_) => Strings::of(array).ok()?.map(Self::Strings),
            _ => Integers::of(array).ok()?.map(Self::Integers),
        }
    }

    /// The integers that are read first.
    fn first(&self) -> Option<&Integers> {
        match self {
            Self::Integers(integers) => Some(integers),
            Self::Strings(strings) => strings.places(),
        }
    }
}

impl EncodedColumn {
    /// Has memory fetch the bits that [`Gathered::add`] will read first for these rows, and does not wait for them. A
    /// lookup reads a value here and a value there, and would spend much of its time waiting for one after the other.
    pub(crate) fn prefetch(&self, rows: &[u32]) {
        let known = self.0.short_way.get().and_then(Option::as_ref);
        let Some(integers) = known.and_then(ShortWay::first) else { return };
        for row in rows.iter().take(PREFETCHED) {
            integers.prefetch(*row as usize);
        }
    }
}

/// Chosen rows of one column, from chunk after chunk, put together without a step in between where that is possible.
#[derive(Debug)]
pub(crate) struct Gathered<'a> {
    field: &'a Field,
    parts: Vec<ArrayRef>,
    /// Behind `parts`; only one of the two has anything.
    integers: Vec<i64>,
    strings: ByteStrings,
}

impl<'a> Gathered<'a> {
    /// No rows yet of the column `field`.
    pub(crate) fn new(field: &'a Field) -> Self {
        Self { field, parts: Vec::new(), integers: Vec::new(), strings: ByteStrings::default() }
    }

    /// Appends the rows at these positions of a chunk, in this order; a position may be repeated.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if a position is not below [`rows`](EncodedColumn::rows), or if the chunk is not one
    /// of this column.
    pub(crate) fn add(&mut self, column: &EncodedColumn, rows: &[u32]) -> Result<()> {
        if let Some(row) = rows.iter().find(|row| **row as usize >= column.rows()) {
            return Err(SegmentError::internal("taking a row", format!("{row} of {}", column.rows())));
        }
        let array = match &column.0.repr {
            Repr::Plain(array) => {
                return self.add_array(compute::take(array, &UInt32Array::from(rows.to_vec()), None)?);
            }
            Repr::Encoded(array) => array,
        };
        let field = self.field;
        column.read(field, || {
            if rows.len() <= SHORT_WAY
                && let Some(way) = column.0.short_way.get_or_init(|| ShortWay::of(array))
            {
                return self.add_short(way, rows).map_err(failed("reading rows", field));
            }
            self.add_array(take_encoded(encodings()?, array, field, rows)?)
        })
    }

    /// Appends rows that are not encoded.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn add_array(&mut self, array: ArrayRef) -> Result<()> {
        self.flush()?;
        self.parts.push(array);
        Ok(())
    }

    /// All of them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn finish(mut self) -> Result<ArrayRef> {
        self.flush()?;
        if self.parts.len() > 1 {
            let parts: Vec<&dyn Array> = self.parts.iter().map(AsRef::as_ref).collect();
            return Ok(compute::concat(&parts)?);
        }
        Ok(self.parts.pop().unwrap_or_else(|| arrow::array::new_empty_array(self.field.data_type())))
    }

    fn add_short(&mut self, way: &ShortWay, rows: &[u32]) -> VortexResult<()> {
        match way {
            ShortWay::Integers(integers) => {
                for row in rows {
                    self.integers.push(integers.get(*row as usize)?);
                }
            }
            ShortWay::Strings(strings) => {
                for row in rows {
                    strings.get(*row as usize, &mut self.strings)?;
                }
            }
        }
        Ok(())
    }

    /// Makes Arrow of what was gathered last.
    fn flush(&mut self) -> Result<()> {
        let found = if !self.integers.is_empty() {
            Found::Integers(std::mem::take(&mut self.integers))
        } else if self.strings.len() > 0 {
            Found::Strings(std::mem::take(&mut self.strings))
        } else {
            return Ok(());
        };
        self.parts.push(to_arrow(&found, self.field.data_type()).map_err(failed("reading rows", self.field))?);
        Ok(())
    }
}

/// What was found at the rows asked for.
enum Found {
    /// Integers of any width, or unscaled decimals; no NULL.
    Integers(Vec<i64>),
    /// Strings or binaries; no NULL.
    Strings(ByteStrings),
    /// Anything.
    Scalars(Vec<Option<ScalarValue>>),
}

impl Found {
    fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Strings(values) => values.len(),
            Self::Scalars(values) => values.len(),
        }
    }
}

/// The values at `rows` one by one, in that order, as Arrow of the column's own type `data_type`; `None` if that would
/// take longer than the encodings' own kernels.
pub(super) fn one_by_one(
    array: &VortexArray,
    data_type: &DataType,
    rows: &[u32],
    context: &mut ExecutionCtx,
) -> VortexResult<Option<ArrayRef>> {
    if rows.len() > ONE_BY_ONE {
        return Ok(None);
    }
    let found = Found::Scalars(scalars(array, rows, context)?);
    to_arrow(&found, data_type).map(Some)
}

fn scalars(array: &VortexArray, rows: &[u32], context: &mut ExecutionCtx) -> VortexResult<Vec<Option<ScalarValue>>> {
    if let [row] = rows {
        return Ok(vec![array.execute_scalar(*row as usize, context)?.into_value()]);
    }
    let mut probe = array.repeated_probe();
    rows.iter().map(|row| Ok(probe.execute_scalar(*row as usize, context)?.into_value())).collect()
}

fn to_arrow(found: &Found, data_type: &DataType) -> VortexResult<ArrayRef> {
    use DataType::*;
    match data_type {
        Null => Ok(Arc::new(NullArray::new(found.len()))),
        Boolean => Ok(Arc::new(BooleanArray::from(each(found, boolean)?))),
        Int8 => primitive::<types::Int8Type>(found, data_type),
        Int16 => primitive::<types::Int16Type>(found, data_type),
        Int32 => primitive::<types::Int32Type>(found, data_type),
        Int64 => primitive::<types::Int64Type>(found, data_type),
        UInt8 => primitive::<types::UInt8Type>(found, data_type),
        UInt16 => primitive::<types::UInt16Type>(found, data_type),
        UInt32 => primitive::<types::UInt32Type>(found, data_type),
        UInt64 => primitive::<types::UInt64Type>(found, data_type),
        Float32 => primitive::<types::Float32Type>(found, data_type),
        Float64 => primitive::<types::Float64Type>(found, data_type),
        Date32 => primitive::<types::Date32Type>(found, data_type),
        Date64 => primitive::<types::Date64Type>(found, data_type),
        Time32(TimeUnit::Second) => primitive::<types::Time32SecondType>(found, data_type),
        Time32(_) => primitive::<types::Time32MillisecondType>(found, data_type),
        Time64(TimeUnit::Microsecond) => primitive::<types::Time64MicrosecondType>(found, data_type),
        Time64(_) => primitive::<types::Time64NanosecondType>(found, data_type),
        Timestamp(TimeUnit::Second, _) => primitive::<types::TimestampSecondType>(found, data_type),
        Timestamp(TimeUnit::Millisecond, _) => primitive::<types::TimestampMillisecondType>(found, data_type),
        Timestamp(TimeUnit::Microsecond, _) => primitive::<types::TimestampMicrosecondType>(found, data_type),
        Timestamp(TimeUnit::Nanosecond, _) => primitive::<types::TimestampNanosecondType>(found, data_type),
        Duration(TimeUnit::Second) => primitive::<types::DurationSecondType>(found, data_type),
        Duration(TimeUnit::Millisecond) => primitive::<types::DurationMillisecondType>(found, data_type),
        Duration(TimeUnit::Microsecond) => primitive::<types::DurationMicrosecondType>(found, data_type),
        Duration(TimeUnit::Nanosecond) => primitive::<types::DurationNanosecondType>(found, data_type),
        Decimal128(..) => primitive::<types::Decimal128Type>(found, data_type),
        Decimal256(..) => primitive::<types::Decimal256Type>(found, data_type),
        Utf8 => Ok(Arc::new(StringArray::from_iter(texts(found)?))),
        LargeUtf8 => Ok(Arc::new(LargeStringArray::from_iter(texts(found)?))),
        Utf8View => Ok(Arc::new(StringViewArray::from_iter(texts(found)?))),
        Binary => Ok(Arc::new(BinaryArray::from_iter(binaries(found)?))),
        LargeBinary => Ok(Arc::new(LargeBinaryArray::from_iter(binaries(found)?))),
        BinaryView => Ok(Arc::new(BinaryViewArray::from_iter(binaries(found)?))),
        other => vortex_bail!("no single values of {other}"),
    }
}

/// `get` of every value that is not NULL.
fn each<'a, T>(found: &'a Found, get: impl Fn(&'a ScalarValue) -> Option<T>) -> VortexResult<Vec<Option<T>>> {
    let Found::Scalars(values) = found else { vortex_bail!("values of another type") };
    let get = |value: &'a ScalarValue| get(value).ok_or_else(|| vortex_err!("a value of another type: {value:?}"));
    values.iter().map(|value| value.as_ref().map(get).transpose()).collect()
}

fn texts(found: &Found) -> VortexResult<Vec<Option<&str>>> {
    match found {
        Found::Strings(values) => {
            let text = |value| std::str::from_utf8(value).map_err(|e| vortex_err!("a string that is not UTF-8: {e}"));
            values.iter().map(|value| text(value).map(Some)).collect()
        }
        other => each(other, text),
    }
}

fn binaries(found: &Found) -> VortexResult<Vec<Option<&[u8]>>> {
    match found {
        Found::Strings(values) => Ok(values.iter().map(Some).collect()),
        other => each(other, binary),
    }
}

fn primitive<T>(found: &Found, data_type: &DataType) -> VortexResult<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: Native,
{
    let array: PrimitiveArray<T> = match found {
        Found::Integers(values) => {
            PrimitiveArray::from_iter_values(values.iter().map(|value| T::Native::from_wrapped(*value)))
        }
        other => each(other, T::Native::from_scalar)?.into_iter().collect(),
    };
    Ok(Arc::new(if array.data_type() == data_type { array } else { array.with_data_type(data_type.clone()) }))
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

/// Values as Arrow stores them.
trait Native: Sized {
    fn from_scalar(value: &ScalarValue) -> Option<Self>;

    /// From the 64 bits of an integer that has this type's width, or is a decimal's.
    fn from_wrapped(bits: i64) -> Self;
}

macro_rules! from_primitive {
    ($($native:ty => $variant:ident),* $(,)?) => {$(
        impl Native for $native {
            fn from_scalar(value: &ScalarValue) -> Option<Self> {
                match value {
                    ScalarValue::Primitive(PValue::$variant(value)) => Some(*value),
                    _ => None,
                }
            }

            fn from_wrapped(bits: i64) -> Self {
                bits as Self
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

impl Native for i128 {
    fn from_scalar(value: &ScalarValue) -> Option<Self> {
        decimal(value)?.cast()
    }

    fn from_wrapped(bits: i64) -> Self {
        i128::from(bits)
    }
}

impl Native for i256 {
    fn from_scalar(value: &ScalarValue) -> Option<Self> {
        Some(decimal(value)?.as_i256().into())
    }

    fn from_wrapped(bits: i64) -> Self {
        Self::from_i128(i128::from(bits))
    }
}
