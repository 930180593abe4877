//! How each type lies in a key, and a reader over key bytes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray,
    LargeBinaryArray, LargeStringArray, PrimitiveArray, StringArray, StringViewArray,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};

use super::primitive::{FixedKey, with_primitive};
use super::{KeyError, Result};

/// How many bytes the values of a type take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Fixed(usize),
    Terminated,
}

/// The layout of a type, if it has a key encoding.
pub(super) fn layout(data_type: &DataType) -> Option<Layout> {
    macro_rules! width {
        ($arrow:ident) => {
            Some(Layout::Fixed(<$arrow as FixedKey>::WIDTH))
        };
    }
    match data_type {
        DataType::Boolean => Some(Layout::Fixed(1)),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok().map(Layout::Fixed),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView => Some(Layout::Terminated),
        DataType::Dictionary(_, values) if !matches!(**values, DataType::Dictionary(_, _)) => layout(values),
        _ => with_primitive!(data_type, width, None),
    }
}

/// The type of the values themselves.
pub(super) fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        plain => plain,
    }
}

/// Whether values of the two types have the same keys for the same meaning.
pub(super) fn interchangeable(one: &DataType, other: &DataType) -> bool {
    let family = |data_type: &DataType| match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, None),
        same => same.clone(),
    };
    let (one, other) = (value_type(one), value_type(other));
    match (one, other) {
        // The scale is part of the meaning, the precision only of the declaration.
        (DataType::Decimal32(_, a), DataType::Decimal32(_, b))
        | (DataType::Decimal64(_, a), DataType::Decimal64(_, b))
        | (DataType::Decimal128(_, a), DataType::Decimal128(_, b))
        | (DataType::Decimal256(_, a), DataType::Decimal256(_, b)) => a == b,
        _ => one == other || family(one) == family(other),
    }
}

/// Appends `bytes` so that a terminator after it keeps order; `mask` is XORed into every byte.
pub(super) fn escape(bytes: &[u8], mask: u8, out: &mut Vec<u8>) {
    for &byte in bytes {
        if byte < 2 {
            out.extend_from_slice(&[1 ^ mask, (byte + 1) ^ mask]);
        } else {
            out.push(byte ^ mask);
        }
    }
}

/// The length of `bytes` once escaped and terminated.
#[inline]
pub(super) fn terminated_length(bytes: &[u8]) -> usize {
    bytes.len() + bytes.iter().filter(|&&byte| byte < 2).count() + 1
}

/// Walks over the bytes of a key and knows where it is.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn corrupt(&self, what: impl Into<String>) -> KeyError {
        KeyError::Corrupt { what: what.into(), offset: self.at }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.rest().get(..count).ok_or_else(|| self.corrupt(format!("wanted {count} more bytes")))?;
        self.at += count;
        Ok(taken)
    }

    /// Reads the marker of a nullable value: whether there is one.
    pub(super) fn marker(&mut self) -> Result<bool> {
        match self.rest().first() {
            Some(marker @ (0 | 1)) => {
                self.at += 1;
                Ok(*marker == 1)
            }
            Some(other) => Err(self.corrupt(format!("NULL marker {other:#04x}"))),
            None => Err(self.corrupt("wanted a NULL marker")),
        }
    }

    /// The bytes up to the terminator, which is passed over.
    pub(super) fn terminated(&mut self, mask: u8) -> Result<&'a [u8]> {
        let rest = self.rest();
        let length =
            rest.iter().position(|&byte| byte == mask).ok_or_else(|| self.corrupt("no end of text or binary"))?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    /// The value before the terminator, escapes undone.
    fn unescaped(&mut self, mask: u8) -> Result<Vec<u8>> {
        let start = self.at;
        let escaped = self.terminated(mask)?;
        let mut out = Vec::with_capacity(escaped.len());
        let mut bytes = escaped.iter().map(|byte| byte ^ mask);
        while let Some(byte) = bytes.next() {
            if byte != 1 {
                out.push(byte);
                continue;
            }
            match bytes.next() {
                Some(second @ (1 | 2)) => out.push(second - 1),
                _ => return Err(KeyError::Corrupt { what: "bad escape".into(), offset: start }),
            }
        }
        Ok(out)
    }

    /// Reads a value that is not NULL into an array of length 1.
    pub(super) fn value(&mut self, data_type: &DataType, mask: u8) -> Result<ArrayRef> {
        match data_type {
            DataType::Boolean => match self.take(1)?[0] ^ mask {
                bit @ (0 | 1) => Ok(Arc::new(BooleanArray::from(vec![bit == 1]))),
                _ => Err(self.corrupt("a boolean other than 0 and 1")),
            },
            DataType::FixedSizeBinary(size) => self.fixed_size(*size, mask),
            DataType::Utf8 => Ok(Arc::new(StringArray::from(vec![self.text(mask)?]))),
            DataType::LargeUtf8 => Ok(Arc::new(LargeStringArray::from(vec![self.text(mask)?]))),
            DataType::Utf8View => Ok(Arc::new(StringViewArray::from(vec![self.text(mask)?]))),
            DataType::Binary => Ok(Arc::new(BinaryArray::from_iter_values([self.unescaped(mask)?]))),
            DataType::LargeBinary => Ok(Arc::new(LargeBinaryArray::from_iter_values([self.unescaped(mask)?]))),
            DataType::BinaryView => Ok(Arc::new(BinaryViewArray::from_iter_values([self.unescaped(mask)?]))),
            DataType::Dictionary(keys, values) => dictionary_of_one(keys, self.value(values, mask)?),
            _ => self.primitive(data_type, mask),
        }
    }

    fn text(&mut self, mask: u8) -> Result<String> {
        let start = self.at;
        String::from_utf8(self.unescaped(mask)?)
            .map_err(|_| KeyError::Corrupt { what: "text that is not UTF-8".into(), offset: start })
    }

    fn fixed_size(&mut self, size: i32, mask: u8) -> Result<ArrayRef> {
        let width = usize::try_from(size).map_err(|_| unsupported(&DataType::FixedSizeBinary(size)))?;
        let bytes: Vec<u8> = self.take(width)?.iter().map(|byte| byte ^ mask).collect();
        FixedSizeBinaryArray::try_new_with_len(size, Buffer::from_vec(bytes), None, 1)
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(|error| self.corrupt(error.to_string()))
    }

    fn primitive(&mut self, data_type: &DataType, mask: u8) -> Result<ArrayRef> {
        macro_rules! read {
            ($arrow:ident) => {{
                let mut bytes = <$arrow as FixedKey>::Bytes::try_from(self.take(<$arrow>::WIDTH)?)
                    .map_err(|_| self.corrupt("a value of another width"))?;
                invert(bytes.as_mut(), mask);
                let array = PrimitiveArray::<$arrow>::from_iter_values([<$arrow>::from_key(bytes)]);
                Ok(Arc::new(array.with_data_type(data_type.clone())) as ArrayRef)
            }};
        }
        with_primitive!(data_type, read, Err(unsupported(data_type)))
    }
}

/// XORs the mask of a descending column into `bytes`.
#[inline]
pub(super) fn invert(bytes: &mut [u8], mask: u8) {
    bytes.iter_mut().for_each(|byte| *byte ^= mask);
}

/// The error for a type without a key encoding.
pub(super) fn unsupported(data_type: &DataType) -> KeyError {
    KeyError::Unsupported { what: format!("{data_type} cannot be part of a key") }
}

/// Where the value of a dictionary's row is, or `None` if the row has no key.
pub(super) fn dictionary_index(keys: &dyn Array, row: usize) -> Option<usize> {
    macro_rules! index {
        ($($arrow:ident),*) => {{
            $(if let Some(keys) = keys.as_any().downcast_ref::<PrimitiveArray<$arrow>>() {
                return keys.is_valid(row).then(|| keys.value(row).as_usize());
            })*
            None
        }};
    }
    index!(Int32Type, Int8Type, Int16Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type)
}

fn dictionary_of_one(key_type: &DataType, value: ArrayRef) -> Result<ArrayRef> {
    fn build<K: ArrowDictionaryKeyType>(value: ArrayRef) -> Result<ArrayRef> {
        let keys = PrimitiveArray::<K>::from_iter_values([K::Native::usize_as(0)]);
        DictionaryArray::try_new(keys, value)
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(|error| KeyError::Unsupported { what: error.to_string() })
    }
    match key_type {
        DataType::Int8 => build::<Int8Type>(value),
        DataType::Int16 => build::<Int16Type>(value),
        DataType::Int32 => build::<Int32Type>(value),
        DataType::Int64 => build::<Int64Type>(value),
        DataType::UInt8 => build::<UInt8Type>(value),
        DataType::UInt16 => build::<UInt16Type>(value),
        DataType::UInt32 => build::<UInt32Type>(value),
        DataType::UInt64 => build::<UInt64Type>(value),
        other => Err(unsupported(other)),
    }
}
