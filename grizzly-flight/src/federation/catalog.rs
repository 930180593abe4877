//! All tables of a remote database as a DataFusion catalog.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider},
    common::TableReference,
    datasource::{TableProvider, TableType},
    error::Result as DataFusionResult,
};
use grizzly_provider::{ErrorKind, Result};
use parking_lot::RwLock;

use super::{FlightSqlDatabase, RemoteDatabase, RemoteTable};
use crate::client::{ConnectOptions, FlightSqlConnection};

/// Where tables without a schema are shown.
const NO_SCHEMA: &str = "public";

/// The tables of one remote database as a catalog. Their names are read when the catalog is made, and again when a
/// table is asked for that was not among them; their columns whenever they are used.
#[derive(Debug)]
pub struct RemoteCatalog {
    tables: Arc<Tables>,
}

/// The tables of a Flight SQL server; see [`RemoteCatalog::connect`].
pub type FlightSqlCatalog = RemoteCatalog;

#[derive(Debug)]
struct Tables {
    remote: Arc<dyn RemoteDatabase>,
    /// By schema and table.
    names: RwLock<Names>,
}

type Names = BTreeMap<String, BTreeMap<String, TableReference>>;

#[derive(Debug)]
struct RemoteSchema {
    tables: Arc<Tables>,
    name: String,
}

impl RemoteCatalog {
    /// Connects to a Flight SQL server, `grpc://host:port`, and reads the names of the tables of one of its catalogs;
    /// of its own, if `catalog` is `None`.
    pub async fn connect(url: &str, catalog: Option<&str>, options: ConnectOptions) -> Result<Self> {
        let connection = FlightSqlConnection::connect_with(url, options).await?;
        let remote = FlightSqlDatabase::new(connection).await?;
        Self::open(Arc::new(remote.with_catalog(catalog.map(str::to_owned)))).await
    }

    /// Reads the names of a remote's tables.
    pub async fn open(remote: Arc<dyn RemoteDatabase>) -> Result<Self> {
        let tables = Tables { remote, names: RwLock::default() };
        tables.read_names().await?;
        Ok(Self { tables: Arc::new(tables) })
    }
}

impl Tables {
    async fn read_names(&self) -> Result<()> {
        let mut names = Names::new();
        for table in self.remote.tables().await? {
            let schema = table.schema().filter(|schema| !schema.is_empty()).unwrap_or(NO_SCHEMA).to_owned();
            names.entry(schema).or_default().insert(table.table().to_owned(), table);
        }
        *self.names.write() = names;
        Ok(())
    }

    fn find(&self, schema: &str, table: &str) -> Option<TableReference> {
        self.names.read().get(schema)?.get(table).cloned()
    }
}

impl CatalogProvider for RemoteCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.tables.names.read().keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let known = name == NO_SCHEMA || self.tables.names.read().contains_key(name);
        known.then(|| Arc::new(RemoteSchema { tables: Arc::clone(&self.tables), name: name.to_owned() }) as _)
    }
}

#[async_trait]
impl SchemaProvider for RemoteSchema {
    fn table_names(&self) -> Vec<String> {
        let names = self.tables.names.read();
        names.get(&self.name).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if self.tables.find(&self.name, name).is_none() {
            // It may have been made since.
            self.tables.read_names().await?;
        }
        let Some(reference) = self.tables.find(&self.name, name) else { return Ok(None) };
        match RemoteTable::open(Arc::clone(&self.tables.remote), reference).await {
            Ok(table) => Ok(Some(Arc::new(table))),
            // It was dropped since.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Known without asking: a list of all tables must not need all remotes.
    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.find(&self.name, name).is_some()
    }
}
