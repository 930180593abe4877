//! Reads a logical `Expr` as a [`Condition`].

use arrow::datatypes::{DataType, Schema};
use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator, expr::InList},
};

use super::{
    condition::{Condition, Truth},
    term::Term,
};
use crate::access::CompareOp;

/// The condition that `expr` states; columns are found in `schema` by name.
pub(super) fn read(expr: &Expr, schema: &Schema) -> Condition {
    match expr {
        Expr::Alias(alias) => read(&alias.expr, schema),
        Expr::BinaryExpr(binary) => read_binary(binary, schema),
        Expr::Not(inner) => read(inner, schema).negate(),
        Expr::IsNull(inner) => read_is_null(inner, schema),
        Expr::IsNotNull(inner) => read_is_null(inner, schema).negate(),
        Expr::IsTrue(inner) => read_is(inner, Truth::True, schema),
        Expr::IsFalse(inner) => read_is(inner, Truth::False, schema),
        Expr::IsUnknown(inner) => read_is(inner, Truth::Null, schema),
        Expr::IsNotTrue(inner) => read_is(inner, Truth::True, schema).negate(),
        Expr::IsNotFalse(inner) => read_is(inner, Truth::False, schema).negate(),
        Expr::IsNotUnknown(inner) => read_is(inner, Truth::Null, schema).negate(),
        Expr::Between(between) => {
            let value = read_term(&between.expr, schema);
            let low = Condition::Compare(value.clone(), CompareOp::GtEq, read_term(&between.low, schema));
            let high = Condition::Compare(value, CompareOp::LtEq, read_term(&between.high, schema));
            negated_if(between.negated, Condition::And(vec![low, high]))
        }
        Expr::InList(list) => read_in_list(list, schema),
        Expr::Like(like) if !like.case_insensitive && like.escape_char.is_none() => {
            let condition = match read_term(&like.pattern, schema) {
                Term::Literal(pattern) => read_like(read_term(&like.expr, schema), &pattern),
                _ => Condition::Opaque,
            };
            negated_if(like.negated, condition)
        }
        Expr::Column(_) | Expr::Literal(..) => Condition::Value(read_term(expr, schema)),
        _ => Condition::Opaque,
    }
}

fn read_binary(binary: &BinaryExpr, schema: &Schema) -> Condition {
    let conditions = || vec![read(&binary.left, schema), read(&binary.right, schema)];
    match binary.op {
        Operator::And => Condition::And(conditions()),
        Operator::Or => Condition::Or(conditions()),
        op => read_comparison(read_term(&binary.left, schema), op, read_term(&binary.right, schema)),
    }
}

/// A comparison of two operands; for logical and physical expressions alike.
pub(super) fn read_comparison(left: Term, op: Operator, right: Term) -> Condition {
    let op = match op {
        Operator::Eq => CompareOp::Eq,
        Operator::NotEq => CompareOp::NotEq,
        Operator::Lt => CompareOp::Lt,
        Operator::LtEq => CompareOp::LtEq,
        Operator::Gt => CompareOp::Gt,
        Operator::GtEq => CompareOp::GtEq,
        Operator::IsDistinctFrom => return Condition::Distinct(left, right),
        Operator::IsNotDistinctFrom => return Condition::Distinct(left, right).negate(),
        Operator::LikeMatch => return read_like_operator(left, &right),
        Operator::NotLikeMatch => return read_like_operator(left, &right).negate(),
        _ => return Condition::Opaque,
    };
    Condition::Compare(left, op, right)
}

fn read_like_operator(text: Term, pattern: &Term) -> Condition {
    match pattern {
        Term::Literal(pattern) => read_like(text, pattern),
        _ => Condition::Opaque,
    }
}

/// `text LIKE pattern`: what comes before the first wildcard is a range of strings.
pub(super) fn read_like(text: Term, pattern: &ScalarValue) -> Condition {
    let Some(Some(pattern)) = pattern.try_as_str() else {
        return Condition::Opaque;
    };
    // A backslash makes the next character literal: rare, and better left to DataFusion.
    if pattern.contains('\\') {
        return Condition::Opaque;
    }
    match pattern.find(['%', '_']) {
        None => {
            let whole = ScalarValue::Utf8(Some(pattern.to_owned()));
            Condition::Compare(text, CompareOp::Eq, Term::Literal(whole))
        }
        Some(0) => Condition::Opaque,
        Some(at) => {
            let complete = &pattern[at..] == "%";
            Condition::Prefix { term: text, prefix: pattern[..at].to_owned(), complete }
        }
    }
}

fn read_is(inner: &Expr, truth: Truth, schema: &Schema) -> Condition {
    Condition::Is(Box::new(read(inner, schema)), truth)
}

fn read_is_null(inner: &Expr, schema: &Schema) -> Condition {
    match read_term(inner, schema) {
        Term::Opaque => read_is(inner, Truth::Null, schema),
        term => Condition::IsNull(term),
    }
}

fn read_in_list(list: &InList, schema: &Schema) -> Condition {
    let values = list.list.iter().map(|item| match read_term(item, schema) {
        Term::Literal(value) => Some(value),
        _ => None,
    });
    match values.collect::<Option<Vec<_>>>() {
        Some(values) => Condition::InList { term: read_term(&list.expr, schema), list: values, negated: list.negated },
        None => Condition::Opaque,
    }
}

fn read_term(expr: &Expr, schema: &Schema) -> Term {
    match expr {
        Expr::Alias(alias) => read_term(&alias.expr, schema),
        Expr::Column(column) => schema.index_of(&column.name).map_or(Term::Opaque, Term::Column),
        Expr::Literal(value, _) => Term::Literal(value.clone()),
        Expr::Cast(cast) => read_cast(&cast.expr, cast.field.data_type(), schema),
        Expr::TryCast(cast) => read_cast(&cast.expr, cast.field.data_type(), schema),
        _ => Term::Opaque,
    }
}

fn read_cast(inner: &Expr, to: &DataType, schema: &Schema) -> Term {
    match read_term(inner, schema) {
        Term::Opaque => Term::Opaque,
        inner => Term::Cast(Box::new(inner), to.clone()),
    }
}

fn negated_if(negated: bool, condition: Condition) -> Condition {
    if negated { condition.negate() } else { condition }
}
