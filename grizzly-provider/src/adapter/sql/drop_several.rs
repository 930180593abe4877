//! `DROP TABLE a, b` and `DROP VIEW a, b`: the planner takes one name, so this is one statement after the other, begun
//! only if everything that is named is there.

use datafusion::{
    common::TableReference,
    datasource::TableType,
    error::Result,
    execution::SessionState,
    sql::{
        parser::Statement,
        sqlparser::ast::{ObjectName, ObjectType, Statement as SqlStatement},
    },
};

use super::{Front, names::reference};
use crate::Error;

/// Whether `statement` drops several tables or views.
pub(super) fn is_meant(statement: &SqlStatement) -> bool {
    match statement {
        SqlStatement::Drop { object_type: ObjectType::Table | ObjectType::View, names, .. } => names.len() > 1,
        _ => false,
    }
}

/// Carries out a statement that [`is_meant`].
pub(super) async fn run(front: Front<'_>, state: &SessionState, statement: SqlStatement) -> Result<()> {
    for name in names_to_drop(state, &statement).await? {
        let mut one = statement.clone();
        if let SqlStatement::Drop { names, .. } = &mut one {
            *names = vec![name];
        }
        let plan = state.statement_to_plan(Statement::Statement(Box::new(one))).await?;
        front.context.execute_logical_plan(plan).await?;
    }
    Ok(())
}

/// What there is of the names, each once; an error of kind `NotFound` unless all are there or need not be.
async fn names_to_drop(state: &SessionState, statement: &SqlStatement) -> Result<Vec<ObjectName>> {
    let SqlStatement::Drop { object_type, if_exists, names, .. } = statement else {
        return Err(Error::internal(format!("{statement} drops nothing")).into());
    };
    let wanted = if *object_type == ObjectType::View { TableType::View } else { TableType::Base };
    let mut found: Vec<(TableReference, ObjectName)> = Vec::with_capacity(names.len());
    for name in names {
        let reference = reference(state, name)?;
        if kind(state, &reference).await? == Some(wanted) {
            if found.iter().all(|(known, _)| *known != reference) {
                found.push((reference, name.clone()));
            }
        } else if !if_exists {
            let message = format!("{object_type} {reference} does not exist; nothing was dropped");
            return Err(Error::not_found(message).into());
        }
    }
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

async fn kind(state: &SessionState, reference: &TableReference) -> Result<Option<TableType>> {
    match state.schema_for_ref(reference.clone()) {
        Ok(schema) => schema.table_type(reference.table()).await,
        Err(_) => Ok(None),
    }
}
