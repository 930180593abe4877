//! From a predicate to the key ranges of an index: pure, no tables, no DataFusion.
//!
//! The columns of an index are looked at from the most significant one on. As long as a column is bound to single
//! values (`=`, `IN`, `IS NULL`) the next column narrows further; the first column that is bound to an interval ends
//! it:
//!
//! ```text
//! index (a, b, c)      a = 1 AND b IN (3, 5) AND c < 9       ->  [(1,3,-∞) .. (1,3,9))  [(1,5,-∞) .. (1,5,9))
//!                      a = 1 AND c < 9                       ->  [(1) .. after (1)]
//!                      b = 1                                 ->  nothing: the index cannot help
//! ```
//!
//! The ranges always cover every row for which the predicate is true, and may cover more: the predicate runs again on
//! what the index finds. Everything is computed on encoded keys, half-open and in byte order, so that values need not
//! be compared here. What is assumed of the encoding: values of one column are prefix-free, a key is the concatenation
//! of its columns, NULLs come first, `-0.0` and `0.0` are one key, all NaNs are one key after every number.

use std::{ops::Bound, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, new_null_array},
    datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type, Schema},
};
use grizzly_provider::access::{ColumnTest, CompareOp, IndexInfo, KeyRange, Predicate};

/// How many prefixes an index may be entered with before further columns are left to the predicate.
const MAX_PREFIXES: usize = 1024;

/// Turns values of the first columns of an index into key bytes; `None` if they have no key.
pub type EncodePrefix<'a> = dyn Fn(&[ArrayRef]) -> Option<Vec<u8>> + 'a;

/// The part of an index that a predicate leaves to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRanges {
    /// Disjoint and ascending. Empty if no row can match.
    pub ranges: Arc<[KeyRange]>,
    /// How many of the index's columns narrowed them.
    pub columns: usize,
    /// Each range is one whole key.
    pub points: bool,
}

/// The ranges of `index` that hold every row for which all `conjuncts` are true; `None` if the predicate says nothing
/// about the index's first column.
pub fn index_ranges(
    index: &IndexInfo,
    schema: &Schema,
    conjuncts: &[&Predicate],
    encode: &EncodePrefix<'_>,
) -> Option<IndexRanges> {
    let mut builder = Builder { index, schema, conjuncts, encode, found: vec![], columns: 0 };
    builder.enter(&[], &Span::everything(), MAX_PREFIXES)?;
    if builder.columns == 0 {
        return None;
    }
    let points = builder.found.iter().all(|span| span.value.is_some());
    let ranges = builder.found.into_iter().map(Span::into_range).collect();
    Some(IndexRanges { ranges, columns: builder.columns, points })
}

/// The conditions that must all hold, without nested ANDs.
pub fn conjuncts(predicate: &Predicate) -> Vec<&Predicate> {
    let mut flat = vec![];
    flatten(predicate, &mut flat);
    flat
}

fn flatten<'a>(predicate: &'a Predicate, flat: &mut Vec<&'a Predicate>) {
    match predicate {
        Predicate::And(all) => all.iter().for_each(|one| flatten(one, flat)),
        other => flat.push(other),
    }
}

/// Keys from `lower` up to, not including, `upper`; to the end if there is none.
#[derive(Debug, Clone)]
struct Span {
    lower: Vec<u8>,
    upper: Option<Vec<u8>>,
    /// The column's value, if the span is all keys with this one value.
    value: Option<ArrayRef>,
}

impl Span {
    fn everything() -> Self {
        Self { lower: vec![], upper: None, value: None }
    }

    /// All keys that begin with `prefix`.
    fn of(prefix: Vec<u8>, value: Option<ArrayRef>) -> Self {
        Self { upper: successor(&prefix), lower: prefix, value }
    }

    fn is_empty(&self) -> bool {
        self.upper.as_ref().is_some_and(|upper| *upper <= self.lower)
    }

    fn overlap(&self, other: &Self) -> Option<Self> {
        let upper = match (&self.upper, &other.upper) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (one, None) | (None, one) => one.clone(),
        };
        let value = self.value.as_ref().or(other.value.as_ref()).cloned();
        let span = Self { lower: Ord::max(&self.lower, &other.lower).clone(), upper, value };
        (!span.is_empty()).then_some(span)
    }

    fn into_range(self) -> KeyRange {
        if self.value.is_some() {
            return KeyRange { upper: Bound::Included(self.lower.clone()), lower: Bound::Included(self.lower) };
        }
        let lower = if self.lower.is_empty() { Bound::Unbounded } else { Bound::Included(self.lower) };
        KeyRange { lower, upper: self.upper.map_or(Bound::Unbounded, Bound::Excluded) }
    }
}

struct Builder<'a> {
    index: &'a IndexInfo,
    schema: &'a Schema,
    conjuncts: &'a [&'a Predicate],
    encode: &'a EncodePrefix<'a>,
    found: Vec<Span>,
    columns: usize,
}

impl Builder<'_> {
    /// Adds the spans within `span`, which holds all keys that begin with the values `prefix`. At most `budget`
    /// prefixes may be entered below it. A span that is not a whole key loses its value. `None`: a value has no key.
    fn enter(&mut self, prefix: &[ArrayRef], span: &Span, budget: usize) -> Option<()> {
        let position = prefix.len();
        if position == self.index.columns.len() {
            self.found.push(span.clone());
            return Some(());
        }
        let column = ColumnSpans {
            number: self.index.columns[position],
            descending: self.index.descending.get(position).copied().unwrap_or(false),
            field: self.schema.fields().get(self.index.columns[position])?,
            encode: self.encode,
            prefix,
            whole: span,
        };
        let Some(spans) = column.of_all(self.conjuncts.iter().copied())? else {
            self.found.push(Span { value: None, ..span.clone() });
            return Some(());
        };
        self.columns = self.columns.max(position + 1);
        let below = budget / spans.len().max(1);
        for span in spans {
            match &span.value {
                Some(value) if below > 0 => {
                    let values: Vec<_> = prefix.iter().chain([value]).cloned().collect();
                    self.enter(&values, &span, below)?;
                }
                _ => self.found.push(Span { value: None, ..span }),
            }
        }
        Some(())
    }
}

/// One column of an index under given values of the columns before it.
struct ColumnSpans<'a> {
    number: usize,
    descending: bool,
    field: &'a Field,
    encode: &'a EncodePrefix<'a>,
    prefix: &'a [ArrayRef],
    whole: &'a Span,
}

/// What a condition says about a column: nothing, or these spans, ascending and disjoint. The outer `None`: a value
/// has no key.
type Spans = Option<Option<Vec<Span>>>;

impl ColumnSpans<'_> {
    fn of_all<'p>(&self, predicates: impl Iterator<Item = &'p Predicate>) -> Spans {
        let mut narrowed: Option<Vec<Span>> = None;
        for predicate in predicates {
            narrowed = match (narrowed, self.of(predicate)?) {
                (Some(a), Some(b)) => Some(intersect(&a, &b)),
                (one, None) | (None, one) => one,
            };
        }
        Some(narrowed)
    }

    fn of(&self, predicate: &Predicate) -> Spans {
        match predicate {
            Predicate::Test { column, test } if *column == self.number => self.of_test(test),
            Predicate::And(all) => self.of_all(all.iter()),
            Predicate::Or(any) => {
                let mut spans = vec![];
                for one in any {
                    match self.of(one)? {
                        Some(more) => spans.extend(more),
                        None => return Some(None),
                    }
                }
                Some(Some(union(spans)))
            }
            Predicate::Constant(false) => Some(Some(vec![])),
            Predicate::Constant(true) | Predicate::Test { .. } | Predicate::CompareColumns { .. } => Some(None),
        }
    }

    fn of_test(&self, test: &ColumnTest) -> Spans {
        match test {
            ColumnTest::Compare { op: CompareOp::NotEq, .. } | ColumnTest::InList { negated: true, .. } => Some(None),
            ColumnTest::Compare { op, value } => self.of_comparison(*op, value).map(Some),
            ColumnTest::InList { values, negated: false } => {
                let points = (0..values.len()).map(|row| self.point(&values.slice(row, 1)));
                Some(Some(union(points.collect::<Option<_>>()?)))
            }
            ColumnTest::IsNull if !self.field.is_nullable() => Some(Some(vec![])),
            ColumnTest::IsNotNull if !self.field.is_nullable() => Some(None),
            ColumnTest::IsNull => Some(Some(vec![self.nulls()?])),
            ColumnTest::IsNotNull => Some(Some(vec![self.not_null()?])),
        }
    }

    fn of_comparison(&self, op: CompareOp, value: &ArrayRef) -> Option<Vec<Span>> {
        let key = self.point(value)?;
        let not_null = self.not_null()?;
        let after_key = match &key.upper {
            Some(upper) => Span { lower: upper.clone(), ..not_null.clone() },
            None => Span { lower: vec![], upper: Some(vec![]), value: None },
        };
        let special = Special::of(value);
        if special == Special::Nan && op != CompareOp::Eq {
            return Some(vec![not_null]);
        }
        let before_key = Span { upper: Some(key.lower.clone()), ..not_null.clone() };
        let up_to_key = Span { upper: key.upper.clone(), ..not_null.clone() };
        let from_key = Span { lower: key.lower.clone(), ..not_null };
        let zero = special == Special::Zero;
        let span = match (op, self.descending) {
            (CompareOp::Lt, false) | (CompareOp::Gt, true) if !zero => before_key,
            (CompareOp::Lt | CompareOp::LtEq, false) | (CompareOp::Gt | CompareOp::GtEq, true) => up_to_key,
            (CompareOp::Gt, false) | (CompareOp::Lt, true) if !zero => after_key,
            (CompareOp::Gt | CompareOp::GtEq, false) | (CompareOp::Lt | CompareOp::LtEq, true) => from_key,
            (CompareOp::Eq | CompareOp::NotEq, _) => key,
        };
        let mut spans = vec![span];
        // DataFusion orders a NaN with the sign bit before every number; the index has one NaN, after them.
        if special != Special::None && matches!(op, CompareOp::Lt | CompareOp::LtEq) {
            spans.push(self.point(&nan(value.data_type())?)?);
        }
        Some(union(spans))
    }

    /// All keys with this value.
    fn point(&self, value: &ArrayRef) -> Option<Span> {
        Some(Span::of(self.encode_next(ArrayRef::clone(value))?, Some(ArrayRef::clone(value))))
    }

    /// All keys whose value is NULL. Not a point: a unique index may hold many of them.
    fn nulls(&self) -> Option<Span> {
        Some(Span::of(self.encode_next(new_null_array(self.field.data_type(), 1))?, None))
    }

    /// All keys whose value is not NULL.
    fn not_null(&self) -> Option<Span> {
        let lower = if self.field.is_nullable() { self.nulls()?.upper? } else { self.whole.lower.clone() };
        Some(Span { lower, upper: self.whole.upper.clone(), value: None })
    }

    fn encode_next(&self, value: ArrayRef) -> Option<Vec<u8>> {
        let values: Vec<_> = self.prefix.iter().cloned().chain([value]).collect();
        (self.encode)(&values)
    }
}

/// Floating-point values where the order of keys is coarser than the order of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    /// Not a floating-point number.
    None,
    /// A number that is its own key.
    Number,
    /// `-0.0` sorts before `0.0` in DataFusion, but they share a key.
    Zero,
    /// NaNs of all signs and payloads share a key.
    Nan,
}

impl Special {
    fn of(value: &ArrayRef) -> Self {
        let number = match value.data_type() {
            DataType::Float16 => f64::from(value.as_primitive::<Float16Type>().value(0)),
            DataType::Float32 => f64::from(value.as_primitive::<Float32Type>().value(0)),
            DataType::Float64 => value.as_primitive::<Float64Type>().value(0),
            _ => return Self::None,
        };
        match number {
            0.0 => Self::Zero,
            number if number.is_nan() => Self::Nan,
            _ => Self::Number,
        }
    }
}

fn nan(data_type: &DataType) -> Option<ArrayRef> {
    let nan = arrow::array::Float64Array::from(vec![f64::NAN]);
    arrow::compute::cast(&nan, data_type).ok()
}

/// The least byte string that is greater than every one beginning with `prefix`; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// Sorts spans and merges those that overlap.
fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| !span.is_empty());
    spans.sort_by(|a, b| a.lower.cmp(&b.lower));
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if last.upper.as_ref().is_none_or(|upper| *upper > span.lower) => {
                if last.lower != span.lower || last.upper != span.upper {
                    last.value = None;
                }
                if last.upper.is_some() && span.upper.as_ref().is_none_or(|upper| last.upper.as_ref() < Some(upper)) {
                    last.upper = span.upper;
                }
            }
            _ => merged.push(span),
        }
    }
    merged
}

/// The keys in both lists, each ascending and disjoint.
fn intersect(left: &[Span], right: &[Span]) -> Vec<Span> {
    let mut both = vec![];
    let (mut l, mut r) = (0, 0);
    while let (Some(a), Some(b)) = (left.get(l), right.get(r)) {
        both.extend(a.overlap(b));
        let a_ends_first = match (&a.upper, &b.upper) {
            (Some(a), Some(b)) => a <= b,
            (a, _) => a.is_some(),
        };
        if a_ends_first { l += 1 } else { r += 1 }
    }
    both
}
