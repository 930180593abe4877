//! A second implementation of the documented key order, so that ranges can be tested without an engine: a marker for
//! nullable columns (NULL first, also where descending), flipped signs, terminated strings, inverted if descending.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Float64Type, Int64Type, Schema},
};
use grizzly_provider::access::IndexInfo;

/// The key of the first `values.len()` columns of `index`.
pub(crate) fn encode(index: &IndexInfo, schema: &Schema, values: &[ArrayRef]) -> Option<Vec<u8>> {
    let mut key = vec![];
    for (position, value) in values.iter().enumerate() {
        let field = schema.field(index.columns[position]);
        if field.data_type() != value.data_type() {
            return None;
        }
        if field.is_nullable() {
            key.push(u8::from(value.is_valid(0)));
        }
        if value.is_null(0) {
            if field.data_type() != &DataType::Utf8 {
                key.extend([0; 8]);
            }
            continue;
        }
        let mut bytes = body(value);
        if index.descending[position] {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        key.extend(bytes);
    }
    Some(key)
}

fn body(value: &ArrayRef) -> Vec<u8> {
    match value.data_type() {
        DataType::Int64 => (value.as_primitive::<Int64Type>().value(0) ^ i64::MIN).to_be_bytes().to_vec(),
        DataType::Float64 => {
            let number = value.as_primitive::<Float64Type>().value(0);
            let number = if number.is_nan() { f64::NAN.abs() } else { number + 0.0 };
            let bits = number.to_bits();
            (if number.is_sign_negative() { !bits } else { bits ^ (1 << 63) }).to_be_bytes().to_vec()
        }
        _ => {
            let text = value.as_string::<i32>().value(0).bytes();
            let escaped = text.flat_map(|byte| if byte < 2 { vec![1, byte + 1] } else { vec![byte] });
            escaped.chain([0]).collect()
        }
    }
}
