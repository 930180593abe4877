//! All tables of a Flight SQL server as a DataFusion catalog.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::DataType,
    record_batch::RecordBatch,
};
use arrow_flight::sql::CommandGetTables;
use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider},
    common::TableReference,
    datasource::TableProvider,
    error::Result as DataFusionResult,
};
use grizzly_provider::{Error, ErrorKind, Result};

use super::{ConnectOptions, FlightSqlConnection, RemoteTable};

/// A server's tables. Their names are read when the catalog is made, their columns when they are used.
#[derive(Debug)]
pub struct RemoteCatalog {
    schemas: BTreeMap<String, Arc<RemoteSchema>>,
}

#[derive(Debug)]
struct RemoteSchema {
    connection: FlightSqlConnection,
    catalog: Option<String>,
    name: String,
    tables: BTreeSet<String>,
}

impl RemoteCatalog {
    /// Connects to `grpc://host:port` and reads the names of the tables of one of its catalogs; of all, if `catalog`
    /// is `None`.
    pub async fn connect(url: &str, catalog: Option<&str>, options: ConnectOptions) -> Result<Self> {
        let connection = FlightSqlConnection::connect_with(url, options).await?;
        let command = CommandGetTables { catalog: catalog.map(str::to_owned), ..CommandGetTables::default() };
        let mut names: BTreeMap<(Option<String>, String), BTreeSet<String>> = BTreeMap::new();
        for batch in connection.ask(&command).await? {
            let unexpected = |error: arrow::error::ArrowError| {
                let message = format!("{url}: the list of tables has unexpected columns");
                Error::new(ErrorKind::Invalid, message).with_source(error)
            };
            for (catalog, schema, table) in table_names(&batch).map_err(unexpected)? {
                names.entry((catalog, schema)).or_default().insert(table);
            }
        }
        let schemas = names.into_iter().map(|((catalog, name), tables)| {
            let schema = RemoteSchema { connection: connection.clone(), catalog, name: name.clone(), tables };
            (name, Arc::new(schema))
        });
        Ok(Self { schemas: schemas.collect() })
    }
}

/// Catalog, schema and table of each row.
fn table_names(
    batch: &RecordBatch,
) -> std::result::Result<Vec<(Option<String>, String, String)>, arrow::error::ArrowError> {
    let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
    let (catalogs, schemas, tables) = (text(0)?, text(1)?, text(2)?);
    let at = |column: &dyn Array, row: usize| {
        let column = column.as_string::<i32>();
        (!column.is_null(row)).then(|| column.value(row).to_owned())
    };
    let names = (0..batch.num_rows()).filter_map(|row| {
        let table = at(tables.as_ref(), row)?;
        Some((at(catalogs.as_ref(), row), at(schemas.as_ref(), row).unwrap_or_default(), table))
    });
    Ok(names.collect())
}

impl CatalogProvider for RemoteCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.schemas.get(name).map(|schema| Arc::clone(schema) as Arc<dyn SchemaProvider>)
    }
}

#[async_trait]
impl SchemaProvider for RemoteSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.iter().cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if !self.tables.contains(name) {
            return Ok(None);
        }
        let reference = match (&self.catalog, self.name.as_str()) {
            (Some(catalog), schema) if !schema.is_empty() => TableReference::full(catalog.as_str(), schema, name),
            (None, schema) if !schema.is_empty() => TableReference::partial(schema, name),
            _ => TableReference::bare(name),
        };
        let table = RemoteTable::new(self.connection.clone(), reference).await?;
        Ok(Some(Arc::new(table)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains(name)
    }
}
