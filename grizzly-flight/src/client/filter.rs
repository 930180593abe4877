//! Which conditions a remote may be asked to apply, and how they are written down.
//!
//! An allow-list: columns, literals that SQL can write exactly, comparisons, AND, OR, NOT, IS NULL, IN, BETWEEN, and
//! LIKE. Everything else, above all functions and casts, stays here, where its meaning is known.

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, Operator, cast, lit},
    scalar::ScalarValue,
    sql::unparser::{Unparser, dialect::CustomDialectBuilder},
};

/// Whether a remote decides this condition exactly as DataFusion does.
pub(crate) fn is_allowed(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Literal(value, _) => is_writable(value),
        Expr::BinaryExpr(binary) => {
            is_allowed_operator(binary.op) && is_allowed(&binary.left) && is_allowed(&binary.right)
        }
        Expr::Not(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) => is_allowed(inner),
        Expr::Between(between) => is_allowed(&between.expr) && is_allowed(&between.low) && is_allowed(&between.high),
        Expr::InList(list) => is_allowed(&list.expr) && list.list.iter().all(is_allowed),
        Expr::Like(like) => {
            like.escape_char.is_none() && !like.case_insensitive && is_allowed(&like.expr) && is_allowed(&like.pattern)
        }
        _ => false,
    }
}

fn is_allowed_operator(op: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or)
}

/// Values whose SQL text means the same value everywhere.
fn is_writable(value: &ScalarValue) -> bool {
    use ScalarValue as V;
    match value {
        V::Boolean(Some(_))
        | V::Int8(Some(_))
        | V::Int16(Some(_))
        | V::Int32(Some(_))
        | V::Int64(Some(_))
        | V::UInt8(Some(_))
        | V::UInt16(Some(_))
        | V::UInt32(Some(_))
        | V::Utf8(Some(_))
        | V::LargeUtf8(Some(_))
        | V::Utf8View(Some(_))
        | V::Date32(Some(_)) => true,
        V::Decimal128(Some(_), _, scale) => *scale >= 0,
        _ => false,
    }
}

/// The conditions as one SQL text, for a WHERE clause of the table itself.
pub(crate) fn to_sql(filters: &[Expr]) -> Result<Option<String>> {
    let Some(all) = filters.iter().cloned().reduce(Expr::and) else { return Ok(None) };
    let plain = all.transform(|expr| Ok(written(expr))).data()?;
    let dialect = CustomDialectBuilder::new().with_identifier_quote_style('"').build();
    Ok(Some(Unparser::new(&dialect).expr_to_sql(&plain)?.to_string()))
}

/// Columns without the local name of the table; decimals as casts of their text, since a bare `1.50` is a float to
/// many servers.
fn written(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Column(column) if column.relation.is_some() => {
            Transformed::yes(Expr::Column(Column::from_name(column.name)))
        }
        Expr::Literal(ScalarValue::Decimal128(Some(value), precision, scale), _) => {
            // The new cast holds a text, so it is not rewritten again.
            Transformed::yes(cast(lit(decimal_text(value, scale)), DataType::Decimal128(precision, scale)))
        }
        other => Transformed::no(other),
    }
}

/// A decimal's digits, with a point if it has a fraction; `scale` is not negative.
fn decimal_text(value: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, in_list};

    use super::*;

    fn decimal(value: i128) -> Expr {
        lit(ScalarValue::Decimal128(Some(value), 15, 2))
    }

    #[test]
    fn conditions_are_written_with_quoted_names_and_exact_values() {
        let filters = [col("t.\"Id\"").gt_eq(lit(7_i64)), col("price").lt(decimal(-5)), col("name").eq(lit("it's"))];
        let sql = to_sql(&filters).expect("all can be written").expect("there are some");
        assert!(sql.contains("\"Id\" >= 7"), "{sql}");
        assert!(sql.contains("CAST('-0.05' AS DECIMAL(15,2))"), "{sql}");
        assert!(sql.contains("'it''s'"), "{sql}");
        assert_eq!(to_sql(&[]).expect("nothing to write"), None);
    }

    #[test]
    fn what_may_differ_elsewhere_stays_here() {
        let allowed = [
            col("a").eq(lit(1)).or(col("b").is_null()),
            in_list(col("a"), vec![lit("x"), lit("y")], true),
            col("a").like(lit("x%")),
            col("p").between(decimal(1), decimal(2)),
        ];
        assert!(allowed.iter().all(is_allowed));
        let kept = [
            col("a").ilike(lit("x%")),
            (col("a") + lit(1)).eq(lit(2)),
            cast(col("a"), DataType::Int32).eq(lit(2)),
            col("a").eq(lit(f64::NAN)),
            col("a").eq(lit(ScalarValue::Null)),
        ];
        assert!(!kept.iter().any(is_allowed));
    }
}
