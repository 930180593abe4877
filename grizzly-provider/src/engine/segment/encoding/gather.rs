//! Integers at given positions, straight out of the bits they are packed in.
//!
//! This is what a lookup by row costs, so there is no step between the packed words and the result: no scalar objects,
//! no type dispatch per row. Columns with NULLs, and encodings that are not listed here, take the general way.

use vortex_array::arrays::dict::DictArraySlotsExt;
use vortex_array::arrays::{Constant, Dict, Primitive, VarBinView, VarBinViewArray};
use vortex_array::dtype::DType;
use vortex_array::scalar::{PValue, ScalarValue};
use vortex_array::{
    ArrayRef as VortexArray, ArrayView, ExecutionCtx, match_each_integer_ptype, match_each_unsigned_integer_ptype,
};
use vortex_buffer::ByteBuffer;
use vortex_decimal_byte_parts::{DecimalByteParts, DecimalBytePartsArraySlotsExt};
use vortex_error::VortexResult;
use vortex_fastlanes::bitpack_decompress::unpack_single_primitive;
use vortex_fastlanes::{
    BitPacked, BitPackedArrayExt, BitWidthsView, FoR, FoRArrayExt, FoRArraySlotsExt, FoRReferences,
};

/// The integers (or unscaled decimals) at `rows`, as 64 bits: unsigned 64-bit ones wrapped. `None` where there is no short
/// way.
#[expect(clippy::unnecessary_cast, reason = "one of the types this is written for is i64 itself")]
pub(super) fn integers(
    array: &VortexArray,
    rows: &[u32],
    context: &mut ExecutionCtx,
) -> VortexResult<Option<Vec<i64>>> {
    if array.dtype().is_nullable() {
        return Ok(None);
    }
    if let Some(parts) = array.as_opt::<DecimalByteParts>() {
        return if parts.lower_parts().is_empty() { integers(parts.msp(), rows, context) } else { Ok(None) };
    }
    let DType::Primitive(ptype, _) = array.dtype() else { return Ok(None) };
    if !ptype.is_int() {
        return Ok(None);
    }
    if let Some(frame) = array.as_opt::<FoR>() {
        let FoRReferences::Global(reference) = frame.references() else { return Ok(None) };
        let Some(ScalarValue::Primitive(reference)) = reference.value() else { return Ok(None) };
        let Some(mut values) = integers(frame.encoded(), rows, context)? else { return Ok(None) };
        let reference = wrapped(reference);
        match_each_integer_ptype!(*ptype, |T| {
            values.iter_mut().for_each(|value| *value = (value.wrapping_add(reference) as T) as i64);
        });
        return Ok(Some(values));
    }
    if let Some(packed) = array.as_opt::<BitPacked>() {
        return packed_integers(array, packed, rows, context);
    }
    if let Some(dict) = array.as_opt::<Dict>() {
        let Some(codes) = codes(dict.codes(), rows, context)? else { return Ok(None) };
        return integers(dict.values(), &codes, context);
    }
    if let Some(constant) = array.as_opt::<Constant>() {
        let Some(ScalarValue::Primitive(value)) = constant.scalar().value() else { return Ok(None) };
        return Ok(Some(vec![wrapped(value); rows.len()]));
    }
    let Some(plain) = array.as_opt::<Primitive>() else { return Ok(None) };
    Ok(Some(match_each_integer_ptype!(*ptype, |T| {
        let values = plain.as_slice::<T>();
        rows.iter().map(|row| values[*row as usize] as i64).collect()
    })))
}

/// The strings or binaries at `rows` of a dictionary whose values are not compressed.
pub(super) fn from_dictionary(
    array: &VortexArray,
    rows: &[u32],
    context: &mut ExecutionCtx,
) -> VortexResult<Option<Vec<ByteBuffer>>> {
    let Some(dict) = array.as_opt::<Dict>().filter(|_| !array.dtype().is_nullable()) else { return Ok(None) };
    if !dict.values().is::<VarBinView>() {
        return Ok(None);
    }
    let Some(codes) = codes(dict.codes(), rows, context)? else { return Ok(None) };
    let values: VarBinViewArray = dict.values().clone().downcast();
    Ok(Some(codes.into_iter().map(|code| values.bytes_at(code as usize)).collect()))
}

fn codes(codes: &VortexArray, rows: &[u32], context: &mut ExecutionCtx) -> VortexResult<Option<Vec<u32>>> {
    let codes = integers(codes, rows, context)?;
    Ok(codes.map(|codes| codes.into_iter().map(|code| code as u32).collect()))
}

#[expect(clippy::unnecessary_cast, reason = "one of the types this is written for is i64 itself")]
fn packed_integers(
    array: &VortexArray,
    packed: ArrayView<'_, BitPacked>,
    rows: &[u32],
    context: &mut ExecutionCtx,
) -> VortexResult<Option<Vec<i64>>> {
    let BitWidthsView::Global(width) = packed.bit_widths() else { return Ok(None) };
    let (ptype, width, offset) = (array.dtype().as_ptype(), usize::from(width), usize::from(packed.offset()));
    if width == 0 || width > ptype.bit_width() {
        return Ok(None);
    }
    let mut values: Vec<i64> = match_each_unsigned_integer_ptype!(ptype.to_unsigned(), |T| {
        let words = packed.packed_slice::<T>();
        let value = |row: &u32| {
            // SAFETY: the width is within the word's, checked above, and the function itself takes only as many words as
            // a block has, with bounds checked.
            unsafe { unpack_single_primitive::<T>(words, width, *row as usize + offset) }
        };
        rows.iter().map(|row| value(row) as i64).collect()
    });
    // Sign-extend: words are packed as unsigned ones.
    match_each_integer_ptype!(ptype, |T| { values.iter_mut().for_each(|value| *value = (*value as T) as i64) });
    if let Some(patches) = packed.patches() {
        for (row, value) in rows.iter().zip(&mut values) {
            if let Some(patch) = patches.get_patched(*row as usize, context)? {
                let Some(ScalarValue::Primitive(patch)) = patch.value() else { return Ok(None) };
                *value = wrapped(patch);
            }
        }
    }
    Ok(Some(values))
}

fn wrapped(value: &PValue) -> i64 {
    match value {
        PValue::I8(v) => i64::from(*v),
        PValue::I16(v) => i64::from(*v),
        PValue::I32(v) => i64::from(*v),
        PValue::I64(v) => *v,
        PValue::U8(v) => i64::from(*v),
        PValue::U16(v) => i64::from(*v),
        PValue::U32(v) => i64::from(*v),
        PValue::U64(v) => *v as i64,
        // Callers have checked that the column is one of integers.
        PValue::F16(_) | PValue::F32(_) | PValue::F64(_) => 0,
    }
}
