//! Reads a `PhysicalExpr` as a [`Condition`]: filters pushed down by physical rules, and what the dynamic filters of
//! joins and TopK say at the moment.

use arrow::datatypes::DataType;
use datafusion::{
    logical_expr::Operator,
    physical_expr::expressions::{
        BinaryExpr, CaseExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr,
        LikeExpr, Literal, NotExpr, TryCastExpr,
    },
    physical_plan::PhysicalExpr,
};

use super::{
    condition::{Condition, Truth},
    logical::{read_comparison, read_like},
    term::Term,
};

/// The condition that `expr` states; its column `i` is the table's column `columns[i]`.
pub(super) fn read(expr: &dyn PhysicalExpr, columns: &[usize]) -> Condition {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        read_binary(binary, columns)
    } else if let Some(not) = expr.downcast_ref::<NotExpr>() {
        read(not.arg().as_ref(), columns).negate()
    } else if let Some(test) = expr.downcast_ref::<IsNullExpr>() {
        read_is_null(test.arg().as_ref(), columns)
    } else if let Some(test) = expr.downcast_ref::<IsNotNullExpr>() {
        read_is_null(test.arg().as_ref(), columns).negate()
    } else if let Some(list) = expr.downcast_ref::<InListExpr>() {
        read_in_list(list, columns)
    } else if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let condition = match read_term(like.pattern().as_ref(), columns) {
            Term::Literal(pattern) if !like.case_insensitive() => {
                read_like(read_term(like.expr().as_ref(), columns), &pattern)
            }
            _ => Condition::Opaque,
        };
        if like.negated() { condition.negate() } else { condition }
    } else if let Some(dynamic) = expr.downcast_ref::<DynamicFilterPhysicalExpr>() {
        dynamic.current().map_or(Condition::Opaque, |current| read(current.as_ref(), columns))
    } else if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        read_case(case, columns)
    } else if expr.is::<Column>() || expr.is::<Literal>() {
        Condition::Value(read_term(expr, columns))
    } else {
        Condition::Opaque
    }
}

fn read_binary(binary: &BinaryExpr, columns: &[usize]) -> Condition {
    let conditions = || vec![read(binary.left().as_ref(), columns), read(binary.right().as_ref(), columns)];
    let term = |side: &dyn PhysicalExpr| read_term(side, columns);
    match binary.op() {
        Operator::And => Condition::And(conditions()),
        Operator::Or => Condition::Or(conditions()),
        op => read_comparison(term(binary.left().as_ref()), *op, term(binary.right().as_ref())),
    }
}

fn read_is_null(inner: &dyn PhysicalExpr, columns: &[usize]) -> Condition {
    match read_term(inner, columns) {
        Term::Opaque => Condition::Is(Box::new(read(inner, columns)), Truth::Null),
        term => Condition::IsNull(term),
    }
}

fn read_in_list(list: &InListExpr, columns: &[usize]) -> Condition {
    let values = list.list().iter().map(|item| Some(item.downcast_ref::<Literal>()?.value().clone()));
    match values.collect::<Option<Vec<_>>>() {
        Some(values) => {
            Condition::InList { term: read_term(list.expr().as_ref(), columns), list: values, negated: list.negated() }
        }
        None => Condition::Opaque,
    }
}

/// A partitioned hash join asks for `CASE partition WHEN 0 THEN filter 0 …`: whichever branch a row takes, the row
/// must meet one of them.
fn read_case(case: &CaseExpr, columns: &[usize]) -> Condition {
    let branches = case.when_then_expr().iter().map(|(_, then)| then).chain(case.else_expr());
    Condition::TrueOnlyIfAny(branches.map(|branch| read(branch.as_ref(), columns)).collect())
}

fn read_term(expr: &dyn PhysicalExpr, columns: &[usize]) -> Term {
    if let Some(column) = expr.downcast_ref::<Column>() {
        columns.get(column.index()).map_or(Term::Opaque, |column| Term::Column(*column))
    } else if let Some(literal) = expr.downcast_ref::<Literal>() {
        Term::Literal(literal.value().clone())
    } else if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        read_cast(cast.expr().as_ref(), cast.cast_type(), columns)
    } else if let Some(cast) = expr.downcast_ref::<TryCastExpr>() {
        read_cast(cast.expr().as_ref(), cast.cast_type(), columns)
    } else {
        Term::Opaque
    }
}

fn read_cast(inner: &dyn PhysicalExpr, to: &DataType, columns: &[usize]) -> Term {
    match read_term(inner, columns) {
        Term::Opaque => Term::Opaque,
        inner => Term::Cast(Box::new(inner), to.clone()),
    }
}
