//! The table a rewritten statement inserts into: DataFusion's planner hands it the physical plan of its input.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result,
    logical_expr::{Expr, TableSource, TableType, dml::InsertOp},
    physical_plan::ExecutionPlan,
};

use std::sync::Arc;

use super::{
    sink::{Action, DmlExec},
    target::{Target, write_target},
};
use crate::{Error, adapter::GrizzlyTable};

/// Turns "insert these rows" into the write the statement asked for.
#[derive(Debug)]
pub(super) struct SinkTable {
    pub(super) target: Target,
    pub(super) action: Action,
    /// Schema of the rows to come.
    pub(super) schema: SchemaRef,
}

/// The id of the Grizzly table that a plan names, to read it or to write to it; `None` if it is none.
pub(crate) fn table_id(source: &Arc<dyn TableSource>) -> Option<u64> {
    let provider = write_target(source)?;
    let sink = provider.downcast_ref::<SinkTable>().map(|sink| &sink.target);
    let written = sink.filter(|target| target.creates.is_none()).map(|target| target.id);
    written.or_else(|| provider.downcast_ref::<GrizzlyTable>().map(GrizzlyTable::id))
}

#[async_trait]
impl TableProvider for SinkTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(Error::internal(format!("the sink of table {} cannot be read", self.target.name)).into())
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        _op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(DmlExec::new(self.target.clone(), self.action.clone(), input)))
    }
}
