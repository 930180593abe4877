//! Integers at given rows, straight out of the bits they are packed in.

use vortex_array::arrays::dict::DictArraySlotsExt;
use vortex_array::arrays::{Constant, Dict, Primitive};
use vortex_array::dtype::{DType, PType};
use vortex_array::scalar::{PValue, ScalarValue};
use vortex_array::{ArrayRef as VortexArray, ArrayView};
use vortex_buffer::ByteBuffer;
use vortex_decimal_byte_parts::{DecimalByteParts, DecimalBytePartsArraySlotsExt};
use vortex_error::{VortexResult, vortex_err};
use vortex_fastlanes::{
    BitPacked, BitPackedArrayExt, BitWidthsView, FoR, FoRArrayExt, FoRArraySlotsExt, FoRReferences,
};

use super::prefetch::prefetch;

/// A dictionary of up to this many values is unpacked to be read from: a kilobyte that no budget counts.
const UNPACKED: usize = 128;

/// Values packed together: FastLanes' block.
const BLOCK: usize = 1024;

/// A column chunk of integers (or unscaled decimals) without NULL, as what has to be done to read one of them. The value
/// of a row is what its bits say or its exception, plus the reference, cut to the type's width; with a dictionary that
/// is the place in it.
#[derive(Debug)]
pub(in super::super) struct Integers {
    bits: Bits,
    exceptions: Option<Box<Exceptions>>,
    reference: i64,
    ptype: PType,
    dictionary: Option<Dictionary>,
}

#[derive(Debug)]
enum Dictionary {
    Unpacked(Box<[i64]>),
    Encoded { values: Box<Integers>, count: usize },
}

#[derive(Debug)]
enum Bits {
    Constant(i64),
    Plain(Words),
    Packed(Packed),
}

impl Integers {
    /// `None` where the encoding has no short way to a single value.
    pub(super) fn of(array: &VortexArray) -> VortexResult<Option<Self>> {
        if array.dtype().is_nullable() {
            return Ok(None);
        }
        if let Some(parts) = array.as_opt::<DecimalByteParts>() {
            return if parts.lower_parts().is_empty() { Self::of(parts.msp()) } else { Ok(None) };
        }
        let ptype = match array.dtype() {
            DType::Primitive(ptype, _) if ptype.is_int() => *ptype,
            _ => return Ok(None),
        };
        let simple = |bits| Self { bits, exceptions: None, reference: 0, ptype, dictionary: None };
        if let Some(frame) = array.as_opt::<FoR>() {
            let FoRReferences::Global(reference) = frame.references() else { return Ok(None) };
            let Some(reference) = integer(reference.value()) else { return Ok(None) };
            let encoded = Self::of(frame.encoded())?;
            let encoded = encoded.filter(|encoded| encoded.dictionary.is_none() && encoded.ptype == ptype);
            return Ok(encoded.map(|encoded| Self { reference: encoded.reference.wrapping_add(reference), ..encoded }));
        }
        if let Some(packed) = array.as_opt::<BitPacked>() {
            let Some(bits) = Packed::of(array, packed)? else { return Ok(None) };
            let mut integers = simple(Bits::Packed(bits));
            if let Some(patches) = packed.patches() {
                let (Some(rows), Some(values)) = (Self::of(patches.indices())?, Self::of(patches.values())?) else {
                    return Ok(None);
                };
                let count = patches.num_patches();
                let offset = patches.offset() as i64;
                integers.exceptions = Some(Box::new(Exceptions { rows, values, count, offset }));
            }
            return Ok(Some(integers));
        }
        if let Some(dict) = array.as_opt::<Dict>() {
            let count = dict.values().len();
            let (Some(codes), Some(values)) = (Self::of(dict.codes())?, Self::of(dict.values())?) else {
                return Ok(None);
            };
            if codes.dictionary.is_some() {
                return Ok(None);
            }
            let dictionary = if count <= UNPACKED {
                Dictionary::Unpacked((0..count).map(|place| values.get(place)).collect::<VortexResult<_>>()?)
            } else {
                Dictionary::Encoded { values: Box::new(values), count }
            };
            return Ok(Some(Self { dictionary: Some(dictionary), ..codes }));
        }
        if let Some(constant) = array.as_opt::<Constant>() {
            return Ok(integer(constant.scalar().value()).map(|value| simple(Bits::Constant(value))));
        }
        let plain = array.as_opt::<Primitive>();
        Ok(plain.map(|plain| simple(Bits::Plain(Words::of(plain.buffer_handle().as_host().clone(), ptype)))))
    }

    /// The value of a row as 64 bits: unsigned 64-bit ones wrapped.
    ///
    /// # Errors
    /// If the row is not one of the column's, or a code not one of its dictionary's.
    pub(super) fn get(&self, row: usize) -> VortexResult<i64> {
        let exception = match &self.exceptions {
            Some(exceptions) => exceptions.get(row)?,
            None => None,
        };
        let stored = match (exception, &self.bits) {
            (Some(value), _) => value,
            (None, Bits::Constant(value)) => *value,
            (None, Bits::Plain(words)) => words.get(row)? as i64,
            (None, Bits::Packed(packed)) => packed.get(row)? as i64,
        };
        let value = cut(stored.wrapping_add(self.reference), self.ptype);
        match &self.dictionary {
            None => Ok(value),
            Some(dictionary) => dictionary.get(value),
        }
    }

    /// Has memory fetch a row's bits.
    pub(super) fn prefetch(&self, row: usize) {
        match &self.bits {
            Bits::Constant(_) => {}
            Bits::Plain(words) => words.prefetch(row),
            Bits::Packed(packed) => packed.words.prefetch(packed.locate(row).0),
        }
    }
}

impl Dictionary {
    fn get(&self, code: i64) -> VortexResult<i64> {
        let place = usize::try_from(code).ok();
        let (known, count) = match self {
            Self::Unpacked(values) => (place.and_then(|place| values.get(place)).map(|value| Ok(*value)), values.len()),
            Self::Encoded { values, count } => {
                (place.filter(|place| place < count).map(|place| values.get(place)), *count)
            }
        };
        known.unwrap_or_else(|| Err(vortex_err!("code {code} of {count} values")))
    }
}

/// Words of 8, 16, 32 or 64 bits.
#[derive(Debug)]
struct Words {
    bytes: ByteBuffer,
    /// Binary logarithm of a word's bits.
    log_bits: u32,
}

impl Words {
    fn of(bytes: ByteBuffer, ptype: PType) -> Self {
        Self { bytes, log_bits: ptype.bit_width().ilog2() }
    }

    fn prefetch(&self, place: usize) {
        prefetch(self.bytes.as_slice(), place << (self.log_bits - 3));
    }

    fn get(&self, place: usize) -> VortexResult<u64> {
        let size = 1 << (self.log_bits - 3);
        let bytes = self.bytes.as_slice();
        // What says where a word is may be bytes of a file, too.
        let start = place.checked_mul(size);
        let word = start.and_then(|start| bytes.get(start..start.checked_add(size)?));
        let word = word.ok_or_else(|| vortex_err!("word {place} of {} bytes", bytes.len()))?;
        Ok(match *word {
            [a] => a.into(),
            [a, b] => u16::from_ne_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
            [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            _ => return Err(vortex_err!("words of {size} bytes")),
        })
    }
}

/// Values of fewer bits than their words, in the order of the unified transposed layout: Afroozeh and Boncz, "The
/// FastLanes Compression Layout", PVLDB 16(9), 2023.
#[derive(Debug)]
struct Packed {
    words: Words,
    /// Bits of a value, at least one.
    width: usize,
    /// Place of the first row in the first block.
    offset: usize,
}

impl Packed {
    fn of(array: &VortexArray, packed: ArrayView<'_, BitPacked>) -> VortexResult<Option<Self>> {
        let BitWidthsView::Global(width) = packed.bit_widths() else { return Ok(None) };
        let (ptype, width, offset) = (array.dtype().as_ptype(), usize::from(width), usize::from(packed.offset()));
        if width == 0 || width > ptype.bit_width() {
            return Ok(None);
        }
        Ok(Some(Self { words: Words::of(packed.packed().as_host().clone(), ptype), width, offset }))
    }

    /// The word with a row's first bits, and how many bits of others it has below them.
    fn locate(&self, row: usize) -> (usize, usize) {
        let (width, log_bits) = (self.width, self.words.log_bits);
        let lanes = BLOCK >> log_bits;
        let (block, place) = ((row + self.offset) / BLOCK, (row + self.offset) % BLOCK);
        let lane = place % lanes;
        // Groups of 16 places stand in bit-reversed order.
        let group = (place % 128 - lane) / 16;
        let line = ((group & 1) << 2 | group & 2 | group >> 2) * 8 + place / 128;
        let (word, shift) = ((line * width) >> log_bits, (line * width) % (1 << log_bits));
        (block * lanes * width + word * lanes + lane, shift)
    }

    fn get(&self, row: usize) -> VortexResult<u64> {
        let (width, bits, lanes) = (self.width, 1 << self.words.log_bits, BLOCK >> self.words.log_bits);
        let (first, shift) = self.locate(row);
        let mut value = self.words.get(first)? >> shift;
        if shift + width > bits {
            value |= self.words.get(first + lanes)? << (bits - shift);
        }
        Ok(value & (u64::MAX >> (64 - width)))
    }
}

/// Values that are too large for the width the others are packed with.
#[derive(Debug)]
struct Exceptions {
    /// Ascending, and more than the row's number by `offset`.
    rows: Integers,
    values: Integers,
    count: usize,
    offset: i64,
}

impl Exceptions {
    fn get(&self, row: usize) -> VortexResult<Option<i64>> {
        let wanted = (row as i64).wrapping_add(self.offset);
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.rows.get(middle)?.cmp(&wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.values.get(middle).map(Some),
            }
        }
        Ok(None)
    }
}

/// The 64 bits of a value after its type's width, sign included.
#[expect(clippy::cast_lossless, reason = "it is the same for every type")]
fn cut(value: i64, ptype: PType) -> i64 {
    match ptype {
        PType::I8 => value as i8 as i64,
        PType::I16 => value as i16 as i64,
        PType::I32 => value as i32 as i64,
        PType::U8 => value as u8 as i64,
        PType::U16 => value as u16 as i64,
        PType::U32 => value as u32 as i64,
        PType::I64 | PType::U64 | PType::F16 | PType::F32 | PType::F64 => value,
    }
}

fn integer(value: Option<&ScalarValue>) -> Option<i64> {
    let Some(ScalarValue::Primitive(value)) = value else { return None };
    Some(match value {
        PValue::I8(v) => i64::from(*v),
        PValue::I16(v) => i64::from(*v),
        PValue::I32(v) => i64::from(*v),
        PValue::I64(v) => *v,
        PValue::U8(v) => i64::from(*v),
        PValue::U16(v) => i64::from(*v),
        PValue::U32(v) => i64::from(*v),
        PValue::U64(v) => *v as i64,
        PValue::F16(_) | PValue::F32(_) | PValue::F64(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use vortex_array::dtype::NativePType;
    use vortex_buffer::Buffer;
    use vortex_fastlanes::bitpack_decompress::unpack_single_primitive;

    #[test]
    fn every_value_of_every_width_is_the_librarys() -> Result<(), Box<dyn Error>> {
        let bytes: Vec<u8> = (0..3 * BLOCK * 8).map(|place| (place * place / 7 + place / 3) as u8).collect();
        macro_rules! check {
            ($($word:ty),*) => {$(
                let values = bytes.chunks_exact(size_of::<$word>()).map(|word| word.try_into().map(<$word>::from_ne_bytes));
                let words: Buffer<$word> = values.collect::<Result<Vec<_>, _>>()?.into();
                for width in 1..=<$word>::PTYPE.bit_width() {
                    let offset = width * 5;
                    let packed =
                        Packed { words: Words::of(words.clone().into_byte_buffer(), <$word>::PTYPE), width, offset };
                    for row in 0..3 * BLOCK - offset {
                        // SAFETY: the width is within the word's, and there are three blocks of words at least.
                        let expected = unsafe { unpack_single_primitive(words.as_slice(), width, row + offset) };
                        assert_eq!(packed.get(row)?, u64::from(expected), "row {row}, {width} bits of {}", <$word>::PTYPE);
                    }
                }
            )*};
        }
        check!(u8, u16, u32, u64);
        Ok(())
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let words = Words::of(ByteBuffer::from(vec![1u8, 2, 3, 4]), PType::U16);
        assert_eq!(words.get(1).ok(), Some(u64::from(u16::from_ne_bytes([3, 4]))));
        assert!(words.get(2).is_err());
        let integers = Integers {
            bits: Bits::Plain(words),
            exceptions: None,
            reference: 0,
            ptype: PType::U16,
            dictionary: Some(Dictionary::Unpacked(Box::new([7]))),
        };
        assert!(integers.get(0).is_err_and(|error| error.to_string().contains("of 1 values")));
    }
}
