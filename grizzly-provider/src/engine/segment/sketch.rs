//! Roughly how many different values a column has: a HyperLogLog of 1,024 registers, off by about 3 %.
//!
//! Sketches of the same column add up: the sketch of two segments is the merge of theirs, whatever values they share.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{ArrowNativeType, DataType, i256};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

use super::hash::mix;

const REGISTER_BITS: u32 = 10;
const REGISTERS: usize = 1 << REGISTER_BITS;

/// A mergeable estimate of the number of different values, NULL not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DistinctSketch {
    registers: Box<[u8; REGISTERS]>,
}

impl Default for DistinctSketch {
    fn default() -> Self {
        Self { registers: Box::new([0; REGISTERS]) }
    }
}

impl DistinctSketch {
    /// Adds every value of `array`. Returns false, having added nothing, for types that are not counted (nested ones).
    pub(crate) fn add(&mut self, array: &ArrayRef) -> bool {
        match array.data_type() {
            DataType::Null => {}
            DataType::Interval(_) => return false,
            DataType::Boolean => self.add_each(array, |row| u64::from(array.as_boolean().value(row))),
            DataType::Utf8 => self.add_bytes(array, |row| array.as_string::<i32>().value(row).as_bytes()),
            DataType::LargeUtf8 => self.add_bytes(array, |row| array.as_string::<i64>().value(row).as_bytes()),
            DataType::Utf8View => {
                let values = array.as_string_view();
                self.add_bytes(array, |row| values.value(row).as_bytes());
            }
            DataType::Binary => self.add_bytes(array, |row| array.as_binary::<i32>().value(row)),
            DataType::LargeBinary => self.add_bytes(array, |row| array.as_binary::<i64>().value(row)),
            DataType::BinaryView => self.add_bytes(array, |row| array.as_binary_view().value(row)),
            other => match other.primitive_width() {
                Some(1) => self.add_native::<u8>(array, u64::from),
                Some(2) => self.add_native::<u16>(array, u64::from),
                Some(4) => self.add_native::<u32>(array, u64::from),
                Some(8) => self.add_native::<u64>(array, |value| value),
                Some(16) => {
                    self.add_native::<i128>(array, |value| value as u64 ^ mix(((value >> 64) as u64).wrapping_add(1)))
                }
                Some(32) => self.add_native::<i256>(array, |value| xxh3_64(&value.to_le_bytes())),
                _ => return false,
            },
        }
        true
    }

    /// Adds the values another sketch has seen.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.registers.iter_mut().zip(other.registers.iter()) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// The estimated number of different values.
    pub(crate) fn estimate(&self) -> u64 {
        let registers = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
        let raw = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
        let empty = self.registers.iter().filter(|rank| **rank == 0).count();
        // With few values most registers are empty, and counting those is far more exact.
        let estimate =
            if empty > 0 && raw <= 2.5 * registers { registers * (registers / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }

    fn add_native<T: ArrowNativeType>(&mut self, array: &ArrayRef, bits: impl Fn(T) -> u64) {
        let data = array.to_data();
        let values = &data.buffer::<T>(0)[..array.len()];
        self.add_each(array, |row| bits(values[row]));
    }

    fn add_bytes<'a>(&mut self, array: &ArrayRef, bytes: impl Fn(usize) -> &'a [u8]) {
        self.add_each(array, |row| xxh3_64(bytes(row)));
    }

    fn add_each(&mut self, array: &ArrayRef, bits: impl Fn(usize) -> u64) {
        match array.nulls() {
            Some(nulls) => nulls.valid_indices().for_each(|row| self.add_hash(mix(bits(row)))),
            None => (0..array.len()).for_each(|row| self.add_hash(mix(bits(row)))),
        }
    }

    fn add_hash(&mut self, hash: u64) {
        let register = (hash >> (64 - REGISTER_BITS)) as usize;
        // The bit below the remaining ones stops the count, so a rank is at most 55.
        let rank = ((hash << REGISTER_BITS) | (1 << (REGISTER_BITS - 1))).leading_zeros() as u8 + 1;
        if self.registers[register] < rank {
            self.registers[register] = rank;
        }
    }
}

/// One printable character per register, `0` for an empty one.
impl Serialize for DistinctSketch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.registers.iter().map(|rank| char::from(b'0' + rank)).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for DistinctSketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ranks: Vec<u8> = text.bytes().map(|byte| byte.wrapping_sub(b'0')).collect();
        if ranks.iter().any(|rank| *rank > 64) {
            return Err(D::Error::custom("a register of a distinct sketch is out of range"));
        }
        let registers =
            <[u8; REGISTERS]>::try_from(ranks).map_err(|r| D::Error::invalid_length(r.len(), &"1024 registers"))?;
        Ok(Self { registers: Box::new(registers) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn ints(range: std::ops::Range<i64>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(range))
    }

    #[test]
    fn estimates_are_within_a_tenth() {
        for count in [0, 1, 7, 100, 3_000, 70_000, 1_000_000] {
            let mut sketch = DistinctSketch::default();
            assert!(sketch.add(&ints(0..count)));
            assert!(sketch.add(&ints(0..count)), "values seen again change nothing");
            let error = (sketch.estimate() as f64 - count as f64).abs();
            assert!(error <= count as f64 * 0.1, "{count} estimated as {}", sketch.estimate());
        }
    }

    #[test]
    fn merging_is_adding_everything_to_one() {
        let (mut left, mut right, mut both) = Default::default();
        let add = |sketch: &mut DistinctSketch, array: &ArrayRef| assert!(sketch.add(array));
        add(&mut left, &ints(0..5_000));
        add(&mut right, &ints(4_000..9_000));
        add(&mut both, &ints(0..9_000));
        left.merge(&right);
        assert_eq!(left, both);
    }

    #[test]
    fn text_survives_json() -> Result<(), serde_json::Error> {
        let mut sketch = DistinctSketch::default();
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("a")]));
        assert!(sketch.add(&words));
        assert_eq!(sketch.estimate(), 2);
        let back: DistinctSketch = serde_json::from_str(&serde_json::to_string(&sketch)?)?;
        assert_eq!(back, sketch);
        Ok(())
    }
}
