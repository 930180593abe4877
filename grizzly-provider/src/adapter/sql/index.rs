//! CREATE INDEX and DROP INDEX. The planner keeps neither INCLUDE nor WHERE of an index, so the statement is read here.

use datafusion::{
    config::ConfigOptions,
    error::Result,
    execution::SessionState,
    logical_expr::{CreateIndex as PlanCreateIndex, Expr as PlanExpr},
    sql::sqlparser::ast::{CreateIndex, Expr, IndexType, ObjectName},
};

use super::{
    Front,
    names::{identifier, own_name, own_table},
    refuse::{refuse, refuse_if},
};
use crate::{
    Error,
    access::IndexDefinition,
    adapter::{busy::busy, interrupt::Watched},
};

/// Carries out CREATE INDEX.
pub(super) fn create(front: Front<'_>, state: &SessionState, create: &CreateIndex) -> Result<()> {
    refuse_if(create.predicate.is_some(), "a partial index (CREATE INDEX … WHERE)")?;
    refuse_if(!create.include.is_empty(), "CREATE INDEX … INCLUDE")?;
    refuse_if(!create.with.is_empty(), "CREATE INDEX … WITH")?;
    refuse_if(!create.index_options.is_empty(), "options of CREATE INDEX")?;
    refuse_if(!create.alter_options.is_empty(), "options of CREATE INDEX")?;
    refuse_if(create.nulls_distinct == Some(false), "CREATE INDEX … NULLS NOT DISTINCT")?;
    refuse_unknown_method(create.using.as_ref())?;
    let mut columns = Vec::with_capacity(create.columns.len());
    for column in &create.columns {
        refuse_if(column.operator_class.is_some(), "operator classes of an index")?;
        refuse_if(column.column.options.nulls_first.is_some(), "NULLS FIRST and NULLS LAST of an index")?;
        let Expr::Identifier(name) = &column.column.expr else {
            return Ok(refuse("an index on an expression")?);
        };
        columns.push((identifier(state, name), column.column.options.asc == Some(false)));
    }
    let table = own_table(state, &create.table_name)?;
    let name = match &create.name {
        Some(name) => last_part(state, name)?,
        None => default_name(&table, &columns, "idx"),
    };
    let definition = IndexDefinition { name, columns, unique: create.unique };
    busy(|| front.session.db().create_index_with(&table, definition, create.if_not_exists, &Watched))?;
    Ok(())
}

/// Table and index of CREATE INDEX as the planner understood it.
pub(crate) fn index_to_create(
    config: &ConfigOptions,
    create: &PlanCreateIndex,
) -> crate::Result<(String, IndexDefinition)> {
    let method = create.using.as_deref().unwrap_or("btree");
    refuse_if(!["btree", "hash"].contains(&method), &format!("the index method {method}"))?;
    let mut columns = Vec::with_capacity(create.columns.len());
    for column in &create.columns {
        match &column.expr {
            PlanExpr::Column(name) => columns.push((name.name.clone(), !column.asc)),
            _ => return refuse("an index on an expression"),
        }
    }
    let Some((schema, table)) = own_name(config, &create.table) else {
        return Err(Error::unsupported(format!("{} is not a table of this database", create.table)));
    };
    let table = format!("{schema}.{table}");
    let name = create.name.clone().unwrap_or_else(|| default_name(&table, &columns, "idx"));
    Ok((table, IndexDefinition { name, columns, unique: create.unique }))
}

/// Carries out DROP INDEX.
pub(super) fn drop(
    front: Front<'_>,
    state: &SessionState,
    names: &[ObjectName],
    table: Option<&ObjectName>,
    if_exists: bool,
) -> Result<()> {
    let table = table.map(|table| own_table(state, table)).transpose()?;
    for name in names {
        front.session.db().drop_index(table.as_deref(), &last_part(state, name)?, if_exists)?;
    }
    Ok(())
}

/// The name PostgreSQL would give.
pub(super) fn default_name(table: &str, columns: &[(String, bool)], suffix: &str) -> String {
    let table = table.rsplit('.').next().unwrap_or(table);
    let mut name = table.to_owned();
    for (column, _) in columns {
        name.push('_');
        name.push_str(column);
    }
    format!("{name}_{suffix}")
}

/// Indexes belong to their table, so a schema before their name says nothing.
fn last_part(state: &SessionState, name: &ObjectName) -> crate::Result<String> {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.map(|ident| identifier(state, ident)).ok_or_else(|| Error::invalid(format!("{name} does not name an index")))
}

fn refuse_unknown_method(method: Option<&IndexType>) -> crate::Result<()> {
    match method {
        None | Some(IndexType::BTree | IndexType::Hash) => Ok(()),
        Some(other) => refuse(&format!("the index method {other}")),
    }
}
