//! DataFusion's conditions as the engine's [`Predicate`]s. An expression is first read into a [`Condition`], from a
//! logical `Expr` or a `PhysicalExpr`; a condition then says for which rows it is TRUE, FALSE or NULL. That is how
//! NOT disappears: `NOT c` is true where `c` is false.

mod condition;
mod display;
mod logical;
mod physical;
mod term;

use arrow::datatypes::Schema;
use condition::Truth;
use datafusion::{logical_expr::Expr, physical_plan::PhysicalExpr};

pub(crate) use display::DisplayPredicate;

use crate::access::Predicate;

/// How much of a condition the engine can evaluate.
#[derive(Debug, Clone)]
pub(crate) enum Conversion {
    /// The predicate keeps exactly the rows for which the condition is true.
    Exact(Predicate),
    /// The predicate keeps those rows and others; the condition must be evaluated again.
    Superset(Predicate),
    /// The engine can do nothing with it.
    No,
}

impl Conversion {
    /// The predicate, exact or not.
    pub(crate) fn into_predicate(self) -> Option<Predicate> {
        match self {
            Self::Exact(predicate) | Self::Superset(predicate) => Some(predicate),
            Self::No => None,
        }
    }

    /// The same predicate without the promise that it is the whole condition.
    fn weakened(self) -> Self {
        match self {
            Self::Exact(predicate) => Self::Superset(predicate),
            other => other,
        }
    }
}

/// Converts a filter of the logical plan. `schema` is the table's, system columns included where it has them.
pub(crate) fn convert_logical(expr: &Expr, schema: &Schema) -> Conversion {
    logical::read(expr, schema).when(Truth::True, schema)
}

/// Converts a filter of the physical plan whose column `i` is column `columns[i]` of `schema`.
pub(crate) fn convert_physical(expr: &dyn PhysicalExpr, columns: &[usize], schema: &Schema) -> Conversion {
    physical::read(expr, columns).when(Truth::True, schema)
}

/// Both conditions: one predicate for `WHERE left AND right`, flat.
pub(crate) fn and(left: Option<Predicate>, right: Predicate) -> Predicate {
    match left {
        Some(left) => condition::conjunction(vec![left, right]),
        None => right,
    }
}
