//! Encoded columns against plain Arrow: whatever the type, the pattern of values, the NULLs and the slice.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, BooleanBufferBuilder, DictionaryArray, FixedSizeBinaryArray,
    Int64Array, ListArray, NullArray, PrimitiveArray, StructArray, UInt32Array, make_array, new_null_array,
};
use arrow::compute;
use arrow::datatypes::*;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::arrow_test::test_array;
use super::super::predicate::{evaluate, evaluate_batch};
use super::super::zone_map::{Verdict, may_match};
use super::*;
use crate::access::{ColumnTest, CompareOp, Predicate};
use crate::engine::segment::ZoneMap;

/// A small generator of our own, so that a failing case is its seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// How the values of a column follow each other: each pattern is what some encoding waits for.
const PATTERNS: usize = 8;

/// Numbers in one of the patterns, to be turned into values of any type.
fn numbers(random: &mut Random, pattern: usize, len: usize) -> Vec<i128> {
    let base = i128::from(random.next() as i64);
    let mut last = base;
    (0..len as i128)
        .map(|row| match pattern {
            0 => i128::from(random.next()) << 64 | i128::from(random.next()),
            1 => base,
            2 => base + random.below(7) as i128 * 1_000_003,
            3 => base + row,
            4 => {
                if random.below(40) == 0 {
                    last = i128::from(random.next() as i32);
                }
                last
            }
            5 => random.below(100) as i128 - 50,
            6 => {
                if random.below(50) == 0 {
                    i128::from(random.next())
                } else {
                    0
                }
            }
            _ => {
                last += random.below(1000) as i128;
                last
            }
        })
        .collect()
}

fn primitives<T: ArrowPrimitiveType>(
    numbers: &[i128],
    data_type: &DataType,
    from: impl Fn(i128) -> T::Native,
) -> ArrayRef {
    let values = numbers.iter().map(|n| from(*n));
    Arc::new(PrimitiveArray::<T>::from_iter_values(values).with_data_type(data_type.clone()))
}

fn float(number: i128) -> f64 {
    match number.rem_euclid(101) {
        0 => -0.0,
        1 => 0.0,
        2 => f64::NAN,
        3 => f64::INFINITY,
        4 => f64::from_bits(0xfff8_0000_0000_0123),
        5 => f64::MIN_POSITIVE / 2.0,
        _ => (number % 100_000) as f64 / 100.0,
    }
}

fn words(numbers: &[i128]) -> Vec<String> {
    const WORDS: [&str; 6] = ["", "a", "DELIVER IN PERSON", "carefully final deposits ", "über Größe 🐻", "\0\u{1}z"];
    let word = |n: i128| WORDS[n.rem_euclid(6) as usize];
    numbers
        .iter()
        .map(|n| format!("{}{}", word(*n), if n.rem_euclid(3) == 0 { String::new() } else { n.to_string() }))
        .collect()
}

pub(super) fn types() -> Vec<DataType> {
    use DataType::*;
    let mut types = vec![
        Null,
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float32,
        Float64,
        Date32,
        Date64,
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
    ];
    types.extend([Decimal128(15, 2), Decimal128(38, 10), Decimal128(9, 0), Decimal128(4, -2), Decimal256(76, 5)]);
    types.extend([Time32(TimeUnit::Second), Time32(TimeUnit::Millisecond)]);
    types.extend([Time64(TimeUnit::Microsecond), Time64(TimeUnit::Nanosecond)]);
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        types.extend([
            Timestamp(unit, None),
            Timestamp(unit, Some("UTC".into())),
            Timestamp(unit, Some("+02:00".into())),
        ]);
    }
    types.extend([Float16, Duration(TimeUnit::Second), Interval(IntervalUnit::MonthDayNano), FixedSizeBinary(3)]);
    types.push(Dictionary(Box::new(Int32), Box::new(Utf8)));
    types.push(List(Arc::new(Field::new("item", Int32, true))));
    types.push(Struct(Fields::from(vec![Field::new("a", Int64, true), Field::new("b", Utf8View, true)])));
    types
}

fn array_of(data_type: &DataType, n: &[i128]) -> ArrayRef {
    use DataType::*;
    let bounded = |digits: u32| move |n: i128| n % 10_i128.pow(digits);
    match data_type {
        Null => Arc::new(NullArray::new(n.len())),
        Boolean => Arc::new(n.iter().map(|n| Some(n.rem_euclid(2) == 1)).collect::<BooleanArray>()),
        Int8 => primitives::<Int8Type>(n, data_type, |n| n as i8),
        Int16 => primitives::<Int16Type>(n, data_type, |n| n as i16),
        Int32 => primitives::<Int32Type>(n, data_type, |n| n as i32),
        Int64 => primitives::<Int64Type>(n, data_type, |n| n as i64),
        UInt8 => primitives::<UInt8Type>(n, data_type, |n| n as u8),
        UInt16 => primitives::<UInt16Type>(n, data_type, |n| n as u16),
        UInt32 => primitives::<UInt32Type>(n, data_type, |n| n as u32),
        UInt64 => primitives::<UInt64Type>(n, data_type, |n| n as u64),
        Float16 => compute::cast(&primitives::<Float32Type>(n, &Float32, |n| float(n) as f32), &Float16).expect("cast"),
        Float32 => primitives::<Float32Type>(n, data_type, |n| float(n) as f32),
        Float64 => primitives::<Float64Type>(n, data_type, float),
        Date32 => primitives::<Date32Type>(n, data_type, |n| n as i32),
        Date64 => primitives::<Date64Type>(n, data_type, |n| n as i64),
        Time32(TimeUnit::Second) => primitives::<Time32SecondType>(n, data_type, |n| n.rem_euclid(86_400) as i32),
        Time32(_) => primitives::<Time32MillisecondType>(n, data_type, |n| n.rem_euclid(86_400_000) as i32),
        Time64(TimeUnit::Microsecond) => primitives::<Time64MicrosecondType>(n, data_type, |n| n as i64),
        Time64(_) => primitives::<Time64NanosecondType>(n, data_type, |n| n as i64),
        Timestamp(TimeUnit::Second, _) => primitives::<TimestampSecondType>(n, data_type, |n| n as i64),
        Timestamp(TimeUnit::Millisecond, _) => primitives::<TimestampMillisecondType>(n, data_type, |n| n as i64),
        Timestamp(TimeUnit::Microsecond, _) => primitives::<TimestampMicrosecondType>(n, data_type, |n| n as i64),
        Timestamp(TimeUnit::Nanosecond, _) => primitives::<TimestampNanosecondType>(n, data_type, |n| n as i64),
        Decimal128(digits, _) => primitives::<Decimal128Type>(n, data_type, bounded(u32::from(*digits))),
        Decimal256(..) => {
            primitives::<Decimal256Type>(n, data_type, |n| i256::from_i128(n).wrapping_mul(i256::from_i128(1 << 90)))
        }
        Duration(_) => primitives::<DurationSecondType>(n, data_type, |n| n as i64),
        Interval(_) => {
            primitives::<IntervalMonthDayNanoType>(n, data_type, |n| IntervalMonthDayNano::new(n as i32, 3, n as i64))
        }
        FixedSizeBinary(_) => {
            let values = n.iter().map(|n| Some(n.to_le_bytes()[..3].to_vec()));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 3).expect("three bytes each"))
        }
        Dictionary(..) => {
            let words = words(n);
            Arc::new(words.iter().map(String::as_str).collect::<DictionaryArray<Int32Type>>())
        }
        List(_) => Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
            n.iter().map(|n| Some((0..n.rem_euclid(4)).map(|i| Some((n + i) as i32)).collect::<Vec<_>>())),
        )),
        Struct(fields) => {
            let columns = fields.iter().map(|field| array_of(field.data_type(), n)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, None))
        }
        text => {
            let words: ArrayRef = Arc::new(arrow::array::StringArray::from(words(n)));
            let middle = if matches!(text, Binary | LargeBinary | BinaryView) { Binary } else { Utf8 };
            compute::cast(&compute::cast(&words, &middle).expect("cast"), text).expect("cast")
        }
    }
}

/// A column in one of the patterns, mostly without NULLs.
pub(super) fn array(random: &mut Random, data_type: &DataType, len: usize) -> ArrayRef {
    let pattern = random.below(PATTERNS);
    let values = array_of(data_type, &numbers(random, pattern, len));
    let one_in = [0, 0, 0, 1, 5, 60][random.below(6)];
    with_nulls(values, random, one_in)
}

/// Sets about one row in `one_in` to NULL (0: none, 1: all).
fn with_nulls(array: ArrayRef, random: &mut Random, one_in: usize) -> ArrayRef {
    if one_in == 0 || array.data_type().is_null() {
        return array;
    }
    if one_in == 1 {
        return new_null_array(array.data_type(), array.len());
    }
    let mut valid = BooleanBufferBuilder::new(array.len());
    (0..array.len()).for_each(|_| valid.append(random.below(one_in) != 0));
    let nulls = arrow::buffer::NullBuffer::new(valid.finish());
    make_array(array.to_data().into_builder().nulls(Some(nulls)).build().expect("a null buffer of the same length"))
}

fn selection(random: &mut Random, rows: usize, one_in: usize) -> BooleanBuffer {
    BooleanBuffer::collect_bool(rows, |_| random.below(one_in) == 0)
}

fn check_reads(
    column: &EncodedColumn,
    array: &ArrayRef,
    field: &Field,
    random: &mut Random,
) -> Result<(), TestCaseError> {
    let decoded = column.decode(field).expect("decodes");
    prop_assert_eq!(decoded.data_type(), array.data_type());
    prop_assert_eq!(&decoded, array, "{}", column.describe());
    for one_in in [1, 2, 20, 1_000_000] {
        let selection = selection(random, array.len(), one_in);
        let expected = compute::filter(array, &selection.clone().into()).expect("filter");
        let found = column.filter(field, &selection).expect("filters");
        prop_assert_eq!(found.data_type(), array.data_type());
        prop_assert_eq!(&found, &expected, "filter of {}", column.describe());
    }
    for count in [0, 1, 3, 30, 200] {
        let count = if array.is_empty() { 0 } else { count };
        let rows: Vec<u32> = (0..count).map(|_| random.below(array.len()) as u32).collect();
        let expected = compute::take(array, &UInt32Array::from(rows.clone()), None).expect("take");
        let found = column.take(field, &rows).expect("takes");
        prop_assert_eq!(found.data_type(), array.data_type());
        prop_assert_eq!(&found, &expected, "take {:?} of {}", rows, column.describe());
    }
    prop_assert!(column.take(field, &[array.len() as u32]).is_err());
    Ok(())
}

const OPS: [CompareOp; 6] =
    [CompareOp::Eq, CompareOp::NotEq, CompareOp::Lt, CompareOp::LtEq, CompareOp::Gt, CompareOp::GtEq];

/// Literals worth comparing with: values of the column, neighbours of them, and values from far away.
fn literals(array: &ArrayRef, random: &mut Random) -> Vec<ArrayRef> {
    let pattern = random.below(PATTERNS);
    let others = array_of(array.data_type(), &numbers(random, pattern, 3));
    let extreme =
        array_of(array.data_type(), &[0, 1, -1, i128::from(i64::MAX), i128::from(i64::MIN), i128::MAX, i128::MIN]);
    let mut literals: Vec<ArrayRef> = (0..others.len()).map(|row| others.slice(row, 1)).collect();
    literals.extend((0..extreme.len()).map(|row| extreme.slice(row, 1)));
    if !array.is_empty() {
        literals.extend((0..3).map(|_| array.slice(random.below(array.len()), 1)));
    }
    literals
}

fn tests_of(array: &ArrayRef, random: &mut Random) -> Vec<ColumnTest> {
    let mut tests = vec![ColumnTest::IsNull, ColumnTest::IsNotNull];
    let literals = literals(array, random);
    for literal in &literals {
        tests.extend(OPS.map(|op| ColumnTest::Compare { op, value: Arc::clone(literal) }));
    }
    let valid: Vec<&dyn Array> = literals.iter().filter(|l| l.logical_null_count() == 0).map(AsRef::as_ref).collect();
    for count in [1, 2, 4, valid.len()] {
        if !valid.is_empty() && count <= valid.len() {
            let values = compute::concat(&valid[valid.len() - count..]).expect("literals of one type");
            tests.extend([false, true].map(|negated| ColumnTest::InList { values: Arc::clone(&values), negated }));
        }
    }
    tests
}

fn is_comparable(data_type: &DataType) -> bool {
    !data_type.is_nested() && !matches!(data_type, DataType::Null | DataType::Dictionary(..))
}

fn check_tests(
    column: &EncodedColumn,
    array: &ArrayRef,
    field: &Field,
    random: &mut Random,
) -> Result<(), TestCaseError> {
    if !is_comparable(array.data_type()) {
        return Ok(());
    }
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(array)]).expect("one column");
    let zone = ZoneMap::of(array).expect("a zone map");
    for test in tests_of(array, random) {
        let expected = test_array(array, &test).expect("Arrow compares");
        if let Some(found) = column.test(field, &test).expect("tests") {
            prop_assert_eq!(&found, &expected, "{:?} on {}", test, column.describe());
        }
        let predicate = Predicate::Test { column: 0, test };
        prop_assert_eq!(&evaluate_batch(&predicate, &batch).expect("evaluates"), &expected);
        for one_in in [1, 2, 100] {
            let selection = selection(random, array.len(), one_in);
            let mut read = |_| Ok(column.clone());
            let found = evaluate(&predicate, &mut read, &schema, array.len(), Some(&selection)).expect("evaluates");
            prop_assert_eq!(&found, &(&expected & &selection), "{:?} of one in {}", predicate, one_in);
        }
        let kept = expected.count_set_bits();
        match may_match(&predicate, &|_| Some(&zone), &schema) {
            Verdict::None => prop_assert_eq!(kept, 0, "{:?} pruned by {:?}", predicate, zone),
            Verdict::All => prop_assert_eq!(kept, array.len(), "{:?} assumed by {:?}", predicate, zone),
            Verdict::Some => {}
        }
    }
    Ok(())
}

fn through_bytes(column: &EncodedColumn, field: &Field, shift: usize) -> EncodedColumn {
    let blob = column.to_bytes().expect("serialises").concat();
    let shifted = Bytes::from([vec![0; shift], blob].concat()).slice(shift..);
    EncodedColumn::from_bytes(shifted, field, column.rows(), "a test".to_owned()).expect("opens")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn encoded_is_plain_arrow(
        which in 0..types().len(),
        pattern in 0..PATTERNS,
        len in prop_oneof![Just(0_usize), Just(1), 2..50_usize, 900..3_000_usize],
        null_one_in in prop_oneof![Just(0_usize), Just(1), Just(2), Just(30)],
        skip in 0..70_usize,
        shift in 0..9_usize,
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let data_type = types().swap_remove(which);
        let numbers = numbers(&mut random, pattern, len + skip);
        let array = with_nulls(array_of(&data_type, &numbers), &mut random, null_one_in).slice(skip, len);
        let field = Field::new("c", data_type, true);

        let column = EncodedColumn::encode(&array, &field).expect("encodes");
        prop_assert_eq!(column.rows(), len);
        check_reads(&column, &array, &field, &mut random)?;
        check_tests(&column, &array, &field, &mut random)?;

        let reopened = through_bytes(&column, &field, shift);
        check_reads(&reopened, &array, &field, &mut random)?;
        check_tests(&reopened, &array, &field, &mut random)?;
    }

    #[test]
    fn chosen_rows_of_several_chunks_come_in_order(
        which in 0..types().len(),
        chunks in prop::collection::vec((0..PATTERNS, 1..2_000_usize, 0..40_usize, any::<bool>()), 1..6),
        null_one_in in prop_oneof![3 => Just(0_usize), 1 => Just(5)],
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let field = Field::new("c", types().swap_remove(which), true);
        let mut gathered = Gathered::new(&field);
        let mut expected = Vec::new();
        for (pattern, len, count, encoded) in chunks {
            let numbers = numbers(&mut random, pattern, len);
            let array = with_nulls(array_of(field.data_type(), &numbers), &mut random, null_one_in);
            let rows: Vec<u32> = (0..count).map(|_| random.below(array.len()) as u32).collect();
            let taken = compute::take(&array, &UInt32Array::from(rows.clone()), None).expect("take");
            if encoded {
                gathered.add(&EncodedColumn::encode(&array, &field).expect("encodes"), &rows).expect("adds");
            } else {
                gathered.add_array(Arc::clone(&taken)).expect("adds");
            }
            expected.push(taken);
        }
        let expected: Vec<&dyn Array> = expected.iter().map(AsRef::as_ref).collect();
        let found = gathered.finish().expect("finishes");
        prop_assert_eq!(found.data_type(), field.data_type());
        prop_assert_eq!(&found, &compute::concat(&expected).expect("of one type"));
    }
}

/// The compressor is on: columns that compress well do.
#[test]
fn columns_are_compressed() -> Result<()> {
    let numbers: Vec<i128> = (0..65_536).map(|n| n % 1_000).collect();
    for data_type in [DataType::Int64, DataType::Decimal128(15, 2), DataType::Utf8View, DataType::Date32] {
        let array = array_of(&data_type, &numbers);
        let column = EncodedColumn::encode(&array, &Field::new("c", data_type.clone(), true))?;
        let (encoded, plain) = (column.nbytes(), array.get_array_memory_size());
        assert!(encoded * 2 < plain, "{data_type}: {encoded} of {plain} bytes as {}", column.describe());
    }
    Ok(())
}

#[test]
fn a_column_of_another_type_is_refused() {
    let array = array_of(&DataType::Int32, &[1, 2, 3]);
    assert!(EncodedColumn::encode(&array, &Field::new("c", DataType::Int64, true)).is_err());
}

#[test]
fn dictionaries_of_any_size_give_single_values() {
    for different in [100, 1_000] {
        let mut random = Random(7);
        let values: Vec<i64> = (0..different).map(|_| random.next() as i64).collect();
        let array: ArrayRef =
            Arc::new(Int64Array::from_iter_values((0..8_192).map(|_| values[random.below(different)])));
        let field = Field::new("c", DataType::Int64, false);
        let column = EncodedColumn::encode(&array, &field).expect("encodes");
        assert!(column.describe().starts_with("dict("), "{}", column.describe());
        let rows: Vec<u32> = (0..100).map(|_| random.below(array.len()) as u32).collect();
        let expected = compute::take(&array, &UInt32Array::from(rows.clone()), None).expect("take");
        assert_eq!(&column.take(&field, &rows).expect("takes"), &expected);
    }
}
