//! One plan for one set of nodes: scans fixed to one commit, the plan cut into stages, tasks given to nodes.
//!
//! datafusion-distributed cuts the plan. It asks here how many tasks a scan may be divided into, what each task reads,
//! and where the tasks of a stage go.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    error::Result,
    execution::{SessionStateBuilder, TaskContext, context::QueryPlanner},
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, coalesce_partitions::CoalescePartitionsExec,
        execution_plan::reset_plan_states,
    },
    prelude::SessionConfig,
};
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DesiredTaskCountHandler, DistributedExt, DistributedLeafExec,
    RouteTasksEvent, RouteTasksEventResponse, RouteTasksHandler, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse,
    ScaleUpLeafNodeHandler, SessionStateBuilderExt, WorkerResolver,
};
use datafusion_proto::{
    bytes::{physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter},
    physical_plan::DeduplicatingProtoConverter,
};
use grizzly_provider::{
    access::Csn,
    adapter::{GrizzlyScanExec, MetadataAggregateExec, UnhurriedExec, task_context},
};
use url::Url;

use super::{channel::Resolver, codec::ScanCodec, node::Cluster, placement::Placement, worker};

/// What a plan is divided by.
#[derive(Debug, Clone)]
pub(super) struct Division {
    pub(super) placement: Arc<Placement>,
    /// The node that plans, and reads the result.
    pub(super) own: Url,
    /// Rows that are worth a task of their own.
    pub(super) rows_per_task: u64,
}

/// A plan that is ready to run on several nodes, and the settings it runs under.
#[derive(Debug)]
pub(super) struct Distributed {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    config: SessionConfig,
}

impl Distributed {
    /// Divides `plan` among the nodes; every scan reads the state right after commit `csn`. `None` if some of it cannot
    /// travel, functions that other nodes do not know for instance.
    pub(super) async fn plan(
        cluster: &Cluster,
        plan: &Arc<dyn ExecutionPlan>,
        csn: Csn,
        division: Division,
        config: &SessionConfig,
    ) -> Result<Option<Self>> {
        let pinned = pinned(plan, csn)?;
        if let Err(error) = travel(cluster, &pinned) {
            tracing::debug!(%error, "a query stays on this node");
            return Ok(None);
        }
        let config = configured(cluster, csn, division, config.clone())?;
        let mut builder = SessionStateBuilder::new()
            .with_config(config)
            .with_query_planner(Arc::new(Ready(pinned)))
            .with_distributed_planner();
        let planner = builder.query_planner().clone();
        let state = builder.build();
        let nothing = LogicalPlanBuilder::empty(false).build()?;
        let plan = match planner {
            Some(planner) => planner.create_physical_plan(&nothing, &state).await?,
            None => Arc::clone(plan),
        };
        let single = plan.output_partitioning().partition_count() == 1;
        let plan = if single { plan } else { Arc::new(CoalescePartitionsExec::new(plan)) };
        Ok(Some(Self { plan, config: state.config().clone() }))
    }

    /// The context it runs in, within the statement that runs under `context`.
    pub(super) fn context(&self, context: &TaskContext) -> Arc<TaskContext> {
        task_context(context, self.config.clone(), context.runtime_env())
    }
}

/// The same plan, never run, with scans that can travel.
fn pinned(plan: &Arc<dyn ExecutionPlan>, csn: Csn) -> Result<Arc<dyn ExecutionPlan>> {
    let pinned = Arc::clone(plan).transform_down(|node| {
        let (mut node, mut changed) = (node, false);
        while let Some(inner) = for_one_node(&node) {
            (node, changed) = (inner, true);
        }
        if let Some(scan) = node.downcast_ref::<GrizzlyScanExec>() {
            let scan: Arc<dyn ExecutionPlan> = Arc::new(scan.pinned(csn)?);
            return Ok(Transformed::new(scan, true, TreeNodeRecursion::Jump));
        }
        Ok(Transformed::new(node, changed, TreeNodeRecursion::Continue))
    });
    reset_plan_states(pinned.data()?)
}

/// What `node` stands for, if it is made for the node that planned it.
fn for_one_node(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    // A task's joins take turns with what else is going on where it runs.
    if let Some(unhurried) = node.downcast_ref::<UnhurriedExec>() {
        return Some(Arc::clone(unhurried.input()));
    }
    // What metadata says of the present need not hold at the commit on every node.
    let aggregate = node.downcast_ref::<MetadataAggregateExec>()?;
    aggregate.children().first().map(|plan| Arc::clone(plan))
}

/// Writes the plan, and reads it as another node would.
fn travel(cluster: &Cluster, plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    // The converter that tasks are written with: it keeps a filter that is known in two places one filter.
    let (codec, converter) = (ScanCodec::new(cluster.db()), DeduplicatingProtoConverter::default());
    let bytes = physical_plan_to_bytes_with_proto_converter(Arc::clone(plan), &codec, &converter)?;
    let read = physical_plan_from_bytes_with_proto_converter(&bytes, cluster.task_context(), &codec, &converter);
    read.map(drop)
}

fn configured(cluster: &Cluster, csn: Csn, division: Division, mut config: SessionConfig) -> Result<SessionConfig> {
    let nodes = division.placement.nodes().to_vec();
    config.set_distributed_user_codec(ScanCodec::new(cluster.db()));
    config.set_distributed_worker_resolver(Nodes(nodes));
    config.set_distributed_channel_resolver(Resolver(Arc::clone(cluster.channels())));
    config.set_distributed_desired_task_count_handler(division.clone());
    config.set_distributed_scale_up_leaf_node_handler(division.clone());
    config.set_distributed_route_tasks_handler(division);
    // All tasks of a stage run all branches of a union: each has its share of every scan.
    config.set_distributed_children_isolator_unions(false)?;
    config.set_distributed_metrics_collection(false)?;
    let headers = worker::headers(cluster.db(), csn, config.options());
    config.set_distributed_passthrough_headers(headers)?;
    Ok(config)
}

/// A planner whose plan is made already: what comes first for the one that divides it.
#[derive(Debug)]
struct Ready(Arc<dyn ExecutionPlan>);

#[async_trait]
impl QueryPlanner for Ready {
    async fn create_physical_plan(&self, _: &LogicalPlan, _: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Nodes(Vec<Url>);

impl WorkerResolver for Nodes {
    fn get_urls(&self) -> Result<Vec<Url>> {
        Ok(self.0.clone())
    }
}

impl Division {
    /// Into how many tasks a scan may be divided.
    fn tasks(&self, scan: &GrizzlyScanExec) -> Result<DesiredTaskCountEventResponse> {
        // Operators above rely on one stream having all the rows, or on the scan's limit being for all of them.
        if scan.properties().output_partitioning().partition_count() == 1 || scan.fetch().is_some() {
            return Ok(DesiredTaskCountEventResponse::maximum(1));
        }
        let useful = scan.rows_looked_at()?.div_ceil(self.rows_per_task.max(1));
        let most = self.placement.nodes().len().min(shards(scan)?.len());
        let tasks = usize::try_from(useful).unwrap_or(usize::MAX).min(most).max(1);
        Ok(DesiredTaskCountEventResponse::desired(tasks))
    }

    /// Where the tasks of a stage go: a single one to the node that prefers its table, or else to the node that plans.
    pub(super) fn route(&self, stage: &Arc<dyn ExecutionPlan>, tasks: usize) -> Option<Vec<Url>> {
        if tasks == 1 {
            let preferred = table_below(stage).and_then(|table| self.placement.preferred(table));
            return Some(vec![preferred.unwrap_or(&self.own).clone()]);
        }
        Some(self.placement.nodes().get(..tasks)?.to_vec())
    }

    /// The scan as each of `tasks` tasks runs it.
    fn scans(&self, scan: &GrizzlyScanExec, tasks: usize) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let divided = self.placement.divide(scan.table().id(), &shards(scan)?, tasks);
        let scans = divided.into_iter().map(|shards| Ok(Arc::new(scan.with_shards(shards.into())?) as _));
        scans.collect()
    }
}

/// The shards that a scan reads.
fn shards(scan: &GrizzlyScanExec) -> Result<Vec<u32>> {
    if let Some(shards) = &scan.request().shards {
        return Ok(shards.to_vec());
    }
    Ok(scan.planning_snapshot()?.shards().iter().map(|shard| shard.shard).collect())
}

#[async_trait]
impl DesiredTaskCountHandler for Division {
    async fn handle(&self, event: DesiredTaskCountEvent<'_>) -> Option<Result<DesiredTaskCountEventResponse>> {
        Some(self.tasks(event.plan.downcast_ref::<GrizzlyScanExec>()?))
    }
}

impl ScaleUpLeafNodeHandler for Division {
    fn handle(&self, event: ScaleUpLeafNodeEvent<'_>) -> Option<Result<ScaleUpLeafNodeEventResponse>> {
        let scan = event.plan.downcast_ref::<GrizzlyScanExec>()?;
        if event.task_count <= 1 {
            return None;
        }
        let leaf = self.scans(scan, event.task_count);
        let leaf = leaf.and_then(|scans| DistributedLeafExec::try_new(Arc::clone(event.plan), scans));
        Some(leaf.map(|leaf| ScaleUpLeafNodeEventResponse::new(Arc::new(leaf))))
    }
}

impl RouteTasksHandler for Division {
    fn handle(&self, event: RouteTasksEvent<'_>) -> Option<Result<RouteTasksEventResponse>> {
        Some(Ok(RouteTasksEventResponse::new(self.route(event.plan, event.task_count)?)))
    }
}

/// The table of the first scan in a stage.
fn table_below(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    let mut table = None;
    let found = plan.apply(|node| match node.downcast_ref::<GrizzlyScanExec>() {
        Some(scan) => {
            table = Some(scan.table().id());
            Ok(TreeNodeRecursion::Stop)
        }
        None => Ok(TreeNodeRecursion::Continue),
    });
    found.ok()?;
    table
}
