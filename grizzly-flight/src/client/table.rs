//! A table of a Flight SQL server as a DataFusion table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::TableReference,
    datasource::{TableProvider, TableType},
    error::Result as DataFusionResult,
    logical_expr::{Expr, TableProviderFilterPushDown},
    physical_plan::ExecutionPlan,
};
use grizzly_provider::{Error, ErrorKind, Result};

use super::{ConnectOptions, FlightSqlConnection, RemoteScanExec, filter};

/// A table on a Flight SQL server. Projections, limits, and the filters on an allow-list are sent along as SQL; what
/// is sent is in EXPLAIN. Every error names the server.
#[derive(Debug, Clone)]
pub struct RemoteTable {
    connection: FlightSqlConnection,
    name: TableReference,
    schema: SchemaRef,
}

impl RemoteTable {
    /// Connects to `grpc://host:port` and asks for the columns of `table`.
    pub async fn connect(url: &str, table: impl Into<TableReference>) -> Result<Self> {
        Self::connect_with(url, table, ConnectOptions::default()).await
    }

    /// The same with options.
    pub async fn connect_with(url: &str, table: impl Into<TableReference>, options: ConnectOptions) -> Result<Self> {
        Self::new(FlightSqlConnection::connect_with(url, options).await?, table).await
    }

    /// Asks an open connection for the columns of `table`. Names are taken as they are, upper case included.
    pub async fn new(connection: FlightSqlConnection, table: impl Into<TableReference>) -> Result<Self> {
        let name = table.into();
        let schema = connection.schema(&format!("SELECT * FROM {}", quoted(&name))).await?;
        if schema.fields().is_empty() {
            let message = format!("{}: table {name} has no columns", connection.url());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Self { connection, name, schema })
    }

    /// The query that returns these columns of these rows.
    fn select(&self, columns: &SchemaRef, filters: &[Expr], limit: Option<usize>) -> DataFusionResult<String> {
        let names: Vec<String> = columns.fields().iter().map(|field| identifier(field.name())).collect();
        // SQL knows no empty select list; rows are counted by a constant.
        let list = if names.is_empty() { "1".to_owned() } else { names.join(", ") };
        let mut sql = format!("SELECT {list} FROM {}", quoted(&self.name));
        if let Some(condition) = filter::to_sql(filters)? {
            sql.push_str(&format!(" WHERE {condition}"));
        }
        if let Some(limit) = limit {
            sql.push_str(&format!(" LIMIT {limit}"));
        }
        Ok(sql)
    }
}

#[async_trait]
impl TableProvider for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let class = |filter: &&Expr| {
            if filter::is_allowed(filter) {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        };
        Ok(filters.iter().map(class).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let columns = match projection {
            Some(projection) => Arc::new(self.schema.project(projection)?),
            None => Arc::clone(&self.schema),
        };
        let sql = self.select(&columns, filters, limit)?;
        Ok(Arc::new(RemoteScanExec::new(self.connection.clone(), sql, columns)))
    }
}

fn quoted(table: &TableReference) -> String {
    let parts = [table.catalog(), table.schema(), Some(table.table())];
    parts.into_iter().flatten().map(identifier).collect::<Vec<_>>().join(".")
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
