//! Order, round trips, prefixes, corruption, and the golden bytes of the format.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, PrimitiveArray,
    StringArray, make_array, make_comparator, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type, Int8Type, TimeUnit};
use proptest::prelude::*;

use super::*;

fn all_types() -> Vec<DataType> {
    let mut types = vec![DataType::Boolean, DataType::FixedSizeBinary(3)];
    types.extend([DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64]);
    types.extend([DataType::UInt8, DataType::UInt16, DataType::UInt32, DataType::UInt64]);
    types.extend([DataType::Float16, DataType::Float32, DataType::Float64]);
    types.extend([DataType::Decimal32(9, 2), DataType::Decimal64(18, 2)]);
    types.extend([DataType::Decimal128(38, 2), DataType::Decimal256(76, 2)]);
    types.extend([DataType::Date32, DataType::Date64]);
    types.extend([DataType::Time32(TimeUnit::Second), DataType::Time32(TimeUnit::Millisecond)]);
    types.extend([DataType::Time64(TimeUnit::Microsecond), DataType::Time64(TimeUnit::Nanosecond)]);
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        types.extend([DataType::Timestamp(unit, None), DataType::Duration(unit)]);
    }
    types.push(DataType::Timestamp(TimeUnit::Microsecond, Some("+02:00".into())));
    types.extend([DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View]);
    types.extend([DataType::Binary, DataType::LargeBinary, DataType::BinaryView]);
    types.push(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)));
    types.push(DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Int64)));
    types
}

/// One cell: whether it is NULL, and bytes from which a value of any type is made.
type Seed = (bool, u8, [u8; 32]);

fn seeds(rows: usize) -> impl Strategy<Value = Vec<Seed>> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(2), Just(0x7F), Just(0x80), Just(0xFF), any::<u8>()];
    let bytes = proptest::collection::vec(byte, 32).prop_map(|bytes| {
        let mut all = [0; 32];
        all.copy_from_slice(&bytes);
        all
    });
    proptest::collection::vec((proptest::bool::weighted(0.2), 0..12u8, bytes), rows)
}

/// Little-endian bytes of a value, mostly the ones that tend to go wrong.
fn native_bytes(seed: &Seed, width: usize) -> Vec<u8> {
    let ends: &[u8] = match seed.1 {
        0 => &[0],
        // The smallest integer, -0.0.
        1 => &[0x80],
        // Infinities and NaNs of 64, 32 and 16 bits.
        2 => &[0xF0, 0x7F],
        3 => &[0xF0, 0xFF],
        4 => &[0xF8, 0x7F],
        5 => &[0xFF, 0xFF],
        6 => &[0x80, 0x7F],
        7 => &[0x7E],
        8 => &[0xFC],
        9 => &[0x7F],
        _ => return seed.2[..width].to_vec(),
    };
    let mut bytes = vec![if seed.1 == 5 { 0xFF } else { 0 }; width];
    let count = ends.len().min(width);
    bytes[width - count..].copy_from_slice(&ends[ends.len() - count..]);
    bytes
}

fn array_of(data_type: &DataType, seeds: &[Seed], nullable: bool) -> ArrayRef {
    let nulls = NullBuffer::from_iter(seeds.iter().map(|seed| !(nullable && seed.0)));
    match data_type {
        DataType::Boolean => {
            let values = seeds.iter().map(|seed| seed.2[0] & 1 == 1).collect::<Vec<_>>();
            Arc::new(BooleanArray::new(values.into(), Some(nulls)))
        }
        DataType::Dictionary(keys, values) => {
            let plain = array_of(values, seeds, nullable);
            let keys = cast(&Int32Array::new((0..seeds.len() as i32).collect(), Some(nulls)), keys.as_ref())
                .expect("row numbers fit every key type");
            dictionary(&keys, plain)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = seeds.iter().enumerate().map(|(row, seed)| {
                nulls.is_valid(row).then(|| {
                    let letters = ['\0', '\u{1}', '\u{2}', 'a', 'b', 'é', '\u{10FFFF}'];
                    seed.2[..usize::from(seed.1 % 5)].iter().map(|&b| letters[usize::from(b) % 7]).collect::<String>()
                })
            });
            cast(&text.collect::<StringArray>(), data_type).expect("text is text")
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let values = seeds
                .iter()
                .enumerate()
                .map(|(row, seed)| nulls.is_valid(row).then(|| &seed.2[..usize::from(seed.1 % 5)]));
            cast(&values.collect::<arrow::array::BinaryArray>(), data_type).expect("binary is binary")
        }
        _ => {
            let width = match value::layout(data_type) {
                Some(value::Layout::Fixed(width)) => width,
                other => unreachable!("{data_type}: {other:?}"),
            };
            let bytes = seeds.iter().flat_map(|seed| native_bytes(seed, width)).collect::<Vec<_>>();
            let data = arrow::array::ArrayData::builder(data_type.clone())
                .len(seeds.len())
                .add_buffer(Buffer::from_slice_ref(&bytes))
                .nulls(Some(nulls))
                .build()
                .expect("every bit pattern is a value");
            make_array(data)
        }
    }
}

fn dictionary(keys: &ArrayRef, values: ArrayRef) -> ArrayRef {
    match keys.data_type() {
        DataType::Int32 => {
            Arc::new(DictionaryArray::new(keys.as_primitive::<arrow::datatypes::Int32Type>().clone(), values))
        }
        _ => Arc::new(DictionaryArray::new(keys.as_primitive::<arrow::datatypes::UInt8Type>().clone(), values)),
    }
}

/// The array a reader of keys sees: dictionaries resolved, one NaN, one zero.
fn normalized(array: &ArrayRef) -> ArrayRef {
    fn floats<T: ArrowPrimitiveType>(array: &ArrayRef, normal: impl Fn(T::Native) -> T::Native) -> ArrayRef {
        let array: &PrimitiveArray<T> = array.as_primitive();
        Arc::new(array.unary::<_, T>(normal))
    }
    match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values).expect("dictionary to its values"),
        DataType::Float16 => floats::<Float16Type>(array, |x| {
            let bits = x.to_bits();
            <Float16Type as ArrowPrimitiveType>::Native::from_bits(match bits & 0x7FFF {
                0 => 0,
                magnitude if magnitude > 0x7C00 => 0x7E00,
                _ => bits,
            })
        }),
        DataType::Float32 => {
            floats::<Float32Type>(array, |x| if x.is_nan() { f32::from_bits(0x7FC0_0000) } else { x + 0.0 })
        }
        DataType::Float64 => {
            floats::<Float64Type>(array, |x| if x.is_nan() { f64::from_bits(0x7FF8_0000_0000_0000) } else { x + 0.0 })
        }
        _ => ArrayRef::clone(array),
    }
}

type Comparator = Box<dyn Fn(usize, usize) -> Ordering>;

/// What arrow says about the order of two rows.
fn model(columns: &[(ArrayRef, bool)]) -> Comparator {
    let columns = columns
        .iter()
        .map(|(array, descending)| {
            let array = normalized(array);
            let options = SortOptions { descending: *descending, nulls_first: true };
            make_comparator(array.as_ref(), array.as_ref(), options).expect("arrow orders it")
        })
        .collect::<Vec<_>>();
    Box::new(move |a, b| columns.iter().map(|compare| compare(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal))
}

fn check(types: &[(DataType, bool, bool)], columns: &[ArrayRef]) -> std::result::Result<(), TestCaseError> {
    let encoder = KeyEncoder::new(types).expect("supported");
    let keys = encoder.encode_columns(columns).expect("encodes");
    let rows = columns[0].len();
    prop_assert_eq!(keys.len(), rows);
    let described: Vec<_> = columns.iter().cloned().zip(types.iter().map(|(_, _, descending)| *descending)).collect();
    let whole = model(&described);
    for a in 0..rows {
        let mut key = Vec::new();
        encoder.encode_row(columns, a, &mut key).expect("encodes");
        prop_assert_eq!(&key, keys.get(a));
        let has_null = columns.iter().any(|column| normalized(column).is_null(a));
        prop_assert_eq!(encoder.has_null(&key), has_null);
        let decoded = encoder.decode(&key).expect("decodes");
        for (column, value) in columns.iter().zip(&decoded) {
            prop_assert_eq!(value.data_type(), column.data_type());
            prop_assert_eq!(&normalized(value), &normalized(&column.slice(a, 1)));
        }
        prop_assert!(!encoder.display(&key).starts_with("x'"));
        for b in 0..rows {
            prop_assert_eq!(keys.get(a).cmp(keys.get(b)), whole(a, b), "rows {} and {} of {:?}", a, b, columns);
        }
        for count in 1..=columns.len() {
            let literals: Vec<_> = columns[..count].iter().map(|column| column.slice(a, 1)).collect();
            let mut prefix = Vec::new();
            encoder.encode_prefix(&literals, &mut prefix).expect("encodes");
            let range = KeyRange::prefix(&prefix);
            let part = model(&described[..count]);
            for b in 0..rows {
                prop_assert_eq!(range.contains(keys.get(b)), part(a, b).is_eq());
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_type_sorts_like_arrow(seeds in seeds(20), nullable: bool, descending: bool) {
        for data_type in all_types() {
            check(&[(data_type.clone(), nullable, descending)], &[array_of(&data_type, &seeds, nullable)])?;
        }
    }

    #[test]
    fn columns_concatenate(
        columns in proptest::collection::vec((0..all_types().len(), any::<bool>(), any::<bool>(), seeds(12)), 1..4)
    ) {
        let all = all_types();
        let types: Vec<_> = columns.iter().map(|(t, nullable, descending, _)| (all[*t].clone(), *nullable, *descending)).collect();
        let arrays: Vec<_> = columns.iter().map(|(t, nullable, _, seeds)| array_of(&all[*t], seeds, *nullable)).collect();
        check(&types, &arrays)?;
        let sliced: Vec<_> = arrays.iter().map(|array| array.slice(3, 7)).collect();
        check(&types, &sliced)?;
    }

    #[test]
    fn values_round_trip(seeds in seeds(8)) {
        for data_type in all_types() {
            let array = array_of(&data_type, &seeds, true);
            let mut bytes = Vec::new();
            for row in 0..array.len() {
                encode_value(array.as_ref(), row, &mut bytes).expect("encodes");
            }
            let mut rest = bytes.as_slice();
            for row in 0..array.len() {
                let value = decode_value(&mut rest, &data_type).expect("decodes");
                prop_assert_eq!(value.data_type(), &data_type);
                prop_assert_eq!(&normalized(&value), &normalized(&array.slice(row, 1)));
            }
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn corrupt_keys_are_errors(bytes in proptest::collection::vec(prop_oneof![0..3u8, any::<u8>()], 0..40), descending: bool) {
        for data_type in all_types() {
            let encoder = KeyEncoder::new(&[(DataType::Utf8, true, false), (data_type.clone(), true, descending)])
                .expect("supported");
            let _ = encoder.display(&bytes);
            let _ = encoder.has_null(&bytes);
            if let Ok(row) = encoder.decode(&bytes) {
                let again = encoder.encode_columns(&row).expect("what was read can be written");
                let floating = matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64);
                prop_assert!(floating || again.get(0) == bytes);
            }
            let _ = decode_value(&mut bytes.as_slice(), &data_type);
        }
    }

    #[test]
    fn successor_is_the_exclusive_end(prefix in proptest::collection::vec(prop_oneof![Just(0xFFu8), any::<u8>()], 0..4),
                                      key in proptest::collection::vec(prop_oneof![Just(0xFFu8), any::<u8>()], 0..6)) {
        prop_assert_eq!(KeyRange::prefix(&prefix).contains(&key), key.starts_with(&prefix));
    }
}

fn hex_of(encoder: &KeyEncoder, columns: &[ArrayRef]) -> String {
    let keys = encoder.encode_columns(columns).expect("encodes");
    display::hex(keys.get(0))
}

#[test]
fn golden_bytes() {
    let golden: Vec<(ArrayRef, &str, &str)> = vec![
        (Arc::new(Int32Array::from(vec![-2])), "x'017ffffffe'", "x'0180000001'"),
        (Arc::new(Int64Array::from(vec![1])), "x'018000000000000001'", "x'017ffffffffffffffe'"),
        (Arc::new(Float64Array::from(vec![-1.5])), "x'014007ffffffffffff'", "x'01bff8000000000000'"),
        (Arc::new(Float64Array::from(vec![-0.0])), "x'018000000000000000'", "x'017fffffffffffffff'"),
        (Arc::new(Float64Array::from(vec![-f64::NAN])), "x'01fff8000000000000'", "x'010007ffffffffffff'"),
        (Arc::new(BooleanArray::from(vec![true])), "x'0101'", "x'01fe'"),
        (Arc::new(StringArray::from(vec!["a\0\u{1}b"])), "x'0161010101026200'", "x'019efefefefd9dff'"),
        (new_null_array(&DataType::Int16, 1), "x'000000'", "x'000000'"),
        (new_null_array(&DataType::Utf8, 1), "x'00'", "x'00'"),
    ];
    for (array, ascending, descending) in golden {
        for (expected, reverse) in [(ascending, false), (descending, true)] {
            let encoder = KeyEncoder::new(&[(array.data_type().clone(), true, reverse)]).expect("supported");
            let found = hex_of(&encoder, &[ArrayRef::clone(&array)]);
            assert_eq!(found, expected, "{array:?}");
        }
    }
    let not_null =
        KeyEncoder::new(&[(DataType::Int8, false, false), (DataType::Int8, false, true)]).expect("supported");
    let column: ArrayRef = Arc::new(PrimitiveArray::<Int8Type>::from(vec![1]));
    assert_eq!(hex_of(&not_null, &[ArrayRef::clone(&column), column]), "x'817e'");
}

#[test]
fn refuses_what_it_cannot_encode() {
    let list = DataType::new_list(DataType::Int8, true);
    assert!(!supports(&list));
    assert!(!supports(&DataType::Null));
    assert!(KeyEncoder::new(&[(list, true, false)]).is_err());
    let encoder = KeyEncoder::new(&[(DataType::Int32, false, false)]).expect("supported");
    let nulls: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let other: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(matches!(encoder.encode_columns(&[ArrayRef::clone(&nulls)]), Err(KeyError::Unsupported { .. })));
    assert!(matches!(encoder.encode_row(&[nulls], 1, &mut Vec::new()), Err(KeyError::Unsupported { .. })));
    assert!(matches!(encoder.encode_columns(&[ArrayRef::clone(&other)]), Err(KeyError::Unsupported { .. })));
    assert!(matches!(
        encoder.encode_prefix(&[ArrayRef::clone(&other), other], &mut Vec::new()),
        Err(KeyError::Unsupported { .. })
    ));
    assert!(encoder.encode_columns(&[]).is_err());
}

#[test]
fn string_families_and_dictionaries_share_keys() {
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some("")]));
    let encoder = KeyEncoder::new(&[(DataType::Utf8, true, false)]).expect("supported");
    let keys = encoder.encode_columns(&[ArrayRef::clone(&text)]).expect("encodes");
    let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8));
    for other in [DataType::LargeUtf8, DataType::Utf8View, dictionary] {
        let column = cast(&text, &other).expect("casts");
        assert_eq!(encoder.encode_columns(&[column]).expect("encodes"), keys, "{other}");
    }
}

#[test]
fn displays_for_people() {
    let types = [(DataType::Int32, false, false), (DataType::Utf8, true, true), (DataType::Date32, true, false)];
    let encoder = KeyEncoder::new(&types).expect("supported");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![1])),
        Arc::new(StringArray::from(vec!["it's"])),
        new_null_array(&DataType::Date32, 1),
    ];
    let mut key = Vec::new();
    encoder.encode_row(&columns, 0, &mut key).expect("encodes");
    assert_eq!(encoder.display(&key), "(1, 'it''s', NULL)");
    let mut prefix = Vec::new();
    encoder.encode_prefix(&columns[..2], &mut prefix).expect("encodes");
    assert_eq!(encoder.display(&prefix), "(1, 'it''s')");
    assert_eq!(encoder.display(&key[..key.len() - 1]), display::hex(&key[..key.len() - 1]));
}

#[test]
fn keys_hold_any_mixture_of_lengths() {
    let parts: [&[u8]; 4] = [b"ab", b"cd", b"", b"efg"];
    let keys: Keys = parts.into_iter().collect();
    assert_eq!(keys.iter().collect::<Vec<_>>(), parts);
    let mut twice = keys.clone();
    twice.extend(&keys);
    assert_eq!(twice.len(), 8);
    assert_eq!(twice.get(7), b"efg");
    let mut fixed: Keys = parts[..2].iter().copied().collect();
    assert_eq!(fixed.width(), Some(2));
    fixed.extend(&keys);
    assert_eq!(fixed.iter().collect::<Vec<_>>(), [&parts[..2], &parts[..]].concat());
}
