//! Keys for people: in error messages and EXPLAIN.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;

use super::value::dictionary_index;

/// Arrays of length 1 as `(1, 'abc', NULL)`.
pub(super) fn tuple(values: &[ArrayRef]) -> String {
    let values: Vec<String> = values.iter().map(|value| literal(value.as_ref(), 0)).collect();
    format!("({})", values.join(", "))
}

/// Bytes as `x'00ff'`.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2 + 3);
    out.push_str("x'");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out.push('\'');
    out
}

fn literal(array: &dyn Array, row: usize) -> String {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        return match dictionary_index(dictionary.keys(), row) {
            Some(index) => literal(dictionary.values().as_ref(), index),
            None => "NULL".into(),
        };
    }
    if array.is_null(row) {
        return "NULL".into();
    }
    match array.data_type() {
        DataType::Utf8 => quoted(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => quoted(array.as_string::<i64>().value(row)),
        DataType::Utf8View => quoted(array.as_string_view().value(row)),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => hex(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => hex(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => hex(array.as_fixed_size_binary().value(row)),
        _ => array_value_to_string(array, row).unwrap_or_else(|error| error.to_string()),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
