//! `UPDATE … FROM`, `DELETE … USING`, and DELETE from a table with an alias.
//!
//! The first two are MERGEs without saying so. A row that several rows of the other tables match is deleted once, but
//! cannot be updated: which of the new values it should get would be anybody's guess.

use std::sync::Arc;

use datafusion::{
    error::Result,
    execution::SessionState,
    logical_expr::{DmlStatement, LogicalPlan, WriteOp},
    sql::{
        parser::Statement,
        sqlparser::ast::{
            Delete, Expr, FromTable, Join, JoinOperator, Merge, MergeAction, SetExpr, Statement as SqlStatement,
            TableFactor, TableWithJoins, Update, UpdateTableFromKind,
        },
    },
};

use super::{
    front::unexpected,
    parse::parse_template,
    refuse::{refuse, refuse_if},
};
use crate::{
    Error,
    adapter::dml::{Repeats, grizzly_table, merge},
};

/// Plans `UPDATE … FROM`.
pub(super) async fn plan_update(state: &SessionState, update: Update) -> Result<LogicalPlan> {
    refuse_if(update.or.is_some(), "UPDATE OR …")?;
    refuse_if(update.output.is_some(), "UPDATE … OUTPUT")?;
    let from = match update.from {
        Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => from,
        None => Vec::new(),
    };
    let mut merge = template("MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET a = 0")?;
    merge.table = update.table.relation;
    if let Some(MergeAction::Update(action)) = merge.clauses.first_mut().map(|clause| &mut clause.action) {
        action.assignments = update.assignments;
    }
    plan_merge(state, merge, from, update.selection, Repeats::Refused).await
}

/// Plans `DELETE … USING`.
pub(super) async fn plan_delete(state: &SessionState, delete: Delete) -> Result<LogicalPlan> {
    let using = delete.using.clone().unwrap_or_default();
    let mut merge = template("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE")?;
    merge.table = target(&delete)?.clone();
    plan_merge(state, merge, using, delete.selection, Repeats::Ignored).await
}

/// Whether the planner would lose the alias of a DELETE's table.
pub(super) fn has_alias(delete: &Delete) -> bool {
    matches!(target(delete), Ok(TableFactor::Table { alias: Some(_), .. }))
}

/// Plans `DELETE FROM t AS a WHERE …`: the rows are those of `SELECT * FROM t AS a WHERE …`.
pub(super) async fn plan_aliased_delete(state: &SessionState, delete: Delete) -> Result<LogicalPlan> {
    let mut plain = delete.clone();
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &mut plain.from;
    if let Some(TableFactor::Table { alias, .. }) = tables.first_mut().map(|table| &mut table.relation) {
        *alias = None;
    }
    plain.selection = None;
    let plain = state.statement_to_plan(Statement::Statement(Box::new(SqlStatement::Delete(plain)))).await?;
    let LogicalPlan::Dml(dml) = plain else { return Err(unexpected(&plain)) };

    let Statement::Statement(mut query) = parse_template("SELECT * FROM t")? else {
        return Err(Error::internal("a query template is no query").into());
    };
    if let SqlStatement::Query(query) = query.as_mut()
        && let SetExpr::Select(select) = query.body.as_mut()
    {
        select.from = vec![TableWithJoins { relation: target(&delete)?.clone(), joins: Vec::new() }];
        select.selection = delete.selection;
    }
    let rows = state.statement_to_plan(Statement::Statement(query)).await?;
    let LogicalPlan::Projection(rows) = rows else { return Err(unexpected(&rows)) };
    let DmlStatement { table_name, target, .. } = dml;
    Ok(LogicalPlan::Dml(DmlStatement::new(table_name, target, WriteOp::Delete, Arc::clone(&rows.input))))
}

async fn plan_merge(
    state: &SessionState,
    mut statement: Merge,
    source: Vec<TableWithJoins>,
    condition: Option<Expr>,
    repeats: Repeats,
) -> Result<LogicalPlan> {
    statement.source = one_source(source)?;
    if let Some(condition) = condition {
        statement.on = Box::new(condition);
    }
    let planned = state.statement_to_plan(Statement::Statement(Box::new(SqlStatement::Merge(statement)))).await?;
    let LogicalPlan::Dml(dml) = planned else { return Err(unexpected(&planned)) };
    let WriteOp::MergeInto(op) = &dml.op else { return Err(unexpected(&LogicalPlan::Dml(dml))) };
    let Some(table) = grizzly_table(&dml.target) else {
        return Ok(refuse("UPDATE … FROM and DELETE … USING for a table that is not Grizzly's")?);
    };
    merge(&dml.table_name, table, (*dml.input).clone(), op, repeats)
}

/// `a, b JOIN c` as one table expression.
fn one_source(mut tables: Vec<TableWithJoins>) -> Result<TableFactor> {
    if tables.is_empty() {
        return Err(Error::invalid("a statement with FROM or USING names no table there").into());
    }
    let mut first = tables.remove(0);
    if first.joins.is_empty() && tables.is_empty() {
        return Ok(first.relation);
    }
    for table in tables {
        let relation = if table.joins.is_empty() { table.relation } else { nested(table) };
        first.joins.push(Join { relation, global: false, join_operator: cross_join()? });
    }
    Ok(nested(first))
}

fn nested(table: TableWithJoins) -> TableFactor {
    TableFactor::NestedJoin { table_with_joins: Box::new(table), alias: None }
}

fn cross_join() -> Result<JoinOperator> {
    if let Statement::Statement(statement) = parse_template("SELECT 1 FROM a CROSS JOIN b")?
        && let SqlStatement::Query(query) = *statement
        && let SetExpr::Select(mut select) = *query.body
        && let Some(join) = select.from.pop().and_then(|mut table| table.joins.pop())
    {
        return Ok(join.join_operator);
    }
    Err(Error::internal("a join template is no join").into())
}

fn template(sql: &str) -> Result<Merge> {
    if let Statement::Statement(statement) = parse_template(sql)?
        && let SqlStatement::Merge(merge) = *statement
    {
        return Ok(merge);
    }
    Err(Error::internal("a MERGE template is no MERGE").into())
}

fn target(delete: &Delete) -> Result<&TableFactor> {
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
    match tables.as_slice() {
        [table] if table.joins.is_empty() => Ok(&table.relation),
        _ => Ok(refuse("DELETE from several tables: name the others after USING")?),
    }
}
