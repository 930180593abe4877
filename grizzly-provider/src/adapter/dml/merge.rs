//! MERGE as a join: target rows with their ids, source rows, and which WHEN clause applies to each pair.
//!
//! ```text
//!   Dml(Merge, t)             Dml(Insert, sink of t)
//!     source           =>       Projection: clause, __row_id, CASE clause WHEN 0 THEN … per column
//!                                 Filter: clause IS NOT NULL
//!                                   Projection: *, CASE WHEN matched AND … THEN 0 … END AS clause
//!                                     Join: ON, inner or outer as the clauses need
//!                                       TableScan: t with __row_id
//!                                       source, marked where a clause asks for rows without one
//! ```

use std::sync::Arc;

use datafusion::{
    catalog::TableProvider,
    common::{Column, JoinType, ScalarValue, TableReference},
    error::Result,
    logical_expr::{
        Case, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, col,
        dml::{MergeIntoAction, MergeIntoClause, MergeIntoClauseKind, MergeIntoOp},
        lit,
    },
};

use super::{
    sink::{Action, write_plan},
    target::{Target, check_writable, row_id, scan_with_row_id},
};
use crate::{Error, adapter::GrizzlyTable};

const CLAUSE: &str = "__clause";
const FROM_SOURCE: &str = "__from_source";
const EXCLUDED: &str = "excluded";

/// What to do where one target row would be changed twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// An error of kind `Cardinality`, as MERGE has it.
    Refused,
    /// Nothing more, as `DELETE … USING` has it.
    Ignored,
}

/// What a clause does with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowAction {
    /// Replaces it.
    Update,
    /// Deletes it.
    Delete,
    /// Adds one.
    Insert,
}

/// How the sink of a MERGE reads its input.
#[derive(Debug, Clone)]
pub(crate) struct MergeAction {
    /// One per WHEN clause; rows name their clause by its number.
    pub(super) clauses: Vec<RowAction>,
    pub(super) repeats: Repeats,
}

/// The plan of `MERGE INTO name USING source` with the condition and clauses of `op`, whose target columns are
/// qualified with `name`.
pub(crate) fn merge(
    name: &TableReference,
    table: &GrizzlyTable,
    source: LogicalPlan,
    op: &MergeIntoOp,
    repeats: Repeats,
) -> Result<LogicalPlan> {
    check_writable(table)?;
    for clause in &op.clauses {
        check_clause(name, clause)?;
    }
    let outer = Outer::of(op);
    let joined = join(name, table, source, op, outer)?;
    let row_id = Expr::Column(row_id(name, table));
    let chosen = choose_clause(&row_id, joined, op, outer)?;
    let values = new_values(name, table, row_id, chosen, op)?;
    let clauses = op.clauses.iter().map(row_action).collect();
    write_plan(name, Target::of(table), Action::Merge(MergeAction { clauses, repeats }), values)
}

/// The plan of `INSERT INTO name input ON CONFLICT DO NOTHING`, where `keys` are the column sets that may conflict.
pub(crate) fn insert_new_rows(
    name: &TableReference,
    table: &GrizzlyTable,
    input: LogicalPlan,
    keys: Vec<Vec<usize>>,
) -> Result<LogicalPlan> {
    let existing = TableReference::bare("__existing");
    let mut rows = LogicalPlanBuilder::from(input).alias(EXCLUDED)?;
    for key in &keys {
        let schema = table.schema();
        let columns = |qualifier: &TableReference| -> Vec<Column> {
            key.iter().map(|at| Column::new(Some(qualifier.clone()), schema.field(*at).name())).collect()
        };
        let on = (columns(&TableReference::bare(EXCLUDED)), columns(&existing));
        rows = rows.join(scan_with_row_id(&existing, table)?, JoinType::LeftAnti, on, None)?;
    }
    write_plan(name, Target::of(table), Action::AppendDistinct { keys }, rows.build()?)
}

/// Which sides' rows without a partner some clause asks for.
#[derive(Clone, Copy)]
struct Outer {
    target: bool,
    source: bool,
}

impl Outer {
    fn of(op: &MergeIntoOp) -> Self {
        let any = |kind| op.clauses.iter().any(|clause| clause.kind.canonical() == kind);
        let (target, source) =
            (any(MergeIntoClauseKind::NotMatchedBySource), any(MergeIntoClauseKind::NotMatchedByTarget));
        Self { target, source }
    }
}

fn join(
    name: &TableReference,
    table: &GrizzlyTable,
    source: LogicalPlan,
    op: &MergeIntoOp,
    outer: Outer,
) -> Result<LogicalPlan> {
    let target = LogicalPlanBuilder::from(scan_with_row_id(name, table)?);
    let source = if outer.target { mark(source)? } else { source };
    let join_type = match (outer.target, outer.source) {
        // As a filter the condition may hold subqueries, which a join condition may not.
        (false, false) => return target.cross_join(source)?.filter(op.on.clone())?.build(),
        (true, false) => JoinType::Left,
        (false, true) => JoinType::Right,
        (true, true) => JoinType::Full,
    };
    target.join_on(source, join_type, [op.on.clone()])?.build()
}

/// The source's rows with a column that is NULL only where an outer join had no row for it.
fn mark(source: LogicalPlan) -> Result<LogicalPlan> {
    let mut columns: Vec<Expr> = source.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(lit(true).alias(FROM_SOURCE));
    LogicalPlanBuilder::from(source).project(columns)?.build()
}

/// Adds the number of the first clause that applies and drops rows without one.
fn choose_clause(row_id: &Expr, joined: LogicalPlan, op: &MergeIntoOp, outer: Outer) -> Result<LogicalPlan> {
    let mut choices = Vec::with_capacity(op.clauses.len());
    for (number, clause) in (0i32..).zip(&op.clauses) {
        let condition =
            applies(row_id.clone(), clause, outer).into_iter().chain(clause.predicate.clone()).reduce(Expr::and);
        choices.push((Box::new(condition.unwrap_or_else(|| lit(true))), Box::new(lit(number))));
    }
    let mut columns: Vec<Expr> = joined.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(Expr::Case(Case::new(None, choices, None)).alias(CLAUSE));
    LogicalPlanBuilder::from(joined).project(columns)?.filter(col(CLAUSE).is_not_null())?.build()
}

/// The conditions of a clause's kind, as far as the join does not see to them.
fn applies(row_id: Expr, clause: &MergeIntoClause, outer: Outer) -> Vec<Expr> {
    match clause.kind.canonical() {
        MergeIntoClauseKind::NotMatchedBySource => vec![col(FROM_SOURCE).is_null()],
        MergeIntoClauseKind::Matched => {
            let in_target = outer.source.then(|| row_id.is_not_null());
            let in_source = outer.target.then(|| col(FROM_SOURCE).is_not_null());
            in_target.into_iter().chain(in_source).collect()
        }
        _ => vec![row_id.is_null()],
    }
}

/// Projects clause number, row id and the row's new values.
fn new_values(
    name: &TableReference,
    table: &GrizzlyTable,
    row_id: Expr,
    chosen: LogicalPlan,
    op: &MergeIntoOp,
) -> Result<LogicalPlan> {
    let schema = table.schema();
    let mut columns = vec![col(CLAUSE), row_id];
    for (at, field) in schema.fields().iter().enumerate() {
        let mut choices = Vec::with_capacity(op.clauses.len());
        for (number, clause) in (0i32..).zip(&op.clauses) {
            if let Some(mut value) = new_value(name, table, clause, at) {
                if let Expr::Placeholder(placeholder) = &mut value {
                    placeholder.field.get_or_insert_with(|| Arc::clone(field));
                }
                let value = value.cast_to(field.data_type(), chosen.schema())?;
                choices.push((Box::new(lit(number)), Box::new(value)));
            }
        }
        let value = match (choices.len(), op.clauses.len()) {
            (0, _) => Expr::Literal(ScalarValue::try_from(field.data_type())?, None),
            (1, 1) => *choices.remove(0).1,
            _ => Expr::Case(Case::new(Some(Box::new(col(CLAUSE))), choices, None)),
        };
        columns.push(value.alias(format!("__new_{}", field.name())));
    }
    LogicalPlanBuilder::from(chosen).project(columns)?.build()
}

/// The value a clause gives to column `at`; `None` if it deletes the row.
fn new_value(name: &TableReference, table: &GrizzlyTable, clause: &MergeIntoClause, at: usize) -> Option<Expr> {
    let schema = table.schema();
    let column = schema.field(at).name();
    match &clause.action {
        MergeIntoAction::Delete => None,
        MergeIntoAction::Update(assignments) => {
            let assigned = assignments.iter().find(|(assigned, _)| assigned == column);
            let kept = || Expr::Column(Column::new(Some(name.clone()), column));
            Some(assigned.map_or_else(kept, |(_, value)| value.clone()))
        }
        MergeIntoAction::Insert { columns, values } => {
            let given = if columns.is_empty() { Some(at) } else { columns.iter().position(|given| given == column) };
            let default =
                || table.get_column_default(column).cloned().unwrap_or(Expr::Literal(ScalarValue::Null, None));
            Some(given.and_then(|at| values.get(at).cloned()).unwrap_or_else(default))
        }
    }
}

fn row_action(clause: &MergeIntoClause) -> RowAction {
    match clause.action {
        MergeIntoAction::Update(_) => RowAction::Update,
        MergeIntoAction::Delete => RowAction::Delete,
        MergeIntoAction::Insert { .. } => RowAction::Insert,
    }
}

/// A clause may only speak of rows that are there, and only insert where none is.
fn check_clause(name: &TableReference, clause: &MergeIntoClause) -> Result<()> {
    let inserts = matches!(clause.action, MergeIntoAction::Insert { .. });
    let kind = clause.kind.canonical();
    if inserts != (kind == MergeIntoClauseKind::NotMatchedByTarget) {
        let message = "MERGE inserts WHEN NOT MATCHED, and updates or deletes otherwise";
        return Err(Error::invalid(message).into());
    }
    let from_target = match kind {
        MergeIntoClauseKind::Matched => return Ok(()),
        MergeIntoClauseKind::NotMatchedBySource => false,
        _ => true,
    };
    let values: Vec<&Expr> = match &clause.action {
        MergeIntoAction::Update(assignments) => assignments.iter().map(|(_, value)| value).collect(),
        MergeIntoAction::Insert { values, .. } => values.iter().collect(),
        MergeIntoAction::Delete => Vec::new(),
    };
    for expr in clause.predicate.iter().chain(values) {
        let missing = |column: &&Column| {
            column.relation.as_ref().is_some_and(|relation| relation.resolved_eq(name)) == from_target
        };
        if let Some(column) = expr.column_refs().into_iter().find(missing) {
            let message = format!("{column} has no value here: the row is not in the {}", side(from_target));
            return Err(Error::invalid(message).into());
        }
    }
    Ok(())
}

fn side(target: bool) -> &'static str {
    if target { "target" } else { "source" }
}
