//! What Grizzly does not support, refused by name. DataFusion's planner ignores some of it silently.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ColumnOption, CreateTable, Expr, FromTable, Query, Set, Statement, TableConstraint, TableFactor, TableWithJoins,
    Visit, Visitor,
};

use crate::{Error, Result};

/// An experiment of DataFusion 55: it panics on some data and loses rows on other.
const PIECEWISE_MERGE_JOIN: &str = "datafusion.optimizer.enable_piecewise_merge_join";

/// An error of kind `Unsupported` that names the first thing in `statement` that is not supported.
pub(super) fn refuse_unsupported(statement: &Statement) -> Result<()> {
    if statement.visit(&mut Locks).is_break() {
        return refuse("SELECT … FOR UPDATE and FOR SHARE: readers never lock");
    }
    match statement {
        Statement::Insert(insert) => refuse_if(insert.returning.is_some(), "INSERT … RETURNING"),
        Statement::Update(update) => {
            refuse_if(update.returning.is_some(), "UPDATE … RETURNING")?;
            refuse_if(update.limit.is_some(), "UPDATE … LIMIT: which rows it means is not defined")?;
            refuse_if(!update.order_by.is_empty(), "UPDATE … ORDER BY")?;
            refuse_if(!update.table.joins.is_empty(), "UPDATE of a join: use UPDATE … FROM")?;
            refuse_if(has_version(&update.table), "UPDATE of a table's history")
        }
        Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
            refuse_if(delete.returning.is_some(), "DELETE … RETURNING")?;
            refuse_if(delete.limit.is_some(), "DELETE … LIMIT: which rows it means is not defined")?;
            refuse_if(!delete.order_by.is_empty(), "DELETE … ORDER BY")?;
            refuse_if(tables.iter().any(has_version), "DELETE from a table's history")
        }
        Statement::CreateTable(create) => refuse_in_table(create),
        Statement::Set(Set::SingleAssignment { variable, values, .. }) => {
            let is_off = |value: &Expr| value.to_string().trim_matches('\'').eq_ignore_ascii_case("false");
            let broken = variable.to_string().eq_ignore_ascii_case(PIECEWISE_MERGE_JOIN) && !values.iter().all(is_off);
            refuse_if(broken, "SET datafusion.optimizer.enable_piecewise_merge_join: such joins fail and miss rows")
        }
        Statement::AlterTable(_) => refuse("ALTER TABLE"),
        Statement::CreateTrigger(_) => refuse("CREATE TRIGGER"),
        Statement::CreateSequence { .. } => refuse("CREATE SEQUENCE"),
        _ => Ok(()),
    }
}

/// Finds `FOR UPDATE` anywhere.
struct Locks;

impl Visitor for Locks {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if query.locks.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

fn has_version(table: &TableWithJoins) -> bool {
    matches!(&table.relation, TableFactor::Table { version: Some(_), .. })
}

fn refuse_in_table(create: &CreateTable) -> Result<()> {
    refuse_if(create.temporary, "CREATE TEMPORARY TABLE")?;
    refuse_if(create.like.is_some(), "CREATE TABLE … LIKE")?;
    refuse_if(create.inherits.is_some(), "CREATE TABLE … INHERITS")?;
    for constraint in &create.constraints {
        match constraint {
            TableConstraint::Check(_) => refuse("a CHECK constraint")?,
            TableConstraint::ForeignKey(_) => refuse("a FOREIGN KEY constraint")?,
            TableConstraint::PrimaryKey(_) | TableConstraint::Unique(_) => {}
            other => refuse(&format!("the constraint {other}"))?,
        }
    }
    for column in &create.columns {
        for option in &column.options {
            match &option.option {
                ColumnOption::Check(_) => refuse("a CHECK constraint")?,
                ColumnOption::ForeignKey(_) => refuse("a FOREIGN KEY constraint")?,
                ColumnOption::Null
                | ColumnOption::NotNull
                | ColumnOption::Default(_)
                | ColumnOption::PrimaryKey(_)
                | ColumnOption::Unique(_) => {}
                other => refuse(&format!("the option {other} of column {}", column.name))?,
            }
        }
    }
    Ok(())
}

/// An error of kind `Unsupported` if `present`.
pub(super) fn refuse_if(present: bool, what: &str) -> Result<()> {
    if present { refuse(what) } else { Ok(()) }
}

/// An error of kind `Unsupported`.
pub(super) fn refuse<T>(what: &str) -> Result<T> {
    Err(Error::unsupported(format!("not supported: {what}")))
}
