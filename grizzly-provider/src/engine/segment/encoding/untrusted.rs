//! Blobs whose checksums fit and whose bytes were never looked at: every encoding, damaged in every way, is read or refused.
//! `GRIZZLY_UNTRUSTED_CASES` and `GRIZZLY_UNTRUSTED_SECONDS` make it longer, see the tests of untrusted files.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use bytes::Bytes;

use super::EncodedColumn;
use super::tests::{Random, array, types};
use crate::access::{ColumnTest, CompareOp};

#[path = "../../../../../grizzly-wal/tests/untrusted/harness.rs"]
#[expect(dead_code, reason = "memory is not counted among other tests")]
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run beside what they test")]
mod harness;

use harness::{Choices, damage};

/// Reads a column in every way. Whatever comes of it has as many rows as were asked for, and is what Arrow takes it for.
fn read(column: &EncodedColumn, field: &Field) {
    let rows = column.rows();
    let sound = |found: ArrayRef, rows: usize| {
        assert_eq!((found.len(), found.data_type()), (rows, field.data_type()));
        // Texts that are none, and what a view repeats of its value, are for `verify` to find.
        let left =
            |error: &ArrowError| ["padding", "prefix", "UTF"].iter().any(|word| error.to_string().contains(word));
        let odd = found.to_data().validate_full().err().filter(|error| !left(error));
        assert!(odd.is_none(), "what was decoded of {} is no array: {odd:?}", field.data_type());
    };
    if let Ok(all) = column.decode(field) {
        sound(all, rows);
    }
    let odd = BooleanBuffer::collect_bool(rows, |row| row % 3 == 1);
    if let Ok(some) = column.filter(field, &odd) {
        sound(some, odd.count_set_bits());
    }
    for few in [vec![0], vec![rows as u32 - 1, 0, 0], (0..rows as u32).step_by(2).collect()] {
        if let Ok(taken) = column.take(field, &few) {
            sound(taken, few.len());
        }
    }
    if let Ok(Some(values)) = column.distinct_values(field) {
        sound(Arc::clone(&values), values.len());
    }
    drop(column.test(field, &ColumnTest::IsNull));
    let value = column.take(field, &[0]).ok().filter(|value| value.null_count() == 0);
    if let Some(value) = value.filter(|value| value.len() == 1) {
        drop(column.test(field, &ColumnTest::Compare { op: CompareOp::LtEq, value }));
    }
}

fn one(case: &[u8]) {
    let mut choices = Choices::new(case);
    let types = types();
    let data_type = types[choices.below(types.len())].clone();
    let len = [3, 70, 1030, 2600][choices.below(4)];
    let field = Field::new("a", data_type.clone(), true);
    let make = |seed| array(&mut Random(seed), &data_type, len);
    let seed = u64::from(choices.byte() % 48);
    let stored = |seed| EncodedColumn::encode(&make(seed), &field).and_then(|column| column.to_bytes());
    let (Ok(blob), Ok(other)) = (stored(seed), stored(seed + 1)) else { return };
    let blob = blob.concat();
    let (mut body, form) = (blob[..blob.len() - 1].to_vec(), blob[blob.len() - 1]);
    // Buffers come first; what they mean stands at the end.
    let tail = if choices.bit() { body.len().saturating_sub(400) } else { 0 };
    let mut part = body.split_off(tail);
    let before = part.len();
    damage(&mut part, &other.concat(), &mut choices);
    if choices.bit() {
        part.resize(before, 0);
    }
    body.extend_from_slice(&part);
    body.push(if choices.byte() == 1 { choices.byte() % 4 } else { form });
    let rows = if choices.byte() < 8 { choices.below(70_000) } else { len };
    if rows == 0 {
        return;
    }
    if let Ok(column) = EncodedColumn::from_bytes(Bytes::from(body), &field, rows, "a test".to_owned()) {
        assert_eq!(column.rows(), rows);
        read(&column, &field);
    }
}

#[test]
fn damaged_blobs_are_read_or_refused() {
    harness::run("damaged_blobs_are_read_or_refused", 600, one);
}
