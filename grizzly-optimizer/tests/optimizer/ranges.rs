//! Key ranges against row evaluation: random tables, random indexes, random predicates.

use std::{
    cmp::Ordering,
    ops::{Bound, Range},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, StringArray},
    datatypes::{DataType, Field, Schema},
};
use grizzly_optimizer::{IndexRanges, conjuncts, index_ranges};
use grizzly_provider::access::{ColumnTest, CompareOp, IndexInfo, KeyRange, Predicate};
use proptest::prelude::*;

use crate::key_encoding::encode;

/// A value as a row holds it. Floats compare as in DataFusion: in total order.
#[derive(Debug, Clone)]
enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(&'static str),
}

impl Value {
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => Some(a.total_cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    fn array(&self, data_type: &DataType) -> ArrayRef {
        array(std::slice::from_ref(self), data_type)
    }
}

fn array(values: &[Value], data_type: &DataType) -> ArrayRef {
    let int = |value: &Value| if let Value::Int(int) = value { Some(*int) } else { None };
    let float = |value: &Value| if let Value::Float(float) = value { Some(*float) } else { None };
    let text = |value: &Value| if let Value::Text(text) = value { Some(*text) } else { None };
    match data_type {
        DataType::Int64 => Arc::new(values.iter().map(int).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(values.iter().map(float).collect::<Float64Array>()),
        _ => Arc::new(values.iter().map(text).collect::<StringArray>()),
    }
}

/// Columns: an integer that may be NULL, a float that may be, a text that may be, an integer that may not.
fn schema() -> Schema {
    Schema::new(vec![
        Field::new("i", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("t", DataType::Utf8, true),
        Field::new("k", DataType::Int64, false),
    ])
}

fn value(column: usize) -> BoxedStrategy<Value> {
    match column {
        0 | 3 => prop_oneof![8 => -3..4_i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX)].prop_map(Value::Int).boxed(),
        1 => {
            let numbers = [f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1.5, f64::INFINITY, f64::NAN, -f64::NAN];
            prop::sample::select(numbers.to_vec()).prop_map(Value::Float).boxed()
        }
        _ => prop::sample::select(vec!["", "\0", "\u{1}", "a", "a\0", "ab", "b"]).prop_map(Value::Text).boxed(),
    }
}

fn row() -> impl Strategy<Value = Vec<Value>> {
    let nullable = |column| prop_oneof![1 => Just(Value::Null), 4 => value(column)];
    (nullable(0), nullable(1), nullable(2), value(3)).prop_map(|(i, f, t, k)| vec![i, f, t, k])
}

/// A test that can be evaluated without Arrow.
#[derive(Debug, Clone)]
enum Condition {
    Compare(usize, CompareOp, Value),
    In(usize, Vec<Value>, bool),
    Null(usize, bool),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Constant(bool),
}

const INDEXABLE: [CompareOp; 5] = [CompareOp::Eq, CompareOp::Lt, CompareOp::LtEq, CompareOp::Gt, CompareOp::GtEq];

fn condition() -> impl Strategy<Value = Condition> {
    let ops = INDEXABLE.into_iter().chain([CompareOp::NotEq]).collect();
    nested(prop_oneof![20 => leaf(0..4, ops, 0.2), 1 => any::<bool>().prop_map(Condition::Constant)].boxed())
}

/// Conditions on the first column that an index can answer alone.
fn indexable_condition() -> impl Strategy<Value = Condition> {
    nested(leaf(0..1, INDEXABLE.to_vec(), 0.0))
}

fn leaf(columns: Range<usize>, ops: Vec<CompareOp>, negated: f64) -> BoxedStrategy<Condition> {
    let leaf = columns.prop_flat_map(move |column| {
        let compare = (prop::sample::select(ops.clone()), value(column))
            .prop_map(move |(op, value)| Condition::Compare(column, op, value));
        let list = (prop::collection::vec(value(column), 1..5), prop::bool::weighted(negated))
            .prop_map(move |(values, negated)| Condition::In(column, values, negated));
        let null = any::<bool>().prop_map(move |negated| Condition::Null(column, negated));
        prop_oneof![6 => compare, 3 => list, 1 => null]
    });
    leaf.boxed()
}

fn nested(leaf: BoxedStrategy<Condition>) -> impl Strategy<Value = Condition> {
    leaf.prop_recursive(3, 12, 4, |inner| {
        let many = prop::collection::vec(inner, 0..4);
        prop_oneof![2 => many.clone().prop_map(Condition::And), 1 => many.prop_map(Condition::Or)]
    })
}

impl Condition {
    /// Whether the row is kept. Without NOT, UNKNOWN and FALSE need not be told apart.
    fn keeps(&self, row: &[Value]) -> bool {
        match self {
            Self::Compare(column, op, value) => row[*column].compare(value).is_some_and(|order| match op {
                CompareOp::Eq => order.is_eq(),
                CompareOp::NotEq => order.is_ne(),
                CompareOp::Lt => order.is_lt(),
                CompareOp::LtEq => order.is_le(),
                CompareOp::Gt => order.is_gt(),
                CompareOp::GtEq => order.is_ge(),
            }),
            Self::In(column, values, negated) => {
                let orders: Vec<_> = values.iter().map(|value| row[*column].compare(value)).collect();
                let found = orders.contains(&Some(Ordering::Equal));
                !orders.contains(&None) && found != *negated
            }
            Self::Null(column, negated) => matches!(row[*column], Value::Null) != *negated,
            Self::And(all) => all.iter().all(|one| one.keeps(row)),
            Self::Or(any) => any.iter().any(|one| one.keeps(row)),
            Self::Constant(constant) => *constant,
        }
    }

    fn predicate(&self, schema: &Schema) -> Predicate {
        let type_of = |column: usize| schema.field(column).data_type();
        match self {
            Self::Compare(column, op, value) => {
                let test = ColumnTest::Compare { op: *op, value: value.array(type_of(*column)) };
                Predicate::Test { column: *column, test }
            }
            Self::In(column, values, negated) => {
                let test = ColumnTest::InList { values: array(values, type_of(*column)), negated: *negated };
                Predicate::Test { column: *column, test }
            }
            Self::Null(column, false) => Predicate::Test { column: *column, test: ColumnTest::IsNull },
            Self::Null(column, true) => Predicate::Test { column: *column, test: ColumnTest::IsNotNull },
            Self::And(all) => Predicate::And(all.iter().map(|one| one.predicate(schema)).collect()),
            Self::Or(any) => Predicate::Or(any.iter().map(|one| one.predicate(schema)).collect()),
            Self::Constant(constant) => Predicate::Constant(*constant),
        }
    }
}

fn index(columns: &[usize], descending: &[bool]) -> IndexInfo {
    IndexInfo {
        name: "by_test".into(),
        columns: columns.to_vec(),
        descending: descending[..columns.len()].to_vec(),
        unique: false,
        primary: false,
    }
}

fn ranges_of(index: &IndexInfo, condition: &Condition) -> Option<IndexRanges> {
    let schema = schema();
    let predicate = condition.predicate(&schema);
    index_ranges(index, &schema, &conjuncts(&predicate), &|values| encode(index, &schema, values))
}

fn key_of(index: &IndexInfo, row: &[Value]) -> Vec<u8> {
    let schema = schema();
    let values = index.columns.iter().map(|column| row[*column].array(schema.field(*column).data_type()));
    encode(index, &schema, &values.collect::<Vec<_>>()).expect("every value of the test has a key")
}

fn contains(range: &KeyRange, key: &[u8]) -> bool {
    let above = match &range.lower {
        Bound::Unbounded => true,
        Bound::Included(lower) => key >= lower.as_slice(),
        Bound::Excluded(lower) => key > lower.as_slice(),
    };
    let below = match &range.upper {
        Bound::Unbounded => true,
        Bound::Included(upper) => key <= upper.as_slice(),
        Bound::Excluded(upper) => key < upper.as_slice(),
    };
    above && below
}

fn found(ranges: &IndexRanges, key: &[u8]) -> usize {
    ranges.ranges.iter().filter(|range| contains(range, key)).count()
}

/// The end of each range lies before the beginning of the next.
fn ascending_and_disjoint(ranges: &IndexRanges) -> bool {
    ranges.ranges.windows(2).all(|pair| match (&pair[0].upper, &pair[1].lower) {
        (Bound::Excluded(upper), Bound::Included(lower)) => upper <= lower,
        (Bound::Included(upper), Bound::Included(lower)) => upper < lower,
        _ => false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_matching_row_is_in_exactly_one_range(
        columns in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        width in 1..4_usize,
        descending in prop::collection::vec(any::<bool>(), 4),
        condition in condition(),
        rows in prop::collection::vec(row(), 1..40),
    ) {
        let index = index(&columns[..width], &descending);
        if let Some(ranges) = ranges_of(&index, &condition) {
            prop_assert!(ascending_and_disjoint(&ranges), "{ranges:?}");
            for row in rows.iter().filter(|row| condition.keeps(row)) {
                prop_assert_eq!(found(&ranges, &key_of(&index, row)), 1, "{:?} in {:?}", row, ranges);
            }
        }
    }

    #[test]
    fn ranges_of_one_integer_column_hold_nothing_but_matching_rows(
        descending in any::<bool>(),
        condition in indexable_condition(),
        rows in prop::collection::vec(row(), 1..40),
    ) {
        let index = index(&[0], &[descending]);
        if let Some(ranges) = ranges_of(&index, &condition) {
            for row in &rows {
                prop_assert_eq!(found(&ranges, &key_of(&index, row)) == 1, condition.keeps(row), "{:?} in {:?}", row, ranges);
            }
        }
    }
}

fn equals(column: usize, value: i64) -> Condition {
    Condition::Compare(column, CompareOp::Eq, Value::Int(value))
}

#[test]
fn equality_on_every_column_is_a_point() {
    let index = index(&[0, 3], &[false, true]);
    let ranges = ranges_of(&index, &Condition::And(vec![equals(3, 7), equals(0, 5)])).expect("both columns are bound");
    assert!(ranges.points);
    assert_eq!((ranges.columns, ranges.ranges.len()), (2, 1));
    assert_eq!(ranges.ranges[0].lower, ranges.ranges[0].upper);
}

#[test]
fn a_list_of_prefixes_multiplies_with_the_next_column() {
    let index = index(&[0, 3], &[false, false]);
    let list = Condition::In(0, vec![Value::Int(4), Value::Int(2), Value::Int(4)], false);
    let range = Condition::Compare(3, CompareOp::Gt, Value::Int(0));
    let ranges = ranges_of(&index, &Condition::And(vec![list, range])).expect("both columns are bound");
    assert!(!ranges.points);
    assert_eq!((ranges.columns, ranges.ranges.len()), (2, 2));
}

#[test]
fn a_condition_on_a_later_column_alone_is_no_use() {
    assert_eq!(ranges_of(&index(&[0, 3], &[false, false]), &equals(3, 7)), None);
}

#[test]
fn a_contradiction_leaves_no_range() {
    let ranges = ranges_of(&index(&[0], &[false]), &Condition::And(vec![equals(0, 1), equals(0, 2)]));
    assert_eq!(ranges.map(|ranges| ranges.ranges.len()), Some(0));
}
