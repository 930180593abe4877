//! Expressions as SQL of a remote's dialect. Checking and writing are one function, so that nothing is written that
//! was not checked: what is not on the dialect's list has no text.
//!
//! Every operand stands in parentheses. DataFusion's own writer leaves them out around NOT, IS NULL, LIKE and signs,
//! where `(NOT a) IS NULL` becomes `NOT a IS NULL`, and `-(-5)` a comment.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::DataType;
use datafusion::{
    common::DFSchema,
    functions::all_default_functions,
    functions_aggregate::all_default_aggregate_functions,
    logical_expr::{
        AggregateUDF, Case, Expr, ExprSchemable, Like, Operator, ScalarUDF,
        expr::{AggregateFunction, InList, ScalarFunction},
    },
    scalar::ScalarValue,
};

use super::dialect::{Comparison, Dialect};

static FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> =
    LazyLock::new(|| all_default_functions().into_iter().map(|f| (f.name().to_owned(), f)).collect());

static AGGREGATES: LazyLock<HashMap<String, Arc<AggregateUDF>>> =
    LazyLock::new(|| all_default_aggregate_functions().into_iter().map(|f| (f.name().to_owned(), f)).collect());

/// Writes expressions over the columns of one input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) dialect: &'a Dialect,
    /// The input's columns.
    pub(super) schema: &'a DFSchema,
    /// What each of them is called in the query.
    pub(super) columns: &'a [String],
}

impl Writer<'_> {
    /// The SQL of `expr`; `None` if it must not be sent.
    pub(super) fn write(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Column(column) => self.columns.get(self.schema.index_of_column(column).ok()?).cloned(),
            Expr::Alias(alias) => self.write(&alias.expr),
            Expr::Literal(value, _) => literal(self.dialect, value),
            Expr::BinaryExpr(binary) => self.binary(&binary.left, binary.op, &binary.right),
            Expr::Not(inner) => Some(format!("(NOT {})", self.write(inner)?)),
            Expr::IsNull(inner) => self.tested(inner, "IS NULL"),
            Expr::IsNotNull(inner) => self.tested(inner, "IS NOT NULL"),
            Expr::IsTrue(inner) => self.tested(inner, "IS TRUE"),
            Expr::IsNotTrue(inner) => self.tested(inner, "IS NOT TRUE"),
            Expr::IsFalse(inner) => self.tested(inner, "IS FALSE"),
            Expr::IsNotFalse(inner) => self.tested(inner, "IS NOT FALSE"),
            Expr::Negative(inner) => {
                (self.dialect.calculates)(Operator::Minus, &self.type_of(expr)?).then_some(())?;
                Some(format!("(- {})", self.write(inner)?))
            }
            Expr::Between(between) => {
                let not = if between.negated { "NOT " } else { "" };
                self.comparable(&between.expr, &between.low, Comparison::Ordered)?;
                self.comparable(&between.expr, &between.high, Comparison::Ordered)?;
                let (low, high) = (self.compared(&between.low)?, self.compared(&between.high)?);
                Some(format!("({} {not}BETWEEN {low} AND {high})", self.compared(&between.expr)?))
            }
            Expr::InList(list) => self.in_list(list),
            Expr::Like(like) => self.like(like),
            Expr::Case(case) => self.case(case),
            Expr::Cast(cast) => {
                let (from, to) = (self.type_of(&cast.expr)?, cast.field.data_type());
                let allowed = cast.field.metadata().is_empty() && (self.dialect.converts)(&from, to);
                allowed.then_some(())?;
                (self.dialect.cast)(&self.write(&cast.expr)?, to)
            }
            Expr::ScalarFunction(function) => self.function(function),
            _ => None,
        }
    }

    /// The same for a column of the result.
    pub(super) fn computed(&self, expr: &Expr) -> Option<String> {
        (self.dialect.returns)(&self.type_of(expr)?).then_some(())?;
        self.typed(expr)
    }

    /// The same, of its own type there as well: a number as text may be of a smaller one, in which what is calculated
    /// with it would not fit.
    pub(super) fn typed(&self, expr: &Expr) -> Option<String> {
        let text = self.write(expr)?;
        let data_type = self.type_of(expr)?;
        let typed = matches!(expr, Expr::Column(_) | Expr::Cast(_) | Expr::BinaryExpr(_));
        if typed || !data_type.is_integer() { Some(text) } else { (self.dialect.cast)(&text, &data_type) }
    }

    /// A call of an aggregate function.
    pub(super) fn aggregate(&self, expr: &Expr) -> Option<String> {
        let function = match expr {
            Expr::Alias(alias) => return self.aggregate(&alias.expr),
            Expr::AggregateFunction(function) => function,
            _ => return None,
        };
        let call = self.aggregate_call(function)?;
        if self.dialect.casts_aggregates { (self.dialect.cast)(&call, &self.type_of(expr)?) } else { Some(call) }
    }

    fn aggregate_call(&self, function: &AggregateFunction) -> Option<String> {
        let (name, params) = (function.func.name(), &function.params);
        let built_in = AGGREGATES.get(name).is_some_and(|built_in| *built_in == function.func);
        let [argument] = params.args.as_slice() else { return None };
        let plain = params.order_by.is_empty() && params.null_treatment.is_none();
        (built_in && plain && (self.dialect.aggregates)(name, &self.type_of(argument)?)).then_some(())?;
        let mut call = match argument {
            Expr::Literal(value, _) if name == "count" && !params.distinct && !value.is_null() => "count(*)".to_owned(),
            argument if params.distinct => {
                self.compares(argument, Comparison::Equal)?;
                format!("{name}(DISTINCT {})", self.write(argument)?)
            }
            argument => format!("{name}({})", self.write(argument)?),
        };
        if let Some(filter) = &params.filter {
            self.dialect.filters_aggregates.then_some(())?;
            call.push_str(&format!(" FILTER (WHERE {})", self.write(filter)?));
        }
        Some(call)
    }

    /// Whether values of this type are compared alike.
    pub(super) fn compares(&self, expr: &Expr, how: Comparison) -> Option<()> {
        ((self.dialect.compares)(&self.type_of(expr)?) >= how).then_some(())
    }

    /// Whether both sides are of one type, or types of one family, that is compared alike.
    fn comparable(&self, left: &Expr, right: &Expr, how: Comparison) -> Option<()> {
        self.compares(left, how)?;
        self.compares(right, how)?;
        let (left, right) = (self.type_of(left)?, self.type_of(right)?);
        let family = left == right
            || left.is_integer() && right.is_integer()
            || left.is_string() && right.is_string()
            || matches!((&left, &right), (DataType::Decimal128(..), DataType::Decimal128(..)));
        family.then_some(())
    }

    fn type_of(&self, expr: &Expr) -> Option<DataType> {
        expr.get_type(self.schema).ok()
    }

    fn tested(&self, inner: &Expr, test: &str) -> Option<String> {
        Some(format!("({} {test})", self.write(inner)?))
    }

    /// One side of a comparison: whole numbers need no type there.
    fn compared(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Literal(value, _) if value.data_type().is_integer() && !value.is_null() => Some(value.to_string()),
            other => self.write(other),
        }
    }

    fn binary(&self, left: &Expr, op: Operator, right: &Expr) -> Option<String> {
        use Operator as O;
        let how = match op {
            O::And | O::Or => return Some(format!("({} {op} {})", self.write(left)?, self.write(right)?)),
            O::Eq | O::NotEq | O::IsDistinctFrom | O::IsNotDistinctFrom => Comparison::Equal,
            O::Lt | O::LtEq | O::Gt | O::GtEq => Comparison::Ordered,
            O::StringConcat => {
                let texts = self.type_of(left)?.is_string() && self.type_of(right)?.is_string();
                (texts && self.dialect.functions.contains(&"||")).then_some(())?;
                return Some(format!("({} || {})", self.write(left)?, self.write(right)?));
            }
            O::Plus | O::Minus | O::Multiply | O::Divide | O::Modulo => return self.arithmetic(left, op, right),
            _ => return None,
        };
        self.comparable(left, right, how)?;
        Some(format!("({} {op} {})", self.compared(left)?, self.compared(right)?))
    }

    fn arithmetic(&self, left: &Expr, op: Operator, right: &Expr) -> Option<String> {
        let (from_left, from_right) = (self.type_of(left)?, self.type_of(right)?);
        let result = datafusion::logical_expr::binary_expr(left.clone(), op, right.clone());
        let same = from_left == from_right
            || matches!((&from_left, &from_right), (DataType::Decimal128(..), DataType::Decimal128(..)));
        (same && (self.dialect.calculates)(op, &self.type_of(&result)?)).then_some(())?;
        Some(format!("({} {op} {})", self.typed(left)?, self.typed(right)?))
    }

    fn in_list(&self, list: &InList) -> Option<String> {
        let mut values = Vec::with_capacity(list.list.len());
        for value in &list.list {
            self.comparable(&list.expr, value, Comparison::Equal)?;
            values.push(self.compared(value)?);
        }
        let not = if list.negated { "NOT " } else { "" };
        (!values.is_empty()).then(|| values.join(", ")).and_then(|values| {
            let value = self.compared(&list.expr)?;
            Some(format!("({value} {not}IN ({values}))"))
        })
    }

    fn like(&self, like: &Like) -> Option<String> {
        let operator = if like.case_insensitive { "ilike" } else { "like" };
        let texts = self.type_of(&like.expr)?.is_string() && self.type_of(&like.pattern)?.is_string();
        let known = self.dialect.functions.contains(&operator) && like.escape_char.is_none();
        let escapes = match like.pattern.as_ref() {
            Expr::Literal(V::Utf8(Some(text)) | V::LargeUtf8(Some(text)) | V::Utf8View(Some(text)), _) => {
                text.contains('\\')
            }
            // Nobody knows what a row has there.
            _ => true,
        };
        (texts && known && (self.dialect.escapes_patterns || !escapes)).then_some(())?;
        let not = if like.negated { "NOT " } else { "" };
        let operator = operator.to_uppercase();
        Some(format!("({} {not}{operator} {})", self.write(&like.expr)?, self.write(&like.pattern)?))
    }

    fn case(&self, case: &Case) -> Option<String> {
        let mut sql = "(CASE".to_owned();
        if let Some(operand) = &case.expr {
            sql.push_str(&format!(" {}", self.write(operand)?));
        }
        for (when, then) in &case.when_then_expr {
            if let Some(operand) = &case.expr {
                self.comparable(operand, when, Comparison::Equal)?;
            }
            sql.push_str(&format!(" WHEN {} THEN {}", self.write(when)?, self.write(then)?));
        }
        if let Some(otherwise) = &case.else_expr {
            sql.push_str(&format!(" ELSE {}", self.write(otherwise)?));
        }
        Some(sql + " END)")
    }

    fn function(&self, function: &ScalarFunction) -> Option<String> {
        let name = function.name();
        // A user's function may have the name of a built-in one.
        let built_in = FUNCTIONS.get(name).is_some_and(|built_in| *built_in == function.func);
        (built_in && self.dialect.functions.contains(&name)).then_some(())?;
        let arguments: Option<Vec<String>> = function.args.iter().map(|argument| self.write(argument)).collect();
        Some(format!("{name}({})", arguments?.join(", ")))
    }
}

/// A value that means the same there: exactly, and of the same type.
fn literal(dialect: &Dialect, value: &ScalarValue) -> Option<String> {
    use ScalarValue as V;
    if *value == V::Null {
        return None;
    }
    if value.is_null() {
        return (dialect.cast)("NULL", &value.data_type());
    }
    match value {
        V::Boolean(Some(value)) => Some(if *value { "TRUE" } else { "FALSE" }.to_owned()),
        V::Int64(Some(number)) if *number >= 0 => Some(number.to_string()),
        V::Int64(Some(number)) if *number > i64::MIN => Some(format!("({number})")),
        V::Utf8(Some(text)) | V::LargeUtf8(Some(text)) | V::Utf8View(Some(text)) => quoted_text(text),
        V::Float32(Some(number)) if number.is_finite() => (dialect.cast)(&format!("'{number:e}'"), &DataType::Float32),
        V::Float64(Some(number)) if number.is_finite() => (dialect.cast)(&format!("'{number:e}'"), &DataType::Float64),
        V::Decimal128(Some(value), precision, scale) if *scale >= 0 => {
            let text = format!("'{}'", decimal_text(*value, *scale));
            (dialect.cast)(&text, &DataType::Decimal128(*precision, *scale))
        }
        // Years 1 to 9999, which all calendars and parsers share.
        V::Date32(Some(day)) if (-719_162..=2_932_896).contains(day) => temporal(dialect, value),
        V::TimestampSecond(Some(_), None)
        | V::TimestampMillisecond(Some(_), None)
        | V::TimestampMicrosecond(Some(_), None)
        | V::TimestampNanosecond(Some(_), None) => temporal(dialect, value),
        other if other.data_type().is_integer() => (dialect.cast)(&format!("'{other}'"), &other.data_type()),
        _ => None,
    }
}

/// A date or a time as a cast of its text.
fn temporal(dialect: &Dialect, value: &ScalarValue) -> Option<String> {
    let V::Utf8(Some(text)) = value.cast_to(&DataType::Utf8).ok()? else { return None };
    // A year that is not of four digits begins with a sign or is longer.
    (text.as_bytes().get(4) == Some(&b'-') && !text.starts_with('-')).then_some(())?;
    (dialect.cast)(&format!("'{text}'"), &value.data_type())
}

use ScalarValue as V;

/// A text in quotes; `None` if it has a character that some databases cannot have in a text.
fn quoted_text(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| format!("'{}'", text.replace('\'', "''")))
}

/// A name in quotes: as it is, upper case included.
pub(super) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
    use arrow::datatypes::{Field, Schema};
    use datafusion::{
        functions::{math::expr_fn::random, string::expr_fn::upper},
        logical_expr::{cast, col, in_list, lit},
    };

    use super::*;

    fn write(dialect: &Dialect, expr: &Expr) -> Option<String> {
        let fields = vec![
            Field::new("a", DataType::Int64, true),
            Field::new("f", DataType::Float64, true),
            Field::new("n", DataType::Utf8View, true),
            Field::new("p", DataType::Decimal128(15, 2), true),
            Field::new("b", DataType::Boolean, true),
        ];
        let schema = DFSchema::try_from(Schema::new(fields)).expect("names differ");
        let columns: Vec<String> = ["a", "f", "n", "p", "b"].iter().map(|name| quoted_name(name)).collect();
        Writer { dialect, schema: &schema, columns: &columns }.write(expr)
    }

    fn price(value: i128) -> Expr {
        lit(ScalarValue::Decimal128(Some(value), 15, 2))
    }

    #[test]
    fn operands_stand_in_parentheses_and_values_are_exact() {
        let cases = [
            (col("a").gt_eq(lit(7_i64)), "(\"a\" >= 7)"),
            (Expr::IsNull(Box::new(Expr::Not(Box::new(col("b"))))), "((NOT \"b\") IS NULL)"),
            (Expr::Negative(Box::new(lit(-5_i64))), "(- (-5))"),
            (col("p").lt(price(-5)), "(\"p\" < CAST('-0.05' AS DECIMAL(15,2)))"),
            (col("n").eq(lit("it's")), "(\"n\" = 'it''s')"),
            (in_list(col("a"), vec![lit(1_i32), lit(2_i64)], true), "(\"a\" NOT IN (1, 2))"),
            (col("f").lt(lit(-0.0)), "(\"f\" < CAST('-0e0' AS DOUBLE))"),
            (upper(col("n")).eq(lit("A")), "(upper(\"n\") = 'A')"),
        ];
        for (expr, sql) in cases {
            assert_eq!(write(&Dialect::GRIZZLY, &expr).as_deref(), Some(sql));
        }
    }

    #[test]
    fn what_may_differ_elsewhere_stays_here() {
        let standard = [
            upper(col("n")).eq(lit("A")),
            col("n").lt(lit("a")),
            (col("a") + lit(1_i64)).eq(lit(2_i64)),
            col("f").eq(lit(1.5)),
            cast(col("a"), DataType::Int32).eq(lit(2)),
        ];
        assert!(standard.iter().all(|expr| write(&Dialect::STANDARD, expr).is_none()));
        let never = [
            random().lt(lit(0.5)),
            col("f").eq(lit(f64::NAN)),
            col("a").eq(lit(ScalarValue::Null)),
            col("n").eq(lit("a\0b")),
            col("n").eq(col("a")),
            col("nobody").eq(lit(1_i64)),
        ];
        assert!(never.iter().all(|expr| write(&Dialect::GRIZZLY, expr).is_none()));
    }
}
