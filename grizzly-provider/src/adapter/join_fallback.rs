//! Joins that do not fit in memory. A hash join holds one side, and where memory ends it fails. A query that fails so before
//! it has yielded a row is planned again with joins that sort both sides, which spill, and answers with those.
//!
//! Statements that write are not run twice, and neither are queries whose planning belongs to others (a cluster's): they
//! fail as before, with `53200`.

use std::{fmt, sync::Arc};

use datafusion::{
    arrow::{datatypes::SchemaRef, record_batch::RecordBatch},
    catalog::Session,
    common::{
        internal_err,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, SessionState, TaskContext, memory_pool::MemoryLimit},
    logical_expr::{JoinType, LogicalPlan},
    physical_expr::PhysicalExpr,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        execute_stream, joins::HashJoinExec, stream::RecordBatchStreamAdapter,
    },
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner},
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};

use super::{busy::unhurried, counted_pool::CountedPool, one_stream::in_one_stream};

/// By how much the batches of the last attempt are smaller.
const SMALLER: usize = 8;

type Batches = BoxStream<'static, Result<RecordBatch>>;

/// Runs a plan with hash joins, or else one that sorts.
#[derive(Clone)]
pub(super) struct JoinFallbackExec {
    hashing: Arc<dyn ExecutionPlan>,
    again: Arc<Again>,
}

/// What the other plan is made of.
struct Again {
    plan: LogicalPlan,
    state: SessionState,
}

impl JoinFallbackExec {
    /// `physical`, which computes the optimized `plan`, below such a node if it has hash joins that memory bounds.
    pub(super) fn above(
        physical: Arc<dyn ExecutionPlan>,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let bounded = matches!(session.runtime_env().memory_pool.memory_limit(), MemoryLimit::Finite(_));
        let Some(state) = session.as_any().downcast_ref::<SessionState>().filter(|_| bounded) else {
            return Ok(physical);
        };
        if writes(plan)? || !all_may_sort(&physical)? {
            return Ok(physical);
        }
        let again = Arc::new(Again { plan: plan.clone(), state: sorting(state) });
        Ok(Arc::new(Self { hashing: in_one_stream(physical), again }))
    }
}

/// Whether the plan does more than read.
fn writes(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        Ok(matches!(node, LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_))
            || matches!(node, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::Extension(_))
            || super::is_call(node))
    })
}

/// Whether there are hash joins, and all would answer the same if they sorted. Those of NOT IN over NULLs never sort.
fn all_may_sort(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let (mut some, mut all) = (false, true);
    plan.apply(|node| {
        if let Some(join) = node.downcast_ref::<HashJoinExec>().filter(|join| !join.null_aware) {
            some = true;
            all &= may_sort(join);
        }
        Ok(if all { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(some && all)
}

/// Whether a join that sorts answers the same. Sorted, -0.0 and 0.0 are two values; and DataFusion 55 fails where an outer
/// join that sorts has a condition besides its keys.
fn may_sort(join: &HashJoinExec) -> bool {
    let schema = join.left().schema();
    let exact = |key: &dyn PhysicalExpr| key.data_type(&schema).is_ok_and(|kind| !kind.is_floating());
    let fit = match join.join_type() {
        JoinType::LeftMark | JoinType::RightMark => false,
        JoinType::Left | JoinType::Right | JoinType::Full => join.filter().is_none(),
        _ => true,
    };
    fit && join.on().iter().all(|(left, _)| exact(left.as_ref()))
}

/// The same session, whose joins sort.
fn sorting(state: &SessionState) -> SessionState {
    let mut state = state.clone();
    let options = state.config_mut().options_mut();
    options.optimizer.prefer_hash_join = false;
    options.optimizer.repartition_joins = true;
    // With one partition, DataFusion's planner knows hash joins only.
    options.execution.target_partitions = options.execution.target_partitions.max(2);
    state
}

/// Whether memory was what failed.
fn is_out_of_memory(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

impl Again {
    async fn run(&self, schema: &SchemaRef, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let planner = DefaultPhysicalPlanner::default();
        let plan = unhurried(planner.create_physical_plan(&self.plan, &self.state)).await?;
        if plan.schema() != *schema {
            return internal_err!("a plan with other joins has other columns: {:?}, not {schema:?}", plan.schema());
        }
        execute_stream(in_one_stream(plan), context)
    }
}

/// How an attempt began.
enum Begun {
    Rows(Batches),
    /// Before its first row.
    OutOfMemory(DataFusionError),
}

async fn begin(mut attempt: SendableRecordBatchStream) -> Begun {
    match attempt.next().await {
        Some(Err(error)) if is_out_of_memory(&error) => Begun::OutOfMemory(error),
        Some(first) => Begun::Rows(futures::stream::iter([first]).chain(attempt).boxed()),
        None => Begun::Rows(futures::stream::empty().boxed()),
    }
}

/// What `hashing` yields; if memory ended before the first row, what `again` yields, with smaller batches if it ended once
/// more: each sort needs room for one, and the sorts of a plan begin together. The first attempt has its memory from
/// `counted`.
async fn first_or_again(
    hashing: SendableRecordBatchStream,
    mut counted: Arc<CountedPool>,
    again: Arc<Again>,
    context: Arc<TaskContext>,
) -> Result<Batches> {
    let (schema, usual) = (hashing.schema(), context.session_config().batch_size());
    let mut failed = match begin(hashing).await {
        Begun::Rows(rows) => return Ok(rows),
        Begun::OutOfMemory(error) => error,
    };
    for batch_size in [usual, (usual / SMALLER).max(1)] {
        counted.given_back().await;
        tracing::info!(error = %failed, batch_size, "a query whose joins do not fit in memory runs again with joins that sort");
        let (attempt, pool) = CountedPool::within(&context, batch_size)?;
        counted = pool;
        match begin(again.run(&schema, attempt).await?).await {
            Begun::Rows(rows) => return Ok(rows),
            Begun::OutOfMemory(error) => failed = error,
        }
    }
    Err(failed.context("without hash joins"))
}

impl fmt::Debug for JoinFallbackExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinFallbackExec").field("hashing", &self.hashing).finish_non_exhaustive()
    }
}

impl DisplayAs for JoinFallbackExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinFallbackExec: out of memory=sort-merge joins")
    }
}

impl ExecutionPlan for JoinFallbackExec {
    fn name(&self) -> &'static str {
        "JoinFallbackExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.hashing.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.hashing]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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
        let Ok([hashing]) = <[_; 1]>::try_from(children) else {
            return internal_err!("JoinFallbackExec has exactly one child");
        };
        Ok(Arc::new(Self { hashing: in_one_stream(hashing), ..Self::clone(&self) }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("JoinFallbackExec has one stream, not {}", partition + 1);
        }
        let (attempt, counted) = CountedPool::within(&context, context.session_config().batch_size())?;
        let hashing = self.hashing.execute(0, attempt)?;
        let stream = first_or_again(hashing, counted, Arc::clone(&self.again), context);
        let stream = futures::stream::once(stream).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}
