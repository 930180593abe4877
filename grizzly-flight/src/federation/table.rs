//! A table, or a query, of a remote database as a DataFusion table.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{
        Column as ColumnName, DFSchema, DFSchemaRef, TableReference,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    datasource::{TableProvider, TableType},
    error::Result as DataFusionResult,
    logical_expr::{Expr, MergeIntoClause, TableProviderFilterPushDown, dml::InsertOp},
    physical_plan::ExecutionPlan,
};
use grizzly_provider::{Error, ErrorKind, Result};

use super::{
    FlightSqlDatabase, RemoteDatabase, RemoteInsertExec, RemoteScanExec,
    candidate::conjunction,
    expression::{Writer, quoted_name},
    select::{Column, Select},
};
use crate::{FlightSqlConnection, client::ConnectOptions};

/// A table of a remote database. Projections, limits, and the filters that mean there what they mean here are sent
/// along as SQL, which is in EXPLAIN; in a session [with federation](super::FederationExt), joins, aggregates and top-k
/// too. INSERT is passed on; other writes are refused. Every error names the remote.
#[derive(Clone)]
pub struct RemoteTable {
    remote: Arc<dyn RemoteDatabase>,
    /// `None` if it is a query.
    name: Option<TableReference>,
    select: Select,
    schema: SchemaRef,
}

impl RemoteTable {
    /// Connects to a Flight SQL server, `grpc://host:port`, and asks for the columns of `table`.
    pub async fn connect(url: &str, table: impl Into<TableReference>) -> Result<Self> {
        Self::connect_with(url, table, ConnectOptions::default()).await
    }

    /// The same with options.
    pub async fn connect_with(url: &str, table: impl Into<TableReference>, options: ConnectOptions) -> Result<Self> {
        let connection = FlightSqlConnection::connect_with(url, options).await?;
        Self::open(Arc::new(FlightSqlDatabase::new(connection).await?), table).await
    }

    /// Asks a remote for the columns of `table`.
    pub async fn open(remote: Arc<dyn RemoteDatabase>, table: impl Into<TableReference>) -> Result<Self> {
        let name = table.into();
        let schema = remote.table_schema(&name).await?;
        if schema.fields().is_empty() {
            let message = format!("{}: table {name} has no columns", remote.name());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let columns = schema.fields().iter().map(|field| field.name().clone());
        let select = Select::table(quoted(&name), columns);
        Ok(Self { remote, name: Some(name), select, schema })
    }

    /// What a query of `remote` returns: the columns of `schema`, in order.
    pub(super) fn of_query(remote: Arc<dyn RemoteDatabase>, select: Select, schema: SchemaRef) -> Self {
        Self { remote, name: None, select, schema }
    }

    /// The database it is in.
    pub fn remote(&self) -> &Arc<dyn RemoteDatabase> {
        &self.remote
    }

    /// The query for all of it.
    pub(super) fn sql(&self) -> String {
        self.select.sql()
    }

    /// Its rows that meet all filters; an error if one of them cannot be sent.
    pub(super) fn select_where(&self, filters: &[Expr]) -> DataFusionResult<Select> {
        let Some(condition) = conjunction(filters)? else { return Ok(self.select.clone()) };
        let select = self.select.clone().rows();
        let condition = self.write(&condition, &select)?.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("{}: the filter {condition} cannot be sent", self.remote.name()))
        })?;
        Ok(select.filtered(condition))
    }

    fn write(&self, expr: &Expr, select: &Select) -> DataFusionResult<Option<String>> {
        let schema = DFSchema::try_from(self.schema.as_ref().clone())?;
        Ok(Writer { dialect: self.remote.dialect(), schema: &schema, columns: &select.texts() }.write(expr))
    }

    fn refuse<T>(&self, statement: &str) -> DataFusionResult<T> {
        let name = self.name.as_ref().map_or_else(|| "a query".to_owned(), ToString::to_string);
        let message = format!("{}: {statement} on the remote table {name} is not supported", self.remote.name());
        Err(Error::new(ErrorKind::Unsupported, message).into())
    }
}

impl fmt::Debug for RemoteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTable").field("remote", &self.remote.name()).field("sql", &self.sql()).finish()
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
            let written = self.write(&unqualified((*filter).clone())?, &self.select)?;
            Ok(match written {
                Some(_) => TableProviderFilterPushDown::Exact,
                None => TableProviderFilterPushDown::Unsupported,
            })
        };
        filters.iter().map(class).collect()
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut select = self.select_where(filters)?;
        let mut schema = Arc::clone(&self.schema);
        if let Some(projection) = projection {
            let columns: Vec<Column> = projection.iter().filter_map(|at| select.columns.get(*at).cloned()).collect();
            select = select.with_columns(columns);
            schema = Arc::new(schema.project(projection)?);
        }
        if let Some(limit) = limit {
            select = select.limited(0, limit);
        }
        Ok(Arc::new(RemoteScanExec::new(Arc::clone(&self.remote), select.sql(), schema)))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match (&self.name, insert_op) {
            (Some(name), InsertOp::Append) => {
                Ok(Arc::new(RemoteInsertExec::new(Arc::clone(&self.remote), name.clone(), input)))
            }
            (_, other) => self.refuse(&other.to_string()),
        }
    }

    async fn delete_from(&self, _: &dyn Session, _: Vec<Expr>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.refuse("DELETE")
    }

    async fn update(
        &self,
        _: &dyn Session,
        _: Vec<(String, Expr)>,
        _: Vec<Expr>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.refuse("UPDATE")
    }

    async fn truncate(&self, _: &dyn Session) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.refuse("TRUNCATE")
    }

    async fn merge_into(
        &self,
        _: &dyn Session,
        _: Arc<dyn ExecutionPlan>,
        _: DFSchemaRef,
        _: Expr,
        _: Vec<MergeIntoClause>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.refuse("MERGE")
    }
}

/// The expression without the table's name before its columns.
pub(super) fn unqualified(expr: Expr) -> DataFusionResult<Expr> {
    let bare = |expr| {
        Ok(match expr {
            Expr::Column(column) if column.relation.is_some() => {
                Transformed::yes(Expr::Column(ColumnName::from_name(column.name)))
            }
            other => Transformed::no(other),
        })
    };
    expr.transform(bare).data()
}

/// The table's name with every part in quotes: taken as it is, upper case included.
pub(super) fn quoted(table: &TableReference) -> String {
    let parts = [table.catalog(), table.schema(), Some(table.table())];
    parts.into_iter().flatten().map(quoted_name).collect::<Vec<_>>().join(".")
}
