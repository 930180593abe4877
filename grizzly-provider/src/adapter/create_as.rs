//! A new table together with its rows, for doors other than SQL.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::{
    common::TableReference,
    error::Result,
    execution::context::SessionContext,
    logical_expr::{LogicalPlan, LogicalPlanBuilder, cast, col},
};

use super::{dml::create_and_fill, session_handle::SessionHandle, sql::own_name};
use crate::{
    Error,
    access::{IfExists, TableDefinition},
};

/// Whether a name belongs to the session's own database, and not to another catalog.
pub fn is_own_table(context: &SessionContext, table: &TableReference) -> bool {
    let state = context.state_ref();
    let state = state.read();
    let session = state.config().get_extension::<SessionHandle>();
    session.is_some() && own_name(state.config_options(), table).is_some()
}

/// A plan that creates a table with the columns and rows of `input` when it is executed, in one commit, and yields the
/// number of rows. Nobody sees the table without its rows, or the one that it replaces without it.
///
/// Dictionaries are an encoding, and storage has its own: such columns are stored as what they are dictionaries of.
///
/// # Errors
/// `Unsupported` if the name belongs to another catalog than the session's database, see [`is_own_table`].
pub fn create_table_as(
    context: &SessionContext,
    table: &TableReference,
    existing: IfExists,
    input: LogicalPlan,
) -> Result<LogicalPlan> {
    let state = context.state_ref();
    let state = state.read();
    let missing = || Error::unsupported(format!("{table} is not a table of this database"));
    let session = state.config().get_extension::<SessionHandle>().ok_or_else(missing)?;
    let (schema_name, name) = own_name(state.config_options(), table).ok_or_else(missing)?;
    let fields: Vec<Field> = input.schema().fields().iter().map(|field| stored_field(field)).collect();
    let schema = Arc::new(Schema::new(fields));
    let values = schema.fields().iter().map(|field| {
        let column = col(datafusion::common::Column::from_name(field.name()));
        cast(column, field.data_type().clone()).alias(field.name())
    });
    let input = LogicalPlanBuilder::from(input).project(values)?.build()?;
    let definition = TableDefinition {
        schema_name,
        name,
        schema,
        primary_key: Vec::new(),
        shards: 1,
        shard_by: Vec::new(),
        defaults: Vec::new(),
        indexes: Vec::new(),
    };
    create_and_fill(session.db(), definition, existing, input)
}

/// A column as it is stored, of its value type: dictionaries are an encoding, and storage has its own.
pub fn stored_field(field: &Field) -> Field {
    let kind = match field.data_type() {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    Field::new(field.name(), kind, field.is_nullable())
}
