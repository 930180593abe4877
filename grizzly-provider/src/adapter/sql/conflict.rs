//! `INSERT … ON CONFLICT`.
//!
//! The planner plans the INSERT without the clause, which fills in defaults and casts, and for DO UPDATE a MERGE with
//! the same target, conditions and assignments over a stand-in source; the INSERT's rows then take the stand-in's
//! place under the name `excluded`.

use datafusion::{
    error::Result,
    execution::SessionState,
    logical_expr::{DmlStatement, LogicalPlan, LogicalPlanBuilder, WriteOp},
    sql::{
        parser::Statement,
        sqlparser::ast::{
            ConflictTarget, DoUpdate, Ident, Insert, MergeAction, ObjectName, OnConflictAction, OnInsert,
            Statement as SqlStatement, TableObject,
        },
    },
};

use super::{
    front::unexpected,
    names::{identifier, quoted},
    normalize::assignments,
    parse::parse_template,
    refuse::refuse,
};
use crate::{
    Error,
    access::IndexInfo,
    adapter::{
        GrizzlyTable,
        dml::{Repeats, grizzly_table, insert_new_rows, merge, with_nullable_values},
    },
};

/// Plans an INSERT that has an ON clause.
pub(super) async fn plan(state: &SessionState, mut insert: Insert) -> Result<LogicalPlan> {
    let conflict = match insert.on.take() {
        Some(OnInsert::OnConflict(conflict)) => conflict,
        _ => return Ok(refuse("ON DUPLICATE KEY UPDATE: use ON CONFLICT … DO UPDATE")?),
    };
    let TableObject::TableName(name) = insert.table.clone() else {
        return Ok(refuse("INSERT into anything but a table")?);
    };
    let alias = insert.table_alias.take().map(|alias| alias.alias);
    let dml = plan_dml(state, SqlStatement::Insert(insert)).await?;
    let Some(table) = grizzly_table(&dml.target) else {
        return Ok(refuse("ON CONFLICT for a table that is not Grizzly's")?);
    };
    let keys = conflicting_keys(state, table, conflict.conflict_target.as_ref())?;
    let input = with_nullable_values(&dml.input)?.data;
    match conflict.action {
        OnConflictAction::DoNothing => insert_new_rows(&dml.table_name, table, input, keys),
        OnConflictAction::DoUpdate(update) => {
            let [key] = keys.as_slice() else {
                let message = "ON CONFLICT DO UPDATE must name the columns of the key: the table has several";
                return Err(Error::invalid(message).into());
            };
            let statement = merge_statement(state, &name, alias.as_ref(), table, key, update)?;
            let merged = plan_dml(state, statement).await?;
            let WriteOp::MergeInto(op) = merged.op else {
                return Err(Error::internal("a MERGE was not planned as one").into());
            };
            let source = LogicalPlanBuilder::from(input).alias("excluded")?.build()?;
            merge(&merged.table_name, table, source, &op, Repeats::Refused)
        }
    }
}

async fn plan_dml(state: &SessionState, statement: SqlStatement) -> Result<DmlStatement> {
    match state.statement_to_plan(Statement::Statement(Box::new(statement))).await? {
        LogicalPlan::Dml(dml) => Ok(dml),
        other => Err(unexpected(&other)),
    }
}

/// The column sets on which a new row may conflict with an old one.
fn conflicting_keys(
    state: &SessionState,
    table: &GrizzlyTable,
    target: Option<&ConflictTarget>,
) -> Result<Vec<Vec<usize>>> {
    let snapshot = table.planning_snapshot()?;
    let mut unique: Vec<IndexInfo> =
        snapshot.indexes().into_iter().filter(|index| index.unique || index.primary).collect();
    match target {
        None => {}
        Some(ConflictTarget::OnConstraint(name)) => {
            let name = name.to_string();
            unique.retain(|index| *index.name == name);
        }
        Some(ConflictTarget::Columns(columns)) => {
            let schema = snapshot.schema();
            let columns: Vec<String> = columns.iter().map(|column| identifier(state, column)).collect();
            unique.retain(|index| {
                let named = |at: &usize| columns.contains(schema.field(*at).name());
                index.columns.len() == columns.len() && index.columns.iter().all(named)
            });
        }
    }
    if unique.is_empty() && target.is_some() {
        let message = format!("table {} has no unique key that matches the ON CONFLICT clause", table.name());
        return Err(Error::invalid(message).into());
    }
    Ok(unique.into_iter().map(|index| index.columns).collect())
}

/// The MERGE that does what DO UPDATE says, with the table itself standing in for the source.
fn merge_statement(
    state: &SessionState,
    name: &ObjectName,
    alias: Option<&Ident>,
    table: &GrizzlyTable,
    key: &[usize],
    update: DoUpdate,
) -> Result<SqlStatement> {
    let snapshot = table.planning_snapshot()?;
    let schema = snapshot.schema();
    let column = |at: usize| quoted(schema.field(at).name()).to_string();
    let all = || 0..schema.fields().len();
    let target = alias.map_or_else(|| name.to_string(), Ident::to_string);
    let named = alias.map_or_else(|| name.to_string(), |alias| format!("{name} AS {alias}"));
    let on = key.iter().map(|at| format!("{target}.{0} = excluded.{0}", column(*at))).collect::<Vec<_>>().join(" AND ");
    let columns = all().map(column).collect::<Vec<_>>().join(", ");
    let values = all().map(|at| format!("excluded.{}", column(at))).collect::<Vec<_>>().join(", ");
    let first = column(0);
    let template = format!(
        "MERGE INTO {named} USING (SELECT {columns} FROM {name}) AS excluded ON {on} \
         WHEN MATCHED THEN UPDATE SET {first} = NULL WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"
    );
    let Statement::Statement(statement) = parse_template(&template)? else {
        return Err(Error::internal("a MERGE template is no MERGE").into());
    };
    let mut statement = *statement;
    if let SqlStatement::Merge(merge) = &mut statement
        && let Some(matched) = merge.clauses.first_mut()
        && let MergeAction::Update(action) = &mut matched.action
    {
        action.assignments = update.assignments;
        assignments(state, &mut action.assignments)?;
        matched.predicate = update.selection;
    }
    Ok(statement)
}
