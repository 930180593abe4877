//! What a scan is likely to return: DataFusion's `Statistics` from the engine's, after the scan's predicate. Since a
//! pushed-down filter takes DataFusion's own guess away with it, the guess is made here.

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::{ColumnStatistics, Statistics, stats::Precision},
    scalar::ScalarValue,
};

use crate::access::{self, ColumnTest, CompareOp, Predicate, TableStatistics};

/// The share of rows a condition keeps when nothing is known: DataFusion's default.
const UNKNOWN: f64 = 0.2;

/// Statistics of the columns `columns` of `rows` rows of the table. Never exact: the rows that are read are those of
/// the moment the statement runs.
pub(crate) fn statistics(table: &TableStatistics, schema: &Schema, columns: &[usize], rows: u64) -> Statistics {
    let share = if table.rows == 0 { 1.0 } else { (rows as f64 / table.rows as f64).min(1.0) };
    let columns: Vec<ColumnStatistics> =
        columns.iter().map(|column| column_statistics(table, schema, *column, rows, share)).collect();
    let bytes = columns.iter().filter_map(|column| column.byte_size.get_value().copied()).sum();
    Statistics {
        num_rows: Precision::Inexact(as_usize(rows)),
        total_byte_size: Precision::Inexact(bytes),
        column_statistics: columns,
    }
}

fn column_statistics(
    table: &TableStatistics,
    schema: &Schema,
    column: usize,
    rows: u64,
    share: f64,
) -> ColumnStatistics {
    let width = schema.fields().get(column).and_then(|field| field.data_type().primitive_width());
    let Some(known) = table.columns.get(column) else {
        // A system column.
        let bytes = Precision::Inexact(as_usize(rows) * width.unwrap_or(8));
        return ColumnStatistics { byte_size: bytes, ..ColumnStatistics::new_unknown() };
    };
    // Variable-length values: the encoded size says at least something of the decoded one.
    let encoded = known.bytes as f64 / table.stored_rows.max(1) as f64;
    let width = width.map_or_else(|| (encoded * 4.0).max(16.0), |width| width as f64);
    let inexact = |value: &Option<ArrayRef>| match value.as_ref().map(|v| ScalarValue::try_from_array(v, 0)) {
        Some(Ok(value)) if !value.is_null() => Precision::Inexact(value),
        _ => Precision::Absent,
    };
    ColumnStatistics {
        null_count: Precision::Inexact(scaled(known.nulls.min(table.rows), share)),
        max_value: inexact(&known.max),
        min_value: inexact(&known.min),
        sum_value: Precision::Absent,
        distinct_count: known
            .distinct
            .map_or(Precision::Absent, |distinct| Precision::Inexact(as_usize(distinct.min(rows)))),
        byte_size: Precision::Inexact((rows as f64 * width) as usize),
    }
}

/// About how many rows meet the predicate.
pub(crate) fn estimated_rows(table: &TableStatistics, predicate: Option<&Predicate>) -> u64 {
    let share = predicate.map_or(1.0, |predicate| selectivity(predicate, table));
    (table.rows as f64 * share).ceil() as u64
}

/// The share of rows a predicate keeps, as far as the statistics tell, as if columns had nothing to do with each
/// other.
pub(crate) fn selectivity(predicate: &Predicate, table: &TableStatistics) -> f64 {
    let share = match predicate {
        Predicate::Constant(value) => f64::from(u8::from(*value)),
        Predicate::And(parts) => conjunction(parts, table),
        Predicate::Or(parts) => 1.0 - parts.iter().map(|part| 1.0 - selectivity(part, table)).product::<f64>(),
        Predicate::CompareColumns { op: CompareOp::Eq, left, right } => {
            let distinct = |column: &usize| table.columns.get(*column).and_then(|column| column.distinct);
            distinct(left).max(distinct(right)).map_or(UNKNOWN, |distinct| 1.0 / distinct.max(1) as f64)
        }
        Predicate::CompareColumns { op: CompareOp::NotEq, .. } => 1.0 - UNKNOWN,
        Predicate::CompareColumns { .. } => 0.5,
        Predicate::Test { column, test } => {
            table.columns.get(*column).map_or(UNKNOWN, |column| test_selectivity(test, column, table.stored_rows))
        }
    };
    share.clamp(0.0, 1.0)
}

/// Two bounds of one column are one range, not two independent conditions.
fn conjunction(parts: &[Predicate], table: &TableStatistics) -> f64 {
    let mut share = 1.0;
    let mut ranges: Vec<(usize, f64)> = Vec::new();
    for part in parts {
        let part_share = selectivity(part, table);
        match part {
            Predicate::Test { column, test: ColumnTest::Compare { op, .. } }
                if !matches!(op, CompareOp::Eq | CompareOp::NotEq) =>
            {
                match ranges.iter_mut().find(|(known, _)| known == column) {
                    // Two half-open ranges that together leave out `1 - a` and `1 - b`.
                    Some((_, known)) => *known = (*known + part_share - 1.0).max(0.05 * known.min(part_share)),
                    None => ranges.push((*column, part_share)),
                }
            }
            _ => share *= part_share,
        }
    }
    ranges.iter().fold(share, |share, (_, range)| share * range)
}

fn test_selectivity(test: &ColumnTest, column: &access::ColumnStatistics, stored_rows: u64) -> f64 {
    let nulls = (column.nulls as f64 / stored_rows.max(1) as f64).min(1.0);
    let one = column.distinct.map_or(UNKNOWN, |distinct| 1.0 / distinct.max(1) as f64);
    let of_values = match test {
        ColumnTest::IsNull => return nulls,
        ColumnTest::IsNotNull => return 1.0 - nulls,
        ColumnTest::InList { values, negated: false } => (one * values.len() as f64).min(1.0),
        ColumnTest::InList { values, negated: true } => 1.0 - (one * values.len() as f64).min(1.0),
        ColumnTest::Compare { op: CompareOp::Eq, .. } => one,
        ColumnTest::Compare { op: CompareOp::NotEq, .. } => 1.0 - one,
        ColumnTest::Compare { op, value } => {
            let below = share_below(column, value).unwrap_or(1.0 / 3.0);
            if matches!(op, CompareOp::Lt | CompareOp::LtEq) { below } else { 1.0 - below }
        }
    };
    of_values * (1.0 - nulls)
}

/// Where `value` lies between the least and the greatest value, if those are numbers or times.
fn share_below(column: &access::ColumnStatistics, value: &ArrayRef) -> Option<f64> {
    let least = number(column.min.as_ref()?)?;
    let greatest = number(column.max.as_ref()?)?;
    let value = number(value)?;
    if value < least {
        return Some(0.0);
    }
    if value > greatest {
        return Some(1.0);
    }
    if least == greatest {
        return None;
    }
    Some((value - least) / (greatest - least))
}

fn number(value: &ArrayRef) -> Option<f64> {
    let value = ScalarValue::try_from_array(value, 0).ok()?;
    let number = match value {
        ScalarValue::Decimal128(Some(value), ..) => value as f64,
        ScalarValue::Decimal64(Some(value), ..) => value as f64,
        ScalarValue::Decimal32(Some(value), ..) => f64::from(value),
        ScalarValue::Date32(Some(value)) => f64::from(value),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            leading_bytes(&text)
        }
        other => match other.cast_to(&DataType::Float64).ok()? {
            ScalarValue::Float64(Some(value)) => value,
            _ => return None,
        },
    };
    number.is_finite().then_some(number)
}

/// Strings in order, as numbers in order: their first bytes.
fn leading_bytes(text: &str) -> f64 {
    let digits = text.bytes().chain(std::iter::repeat(0)).take(6);
    digits.fold(0.0, |number, byte| number * 256.0 + f64::from(byte))
}

fn scaled(count: u64, share: f64) -> usize {
    (count as f64 * share) as usize
}

fn as_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
