//! Values at given positions, straight out of the bits they are packed in.
//!
//! This is what a lookup by row costs, so there is no step between the packed words and the result: no scalar objects,
//! no type dispatch per row. Columns with NULLs, and encodings that are not listed here, take the general way.

use std::ops::Range;

use vortex_array::arrays::dict::DictArraySlotsExt;
use vortex_array::arrays::{Constant, Dict, Primitive, VarBinView};
use vortex_array::dtype::DType;
use vortex_array::patches::Patches;
use vortex_array::scalar::{PValue, ScalarValue};
use vortex_array::{ArrayRef as VortexArray, ArrayView, match_each_integer_ptype, match_each_unsigned_integer_ptype};
use vortex_decimal_byte_parts::{DecimalByteParts, DecimalBytePartsArraySlotsExt};
use vortex_error::{VortexResult, vortex_err};
use vortex_fastlanes::bitpack_decompress::unpack_single_primitive;
use vortex_fastlanes::{
    BitPacked, BitPackedArrayExt, BitWidthsView, FoR, FoRArrayExt, FoRArraySlotsExt, FoRReferences,
};
use vortex_fsst::{FSST, FSSTArraySlotsExt};

/// Strings or binaries one behind the other.
#[derive(Debug, Default)]
pub(super) struct Strings {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.ends.push(self.data.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.data[start..*end])
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.data.truncate(self.ends.last().copied().unwrap_or(0));
    }
}

/// Appends the integers (or unscaled decimals) at `rows`, as 64 bits: unsigned 64-bit ones wrapped. `false`, and nothing
/// is appended, where there is no short way.
pub(super) fn integers(array: &VortexArray, rows: &[u32], found: &mut Vec<i64>) -> VortexResult<bool> {
    let before = found.len();
    let complete = append_integers(array, rows, found)?;
    if !complete {
        found.truncate(before);
    }
    Ok(complete)
}

#[expect(clippy::unnecessary_cast, reason = "one of the types this is written for is i64 itself")]
fn append_integers(array: &VortexArray, rows: &[u32], found: &mut Vec<i64>) -> VortexResult<bool> {
    if array.dtype().is_nullable() {
        return Ok(false);
    }
    if let Some(parts) = array.as_opt::<DecimalByteParts>() {
        return if parts.lower_parts().is_empty() { append_integers(parts.msp(), rows, found) } else { Ok(false) };
    }
    let DType::Primitive(ptype, _) = array.dtype() else { return Ok(false) };
    if !ptype.is_int() {
        return Ok(false);
    }
    let start = found.len();
    if let Some(frame) = array.as_opt::<FoR>() {
        let FoRReferences::Global(reference) = frame.references() else { return Ok(false) };
        let Some(ScalarValue::Primitive(reference)) = reference.value() else { return Ok(false) };
        if !append_integers(frame.encoded(), rows, found)? {
            return Ok(false);
        }
        let reference = wrapped(reference);
        match_each_integer_ptype!(*ptype, |T| {
            found[start..].iter_mut().for_each(|value| *value = (value.wrapping_add(reference) as T) as i64);
        });
    } else if let Some(packed) = array.as_opt::<BitPacked>() {
        return append_packed(array, packed, rows, found);
    } else if let Some(dict) = array.as_opt::<Dict>() {
        let Some(codes) = codes(dict.codes(), rows)? else { return Ok(false) };
        return append_integers(dict.values(), &codes, found);
    } else if let Some(constant) = array.as_opt::<Constant>() {
        let Some(ScalarValue::Primitive(value)) = constant.scalar().value() else { return Ok(false) };
        found.extend(std::iter::repeat_n(wrapped(value), rows.len()));
    } else {
        let Some(plain) = array.as_opt::<Primitive>() else { return Ok(false) };
        match_each_integer_ptype!(*ptype, |T| {
            let values = plain.as_slice::<T>();
            found.extend(rows.iter().map(|row| values[*row as usize] as i64));
        });
    }
    Ok(true)
}

/// Appends the strings or binaries at `rows`. `false`, and nothing is appended, where there is no short way.
pub(super) fn strings(array: &VortexArray, rows: &[u32], found: &mut Strings) -> VortexResult<bool> {
    let before = found.len();
    let complete = append_strings(array, rows, found)?;
    if !complete {
        found.truncate(before);
    }
    Ok(complete)
}

fn append_strings(array: &VortexArray, rows: &[u32], found: &mut Strings) -> VortexResult<bool> {
    if array.dtype().is_nullable() {
        return Ok(false);
    }
    if let Some(dict) = array.as_opt::<Dict>() {
        let Some(codes) = codes(dict.codes(), rows)? else { return Ok(false) };
        return append_strings(dict.values(), &codes, found);
    }
    if let Some(plain) = array.as_opt::<VarBinView>() {
        for view in rows.iter().map(|row| &plain.views()[*row as usize]) {
            if view.is_inlined() {
                found.push(view.as_inlined().value());
            } else {
                let place = view.as_view();
                found.push(part(plain.buffer(place.buffer_index as usize).as_slice(), place.as_range())?);
            }
        }
        return Ok(true);
    }
    let Some(compressed) = array.as_opt::<FSST>() else { return Ok(false) };
    let ends: Vec<u32> = rows.iter().flat_map(|row| [*row, *row + 1]).collect();
    let mut offsets = Vec::with_capacity(ends.len());
    if !append_integers(compressed.codes_offsets(), &ends, &mut offsets)? {
        return Ok(false);
    }
    let (bytes, decompressor) = (compressed.codes_bytes().as_slice(), compressed.decompressor());
    for place in offsets.chunks_exact(2) {
        found.push(&decompressor.decompress(part(bytes, place[0] as usize..place[1] as usize)?));
    }
    Ok(true)
}

fn part(bytes: &[u8], place: Range<usize>) -> VortexResult<&[u8]> {
    let there = bytes.len();
    bytes.get(place.clone()).ok_or_else(|| vortex_err!("a value at bytes {place:?} of {there}"))
}

fn codes(codes: &VortexArray, rows: &[u32]) -> VortexResult<Option<Vec<u32>>> {
    let mut found = Vec::with_capacity(rows.len());
    let complete = append_integers(codes, rows, &mut found)?;
    Ok(complete.then(|| found.into_iter().map(|code| code as u32).collect()))
}

#[expect(clippy::unnecessary_cast, reason = "one of the types this is written for is i64 itself")]
fn append_packed(
    array: &VortexArray,
    packed: ArrayView<'_, BitPacked>,
    rows: &[u32],
    found: &mut Vec<i64>,
) -> VortexResult<bool> {
    let BitWidthsView::Global(width) = packed.bit_widths() else { return Ok(false) };
    let (ptype, width, offset) = (array.dtype().as_ptype(), usize::from(width), usize::from(packed.offset()));
    if width == 0 || width > ptype.bit_width() {
        return Ok(false);
    }
    let start = found.len();
    match_each_unsigned_integer_ptype!(ptype.to_unsigned(), |T| {
        let words = packed.packed_slice::<T>();
        let value = |row: &u32| {
            // SAFETY: the width is within the word's, checked above, and the function itself takes only as many words as
            // a block has, with bounds checked.
            unsafe { unpack_single_primitive::<T>(words, width, *row as usize + offset) }
        };
        found.extend(rows.iter().map(|row| value(row) as i64));
    });
    // Sign-extend: words are packed as unsigned ones.
    match_each_integer_ptype!(ptype, |T| {
        found[start..].iter_mut().for_each(|value| *value = (*value as T) as i64);
    });
    let Some(patches) = packed.patches() else { return Ok(true) };
    let mut probe = Vec::with_capacity(1);
    for (row, value) in rows.iter().zip(&mut found[start..]) {
        match patched(&patches, *row, &mut probe)? {
            Some(Patch::Value(patch)) => *value = patch,
            Some(Patch::None) => {}
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// What stands in place of a packed value.
enum Patch {
    None,
    Value(i64),
}

/// The exception for a row, found among the ascending positions of all exceptions. `None` where there is no short way.
fn patched(patches: &Patches, row: u32, probe: &mut Vec<i64>) -> VortexResult<Option<Patch>> {
    let mut at = |array: &VortexArray, place: usize| -> VortexResult<Option<i64>> {
        probe.clear();
        Ok(integers(array, &[place as u32], probe)?.then(|| probe[0]))
    };
    let wanted = i64::from(row) + patches.offset() as i64;
    let (mut low, mut high) = (0, patches.num_patches());
    while low < high {
        let middle = low.midpoint(high);
        let Some(position) = at(patches.indices(), middle)? else { return Ok(None) };
        match position.cmp(&wanted) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Ok(at(patches.values(), middle)?.map(Patch::Value)),
        }
    }
    Ok(Some(Patch::None))
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
