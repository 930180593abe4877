//! `grizzly.nodes`: the nodes of the cluster as this one sees them when the statement runs.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use datafusion::{catalog::TableProvider, error::Result};
use grizzly_provider::adapter::live_table;

use super::node::Cluster;

/// The table.
pub(super) fn table(cluster: &Cluster) -> Result<Arc<dyn TableProvider>> {
    let schema = Schema::new(vec![
        Field::new("url", DataType::Utf8, false),
        Field::new("state", DataType::Utf8, false),
        Field::new("is_own", DataType::Boolean, false),
        Field::new("version", DataType::Utf8, false),
        Field::new("started", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]);
    let cluster = cluster.clone();
    live_table(schema, move |_| Ok(columns(&cluster)))
}

fn columns(cluster: &Cluster) -> Vec<ArrayRef> {
    let nodes = cluster.nodes();
    let urls = StringArray::from_iter_values(nodes.iter().map(|node| &node.url));
    let states = StringArray::from_iter_values(nodes.iter().map(|node| node.state.name()));
    let own: BooleanArray = nodes.iter().map(|node| Some(node.is_own)).collect();
    let versions = StringArray::from_iter_values(nodes.iter().map(|node| &node.version));
    let started = nodes.iter().map(|node| i64::try_from(node.started_micros).unwrap_or(i64::MAX));
    let started = TimestampMicrosecondArray::from_iter_values(started).with_timezone("UTC");
    vec![Arc::new(urls), Arc::new(states), Arc::new(own), Arc::new(versions), Arc::new(started)]
}
