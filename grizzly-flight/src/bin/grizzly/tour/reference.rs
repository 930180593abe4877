//! Plain DataFusion on the same rows: what the queries are checked against.
//!
//! Tables are kept in memory from the smallest on, as far as a quarter of the memory budget reaches. The larger ones
//! are generated again whenever they are scanned, so that a large scale needs no more memory.

use std::{fmt, sync::Arc};

use arrow::{datatypes::SchemaRef, error::ArrowError};
use datafusion::{
    catalog::streaming::StreamingTable,
    datasource::{MemTable, TableProvider},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::SessionContext,
};
use futures::TryStreamExt;

use super::data::Table;

/// A session without anything of Grizzly's.
pub(crate) fn stock(scale: f64, memory: usize) -> Result<SessionContext, DataFusionError> {
    // Without a limit: DataFusion's hash joins do not spill, and some of these queries need more than any fair share.
    let context = SessionContext::new();
    // A budget, not a sum of money: rounding does not matter.
    let mut budget = memory as f64 / 4.0;
    for table in Table::ALL {
        let wanted = table.estimated_bytes(scale);
        let provider: Arc<dyn TableProvider> = if wanted <= budget {
            budget -= wanted;
            Arc::new(in_memory(table, scale)?)
        } else {
            budget = 0.0;
            Arc::new(generated(table, scale)?)
        };
        context.register_table(table.name(), provider)?;
    }
    Ok(context)
}

fn in_memory(table: Table, scale: f64) -> Result<MemTable, DataFusionError> {
    let parts = table.parts();
    let partitions = (1..=parts).map(|part| table.generate(scale, part, parts).collect::<Result<Vec<_>, ArrowError>>());
    MemTable::try_new(table.schema(), partitions.collect::<Result<Vec<_>, _>>()?)
}

fn generated(table: Table, scale: f64) -> Result<StreamingTable, DataFusionError> {
    let schema = table.schema();
    let parts = table.parts();
    let partition = |part| -> Arc<dyn PartitionStream> {
        Arc::new(GeneratedPart { schema: Arc::clone(&schema), table, scale, part, parts })
    };
    let partitions = (1..=parts).map(partition).collect();
    StreamingTable::try_new(Arc::clone(&schema), partitions)
}

struct GeneratedPart {
    schema: SchemaRef,
    table: Table,
    scale: f64,
    part: i32,
    parts: i32,
}

impl fmt::Debug for GeneratedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.table.name(), self.part, self.parts)
    }
}

impl PartitionStream for GeneratedPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.table.generate(self.scale, self.part, self.parts);
        let batches = futures::stream::iter(rows).map_err(DataFusionError::from);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}
