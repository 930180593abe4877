//! Small rewrites of assignments: tuples are taken apart, and names are folded, which the planner forgets to do for
//! the columns that UPDATE assigns to.

use datafusion::{
    error::Result,
    execution::SessionState,
    sql::sqlparser::ast::{
        Assignment, AssignmentTarget, Expr, Ident, MergeAction, ObjectName, ObjectNamePart, Statement,
    },
};

use super::names::identifier;
use crate::Error;

/// Brings the assignments of `statement` into the form the planner takes.
pub(super) fn normalize(state: &SessionState, statement: &mut Statement) -> Result<()> {
    match statement {
        // Only ON CONFLICT can refer to the alias.
        Statement::Insert(insert) if insert.on.is_none() => {
            insert.table_alias = None;
            Ok(())
        }
        Statement::Update(update) => assignments(state, &mut update.assignments),
        Statement::Merge(merge) => {
            for clause in &mut merge.clauses {
                if let MergeAction::Update(update) = &mut clause.action {
                    assignments(state, &mut update.assignments)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Turns `(a, B) = (1, 2)` into `a = 1, b = 2`. An error if a column is assigned twice.
pub(super) fn assignments(state: &SessionState, assignments: &mut Vec<Assignment>) -> Result<()> {
    let mut flat = Vec::with_capacity(assignments.len());
    for assignment in assignments.drain(..) {
        match assignment.target {
            AssignmentTarget::ColumnName(name) => flat.push((name, assignment.value)),
            AssignmentTarget::Tuple(names) => match assignment.value {
                Expr::Tuple(values) if values.len() == names.len() => flat.extend(names.into_iter().zip(values)),
                Expr::Nested(value) if names.len() == 1 => {
                    flat.extend(names.into_iter().map(|name| (name, (*value).clone())))
                }
                other => {
                    let message = format!("not supported: assigning {other} to {} columns", names.len());
                    return Err(Error::unsupported(message).into());
                }
            },
        }
    }
    for (name, value) in flat {
        let name = folded(state, name);
        let target = AssignmentTarget::ColumnName(name);
        if assignments.iter().any(|assignment| assignment.target == target) {
            return Err(Error::invalid(format!("{target} is assigned more than once")).into());
        }
        assignments.push(Assignment { target, value });
    }
    Ok(())
}

/// The column alone, folded to lower case unless quoted: whatever qualifies it can only be the target.
fn folded(state: &SessionState, name: ObjectName) -> ObjectName {
    let part = |part: ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) => {
            ObjectNamePart::Identifier(Ident::with_quote('"', identifier(state, &ident)))
        }
        other => other,
    };
    ObjectName(name.0.into_iter().map(part).collect())
}
