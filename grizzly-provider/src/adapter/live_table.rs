//! Tables whose rows are made when a statement runs: what they tell is never older than that.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider, streaming::StreamingTable},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::stream;

use crate::{Error, ErrorKind};

/// The schema for tables about the database.
const SCHEMA: &str = "grizzly";

/// A table with the columns of `schema`, which `read` makes anew for every statement.
///
/// ```
/// use std::sync::Arc;
/// use datafusion::arrow::{array::{ArrayRef, UInt64Array}, datatypes::{DataType, Field, Schema}};
/// use grizzly_provider::adapter::live_table;
///
/// let schema = Schema::new(vec![Field::new("answer", DataType::UInt64, false)]);
/// let table = live_table(schema, |_| Ok(vec![Arc::new(UInt64Array::from(vec![42])) as ArrayRef]))?;
/// assert_eq!(table.schema().fields().len(), 1);
/// # Ok::<(), datafusion::error::DataFusionError>(())
/// ```
pub fn live_table(
    schema: Schema,
    read: impl Fn(&Arc<TaskContext>) -> Result<Vec<ArrayRef>> + Send + Sync + 'static,
) -> Result<Arc<dyn TableProvider>> {
    let schema = Arc::new(schema);
    let rows = Live { schema: Arc::clone(&schema), read };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(rows)])?))
}

/// Shows `table` as `grizzly.{name}` in `catalog`.
pub fn show_table(catalog: &dyn CatalogProvider, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
    if let Some(schema) = catalog.schema(SCHEMA) {
        // Somebody else's catalog may have such a schema of its own.
        return match schema.downcast_ref::<SystemSchema>() {
            Some(system) => system.tables.register_table(name.to_owned(), table).map(drop),
            None => schema.register_table(name.to_owned(), table).map(drop),
        };
    }
    let schema = SystemSchema { tables: MemorySchemaProvider::new() };
    // First: an empty schema would be made one of the database.
    schema.tables.register_table(name.to_owned(), table)?;
    catalog.register_schema(SCHEMA, Arc::new(schema)).map(drop)
}

/// An error if `schema` is the one for tables about the database: no statement adds to it or takes from it.
pub(super) fn refuse_system_schema(schema: &str, table: &str) -> Result<()> {
    if schema == SCHEMA { Err(refused(table)) } else { Ok(()) }
}

fn refused(name: &str) -> DataFusionError {
    let message =
        format!("schema {SCHEMA} holds the tables about the database and nothing else: {name} is not changed");
    Error::new(ErrorKind::Permission, message).into()
}

/// Tables about the database, which nobody defines or drops.
#[derive(Debug)]
struct SystemSchema {
    tables: MemorySchemaProvider,
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.tables.table(name).await
    }

    fn register_table(&self, name: String, _: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        Err(refused(&name))
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Err(refused(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.table_exist(name)
    }
}

/// A stream of one batch.
struct Live<F> {
    schema: SchemaRef,
    read: F,
}

impl<F> fmt::Debug for Live<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl<F: Fn(&Arc<TaskContext>) -> Result<Vec<ArrayRef>> + Send + Sync> PartitionStream for Live<F> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let columns = (self.read)(&context);
        let batch = columns
            .and_then(|columns| RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(DataFusionError::from));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::iter([batch])))
    }
}
