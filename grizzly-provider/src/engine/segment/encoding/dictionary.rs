//! Columns of few different values: a sorted dictionary and small codes.
//!
//! The compressor finds dictionaries too, but takes long over strings, compresses the few values (which makes single
//! reads slow), and numbers them as they come. Here strings are numbered in one pass, and every dictionary is sorted, so
//! that a range of values is a range of codes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::DataType;
use vortex_array::arrays::dict::DictArraySlotsExt;
use vortex_array::arrays::{Dict, DictArray, PrimitiveArray};
use vortex_array::dtype::DType;
use vortex_array::validity::Validity;
use vortex_array::{
    ArrayRef as VortexArray, ExecutionCtx, IntoArray, match_each_integer_ptype, match_each_native_ptype,
};
use vortex_arrow::ArrowSessionExt;
use vortex_buffer::{BitBuffer, Buffer};
use vortex_decimal_byte_parts::{DecimalByteParts, DecimalBytePartsArraySlotsExt};
use vortex_error::{VortexResult, vortex_err};
use xxhash_rust::xxh3::xxh3_64;

use super::session::Encodings;

/// More different values than this, or than one in [`ROWS_PER_VALUE`] rows, make no dictionary.
const MOST_VALUES: usize = 1 << 14;
const ROWS_PER_VALUE: usize = 4;

/// Values of more bytes than this are compressed themselves, though it makes single reads slower.
const PLAIN_BYTES: usize = 1 << 16;

/// Columns of many values are noticed within this many rows.
const SAMPLE_ROWS: usize = 1 << 10;

/// A dictionary of a string or binary column; `None` if it is of another type or has too many values.
pub(super) fn of_strings(
    encodings: &Encodings,
    array: &ArrayRef,
    context: &mut ExecutionCtx,
) -> VortexResult<Option<VortexArray>> {
    let numbered = match array.data_type() {
        DataType::Utf8 => number(array, |row| array.as_string::<i32>().value(row).as_bytes()),
        DataType::LargeUtf8 => number(array, |row| array.as_string::<i64>().value(row).as_bytes()),
        DataType::Binary => number(array, |row| array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => number(array, |row| array.as_binary::<i64>().value(row)),
        DataType::Utf8View => {
            let values = array.as_string_view();
            number(array, |row| values.value(row).as_bytes())
        }
        DataType::BinaryView => {
            let values = array.as_binary_view();
            number(array, |row| values.value(row))
        }
        _ => return Ok(None),
    };
    let Some((codes, first_rows)) = numbered else { return Ok(None) };
    let values = compute::take(array, &UInt32Array::from(first_rows), None).map_err(|e| vortex_err!("{e}"))?;
    let values = without_other_rows(values);
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    let is_large = values.get_array_memory_size() > PLAIN_BYTES;
    let mut values = encodings.session.arrow().from_arrow_array(values, nulls.is_some())?;
    if is_large {
        values = encodings.compressor.compress(&values, context)?;
    }
    let validity = match nulls {
        Some(nulls) => Validity::from(BitBuffer::from(nulls.inner().clone())),
        None => Validity::NonNullable,
    };
    let codes = narrow(&codes, values.len(), validity);
    let codes = encodings.compressor.compress(&codes, context)?;
    Ok(Some(DictArray::try_new(codes, values)?.into_array()))
}

/// Views taken from a column still hold on to the bytes of all its rows.
fn without_other_rows(values: ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Utf8View => Arc::new(values.as_string_view().gc()),
        DataType::BinaryView => Arc::new(values.as_binary_view().gc()),
        _ => values,
    }
}

fn narrow(codes: &[u16], values: usize, validity: Validity) -> VortexArray {
    if values <= 256 {
        PrimitiveArray::new(codes.iter().map(|code| *code as u8).collect::<Buffer<u8>>(), validity).into_array()
    } else {
        PrimitiveArray::new(Buffer::<u16>::copy_from(codes), validity).into_array()
    }
}

/// A code per row, and per code a row that has its value; codes in the order of values. NULL rows have code 0.
fn number<'a>(array: &ArrayRef, bytes: impl Fn(usize) -> &'a [u8]) -> Option<(Vec<u16>, Vec<u32>)> {
    let most = MOST_VALUES.min(array.len() / ROWS_PER_VALUE);
    let mut table = Table::new();
    let mut codes: Vec<u16> = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        if array.is_null(row) {
            codes.push(0);
            continue;
        }
        codes.push(table.code(bytes(row), row as u32));
        let values = table.values.len();
        if values > most || (row < SAMPLE_ROWS && values > SAMPLE_ROWS / 2) {
            return None;
        }
    }
    // One value is a constant, which the compressor knows better.
    if table.values.len() < 2 {
        return None;
    }
    let mut order: Vec<u16> = (0..table.values.len() as u16).collect();
    order.sort_unstable_by_key(|code| table.values[usize::from(*code)].0);
    let mut rank = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, code)| rank[usize::from(*code)] = place as u16);
    codes.iter_mut().for_each(|code| *code = rank[usize::from(*code)]);
    Some((codes, order.iter().map(|code| table.values[usize::from(*code)].1).collect()))
}

/// Values seen so far, found by their hash; a value has the number of its first appearance.
struct Table<'a> {
    /// Open addressing: number + 1, 0 for empty. Twice as many slots as values at least.
    slots: Vec<u16>,
    values: Vec<(&'a [u8], u32)>,
    last: usize,
}

impl<'a> Table<'a> {
    fn new() -> Self {
        Self { slots: vec![0; MOST_VALUES * 4], values: Vec::new(), last: 0 }
    }

    fn code(&mut self, value: &'a [u8], row: u32) -> u16 {
        // Neighbours are often equal.
        if self.values.get(self.last).is_some_and(|(last, _)| *last == value) {
            return self.last as u16;
        }
        let mask = self.slots.len() - 1;
        let mut slot = xxh3_64(value) as usize & mask;
        loop {
            match self.slots[slot] {
                0 => {
                    self.last = self.values.len();
                    self.values.push((value, row));
                    self.slots[slot] = self.values.len() as u16;
                    return self.last as u16;
                }
                taken if self.values[usize::from(taken) - 1].0 == value => {
                    self.last = usize::from(taken) - 1;
                    return taken - 1;
                }
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

/// The same column with the dictionary of numbers at its root sorted, if there is one.
pub(super) fn sorted(
    encodings: &Encodings,
    array: VortexArray,
    context: &mut ExecutionCtx,
) -> VortexResult<VortexArray> {
    if let Some(parts) = array.as_opt::<DecimalByteParts>()
        && let DType::Decimal(decimal, _) = array.dtype()
        && parts.lower_parts().is_empty()
        && let Some(msp) = sorted_dictionary(encodings, parts.msp(), context)?
    {
        return Ok(DecimalByteParts::try_new(msp, *decimal)?.into_array());
    }
    Ok(sorted_dictionary(encodings, &array, context)?.unwrap_or(array))
}

fn sorted_dictionary(
    encodings: &Encodings,
    array: &VortexArray,
    context: &mut ExecutionCtx,
) -> VortexResult<Option<VortexArray>> {
    let Some(dict) = array.as_opt::<Dict>() else { return Ok(None) };
    if !matches!(dict.values().dtype(), DType::Primitive(..)) || !dict.values().all_valid(context)? {
        return Ok(None);
    }
    let values = dict.values().clone().execute::<PrimitiveArray>(context)?;
    let mut order: Vec<usize> = (0..values.as_ref().len()).collect();
    let values = match_each_native_ptype!(values.ptype(), |T| {
        let slice = values.as_slice::<T>();
        order.sort_by(|a, b| vortex_array::dtype::NativePType::total_compare(slice[*a], slice[*b]));
        let sorted: Buffer<T> = order.iter().map(|code| slice[*code]).collect();
        PrimitiveArray::new(sorted, values.as_ref().validity()?)
    });
    let mut rank = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, code)| rank[*code] = place);
    let codes = dict.codes().clone().execute::<PrimitiveArray>(context)?;
    let validity = codes.as_ref().validity()?;
    let codes = match_each_integer_ptype!(codes.ptype(), |T| {
        let ranked = codes.as_slice::<T>().iter().map(|code| rank.get(*code as usize).map_or(0, |rank| *rank as T));
        PrimitiveArray::new(ranked.collect::<Buffer<T>>(), validity)
    });
    let codes = encodings.compressor.compress(&codes.into_array(), context)?;
    Ok(Some(DictArray::try_new(codes, values.into_array())?.into_array()))
}
