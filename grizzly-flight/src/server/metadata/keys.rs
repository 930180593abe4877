//! Primary keys, and foreign keys, of which there are none.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Array, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys,
};
use datafusion::common::{Constraint, TableReference};
use grizzly_provider::{Error, adapter::GrizzlySession};
use tonic::Status;

use super::Metadata;
use crate::error::{query_status, status};

impl Metadata for CommandGetPrimaryKeys {
    fn columns(&self) -> SchemaRef {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        Arc::new(Schema::new(vec![
            text("catalog_name", true),
            text("db_schema_name", true),
            text("table_name", false),
            text("column_name", false),
            Field::new("key_sequence", DataType::Int32, false),
            text("key_name", true),
        ]))
    }

    async fn rows(self, session: &GrizzlySession) -> Result<RecordBatch, Status> {
        let schema = self.columns();
        let table = reference(&self, session);
        let provider = session.context().table_provider(table.clone()).await.map_err(|error| query_status(&error))?;
        let columns = provider.schema();
        let key = provider.constraints().and_then(|constraints| {
            constraints.iter().find_map(|constraint| match constraint {
                Constraint::PrimaryKey(columns) => Some(columns.clone()),
                Constraint::Unique(_) => None,
            })
        });
        let names: Vec<&str> = key.iter().flatten().map(|&at| columns.field(at).name().as_str()).collect();
        let rows = names.len();
        let same = |value: Option<&str>| Arc::new(StringArray::from(vec![value; rows])) as ArrayRef;
        let numbers = Int32Array::from_iter_values((1..).take(rows));
        let arrays = vec![
            same(table.catalog()),
            same(table.schema()),
            same(Some(table.table())),
            Arc::new(StringArray::from(names)),
            Arc::new(numbers),
            same(Some("primary")),
        ];
        RecordBatch::try_new(schema, arrays).map_err(|error| status(&Error::from(error)))
    }
}

/// The full name of the table that is asked about.
fn reference(command: &CommandGetPrimaryKeys, session: &GrizzlySession) -> TableReference {
    let state = session.context().state();
    let defaults = &state.config_options().catalog;
    let or_default = |given: &Option<String>, default: &str| match given.as_deref() {
        Some(given) if !given.is_empty() => given.to_owned(),
        _ => default.to_owned(),
    };
    let catalog = or_default(&command.catalog, &defaults.default_catalog);
    let schema = or_default(&command.db_schema, &defaults.default_schema);
    TableReference::full(catalog, schema, command.table.as_str())
}

/// The columns of all three questions about foreign keys.
fn foreign_key_columns() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// There are no foreign keys, so there is nothing to tell.
macro_rules! no_foreign_keys {
    ($($command:ty),*) => {$(
        impl Metadata for $command {
            fn columns(&self) -> SchemaRef {
                foreign_key_columns()
            }

            async fn rows(self, _session: &GrizzlySession) -> Result<RecordBatch, Status> {
                Ok(RecordBatch::new_empty(foreign_key_columns()))
            }
        }
    )*};
}

no_foreign_keys!(CommandGetExportedKeys, CommandGetImportedKeys, CommandGetCrossReference);
