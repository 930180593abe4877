//! One column of a key: writing it for one row or for a whole batch, reading it, skipping it.

use arrow::array::{Array, ArrayAccessor, ArrayRef, AsArray, FixedSizeBinaryArray, PrimitiveArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::primitive::{FixedKey, with_primitive};
use super::value::{
    Layout, Reader, dictionary_index, escape, interchangeable, invert, layout, terminated_length, unsupported,
};
use super::{KeyError, Result};

/// What is declared about one column of a key.
#[derive(Debug, Clone)]
pub(super) struct Column {
    data_type: DataType,
    layout: Layout,
    nullable: bool,
    /// `FF` in a descending column: XORed into every byte of a value.
    mask: u8,
}

/// Calls a macro with a text or binary array as its own type; evaluates `$other` for other types.
macro_rules! with_bytes {
    ($array:expr, $call:ident, $other:expr) => {
        match $array.data_type() {
            DataType::Utf8 => $call!($array.as_string::<i32>()),
            DataType::LargeUtf8 => $call!($array.as_string::<i64>()),
            DataType::Utf8View => $call!($array.as_string_view()),
            DataType::Binary => $call!($array.as_binary::<i32>()),
            DataType::LargeBinary => $call!($array.as_binary::<i64>()),
            DataType::BinaryView => $call!($array.as_binary_view()),
            _ => $other,
        }
    };
}

impl Column {
    pub(super) fn try_new(data_type: &DataType, nullable: bool, descending: bool) -> Result<Self> {
        let layout = layout(data_type).ok_or_else(|| unsupported(data_type))?;
        Ok(Self { data_type: data_type.clone(), layout, nullable, mask: if descending { 0xFF } else { 0 } })
    }

    pub(super) fn nullable(&self) -> bool {
        self.nullable
    }

    /// Bytes of the column in every key, marker included, if that is one number.
    pub(super) fn width(&self) -> Option<usize> {
        match self.layout {
            Layout::Fixed(width) => Some(width + usize::from(self.nullable)),
            Layout::Terminated => None,
        }
    }

    /// Appends the value of one row.
    pub(super) fn encode(&self, array: &dyn Array, row: usize, position: usize, out: &mut Vec<u8>) -> Result<()> {
        self.check_type(array, position)?;
        if self.encode_present(array, row, out)? {
            return Ok(());
        }
        if !self.nullable {
            return Err(null_in(position));
        }
        out.push(0);
        if let Layout::Fixed(width) = self.layout {
            out.resize(out.len() + width, 0);
        }
        Ok(())
    }

    /// Appends the value of one row; NULL is the marker alone.
    pub(super) fn encode_unpadded(&self, array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if !self.encode_present(array, row, out)? {
            out.push(0);
        }
        Ok(())
    }

    /// Appends the marker, if any, and the value; false if it is NULL, and then nothing is appended.
    fn encode_present(&self, array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<bool> {
        if row >= array.len() {
            return Err(KeyError::Unsupported { what: format!("row {row} of {}", array.len()) });
        }
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            return match dictionary_index(dictionary.keys(), row) {
                Some(index) => self.encode_present(dictionary.values().as_ref(), index, out),
                None => Ok(false),
            };
        }
        if array.is_null(row) {
            return Ok(false);
        }
        if self.nullable {
            out.push(1);
        }
        self.encode_body(array, row, out)?;
        Ok(true)
    }

    fn encode_body(&self, array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<()> {
        macro_rules! primitive {
            ($arrow:ident) => {{
                let mut bytes = $arrow::to_key(array.as_primitive::<$arrow>().value(row));
                invert(bytes.as_mut(), self.mask);
                out.extend_from_slice(bytes.as_ref());
            }};
        }
        macro_rules! bytes {
            ($typed:expr) => {{
                escape($typed.value(row).as_ref(), self.mask, out);
                out.push(self.mask);
            }};
        }
        match array.data_type() {
            DataType::Boolean => out.push(u8::from(array.as_boolean().value(row)) ^ self.mask),
            DataType::FixedSizeBinary(_) => {
                out.extend(array.as_fixed_size_binary().value(row).iter().map(|byte| byte ^ self.mask));
            }
            _ => with_bytes!(
                array,
                bytes,
                with_primitive!(array.data_type(), primitive, return Err(unsupported(array.data_type())))
            ),
        }
        Ok(())
    }

    /// Checks a whole column and resolves dictionaries, so that [`Self::write`] meets plain arrays without surprises.
    pub(super) fn prepare(&self, array: &ArrayRef, rows: usize, position: usize) -> Result<ArrayRef> {
        self.check_type(array.as_ref(), position)?;
        if array.len() != rows {
            let what = format!("key column {position} has {} rows, the first one has {rows}", array.len());
            return Err(KeyError::Unsupported { what });
        }
        let plain = match array.as_any_dictionary_opt() {
            Some(dictionary) => arrow::compute::take(dictionary.values(), dictionary.keys(), None)
                .map_err(|error| KeyError::Unsupported { what: error.to_string() })?,
            None => ArrayRef::clone(array),
        };
        if !self.nullable && plain.null_count() > 0 {
            return Err(null_in(position));
        }
        Ok(plain)
    }

    fn check_type(&self, array: &dyn Array, position: usize) -> Result<()> {
        if interchangeable(array.data_type(), &self.data_type) {
            return Ok(());
        }
        let what = format!("key column {position} is {}, the key wants {}", array.data_type(), self.data_type);
        Err(KeyError::Unsupported { what })
    }

    /// Adds to each row's length what this column takes.
    pub(super) fn add_lengths(&self, array: &ArrayRef, lengths: &mut [usize]) -> Result<()> {
        if let Some(width) = self.width() {
            lengths.iter_mut().for_each(|length| *length += width);
            return Ok(());
        }
        let marker = usize::from(self.nullable);
        macro_rules! add {
            ($typed:expr) => {{
                let typed = $typed;
                for (row, length) in lengths.iter_mut().enumerate() {
                    let present = typed.is_valid(row);
                    *length += marker + if present { terminated_length(typed.value(row).as_ref()) } else { 0 };
                }
            }};
        }
        with_bytes!(array, add, return Err(unsupported(array.data_type())));
        Ok(())
    }

    /// Writes the column of every row into zeroed `data`; `place(row, length)` says where and is called once per row.
    pub(super) fn write(
        &self,
        array: &ArrayRef,
        data: &mut [u8],
        place: impl FnMut(usize, usize) -> usize,
    ) -> Result<()> {
        macro_rules! primitive {
            ($arrow:ident) => {
                self.write_primitive::<$arrow>(array.as_primitive(), data, place)
            };
        }
        macro_rules! bytes {
            ($typed:expr) => {
                self.write_bytes($typed, data, place)
            };
        }
        match array.data_type() {
            DataType::Boolean => {
                let typed = array.as_boolean();
                self.write_fixed(array.nulls(), 1, typed.len(), data, place, |row, out| {
                    out[0] = u8::from(typed.value(row));
                });
            }
            DataType::FixedSizeBinary(_) => self.write_fixed_size(array.as_fixed_size_binary(), data, place),
            _ => with_bytes!(
                array,
                bytes,
                with_primitive!(array.data_type(), primitive, return Err(unsupported(array.data_type())))
            ),
        }
        Ok(())
    }

    fn write_primitive<T>(&self, array: &PrimitiveArray<T>, data: &mut [u8], place: impl FnMut(usize, usize) -> usize)
    where
        T: FixedKey,
    {
        let values = array.values();
        self.write_fixed(array.nulls(), T::WIDTH, values.len(), data, place, |row, out| {
            out.copy_from_slice(T::to_key(values[row]).as_ref());
        });
    }

    fn write_fixed_size(
        &self,
        array: &FixedSizeBinaryArray,
        data: &mut [u8],
        place: impl FnMut(usize, usize) -> usize,
    ) {
        let Layout::Fixed(width) = self.layout else { return };
        self.write_fixed(array.nulls(), width, array.len(), data, place, |row, out| {
            out.copy_from_slice(array.value(row));
        });
    }

    #[inline]
    fn write_fixed(
        &self,
        nulls: Option<&NullBuffer>,
        width: usize,
        rows: usize,
        data: &mut [u8],
        mut place: impl FnMut(usize, usize) -> usize,
        mut put: impl FnMut(usize, &mut [u8]),
    ) {
        let marker = usize::from(self.nullable);
        for row in 0..rows {
            let start = place(row, marker + width);
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            let slot = &mut data[start..start + marker + width];
            if marker == 1 {
                slot[0] = 1;
            }
            put(row, &mut slot[marker..]);
            if self.mask != 0 {
                invert(&mut slot[marker..], self.mask);
            }
        }
    }

    fn write_bytes<A>(&self, array: A, data: &mut [u8], mut place: impl FnMut(usize, usize) -> usize)
    where
        A: ArrayAccessor,
        A::Item: AsRef<[u8]>,
    {
        let marker = usize::from(self.nullable);
        for row in 0..array.len() {
            if array.is_null(row) {
                place(row, marker);
                continue;
            }
            let value = array.value(row);
            let bytes = value.as_ref();
            let length = terminated_length(bytes);
            let start = place(row, marker + length);
            if marker == 1 {
                data[start] = 1;
            }
            write_terminated(bytes, self.mask, &mut data[start + marker..start + marker + length]);
        }
    }

    /// Reads one value into an array of length 1 of the declared type.
    pub(super) fn decode(&self, reader: &mut Reader<'_>) -> Result<ArrayRef> {
        self.read(reader, true)
    }

    /// Reads what [`Self::encode_unpadded`] wrote.
    pub(super) fn decode_unpadded(&self, reader: &mut Reader<'_>) -> Result<ArrayRef> {
        self.read(reader, false)
    }

    fn read(&self, reader: &mut Reader<'_>, padded: bool) -> Result<ArrayRef> {
        if self.nullable && !reader.marker()? {
            self.skip_padding(reader, padded)?;
            return Ok(new_null_array(&self.data_type, 1));
        }
        reader.value(&self.data_type, self.mask)
    }

    /// Passes over one value; true if it is NULL.
    pub(super) fn skip(&self, reader: &mut Reader<'_>) -> Result<bool> {
        if self.nullable && !reader.marker()? {
            self.skip_padding(reader, true)?;
            return Ok(true);
        }
        match self.layout {
            Layout::Fixed(width) => reader.take(width)?,
            Layout::Terminated => reader.terminated(self.mask)?,
        };
        Ok(false)
    }

    fn skip_padding(&self, reader: &mut Reader<'_>, padded: bool) -> Result<()> {
        match self.layout {
            Layout::Fixed(width) if padded => match reader.take(width)?.iter().all(|&byte| byte == 0) {
                true => Ok(()),
                false => Err(reader.corrupt("a NULL that is not padded with zeros")),
            },
            _ => Ok(()),
        }
    }
}

/// Fills `out`, which has exactly the right length.
#[inline]
fn write_terminated(bytes: &[u8], mask: u8, out: &mut [u8]) {
    let last = out.len() - 1;
    if last == bytes.len() {
        out[..last].copy_from_slice(bytes);
    } else {
        let mut at = 0;
        for &byte in bytes {
            if byte < 2 {
                out[at] = 1;
                at += 1;
            }
            out[at] = if byte < 2 { byte + 1 } else { byte };
            at += 1;
        }
    }
    out[last] = 0;
    if mask != 0 {
        invert(out, mask);
    }
}

fn null_in(position: usize) -> KeyError {
    KeyError::Unsupported { what: format!("NULL in key column {position}, which is NOT NULL") }
}
