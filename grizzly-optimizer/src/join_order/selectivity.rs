//! The share of rows that a condition keeps, as far as the columns' statistics tell.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, ScalarValue},
    logical_expr::{Between, BinaryExpr, Expr, Operator, expr::InList, utils::split_conjunction},
};

use super::estimate::ColumnEstimate;

/// Any condition nothing is known of: DataFusion's default.
const UNKNOWN: f64 = 0.2;
/// An equality with a column nothing is known of.
const EQUAL: f64 = 0.05;
/// A pattern.
const LIKE: f64 = 0.05;
/// One end of a range.
const BOUND: f64 = 1.0 / 3.0;
/// A range is never taken to be narrower than this.
const NARROWEST: f64 = 0.002;

/// What is known of a column.
pub(super) type Columns<'a> = dyn Fn(&Column) -> Option<ColumnEstimate> + 'a;

/// The share of rows for which `condition` is true, between 0 and 1.
pub(super) fn selectivity(condition: &Expr, columns: &Columns<'_>) -> f64 {
    let share = match condition {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => conjunction([condition], columns),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            1.0 - (1.0 - selectivity(left, columns)) * (1.0 - selectivity(right, columns))
        }
        Expr::BinaryExpr(comparison) => of_comparison(comparison, columns),
        Expr::Between(Between { expr, negated, low, high }) => {
            let range = range_share(column(expr, columns), literal(low), literal(high));
            if *negated { 1.0 - range } else { range }
        }
        Expr::InList(InList { expr, list, negated }) => {
            let one = column(expr, columns).map_or(EQUAL, |column| equal(&column));
            let any = (one * list.len() as f64).min(1.0);
            if *negated { 1.0 - any } else { any }
        }
        Expr::Like(like) => {
            if like.negated {
                1.0 - LIKE
            } else {
                LIKE
            }
        }
        Expr::IsNull(expr) => nulls(expr, columns),
        Expr::IsNotNull(expr) => 1.0 - nulls(expr, columns),
        Expr::Not(expr) => 1.0 - selectivity(expr, columns),
        Expr::Literal(ScalarValue::Boolean(value), _) => f64::from(u8::from(*value == Some(true))),
        _ => UNKNOWN,
    };
    share.clamp(0.0, 1.0)
}

/// The share of rows for which all conditions are true. Two ends of a column's range are one condition, the rest is
/// taken to be independent.
pub(super) fn conjunction<'a>(conditions: impl IntoIterator<Item = &'a Expr>, columns: &Columns<'_>) -> f64 {
    let mut share = 1.0;
    let mut ranges: Vec<(&Column, f64)> = vec![];
    for condition in conditions.into_iter().flat_map(split_conjunction) {
        let one = selectivity_of_part(condition, columns);
        match bounded_column(condition) {
            Some(name) => match ranges.iter_mut().find(|(known, _)| *known == name) {
                // What each end leaves out, is left out.
                Some((_, known)) => *known = (*known + one - 1.0).max(NARROWEST),
                None => ranges.push((name, one)),
            },
            None => share *= one,
        }
    }
    ranges.iter().fold(share, |share, (_, range)| share * range)
}

/// A condition that is not a conjunction.
fn selectivity_of_part(condition: &Expr, columns: &Columns<'_>) -> f64 {
    match condition {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => UNKNOWN,
        other => selectivity(other, columns),
    }
}

/// The column of `column < literal` and the like.
fn bounded_column(condition: &Expr) -> Option<&Column> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    if !matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq) {
        return None;
    }
    match (bare(left), bare(right)) {
        (Expr::Column(column), Expr::Literal(..)) | (Expr::Literal(..), Expr::Column(column)) => Some(column),
        _ => None,
    }
}

fn of_comparison(BinaryExpr { left, op, right }: &BinaryExpr, columns: &Columns<'_>) -> f64 {
    match (column(left, columns), column(right, columns), literal(left), literal(right)) {
        (Some(column), None, _, Some(value)) => with_literal(&column, *op, value),
        (None, Some(column), Some(value), _) => with_literal(&column, op.swap().unwrap_or(*op), value),
        (Some(left), Some(right), ..) if *op == Operator::Eq => {
            1.0 / left.distinct.unwrap_or(1.0).max(right.distinct.unwrap_or(1.0)).max(1.0 / EQUAL)
        }
        _ => match op {
            Operator::Eq => EQUAL,
            Operator::NotEq => 1.0 - EQUAL,
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => BOUND,
            _ => UNKNOWN,
        },
    }
}

fn with_literal(column: &ColumnEstimate, op: Operator, value: &ScalarValue) -> f64 {
    match op {
        Operator::Eq => equal(column),
        Operator::NotEq => 1.0 - equal(column),
        Operator::Lt | Operator::LtEq => share_below(column, value).unwrap_or(BOUND),
        Operator::Gt | Operator::GtEq => share_below(column, value).map_or(BOUND, |below| 1.0 - below),
        _ => UNKNOWN,
    }
}

fn range_share(column: Option<ColumnEstimate>, low: Option<&ScalarValue>, high: Option<&ScalarValue>) -> f64 {
    let share = column
        .zip(low.zip(high))
        .and_then(|(column, (low, high))| Some(share_below(&column, high)? - share_below(&column, low)?));
    share.map_or(BOUND * BOUND, |share| share.max(NARROWEST))
}

fn equal(column: &ColumnEstimate) -> f64 {
    column.distinct.map_or(EQUAL, |distinct| 1.0 / distinct.max(1.0))
}

fn nulls(expr: &Expr, columns: &Columns<'_>) -> f64 {
    column(expr, columns).and_then(|column| column.nulls).unwrap_or(EQUAL)
}

/// The share of values below `value`, if they were spread evenly.
fn share_below(column: &ColumnEstimate, value: &ScalarValue) -> Option<f64> {
    let (least, greatest) = column.bounds?;
    let value = number(value)?;
    if greatest <= least {
        return Some(if value < least { 0.0 } else { 1.0 });
    }
    Some(((value - least) / (greatest - least)).clamp(0.0, 1.0))
}

fn column(expr: &Expr, columns: &Columns<'_>) -> Option<ColumnEstimate> {
    match bare(expr) {
        // Even of an unknown column it is known that it is one.
        Expr::Column(column) => Some(columns(column).unwrap_or_default()),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match bare(expr) {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

/// Without names and casts.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        Expr::Cast(cast) => bare(&cast.expr),
        Expr::TryCast(cast) => bare(&cast.expr),
        other => other,
    }
}

/// A value as a number in the same order, for interpolation.
pub(super) fn number(value: &ScalarValue) -> Option<f64> {
    let number = match value {
        ScalarValue::Date32(Some(days)) => f64::from(*days),
        ScalarValue::Decimal32(Some(value), _, scale) => f64::from(*value) / 10_f64.powi(i32::from(*scale)),
        ScalarValue::Decimal64(Some(value), _, scale) => *value as f64 / 10_f64.powi(i32::from(*scale)),
        ScalarValue::Decimal128(Some(value), _, scale) => *value as f64 / 10_f64.powi(i32::from(*scale)),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            let first = text.bytes().chain(std::iter::repeat(0)).take(6);
            first.fold(0.0, |number, byte| number * 256.0 + f64::from(byte))
        }
        other => match other.cast_to(&DataType::Float64).ok()? {
            ScalarValue::Float64(Some(number)) => number,
            _ => return None,
        },
    };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    /// `a` holds 0 to 100 in 50 values.
    fn of(condition: &Expr) -> f64 {
        let a = ColumnEstimate { distinct: Some(50.0), bounds: Some((0.0, 100.0)), nulls: Some(0.1) };
        selectivity(condition, &|column: &Column| (column.name == "a").then(|| a.clone()))
    }

    fn assert_close(condition: Expr, expected: f64) {
        let share = of(&condition);
        assert!((share - expected).abs() < 1e-9, "{condition}: {share}, not {expected}");
    }

    #[test]
    fn comparisons_follow_the_statistics() {
        assert_close(col("a").eq(lit(7)), 0.02);
        assert_close(lit(7).not_eq(col("a")), 0.98);
        assert_close(col("a").lt(lit(25)), 0.25);
        assert_close(lit(25).lt(col("a")), 0.75);
        assert_close(col("a").gt(lit(1000)), 0.0);
        assert_close(col("a").is_null(), 0.1);
        assert_close(col("a").in_list(vec![lit(1), lit(2)], false), 0.04);
    }

    #[test]
    fn two_ends_of_a_range_are_one_condition() {
        assert_close(col("a").gt_eq(lit(20)).and(col("a").lt(lit(30))), 0.1);
        assert_close(col("a").between(lit(20), lit(30)), 0.1);
    }

    #[test]
    fn shares_multiply_and_never_leave_zero_to_one() {
        assert_close(col("a").eq(lit(1)).and(col("b").like(lit("x%"))), 0.02 * LIKE);
        assert_close(col("a").lt(lit(50)).or(col("a").gt(lit(50))), 0.75);
        assert_close(!col("a").lt(lit(25)), 0.75);
    }
}
