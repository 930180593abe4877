//! Sessions whose queries run on several nodes.

use std::sync::Arc;

use datafusion::{error::Result, execution::SessionStateBuilder};
use grizzly_provider::adapter::{GrizzlySessionExt, show_table};

use super::{node::Cluster, nodes_table, planner::ClusterPlanner};

/// The catalog that shows the database's tables.
const NAME: &str = "grizzly";
const NODES: &str = "nodes";

/// Makes a DataFusion session one of a node of a cluster.
pub trait GrizzlyClusterExt: Sized {
    /// What `with_grizzly` does, and more: queries that look at many rows (`SET grizzly.distribute_rows`) run on all
    /// nodes of the cluster, and `grizzly.nodes` lists them. Call it instead of `with_grizzly`.
    ///
    /// # Errors
    /// If tables about the database cannot be registered.
    fn with_grizzly_cluster(self, cluster: &Cluster) -> Result<Self>;
}

impl GrizzlyClusterExt for SessionStateBuilder {
    fn with_grizzly_cluster(mut self, cluster: &Cluster) -> Result<Self> {
        let mut config = self.config().take().unwrap_or_default();
        // A subquery is a join, then: the operator that runs it otherwise lives on one node.
        config.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        // A scan of one stream is never divided.
        config.options_mut().execution.target_partitions = config.target_partitions().max(2);
        let planner = ClusterPlanner::around(self.query_planner().take(), cluster);
        let mut builder = self.with_config(config).with_query_planner(Arc::new(planner)).with_grizzly(cluster.db());
        if let Some(catalog) = builder.catalog_list().as_ref().and_then(|catalogs| catalogs.catalog(NAME)) {
            show_table(catalog.as_ref(), NODES, nodes_table::table(cluster)?)?;
        }
        Ok(builder)
    }
}
