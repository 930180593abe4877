//! Joins that compute for long between two batches. A join with a condition besides its keys looks at pairs of rows until
//! some match, and that may be never; a thread of the runtime would serve nobody else meanwhile, and neither a time-out nor
//! a client's leaving would be noticed. Such joins run in tasks of their own, in place of a thread, and look up in between.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use datafusion::{
    arrow::record_batch::RecordBatch,
    common::{
        Statistics, internal_err,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    config::ConfigOptions,
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::PhysicalExpr,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        coop::CooperativeExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        statistics::{ChildStats, StatisticsArgs},
        stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter},
    },
};
use futures::{Stream, StreamExt};

use super::busy::unhurried_join;

/// For how long a join computes before others have their turn, if its input comes in batches that are small enough.
const TURN: Duration = Duration::from_millis(10);

/// Rows of a batch that every row of the other side is compared with, before the join looks up. Large batches gain
/// nothing there: pairs are evaluated by DataFusion's batch size at a time.
const ROWS_AT_ONCE: usize = 1024;

/// Batches that a join may be ahead of its reader.
const AHEAD: usize = 2;

/// Lets joins take turns with whatever else the runtime serves.
#[derive(Debug)]
pub(super) struct UnhurriedJoins;

impl PhysicalOptimizerRule for UnhurriedJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        UnhurriedExec::around_joins(plan)
    }

    fn name(&self) -> &'static str {
        "grizzly_unhurried_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Yields what its input yields, and holds up nobody in doing so.
#[derive(Debug, Clone)]
pub struct UnhurriedExec {
    input: Arc<dyn ExecutionPlan>,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Around a join: its rows are computed in a task of their own.
    Join,
    /// Around a join's input: it looks up between two batches.
    Input { rows_at_once: Option<usize> },
}

impl UnhurriedExec {
    /// `plan`, whose joins take turns with others; once.
    ///
    /// ```
    /// # async fn run(frame: datafusion::dataframe::DataFrame) -> datafusion::error::Result<()> {
    /// use grizzly_provider::adapter::UnhurriedExec;
    ///
    /// let plan = UnhurriedExec::around_joins(frame.create_physical_plan().await?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn around_joins(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let around = |node: Arc<dyn ExecutionPlan>| {
            Ok(match Kind::of(&node) {
                Some(Kind::Long { slices }) => Transformed::yes(Self::around(node, slices)?),
                Some(Kind::Short) => Transformed::yes(Arc::new(CooperativeExec::new(node)) as _),
                None => Transformed::no(node),
            })
        };
        let has_any = plan.exists(|node| Ok(node.is::<Self>()))?;
        if has_any { Ok(plan) } else { plan.transform_up(around).data() }
    }

    /// What it is around.
    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    fn around(join: Arc<dyn ExecutionPlan>, slices: bool) -> Result<Arc<dyn ExecutionPlan>> {
        let inputs = join.children().into_iter().enumerate().map(|(side, input)| {
            // The left side is held, and a slice would be counted as all that it is a slice of.
            let rows_at_once = (slices && side == 1).then_some(ROWS_AT_ONCE);
            Arc::new(Self { input: Arc::clone(input), role: Role::Input { rows_at_once } }) as _
        });
        let inputs = inputs.collect();
        let input = join.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?;
        Ok(Arc::new(Self { input, role: Role::Join }))
    }
}

/// What a join needs.
enum Kind {
    /// It computes until it has a batch, however long that takes; with slices, for each batch with all of the other side.
    Long { slices: bool },
    /// It has a batch soon, but whoever reads it may not stop reading.
    Short,
}

impl Kind {
    fn of(node: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let long = |slices| Some(Self::Long { slices });
        let with_condition = |condition: bool| if condition { long(false) } else { Some(Self::Short) };
        if node.is::<NestedLoopJoinExec>() {
            return long(true);
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            return with_condition(join.filter().is_some());
        }
        if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
            return with_condition(join.filter().is_some());
        }
        node.is::<CrossJoinExec>().then_some(Self::Short)
    }
}

/// The rows of `stream`, computed in a task of its own in place of a thread.
fn in_its_own_task(mut stream: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStream::builder(stream.schema(), AHEAD);
    let rows = builder.tx();
    builder.spawn(async move {
        while let Some(batch) = unhurried_join(stream.next()).await {
            let failed = batch.is_err();
            // A reader that is gone wants no more.
            if rows.send(batch).await.is_err() || failed {
                break;
            }
        }
        Ok(())
    });
    builder.build()
}

/// Hands on batches, in slices if they are large, and lets others have their turn in between.
struct Turns {
    input: SendableRecordBatchStream,
    rows_at_once: Option<usize>,
    /// What is left of a large batch.
    rest: Option<RecordBatch>,
    since: Instant,
}

impl Turns {
    fn slice(&mut self, batch: RecordBatch) -> RecordBatch {
        match self.rows_at_once.filter(|most| batch.num_rows() > *most) {
            Some(most) => {
                self.rest = Some(batch.slice(most, batch.num_rows() - most));
                batch.slice(0, most)
            }
            None => batch,
        }
    }
}

impl Stream for Turns {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.since.elapsed() > TURN {
            self.since = Instant::now();
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Ok(self.slice(rest))));
        }
        let next = self.input.poll_next_unpin(context);
        if next.is_pending() {
            self.since = Instant::now();
        }
        next.map(|next| next.map(|batch| batch.map(|batch| self.slice(batch))))
    }
}

impl DisplayAs for UnhurriedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Join => f.write_str("UnhurriedExec: a task of its own"),
            Role::Input { rows_at_once: None } => f.write_str("UnhurriedExec"),
            Role::Input { rows_at_once: Some(rows) } => write!(f, "UnhurriedExec: rows={rows}"),
        }
    }
}

impl ExecutionPlan for UnhurriedExec {
    fn name(&self) -> &'static str {
        "UnhurriedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        let Ok([input]) = <[_; 1]>::try_from(children) else {
            return internal_err!("UnhurriedExec has exactly one child");
        };
        Ok(Arc::new(Self { input, role: self.role }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let Some(input) = inputs.first() else { return internal_err!("UnhurriedExec has exactly one child") };
        Ok(Arc::clone(input))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        Ok(match self.role {
            Role::Join => in_its_own_task(input),
            Role::Input { rows_at_once } => {
                let schema = input.schema();
                let turns = Turns { input, rows_at_once, rest: None, since: Instant::now() };
                Box::pin(RecordBatchStreamAdapter::new(schema, turns))
            }
        })
    }
}
