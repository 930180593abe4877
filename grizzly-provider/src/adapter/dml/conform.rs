//! Rows as the table wants them: its types, its NOT NULLs.

use arrow::{
    array::{Array, ArrayRef},
    compute::{CastOptions, cast_with_options},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};

use super::target::Target;
use crate::{Error, ErrorKind, Result};

/// Makes a batch of the table out of `columns`, given in the table's order. An error names table and column.
pub(super) fn conform(target: &Target, columns: &[ArrayRef]) -> Result<RecordBatch> {
    let schema: &SchemaRef = &target.schema;
    if columns.len() != schema.fields().len() {
        let (given, wanted) = (columns.len(), schema.fields().len());
        return Err(Error::invalid(format!("table {} has {wanted} columns, not {given}", target.name)));
    }
    let mut conformed = Vec::with_capacity(columns.len());
    for (field, column) in schema.fields().iter().zip(columns) {
        let column = if column.data_type() == field.data_type() {
            column.clone()
        } else {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(column, field.data_type(), &options).map_err(|error| {
                let place = format!("a value does not fit column {} of table {}", field.name(), target.name);
                Error::invalid(place).with_source(error)
            })?
        };
        if !field.is_nullable() && column.logical_null_count() > 0 {
            let message = format!("column {} of table {} may not be NULL", field.name(), target.name);
            return Err(Error::new(ErrorKind::NotNullViolation, message));
        }
        conformed.push(column);
    }
    Ok(RecordBatch::try_new(schema.clone(), conformed)?)
}
