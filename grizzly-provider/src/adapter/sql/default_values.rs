//! `DEFAULT` as a value in INSERT, UPDATE and MERGE. The planner takes the word for the name of a column, so what it
//! stands for is put in its place: the column's DEFAULT expression, or NULL.

use std::ops::ControlFlow;

use datafusion::{
    error::Result,
    execution::SessionState,
    sql::sqlparser::{
        ast::{
            Assignment, AssignmentTarget, Expr, MergeAction, MergeInsertKind, ObjectName, OnConflict, OnConflictAction,
            OnInsert, SetExpr, Statement, TableFactor, TableObject, Value, Values, visit_expressions,
        },
        parser::Parser,
    },
};

use super::{
    GrizzlyDialect,
    names::{identifier, reference},
    normalize::assignments,
};
use crate::{TableSnapshot, adapter::GrizzlyTable};

/// Replaces every `DEFAULT` that is a whole value of `statement`, if it writes to a table of Grizzly's.
pub(super) async fn fill_in(state: &SessionState, statement: &mut Statement) -> Result<()> {
    let name = match &*statement {
        Statement::Insert(insert) => match &insert.table {
            TableObject::TableName(name) => name,
            _ => return Ok(()),
        },
        Statement::Update(update) => match &update.table.relation {
            TableFactor::Table { name, .. } => name,
            _ => return Ok(()),
        },
        Statement::Merge(merge) => match &merge.table {
            TableFactor::Table { name, .. } => name,
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    if !mentions_default(statement) {
        return Ok(());
    }
    match table(state, name).await? {
        Some(table) => Defaults { state, table }.fill_in(statement),
        None => Ok(()),
    }
}

fn mentions_default(statement: &Statement) -> bool {
    let found = visit_expressions(statement, |expr| match is_default(expr) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    found.is_break()
}

fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
}

async fn table(state: &SessionState, name: &ObjectName) -> Result<Option<TableSnapshot>> {
    let reference = reference(state, name)?;
    let Ok(schema) = state.schema_for_ref(reference.clone()) else {
        return Ok(None);
    };
    let provider = schema.table(reference.table()).await?;
    let table = provider.as_ref().and_then(|provider| provider.downcast_ref::<GrizzlyTable>());
    Ok(table.map(GrizzlyTable::planning_snapshot).transpose()?)
}

/// The defaults of one table.
struct Defaults<'a> {
    state: &'a SessionState,
    table: TableSnapshot,
}

impl Defaults<'_> {
    fn fill_in(&self, statement: &mut Statement) -> Result<()> {
        match statement {
            Statement::Insert(insert) => {
                if let Some(SetExpr::Values(values)) = insert.source.as_mut().map(|source| source.body.as_mut()) {
                    self.rows(&insert.columns, values)?;
                }
                if let Some(OnInsert::OnConflict(OnConflict { action, .. })) = &mut insert.on
                    && let OnConflictAction::DoUpdate(update) = action
                {
                    assignments(self.state, &mut update.assignments)?;
                    self.assigned(&mut update.assignments)?;
                }
                Ok(())
            }
            Statement::Update(update) => self.assigned(&mut update.assignments),
            Statement::Merge(merge) => {
                for clause in &mut merge.clauses {
                    match &mut clause.action {
                        MergeAction::Update(update) => self.assigned(&mut update.assignments)?,
                        MergeAction::Insert(insert) => {
                            if let MergeInsertKind::Values(values) = &mut insert.kind {
                                self.rows(&insert.columns, values)?;
                            }
                        }
                        MergeAction::Delete { .. } => {}
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Rows of values for `columns`, or for all columns if it is empty.
    fn rows(&self, columns: &[ObjectName], values: &mut Values) -> Result<()> {
        let columns: Vec<String> = match columns {
            [] => self.table.schema().fields().iter().map(|field| field.name().clone()).collect(),
            columns => columns.iter().map(|column| self.column(column)).collect(),
        };
        for row in &mut values.rows {
            for (column, value) in columns.iter().zip(&mut row.content) {
                self.value(column, value)?;
            }
        }
        Ok(())
    }

    fn assigned(&self, assignments: &mut [Assignment]) -> Result<()> {
        for assignment in assignments {
            if let AssignmentTarget::ColumnName(column) = &assignment.target {
                self.value(&self.column(column), &mut assignment.value)?;
            }
        }
        Ok(())
    }

    /// The last part of a name: what qualifies a column can only be the target.
    fn column(&self, name: &ObjectName) -> String {
        let last = name.0.last().and_then(|part| part.as_ident());
        last.map_or_else(|| name.to_string(), |ident| identifier(self.state, ident))
    }

    fn value(&self, column: &str, value: &mut Expr) -> Result<()> {
        if is_default(value) {
            *value = match self.table.default(column) {
                Some(text) => Expr::Nested(Box::new(Parser::new(&GrizzlyDialect).try_with_sql(text)?.parse_expr()?)),
                None => Expr::value(Value::Null),
            };
        }
        Ok(())
    }
}
