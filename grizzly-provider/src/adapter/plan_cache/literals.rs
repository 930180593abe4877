//! Statements that differ only in the values they look for share one plan: `WHERE id = 7` is planned as
//! `WHERE id = $1`, and the value filled in.
//!
//! Only literals compared with a column in the WHERE clause of a query on a single table are taken out. There no
//! value changes what a good plan looks like before an access path is chosen, and that is chosen with the values
//! filled in.

use std::{ops::ControlFlow, sync::Arc};

use datafusion::{
    common::{ParamValues, ScalarValue},
    error::Result,
    execution::SessionState,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
    sql::{
        parser::Statement,
        sqlparser::ast::{
            BinaryOperator, Expr, Query, SetExpr, Statement as SqlStatement, TableFactor, UnaryOperator, Value,
            visit_expressions,
        },
    },
};
use quick_cache::sync::Cache;

use super::{Conditions, SessionHandle, TemplateCache, opens_kept_plans, template::Template};
use crate::adapter::sql::plan_statement;

const SHAPES: usize = 256;
/// A statement with more literals is more work than its plan is worth.
const MOST_LITERALS: usize = 32;

/// The plans a session keeps by the shape of a statement, which is its text without the literals.
pub(crate) struct ShapeCache {
    /// `None` if the session's planner could not open a kept plan.
    shapes: Option<Cache<String, Shape>>,
}

#[derive(Clone)]
enum Shape {
    /// Planned when it comes again: most statements never do.
    SeenOnce,
    Planned(Arc<Template>),
    /// Its values do not fit, or its plan may not be kept.
    Unfit,
}

/// A statement taken apart.
pub(crate) struct Lifted {
    statement: Statement,
    shape: String,
    values: Vec<ScalarValue>,
}

impl ShapeCache {
    /// A cache for sessions with this state.
    pub(crate) fn for_state(state: &SessionState) -> Self {
        Self { shapes: opens_kept_plans(state).then(|| Cache::new(SHAPES)) }
    }

    /// The plan of `statement` with its values filled in, if its shape is known to be no more than a lookup: that takes no
    /// time.
    pub(crate) fn look_up(
        &self,
        statement: &Statement,
        handle: &SessionHandle,
        context: &SessionContext,
    ) -> Result<Option<LogicalPlan>> {
        let Some(shapes) = &self.shapes else { return Ok(None) };
        let Some(lifted) = lift(statement) else { return Ok(None) };
        match shapes.get(&lifted.shape) {
            Some(Shape::Planned(template)) if template.holds(handle, context) => {
                template.look_up(&ParamValues::from(lifted.values))
            }
            _ => Ok(None),
        }
    }

    /// The plan of `statement` with its values filled in, if its shape has come before and allows it.
    pub(crate) async fn plan(
        &self,
        statement: &Statement,
        templates: &TemplateCache,
        handle: &SessionHandle,
        context: &SessionContext,
    ) -> Result<Option<LogicalPlan>> {
        let Some(shapes) = &self.shapes else { return Ok(None) };
        let Some(lifted) = lift(statement) else { return Ok(None) };
        let template = match shapes.get(&lifted.shape) {
            None => {
                shapes.insert(lifted.shape, Shape::SeenOnce);
                return Ok(None);
            }
            Some(Shape::Unfit) => return Ok(None),
            Some(Shape::Planned(template)) if template.holds(handle, context) => template,
            Some(Shape::Planned(_) | Shape::SeenOnce) => {
                // Whatever is wrong with the statement is told by planning it as it was written.
                let conditions = Conditions::now(handle, context);
                let planned = plan_statement(&context.state(), lifted.statement).await;
                let template = planned.ok().map(|plan| Template::of(&plan, conditions, context)).transpose()?;
                let Some(template) = template.filter(Template::reads_one_table) else {
                    shapes.insert(lifted.shape, Shape::Unfit);
                    return Ok(None);
                };
                let template = Arc::new(template);
                shapes.insert(lifted.shape.clone(), Shape::Planned(Arc::clone(&template)));
                template
            }
        };
        let filled = templates.fill_template(&template, &ParamValues::from(lifted.values))?;
        if filled.is_none() {
            shapes.insert(lifted.shape, Shape::Unfit);
        }
        Ok(filled)
    }
}

/// `statement` with `$1`, `$2`, … in the place of literals, if it has any that may be taken out.
fn lift(statement: &Statement) -> Option<Lifted> {
    let Statement::Statement(statement) = statement else { return None };
    let SqlStatement::Query(query) = statement.as_ref() else { return None };
    if !is_of_one_table(query) || has_placeholder(query) {
        return None;
    }
    let mut query = query.clone();
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let mut values = Vec::new();
    lift_condition(select.selection.as_mut()?, &mut values)?;
    if values.is_empty() {
        return None;
    }
    let statement = SqlStatement::Query(query);
    let shape = statement.to_string();
    Some(Lifted { statement: Statement::Statement(Box::new(statement)), shape, values })
}

/// Whether it is a plain query on a single table as it is now.
fn is_of_one_table(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let [only] = select.from.as_slice() else { return false };
    let plain = matches!(&only.relation, TableFactor::Table { args: None, version: None, .. });
    query.with.is_none() && only.joins.is_empty() && plain
}

/// Whether there are placeholders of the user's own.
fn has_placeholder(query: &Query) -> bool {
    let found = visit_expressions(query, |expr| match expr {
        Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Takes literals out of comparisons with columns. `None` if there are too many.
fn lift_condition(condition: &mut Expr, values: &mut Vec<ScalarValue>) -> Option<()> {
    match condition {
        Expr::Nested(inner) => lift_condition(inner, values),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            lift_condition(left, values)?;
            lift_condition(right, values)
        }
        Expr::BinaryOp { left, op, right } if compares(op) => match (is_column(left), is_column(right)) {
            (true, false) => lift_value(right, values),
            (false, true) => lift_value(left, values),
            _ => Some(()),
        },
        Expr::Between { expr, low, high, .. } if is_column(expr) => {
            lift_value(low, values)?;
            lift_value(high, values)
        }
        Expr::InList { expr, list, .. } if is_column(expr) => {
            list.iter_mut().try_for_each(|value| lift_value(value, values))
        }
        _ => Some(()),
    }
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
    matches!(op, Eq | Lt | LtEq | Gt | GtEq)
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// Puts a placeholder in the place of an integer or a string; other expressions stay.
fn lift_value(expr: &mut Expr, values: &mut Vec<ScalarValue>) -> Option<()> {
    let negative = matches!(expr, Expr::UnaryOp { op: UnaryOperator::Minus, .. });
    let literal = match &mut *expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => inner.as_mut(),
        other => other,
    };
    let Expr::Value(literal) = literal else { return Some(()) };
    let value = match &literal.value {
        Value::Number(digits, false) => match digits.parse::<i64>() {
            Ok(number) => ScalarValue::Int64(Some(if negative { -number } else { number })),
            Err(_) => return Some(()),
        },
        Value::SingleQuotedString(text) if !negative => ScalarValue::Utf8(Some(text.clone())),
        _ => return Some(()),
    };
    values.push(value);
    literal.value = Value::Placeholder(format!("${}", values.len()));
    if negative {
        let placeholder = Expr::Value(literal.clone());
        *expr = placeholder;
    }
    (values.len() <= MOST_LITERALS).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::sql::parse;

    fn shape(sql: &str) -> Option<(String, Vec<ScalarValue>)> {
        let parsed = parse(sql, 50).expect("it parses").pop().expect("one statement");
        lift(&parsed.statement).map(|lifted| (lifted.shape, lifted.values))
    }

    #[test]
    fn values_that_columns_are_compared_with_are_taken_out() {
        let (text, values) =
            shape("SELECT a, 1 FROM t WHERE (a = 5 OR -7 < t.b) AND c IN ('x', 'y') AND d BETWEEN 1 AND e LIMIT 3")
                .expect("a shape");
        assert_eq!(
            text,
            "SELECT a, 1 FROM t WHERE (a = $1 OR $2 < t.b) AND c IN ($3, $4) AND d BETWEEN $5 AND e LIMIT 3"
        );
        let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
        let number = |number| ScalarValue::Int64(Some(number));
        assert_eq!(values, [number(5), number(-7), text("x"), text("y"), number(1)]);
    }

    #[test]
    fn other_statements_stay_as_they_are() {
        for sql in [
            "SELECT * FROM t",
            "SELECT * FROM t WHERE a = b",
            "SELECT * FROM t WHERE a + 1 = 2",
            "SELECT * FROM t WHERE a = 1.5",
            "SELECT * FROM t WHERE a = 1 AND b = $1",
            "SELECT $1 FROM t WHERE a = 1",
            "SELECT * FROM t, s WHERE t.a = 1",
            "SELECT * FROM t JOIN s ON t.a = s.a WHERE t.a = 1",
            "SELECT * FROM (SELECT 1 AS a) WHERE a = 1",
            "WITH s AS (SELECT 1 AS a) SELECT * FROM s WHERE a = 1",
            "SELECT * FROM t FOR SYSTEM_TIME AS OF 5 WHERE a = 1",
            "DELETE FROM t WHERE a = 1",
        ] {
            assert!(shape(sql).is_none(), "{sql}");
        }
    }
}
