//! `grizzly.nodes`: the nodes of the cluster as this one sees them when the statement runs.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use datafusion::{
    catalog::{TableProvider, streaming::StreamingTable},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::stream;

use super::node::Cluster;

/// The table.
pub(super) fn table(cluster: &Cluster) -> Result<Arc<dyn TableProvider>> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("url", DataType::Utf8, false),
        Field::new("state", DataType::Utf8, false),
        Field::new("is_own", DataType::Boolean, false),
        Field::new("version", DataType::Utf8, false),
        Field::new("started", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]));
    let nodes = Nodes { cluster: cluster.clone(), schema: Arc::clone(&schema) };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(nodes)])?))
}

#[derive(Debug)]
struct Nodes {
    cluster: Cluster,
    schema: SchemaRef,
}

impl Nodes {
    fn batch(&self) -> Result<RecordBatch> {
        let nodes = self.cluster.nodes();
        let urls = StringArray::from_iter_values(nodes.iter().map(|node| &node.url));
        let states = StringArray::from_iter_values(nodes.iter().map(|node| node.state.name()));
        let own: BooleanArray = nodes.iter().map(|node| Some(node.is_own)).collect();
        let versions = StringArray::from_iter_values(nodes.iter().map(|node| &node.version));
        let started = nodes.iter().map(|node| i64::try_from(node.started_micros).unwrap_or(i64::MAX));
        let started = TimestampMicrosecondArray::from_iter_values(started).with_timezone("UTC");
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(urls), Arc::new(states), Arc::new(own), Arc::new(versions), Arc::new(started)];
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(DataFusionError::from)
    }
}

impl PartitionStream for Nodes {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::iter([self.batch()])))
    }
}
