//! Catalogs, schemas, tables, and tables as flights.

use std::sync::Arc;

use arrow::{
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};
use arrow_flight::{
    FlightDescriptor, FlightInfo,
    sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables},
};
use datafusion::{catalog::SchemaProvider, common::TableReference, datasource::TableType};
use grizzly_provider::{Error, adapter::GrizzlySession};
use tonic::Status;

use super::{Metadata, builder_failed};
use crate::{
    error::{invalid, query_status, status},
    server::stream::wire_schema,
};

const TABLE_TYPES: [&str; 3] = ["TABLE", "VIEW", "LOCAL TEMPORARY"];

impl Metadata for CommandGetCatalogs {
    fn columns(&self) -> SchemaRef {
        self.into_builder().schema()
    }

    async fn rows(self, session: &GrizzlySession) -> Result<RecordBatch, Status> {
        let mut builder = self.into_builder();
        for catalog in catalogs(session) {
            builder.append(catalog);
        }
        builder.build().map_err(builder_failed)
    }
}

impl Metadata for CommandGetDbSchemas {
    fn columns(&self) -> SchemaRef {
        self.clone().into_builder().schema()
    }

    async fn rows(self, session: &GrizzlySession) -> Result<RecordBatch, Status> {
        let mut builder = self.into_builder();
        for (catalog, schema, _) in schemas(session) {
            builder.append(catalog, schema);
        }
        builder.build().map_err(builder_failed)
    }
}

impl Metadata for CommandGetTables {
    fn columns(&self) -> SchemaRef {
        self.clone().into_builder().schema()
    }

    async fn rows(self, session: &GrizzlySession) -> Result<RecordBatch, Status> {
        let wanted = self.clone();
        let mut builder = self.into_builder();
        for (catalog, schema, provider) in schemas(session) {
            // The builder filters as well; this spares loading tables that it would leave out.
            if wanted.catalog.as_ref().is_some_and(|filter| *filter != catalog) {
                continue;
            }
            for name in provider.table_names() {
                let kind = table_type(provider.as_ref(), &name).await?;
                let columns = if wanted.include_schema {
                    wire_schema(&columns(provider.as_ref(), &name).await?)
                } else {
                    Arc::new(Schema::empty())
                };
                builder.append(&catalog, &schema, &name, kind, &columns).map_err(builder_failed)?;
            }
        }
        builder.build().map_err(builder_failed)
    }
}

impl Metadata for CommandGetTableTypes {
    fn columns(&self) -> SchemaRef {
        self.into_builder().schema()
    }

    async fn rows(self, _session: &GrizzlySession) -> Result<RecordBatch, Status> {
        let mut builder = self.into_builder();
        for kind in TABLE_TYPES {
            builder.append(kind);
        }
        builder.build().map_err(builder_failed)
    }
}

fn catalogs(session: &GrizzlySession) -> Vec<String> {
    let mut names = session.context().catalog_names();
    names.sort();
    names
}

fn schemas(session: &GrizzlySession) -> Vec<(String, String, Arc<dyn SchemaProvider>)> {
    let mut found = Vec::new();
    for catalog in catalogs(session) {
        let Some(provider) = session.context().catalog(&catalog) else { continue };
        for schema in provider.schema_names() {
            if let Some(tables) = provider.schema(&schema) {
                found.push((catalog.clone(), schema, tables));
            }
        }
    }
    found
}

async fn table_type(schema: &dyn SchemaProvider, table: &str) -> Result<&'static str, Status> {
    let kind = schema.table_type(table).await.map_err(|error| query_status(&error))?;
    Ok(match kind {
        Some(TableType::View) => "VIEW",
        Some(TableType::Temporary) => "LOCAL TEMPORARY",
        Some(TableType::Base) | None => "TABLE",
    })
}

async fn columns(schema: &dyn SchemaProvider, table: &str) -> Result<SchemaRef, Status> {
    let provider = schema.table(table).await.map_err(|error| query_status(&error))?;
    // A table dropped between the list and the look has no columns any more.
    Ok(provider.map_or_else(|| Arc::new(Schema::empty()), |provider| provider.schema()))
}

/// Every table as a flight whose path is its name. They have no tickets: nothing is planned before a client asks
/// for the info of a path.
pub(crate) async fn table_flights(session: &GrizzlySession) -> Result<Vec<FlightInfo>, Status> {
    let mut flights = Vec::new();
    for (catalog, schema, provider) in schemas(session) {
        for table in provider.table_names() {
            let path = vec![catalog.clone(), schema.clone(), table.clone()];
            let columns = wire_schema(&columns(provider.as_ref(), &table).await?);
            let info = FlightInfo::new().with_descriptor(FlightDescriptor::new_path(path));
            let info = info.try_with_schema(&columns).map_err(|error| status(&Error::from(error)))?;
            flights.push(info.with_total_records(-1).with_total_bytes(-1));
        }
    }
    Ok(flights)
}

/// The query for all rows of the table with this path: `[table]`, `[schema, table]` or `[catalog, schema, table]`.
pub(crate) fn select_path(path: &[String]) -> Result<String, Status> {
    let table = match path {
        [table] => TableReference::bare(table.as_str()),
        [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
        [catalog, schema, table] => TableReference::full(catalog.as_str(), schema.as_str(), table.as_str()),
        _ => return Err(invalid("a path names a table: [catalog, schema, table]")),
    };
    Ok(format!("SELECT * FROM {}", quoted(&table)))
}

/// The name with every part in quotes: names are taken as they are, not folded to lower case.
pub(crate) fn quoted(table: &TableReference) -> String {
    let parts = [table.catalog(), table.schema(), Some(table.table())];
    let parts = parts.into_iter().flatten().map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_quoted_name() {
        let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(select_path(&path(&["Or\"ders"])).expect("one part"), "SELECT * FROM \"Or\"\"ders\"");
        assert_eq!(select_path(&path(&["a", "b", "c"])).expect("three"), "SELECT * FROM \"a\".\"b\".\"c\"");
        assert!(select_path(&[]).is_err());
    }
}
