//! The table a statement writes to, found again when it is executed.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{
    catalog::TableProvider,
    common::{Column, TableReference},
    datasource::{DefaultTableSource, provider_as_source},
    error::Result as DfResult,
    logical_expr::{LogicalPlan, LogicalPlanBuilder, TableSource},
};

use crate::{
    Error, Grizzly, Result, Snapshot, TableSnapshot,
    access::{IfExists, TableDefinition},
    adapter::GrizzlyTable,
};

/// A table by its id, so that a prepared statement never writes to another table of the same name.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) db: Grizzly,
    pub(crate) id: u64,
    /// For messages and EXPLAIN.
    pub(crate) name: String,
    pub(crate) schema: SchemaRef,
    /// The table that the statement creates for its rows; `id` says nothing then.
    pub(crate) creates: Option<Arc<NewTable>>,
}

/// A table that a statement creates for its rows.
#[derive(Debug)]
pub(crate) struct NewTable {
    pub(crate) definition: TableDefinition,
    pub(crate) existing: IfExists,
}

impl Target {
    pub(crate) fn of(table: &GrizzlyTable) -> Self {
        let (db, name) = (table.db().clone(), table.name().to_owned());
        Self { db, id: table.id(), name, schema: table.schema(), creates: None }
    }

    /// A table that is not there before the statement runs.
    pub(crate) fn new(db: &Grizzly, definition: TableDefinition, existing: IfExists) -> Self {
        let name = format!("{}.{}", definition.schema_name, definition.name);
        let schema = Arc::clone(&definition.schema);
        Self { db: db.clone(), id: 0, name, schema, creates: Some(Arc::new(NewTable { definition, existing })) }
    }

    /// The table in `snapshot`. An error of kind `NotFound` if it was dropped.
    pub(crate) fn at(&self, snapshot: &Snapshot) -> Result<TableSnapshot> {
        snapshot.table_called(self.id, &self.name)
    }
}

/// What writing calls take: the table's present name with its schema.
pub(crate) fn full_name(table: &TableSnapshot) -> String {
    let (schema, name) = table.name();
    format!("{schema}.{name}")
}

/// The Grizzly table behind a table of a plan, if it is one.
pub(crate) fn grizzly_table(source: &Arc<dyn TableSource>) -> Option<&GrizzlyTable> {
    write_target(source)?.downcast_ref::<GrizzlyTable>()
}

/// The provider behind a table of a plan.
pub(crate) fn write_target(source: &Arc<dyn TableSource>) -> Option<&Arc<dyn TableProvider>> {
    Some(&source.downcast_ref::<DefaultTableSource>()?.table_provider)
}

/// An error of kind `Unsupported` if this is history, which nobody writes.
pub(crate) fn check_writable(table: &GrizzlyTable) -> Result<()> {
    if table.reads_as_of().is_none() && !table.reads_all_versions() {
        return Ok(());
    }
    Err(Error::unsupported(format!("the history of table {} cannot be written", table.name())))
}

/// The column of [`scan_with_row_id`] that carries row ids from the scan to the sink.
pub(crate) fn row_id(qualifier: &TableReference, table: &GrizzlyTable) -> Column {
    let schema = table.with_row_id().schema();
    Column::new(Some(qualifier.clone()), schema.field(table.own_columns()).name())
}

/// A scan of all columns and the row id.
pub(crate) fn scan_with_row_id(name: &TableReference, table: &GrizzlyTable) -> DfResult<LogicalPlan> {
    let source = provider_as_source(Arc::new(table.with_row_id()));
    LogicalPlanBuilder::scan(name.clone(), source, None)?.build()
}
