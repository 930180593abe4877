//! Order-preserving keys: rows as bytes whose `memcmp` order is the order of the rows.
//!
//! Index runs persist these bytes and shards are chosen by hashing them, so the format is ours, versioned by
//! [`KEY_FORMAT`] and pinned by golden tests. The order is: NULL first (also in a descending column), `-0.0 == 0.0`,
//! one NaN greater than every number, strings and binaries by their bytes, decimals by value.
//!
//! | type | bytes |
//! |---|---|
//! | bool, unsigned integers | big-endian |
//! | signed integers, dates, times, timestamps, durations, decimals | big-endian, sign bit flipped |
//! | floats | IEEE bits, sign bit flipped if positive, all bits flipped if negative |
//! | fixed-size binary | as is |
//! | strings, binaries | `00` -> `01 01`, `01` -> `01 02`, other bytes as they are, then the terminator `00` |
//!
//! A nullable column has a marker in front: `00` NULL, `01` a value. In a descending column every byte of the value,
//! terminator included, is inverted; the marker is not. Inside a [`KeyEncoder`] key a NULL of a fixed-width type is
//! padded with zeros, so that a key of fixed-width columns has one length whatever it holds.
//!
//! No encoded value is a prefix of another of the same column, so columns can be concatenated.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;

mod column;
mod display;
mod error;
mod keys;
mod primitive;
mod range;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use error::{KeyError, Result};
pub(crate) use keys::Keys;

pub(crate) use crate::access::KeyRange;

use column::Column;
use value::Reader;

/// The version of the byte format described in this module. Whoever persists keys stores it beside them.
pub(crate) const KEY_FORMAT: u8 = 1;

/// Whether values of this type have a key encoding.
pub(crate) fn supports(data_type: &DataType) -> bool {
    value::layout(data_type).is_some()
}

/// Appends one value: `00` if it is NULL, otherwise `01` and its ascending encoding.
///
/// Fails if the type has no key encoding.
pub(crate) fn encode_value(array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<()> {
    Column::try_new(array.data_type(), true, false)?.encode_unpadded(array, row, out)
}

/// Reads one value written by [`encode_value`] from the front of `bytes` and moves `bytes` past it.
///
/// Returns an array of length 1 of exactly `data_type`.
pub(crate) fn decode_value(bytes: &mut &[u8], data_type: &DataType) -> Result<ArrayRef> {
    let column = Column::try_new(data_type, true, false)?;
    let mut reader = Reader::new(bytes);
    let array = column.decode_unpadded(&mut reader)?;
    *bytes = reader.rest();
    Ok(array)
}

/// Turns rows into keys and keys into rows, for one list of columns.
#[derive(Debug, Clone)]
pub(crate) struct KeyEncoder {
    columns: Arc<[Column]>,
    /// Bytes per key, if every column has a fixed width.
    width: Option<usize>,
}

impl KeyEncoder {
    /// An encoder for keys of these columns: `(type, nullable, descending)`.
    ///
    /// Fails if a type has no key encoding.
    pub(crate) fn new(types: &[(DataType, bool, bool)]) -> Result<Self> {
        let columns = types
            .iter()
            .map(|(data_type, nullable, descending)| Column::try_new(data_type, *nullable, *descending))
            .collect::<Result<Arc<[Column]>>>()?;
        let width = columns.iter().map(Column::width).sum();
        Ok(Self { columns, width })
    }

    /// The keys of all rows of a batch, given its key columns in key order.
    ///
    /// Fails if the columns are not those of this encoder (dictionaries and the string and binary families are
    /// interchangeable) or hold a NULL where NOT NULL was declared.
    pub(crate) fn encode_columns(&self, columns: &[ArrayRef]) -> Result<Keys> {
        self.check_arity(columns.len(), true)?;
        let rows = columns.first().map_or(0, |column| column.len());
        let columns = self
            .columns
            .iter()
            .zip(columns)
            .enumerate()
            .map(|(position, (column, array))| column.prepare(array, rows, position))
            .collect::<Result<Vec<_>>>()?;
        match self.width {
            Some(width) => self.encode_fixed(&columns, rows, width),
            None => self.encode_variable(&columns, rows),
        }
    }

    fn encode_fixed(&self, arrays: &[ArrayRef], rows: usize, width: usize) -> Result<Keys> {
        let mut data = vec![0; rows * width];
        let mut offset = 0;
        for (column, array) in self.columns.iter().zip(arrays) {
            column.write(array, &mut data, |row, _| row * width + offset)?;
            offset += column.width().unwrap_or(0);
        }
        Ok(Keys::fixed(width, rows, data))
    }

    fn encode_variable(&self, arrays: &[ArrayRef], rows: usize) -> Result<Keys> {
        let mut lengths = vec![0; rows];
        for (column, array) in self.columns.iter().zip(arrays) {
            column.add_lengths(array, &mut lengths)?;
        }
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut end = 0;
        offsets.push(0);
        for length in &mut lengths {
            let start = end;
            end += *length;
            offsets.push(end);
            // From here on the lengths are write positions.
            *length = start;
        }
        let mut data = vec![0; end];
        for (column, array) in self.columns.iter().zip(arrays) {
            column.write(array, &mut data, |row, length| {
                let start = lengths[row];
                lengths[row] += length;
                start
            })?;
        }
        Ok(Keys::variable(offsets, data))
    }

    /// Appends the key of one row. Same bytes and errors as [`Self::encode_columns`].
    pub(crate) fn encode_row(&self, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<()> {
        self.check_arity(columns.len(), true)?;
        for (position, (column, array)) in self.columns.iter().zip(columns).enumerate() {
            column.encode(array.as_ref(), row, position, out)?;
        }
        Ok(())
    }

    /// Appends the encoding of the first `literals.len()` columns, each given as an array of length 1.
    ///
    /// With [`KeyRange::prefix`] this is the range of all keys that begin with these values.
    pub(crate) fn encode_prefix(&self, literals: &[ArrayRef], out: &mut Vec<u8>) -> Result<()> {
        self.check_arity(literals.len(), false)?;
        for (position, (column, array)) in self.columns.iter().zip(literals).enumerate() {
            column.encode(array.as_ref(), 0, position, out)?;
        }
        Ok(())
    }

    /// The values of a key, each as an array of length 1 of the declared type.
    #[cfg(test)]
    pub(crate) fn decode(&self, key: &[u8]) -> Result<Vec<ArrayRef>> {
        let mut reader = Reader::new(key);
        let values = self.columns.iter().map(|column| column.decode(&mut reader)).collect::<Result<Vec<_>>>()?;
        if !reader.is_empty() {
            return Err(reader.corrupt("bytes after the last column"));
        }
        Ok(values)
    }

    /// The key, or a prefix of whole columns of one, for people: `(1, 'abc')`. Bytes that are neither come out as hex.
    pub(crate) fn display(&self, key: &[u8]) -> String {
        let mut reader = Reader::new(key);
        let mut values = Vec::with_capacity(self.columns.len());
        for column in self.columns.iter() {
            if reader.is_empty() {
                break;
            }
            match column.decode(&mut reader) {
                Ok(array) => values.push(array),
                Err(_) => return display::hex(key),
            }
        }
        if reader.is_empty() { display::tuple(&values) } else { display::hex(key) }
    }

    /// Whether any column of the key is NULL: such keys never violate a unique constraint. False for corrupt keys.
    pub(crate) fn has_null(&self, key: &[u8]) -> bool {
        if self.columns.iter().all(|column| !column.nullable()) {
            return false;
        }
        let mut reader = Reader::new(key);
        self.columns.iter().any(|column| matches!(column.skip(&mut reader), Ok(true)))
    }

    fn check_arity(&self, given: usize, whole: bool) -> Result<()> {
        let wanted = self.columns.len();
        if given > wanted || (whole && given < wanted) {
            return Err(KeyError::Unsupported { what: format!("{given} values for a key of {wanted} columns") });
        }
        Ok(())
    }
}
