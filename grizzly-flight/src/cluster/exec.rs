//! The root of a plan that runs on several nodes, and what happens when one of them fails: the plan is divided among
//! the others and runs again at the same commit, as long as the client has seen nothing of the result. Up to a limit
//! the result is held back for that. After it, an error says which node failed; rows of half a result never look like
//! a whole one.
//!
//! Nothing below this node writes, so running it again is harmless.

use std::{fmt, sync::Arc};

use arrow::record_batch::RecordBatch;
use datafusion::{
    common::{internal_err, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
        PhysicalExpr, PlanProperties, ReplaceChildrenOptions,
        coalesce_partitions::CoalescePartitionsExec,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchReceiverStreamBuilder,
    },
};
use futures::StreamExt;
use grizzly_provider::{
    Error, ErrorKind,
    access::Csn,
    adapter::{SessionHandle, statement_snapshot},
};
use tokio::sync::mpsc::Sender;
use url::Url;

use super::{
    channel::public_url,
    distribute::{Distributed, Division},
    node::Cluster,
    placement::Placement,
    suitable::Work,
};

/// Batches that may wait for a slow client.
const WAITING_BATCHES: usize = 2;

/// Runs a plan on the nodes that are live when it is executed.
#[derive(Debug, Clone)]
pub(super) struct ClusterExec {
    cluster: Cluster,
    /// The whole plan, as one node runs it; one stream.
    local: Arc<dyn ExecutionPlan>,
    work: Work,
    /// A query that looks at fewer rows stays on one node.
    distribute_rows: u64,
    properties: Arc<PlanProperties>,
}

impl ClusterExec {
    pub(super) fn new(cluster: &Cluster, plan: Arc<dyn ExecutionPlan>, work: Work, distribute_rows: u64) -> Self {
        let single = plan.output_partitioning().partition_count() == 1;
        let local = if single { plan } else { Arc::new(CoalescePartitionsExec::new(plan)) };
        let properties = PlanProperties::new(
            local.equivalence_properties().clone(),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { cluster: cluster.clone(), local, work, distribute_rows, properties: Arc::new(properties) }
    }

    /// The plan divided among `nodes`, to read the state right after commit `csn`; `None` if it has to stay here.
    pub(super) async fn divide(&self, nodes: Vec<Url>, csn: Csn, context: &TaskContext) -> Result<Option<Distributed>> {
        let (Some(division), config) = (self.division(nodes), context.session_config()) else { return Ok(None) };
        Distributed::plan(&self.cluster, &self.local, csn, division, config).await
    }

    pub(super) fn division(&self, nodes: Vec<Url>) -> Option<Division> {
        let rows_per_task = self.distribute_rows / u64::try_from(nodes.len().max(1)).unwrap_or(u64::MAX);
        let placement = Arc::new(Placement::new(nodes, self.work.table));
        Some(Division { placement, own: self.cluster.own_url()?, rows_per_task })
    }
}

/// One execution.
struct Run {
    exec: ClusterExec,
    context: Arc<TaskContext>,
    csn: Csn,
}

/// Why an attempt failed.
struct Failure {
    error: DataFusionError,
    /// Whether the client has seen rows of it.
    delivered: bool,
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self { error, delivered: false }
    }
}

impl Run {
    async fn deliver(self, client: Sender<Result<RecordBatch>>) -> Result<()> {
        let mut lost: Vec<Url> = Vec::new();
        loop {
            let mut nodes = self.exec.cluster.live();
            nodes.retain(|node| !lost.contains(node));
            let Some(divided) = self.divide(nodes.clone()).await? else {
                let rows = self.exec.local.execute(0, Arc::clone(&self.context))?;
                return hand_over(rows, &client, 0).await.map_err(|failure| failure.error);
            };
            let Err(failure) = self.attempt(&divided, &client).await else { return Ok(()) };
            let failed = self.exec.cluster.blame(&failure.error, &nodes).await;
            if failed.is_empty() {
                return Err(failure.error);
            }
            let names = failed.iter().map(public_url).collect::<Vec<_>>().join(", ");
            if failure.delivered {
                let message = format!("{names} failed after part of the result was delivered; run the query again");
                return Err(Error::new(ErrorKind::Unavailable, message).with_source(failure.error).into());
            }
            tracing::warn!(nodes = names, error = %failure.error, "a query goes on without nodes that failed");
            lost.extend(failed);
        }
    }

    /// `None` if this node has to do it alone.
    async fn divide(&self, nodes: Vec<Url>) -> Result<Option<Distributed>> {
        match nodes.len() {
            0 | 1 => Ok(None),
            _ => self.exec.divide(nodes, self.csn, &self.context).await,
        }
    }

    async fn attempt(&self, divided: &Distributed, client: &Sender<Result<RecordBatch>>) -> Result<(), Failure> {
        let rows = divided.plan.execute(0, divided.context(&self.context))?;
        hand_over(rows, client, self.exec.cluster.settings().held_bytes).await
    }
}

/// Hands rows to the client, the first `hold` bytes of them only once there are more or that was all.
async fn hand_over(
    mut rows: SendableRecordBatchStream,
    client: &Sender<Result<RecordBatch>>,
    hold: usize,
) -> Result<(), Failure> {
    let mut held = Vec::new();
    let (mut bytes, mut delivered) = (0, false);
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| Failure { error, delivered })?;
        bytes += batch.get_array_memory_size();
        held.push(batch);
        if bytes > hold {
            delivered = true;
            if !send(&mut held, client).await {
                return Ok(());
            }
        }
    }
    send(&mut held, client).await;
    Ok(())
}

/// Whether the client still listens.
async fn send(held: &mut Vec<RecordBatch>, client: &Sender<Result<RecordBatch>>) -> bool {
    for batch in held.drain(..) {
        if client.send(Ok(batch)).await.is_err() {
            return false;
        }
    }
    true
}

/// Whether the statement's session has an open transaction with writes of its own, which no other node knows.
fn has_written(context: &TaskContext) -> bool {
    let session = context.session_config().get_extension::<SessionHandle>();
    let written = session.and_then(|session| session.with_transaction(|transaction| !transaction.is_empty()));
    written == Some(true)
}

impl DisplayAs for ClusterExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterExec")
    }
}

impl ExecutionPlan for ClusterExec {
    fn name(&self) -> &'static str {
        "ClusterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.local]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([local]) = <[_; 1]>::try_from(children) else {
            return internal_err!("ClusterExec has exactly one child");
        };
        Ok(Arc::new(Self::new(&self.cluster, local, self.work, self.distribute_rows)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("ClusterExec has one stream, not {}", partition + 1);
        }
        if has_written(&context) {
            return self.local.execute(0, context);
        }
        let csn = statement_snapshot(self.cluster.db(), &context)?.csn();
        let mut rows = RecordBatchReceiverStreamBuilder::new(self.schema(), WAITING_BATCHES);
        let run = Run { exec: self.clone(), context, csn };
        let client = rows.tx();
        rows.spawn(run.deliver(client));
        Ok(rows.build())
    }
}
