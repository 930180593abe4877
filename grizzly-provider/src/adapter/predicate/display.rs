//! A predicate as SQL would write it, for EXPLAIN.

use std::fmt;

use arrow::{array::ArrayRef, datatypes::Schema, util::display::array_value_to_string};

use crate::access::{ColumnTest, CompareOp, Predicate};

/// How many values of an IN list EXPLAIN shows.
const SHOWN_VALUES: usize = 8;

/// Shows a predicate with the column names of a schema.
pub(crate) struct DisplayPredicate<'a> {
    /// What to show.
    pub(crate) predicate: &'a Predicate,
    /// The table's columns, system columns included.
    pub(crate) schema: &'a Schema,
}

impl fmt::Display for DisplayPredicate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(self.predicate, f)
    }
}

impl DisplayPredicate<'_> {
    fn write(&self, predicate: &Predicate, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match predicate {
            Predicate::Test { column, test } => self.write_test(*column, test, f),
            Predicate::CompareColumns { left, op, right } => {
                write!(f, "{} {} {}", self.name(*left), symbol(*op), self.name(*right))
            }
            Predicate::And(parts) => self.write_list(parts, " AND ", f),
            Predicate::Or(parts) => self.write_list(parts, " OR ", f),
            Predicate::Constant(value) => write!(f, "{value}"),
        }
    }

    fn write_list(&self, parts: &[Predicate], between: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                f.write_str(between)?;
            }
            match part {
                Predicate::And(_) | Predicate::Or(_) => {
                    f.write_str("(")?;
                    self.write(part, f)?;
                    f.write_str(")")?;
                }
                other => self.write(other, f)?,
            }
        }
        Ok(())
    }

    fn write_test(&self, column: usize, test: &ColumnTest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name(column);
        match test {
            ColumnTest::Compare { op, value } => write!(f, "{name} {} {}", symbol(*op), text(value, 0)),
            ColumnTest::IsNull => write!(f, "{name} IS NULL"),
            ColumnTest::IsNotNull => write!(f, "{name} IS NOT NULL"),
            ColumnTest::InList { values, negated } => {
                let shown: Vec<String> = (0..values.len().min(SHOWN_VALUES)).map(|i| text(values, i)).collect();
                let more = if values.len() > SHOWN_VALUES { ", ..." } else { "" };
                write!(f, "{name} {}IN ({}{more})", if *negated { "NOT " } else { "" }, shown.join(", "))
            }
        }
    }

    fn name(&self, column: usize) -> &str {
        self.schema.fields().get(column).map_or("?", |field| field.name())
    }
}

fn text(values: &ArrayRef, i: usize) -> String {
    array_value_to_string(values, i).unwrap_or_else(|_| "?".to_owned())
}

fn symbol(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Eq => "=",
        CompareOp::NotEq => "!=",
        CompareOp::Lt => "<",
        CompareOp::LtEq => "<=",
        CompareOp::Gt => ">",
        CompareOp::GtEq => ">=",
    }
}
