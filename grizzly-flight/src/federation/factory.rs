//! Remotes by address, and `CREATE EXTERNAL TABLE … STORED AS FLIGHTSQL`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider, TableProviderFactory},
    common::TableReference,
    error::Result as DataFusionResult,
    logical_expr::CreateExternalTable,
};
use futures::future::BoxFuture;
use grizzly_provider::{Error, ErrorKind, Result};

use super::{FlightSqlDatabase, Location, RemoteCatalog, RemoteDatabase, RemoteTable};

/// Opens the remote database at an address, by its scheme: `grpc://` for Flight SQL.
pub fn open(location: &Location) -> BoxFuture<'_, Result<Arc<dyn RemoteDatabase>>> {
    Box::pin(by_scheme(location))
}

async fn by_scheme(location: &Location) -> Result<Arc<dyn RemoteDatabase>> {
    match location.scheme() {
        "grpc" | "grpc+tcp" | "http" | "grpc+tls" | "https" => {
            Ok(Arc::new(FlightSqlDatabase::connect(location).await?))
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(super::PostgresDatabase::connect(location.clone()).await?)),
        #[cfg(not(feature = "postgres"))]
        "postgres" | "postgresql" => {
            let message = format!("{location}: this build has no PostgreSQL: build it with --features postgres");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(super::SqliteDatabase::open(location).await?)),
        #[cfg(not(feature = "sqlite"))]
        "sqlite" => {
            let message = format!("{location}: this build has no SQLite: build it with --features sqlite");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        other => {
            let message = format!("{location}: unknown scheme {other}, expected grpc://host:port");
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

/// Opens the remote database at an address and lists its tables: what `--attach NAME=URL` does.
pub async fn attach(url: &str) -> Result<RemoteCatalog> {
    RemoteCatalog::open(open(&Location::parse(url)?).await?).await
}

/// Makes the tables of `CREATE EXTERNAL TABLE t STORED AS FLIGHTSQL LOCATION 'grpc://host:port'`. The remote's table
/// is named by the option `flightsql.table`, as SQL would name it, or is called like the table itself; further options
/// are `flightsql.token`, `flightsql.connect_timeout` and `flightsql.timeout`.
#[derive(Debug)]
pub struct RemoteTableFactory {
    /// What options begin with.
    prefix: &'static str,
}

impl RemoteTableFactory {
    /// For tables whose options begin with `prefix`.
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix }
    }

    async fn open(&self, command: &CreateExternalTable) -> Result<RemoteTable> {
        let invalid = |why: &str| {
            let format = self.prefix.to_uppercase();
            Error::new(ErrorKind::Invalid, format!("table {} STORED AS {format}: {why}", command.name))
        };
        let [location] = command.locations.as_slice() else { return Err(invalid("expected one LOCATION")) };
        if !command.schema.fields().is_empty() {
            return Err(invalid("its columns are those of the remote table and cannot be given here"));
        }
        if !command.table_partition_cols.is_empty() || !command.order_exprs.is_empty() {
            return Err(invalid("PARTITIONED BY and WITH ORDER mean nothing for it"));
        }
        let mut location = Location::parse(location)?;
        let table = location.apply(self.prefix, &command.options)?;
        let table = match table {
            Some(name) => TableReference::from(name),
            None => TableReference::bare(command.name.table()),
        };
        RemoteTable::open(open(&location).await?, table).await
    }
}

#[async_trait]
impl TableProviderFactory for RemoteTableFactory {
    async fn create(
        &self,
        _state: &dyn Session,
        command: &CreateExternalTable,
    ) -> DataFusionResult<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.open(command).await?))
    }
}
