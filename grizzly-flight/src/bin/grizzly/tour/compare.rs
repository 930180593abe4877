//! Whether two results are the same: as sets of rows, and in the order the query asks for.

use arrow::{datatypes::DataType, record_batch::RecordBatch};
use datafusion::{
    arrow::util::display::{ArrayFormatter, FormatOptions},
    logical_expr::{Expr, LogicalPlan},
};

/// Largest relative difference of floating-point values: sums may be taken in another order.
const TOLERANCE: f64 = 1e-9;

/// `Ok` if both results have the same rows, and the same values in the columns `ordered` row by row. Decimals,
/// integers, texts and dates must be equal, floats nearly so. Where the order leaves ties, rows may change places.
pub(crate) fn same_rows(ours: &[RecordBatch], theirs: &[RecordBatch], ordered: &[usize]) -> Result<(), String> {
    let (ours, theirs) = (rows(ours)?, rows(theirs)?);
    if ours.len() != theirs.len() {
        return Err(format!("{} rows, DataFusion has {}", ours.len(), theirs.len()));
    }
    for (at, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        for &column in ordered {
            if !a[column].same(&b[column]) {
                return Err(format!("row {at} is out of order: {:?}, DataFusion has {:?}", a[column], b[column]));
            }
        }
    }
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    for (a, b) in ours.iter().zip(&theirs) {
        if a.len() != b.len() || !a.iter().zip(b).all(|(a, b)| a.same(b)) {
            return Err(format!("a row is {a:?}, DataFusion has {b:?}"));
        }
    }
    Ok(())
}

/// The columns by which the result of `plan` is ordered, as far as they are columns of the result.
pub(crate) fn order_of(plan: &LogicalPlan) -> Vec<usize> {
    match plan {
        LogicalPlan::Limit(limit) => order_of(&limit.input),
        LogicalPlan::Sort(sort) => sort
            .expr
            .iter()
            .map_while(|sort_expr| match &sort_expr.expr {
                Expr::Column(column) => sort.input.schema().index_of_column(column).ok(),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Text(String),
    Float(f64),
}

impl Cell {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => {
                a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()) || (a.is_nan() && b.is_nan())
            }
            _ => self == other,
        }
    }

    /// Texts are compared before floats, so that nearly equal floats do not decide an order alone.
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Float(_) => "",
        }
    }

    fn float(&self) -> f64 {
        match self {
            Self::Text(_) => 0.0,
            Self::Float(value) => *value,
        }
    }
}

fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<Cell>>, String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let formatters: Result<Vec<_>, _> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect();
        let formatters = formatters.map_err(|error| error.to_string())?;
        for row in 0..batch.num_rows() {
            let cells = formatters.iter().zip(batch.columns()).map(|(formatter, column)| {
                let text = formatter.value(row).to_string();
                let is_float = matches!(column.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64);
                match text.parse() {
                    Ok(value) if is_float => Cell::Float(value),
                    _ => Cell::Text(text),
                }
            });
            rows.push(cells.collect());
        }
    }
    Ok(rows)
}

fn sorted(mut rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    rows.sort_by(|a, b| {
        let texts = a.iter().map(Cell::text).cmp(b.iter().map(Cell::text));
        texts.then_with(|| {
            let mut floats = a.iter().map(Cell::float).zip(b.iter().map(Cell::float));
            floats
                .find_map(|(a, b)| Some(a.total_cmp(&b)).filter(|order| order.is_ne()))
                .unwrap_or(std::cmp::Ordering::Equal)
        })
    });
    rows
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    fn batch(keys: &[i64], values: &[f64]) -> RecordBatch {
        let keys = Arc::new(Int64Array::from(keys.to_vec())) as _;
        let values = Arc::new(Float64Array::from(values.to_vec())) as _;
        RecordBatch::try_from_iter([("k", keys), ("v", values)]).expect("columns of one length")
    }

    #[test]
    fn order_matters_only_where_it_is_asked_for() {
        let a = [batch(&[1, 2], &[0.5, 0.7])];
        let b = [batch(&[2], &[0.7]), batch(&[1], &[0.5 + 1e-12])];
        assert_eq!(same_rows(&a, &b, &[]), Ok(()));
        assert!(same_rows(&a, &b, &[0]).is_err());
    }

    #[test]
    fn differences_are_found() {
        let a = [batch(&[1, 2], &[0.5, 0.7])];
        assert!(same_rows(&a, &[batch(&[1, 2], &[0.5, 0.700_001])], &[]).is_err());
        assert!(same_rows(&a, &[batch(&[1, 3], &[0.5, 0.7])], &[]).is_err());
        assert!(same_rows(&a, &[batch(&[1], &[0.5])], &[]).is_err());
        assert!(same_rows(&a, &[batch(&[1, 1], &[0.5, 0.7])], &[]).is_err());
    }
}
