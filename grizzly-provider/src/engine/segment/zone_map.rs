//! What a chunk's smallest value, largest value and null count say about a predicate, without reading the chunk.
//!
//! Bounds are stored as order-preserving key bytes, so comparing them is comparing bytes whatever the type. They are
//! exact: a bound is a value of the chunk, never a shortened one. Where no bound can be given (a NaN, a very long
//! string, a type without an order) there is none, and the chunk is read.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};

use super::{
    Result,
    bounds::{extremes, is_unordered_literal, key_of},
};
use crate::access::{ColumnTest, CompareOp, Predicate};

/// Longer key bytes are not kept: a bound is there to skip chunks, not to store values.
const LONGEST_BOUND: usize = 256;

/// From this many literals on, an in-list is judged by its own smallest and largest value.
const LONG_LIST: usize = 32;

/// What is known of the values of one column in one chunk, or in a whole segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ZoneMap {
    /// Rows, NULL or not.
    #[serde(rename = "r")]
    pub(crate) rows: u32,
    /// Rows that are NULL.
    #[serde(rename = "n")]
    pub(crate) nulls: u32,
    /// Key bytes of the smallest value that is not NULL, where one is known.
    #[serde(rename = "a", with = "super::hex", default, skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<Vec<u8>>,
    /// Key bytes of the largest value that is not NULL, where one is known.
    #[serde(rename = "z", with = "super::hex", default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<Vec<u8>>,
}

/// What a zone map says about a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is TRUE for no row.
    None,
    /// It may be TRUE for some rows.
    Some,
    /// It is TRUE for every row.
    All,
}

impl ZoneMap {
    /// The zone map of `array`.
    ///
    /// # Errors
    /// If a value cannot be encoded as key bytes.
    pub(crate) fn of(array: &ArrayRef) -> Result<Self> {
        Self::of_values(array.len(), array.logical_null_count(), array)
    }

    /// The zone map of `rows` rows, `nulls` of them NULL and the others all among `values`, each of which occurs.
    ///
    /// # Errors
    /// If a value cannot be encoded as key bytes.
    pub(crate) fn of_values(rows: usize, nulls: usize, values: &ArrayRef) -> Result<Self> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (min, max) = match extremes(values)? {
            Some((min, max)) => (bound(&min)?, bound(&max)?),
            None => (None, None),
        };
        Ok(Self { rows: count(rows), nulls: count(nulls), min, max })
    }

    /// The zone map of an array of whose values nothing is known.
    pub(crate) fn unknown(array: &ArrayRef) -> Self {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { rows: count(array.len()), nulls: count(array.logical_null_count()), min: None, max: None }
    }

    /// The zone map of two chunks taken together. A bound missing on one side is missing in the sum, unless that side
    /// has nothing but NULLs.
    pub(crate) fn merge(&self, other: &Self) -> Self {
        let pick = |mine: &Option<Vec<u8>>, theirs: &Option<Vec<u8>>, smaller: bool| match (mine, theirs) {
            (Some(a), Some(b)) => Some(if (a < b) == smaller { a.clone() } else { b.clone() }),
            (Some(a), None) if other.nulls == other.rows => Some(a.clone()),
            (None, Some(b)) if self.nulls == self.rows => Some(b.clone()),
            _ => None,
        };
        Self {
            rows: self.rows.saturating_add(other.rows),
            nulls: self.nulls.saturating_add(other.nulls),
            min: pick(&self.min, &other.min, true),
            max: pick(&self.max, &other.max, false),
        }
    }

    fn all_null(&self) -> bool {
        self.nulls >= self.rows
    }

    /// TRUE for all rows if it is TRUE for all values.
    fn all_values(&self) -> Verdict {
        if self.nulls == 0 { Verdict::All } else { Verdict::Some }
    }
}

fn bound(value: &ArrayRef) -> Result<Option<Vec<u8>>> {
    Ok(key_of(value, 0)?.filter(|key| key.len() <= LONGEST_BOUND))
}

/// Whether `predicate` can be TRUE for rows of the chunk (or segment) that `zones` describes, column by column.
///
/// The answer is on the safe side: a missing zone map, or a literal that cannot be compared, is [`Verdict::Some`].
pub(crate) fn may_match<'z>(
    predicate: &Predicate,
    zones: &dyn Fn(usize) -> Option<&'z ZoneMap>,
    schema: &Schema,
) -> Verdict {
    match predicate {
        Predicate::Constant(true) => Verdict::All,
        Predicate::Constant(false) => Verdict::None,
        Predicate::And(all) => every(all.iter().map(|one| may_match(one, zones, schema))),
        Predicate::Or(all) => any(all.iter().map(|one| may_match(one, zones, schema))),
        Predicate::Test { column, test } => match zones(*column) {
            Some(zone) => judge(test, zone),
            None => Verdict::Some,
        },
        Predicate::CompareColumns { left, op, right } => {
            let is_float = |column: usize| schema.fields().get(column).is_none_or(|f| f.data_type().is_floating());
            match (zones(*left), zones(*right)) {
                (Some(l), Some(r)) if !is_float(*left) && !is_float(*right) => judge_columns(l, *op, r),
                _ => Verdict::Some,
            }
        }
    }
}

fn every(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut sum = Verdict::All;
    for verdict in verdicts {
        match verdict {
            Verdict::None => return Verdict::None,
            Verdict::Some => sum = Verdict::Some,
            Verdict::All => {}
        }
    }
    sum
}

fn any(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut sum = Verdict::None;
    for verdict in verdicts {
        match verdict {
            Verdict::All => return Verdict::All,
            Verdict::Some => sum = Verdict::Some,
            Verdict::None => {}
        }
    }
    sum
}

fn judge(test: &ColumnTest, zone: &ZoneMap) -> Verdict {
    if zone.rows == 0 {
        return Verdict::None;
    }
    match test {
        ColumnTest::IsNull if zone.nulls == 0 => Verdict::None,
        ColumnTest::IsNull if zone.all_null() => Verdict::All,
        ColumnTest::IsNotNull if zone.all_null() => Verdict::None,
        ColumnTest::IsNotNull => zone.all_values(),
        ColumnTest::IsNull => Verdict::Some,
        ColumnTest::Compare { op, value } => judge_literal(*op, value, 0, zone),
        ColumnTest::InList { values, negated } if values.is_empty() => {
            if *negated {
                Verdict::All
            } else {
                Verdict::None
            }
        }
        ColumnTest::InList { values, negated: true } if values.len() < LONG_LIST => {
            every((0..values.len()).map(|row| judge_literal(CompareOp::NotEq, values, row, zone)))
        }
        ColumnTest::InList { values, negated: false } if values.len() < LONG_LIST => {
            any((0..values.len()).map(|row| judge_literal(CompareOp::Eq, values, row, zone)))
        }
        ColumnTest::InList { values, negated } => judge_long_list(values, *negated, zone),
    }
}

fn judge_long_list(values: &ArrayRef, negated: bool, zone: &ZoneMap) -> Verdict {
    let Ok(list) = ZoneMap::of(values) else { return Verdict::Some };
    let apart = match (&list.min, &list.max, &zone.min, &zone.max) {
        (Some(list_min), Some(list_max), Some(min), Some(max)) => list_max < min || list_min > max,
        _ => false,
    };
    match (zone.all_null(), apart, negated) {
        (true, ..) | (_, true, false) if !values.data_type().is_floating() => Verdict::None,
        (_, true, true) if !values.data_type().is_floating() => zone.all_values(),
        _ => Verdict::Some,
    }
}

fn judge_literal(op: CompareOp, literal: &ArrayRef, row: usize, zone: &ZoneMap) -> Verdict {
    if literal.is_null(row) || zone.all_null() {
        return Verdict::None;
    }
    let (Some(min), Some(max)) = (&zone.min, &zone.max) else { return Verdict::Some };
    if is_unordered_literal(literal, row) {
        return Verdict::Some;
    }
    let Ok(Some(key)) = key_of(literal, row) else { return Verdict::Some };
    let (none, all) = match op {
        CompareOp::Eq => (key < *min || key > *max, *min == key && *max == key),
        CompareOp::NotEq => (*min == key && *max == key, key < *min || key > *max),
        CompareOp::Lt => (*min >= key, *max < key),
        CompareOp::LtEq => (*min > key, *max <= key),
        CompareOp::Gt => (*max <= key, *min > key),
        CompareOp::GtEq => (*max < key, *min >= key),
    };
    conclude(none, all, zone.nulls == 0)
}

fn judge_columns(left: &ZoneMap, op: CompareOp, right: &ZoneMap) -> Verdict {
    if left.all_null() || right.all_null() {
        return Verdict::None;
    }
    let (Some(lmin), Some(lmax), Some(rmin), Some(rmax)) = (&left.min, &left.max, &right.min, &right.max) else {
        return Verdict::Some;
    };
    let apart = lmax < rmin || lmin > rmax;
    let same = lmin == lmax && rmin == rmax && lmin == rmin;
    let (none, all) = match op {
        CompareOp::Eq => (apart, same),
        CompareOp::NotEq => (same, apart),
        CompareOp::Lt => (lmin >= rmax, lmax < rmin),
        CompareOp::LtEq => (lmin > rmax, lmax <= rmin),
        CompareOp::Gt => (lmax <= rmin, lmin > rmax),
        CompareOp::GtEq => (lmax < rmin, lmin >= rmax),
    };
    conclude(none, all, left.nulls == 0 && right.nulls == 0)
}

fn conclude(none: bool, all: bool, without_nulls: bool) -> Verdict {
    match (none, all && without_nulls) {
        (true, _) => Verdict::None,
        (_, true) => Verdict::All,
        _ => Verdict::Some,
    }
}
