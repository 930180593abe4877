//! Joins that compute for long between two batches. A join with a condition besides its keys looks at pairs of rows until
//! some match, and that may be never; a thread of the runtime would serve nobody else meanwhile, and neither a time-out nor
//! a client's leaving would be noticed. Such a join is given few enough rows at a time that it looks up every few
//! milliseconds; if it goes on for long, it goes on in a task of its own, in place of a thread.

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
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, PlanProperties,
        ReplaceChildrenOptions,
        coop::{CooperativeExec, make_cooperative},
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        statistics::{ChildStats, StatisticsArgs},
        stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter},
    },
};
use futures::{Stream, StreamExt};

use super::busy::unhurried_join;

/// For how long a join computes before others have their turn.
const TURN: Duration = Duration::from_millis(2);

/// For how long a join computes where it was asked. Going elsewhere with every batch costs small joins more than they do.
const PATIENCE: Duration = Duration::from_millis(200);

/// Rows that a join is given first, until it is known how long it takes for them.
const FIRST_ROWS: usize = 16;

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
    /// Around a join. One that is not to be relied on to look up soon goes elsewhere before it begins.
    Join { looks_up: bool },
    /// Around a join's input: others have their turn between two batches, and large ones come in slices if they may.
    Input { in_slices: bool },
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
                Some(Kind::Long { in_slices }) => Transformed::yes(Self::around(node, in_slices)?),
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

    fn around(join: Arc<dyn ExecutionPlan>, in_slices: bool) -> Result<Arc<dyn ExecutionPlan>> {
        let inputs = join.children().into_iter().enumerate().map(|(side, input)| {
            let role = Role::Input { in_slices };
            // The left side is held, and a slice would be counted as all that it is a slice of.
            let as_it_is = in_slices && side == 0;
            if as_it_is { Arc::clone(input) } else { Arc::new(Self { input: Arc::clone(input), role }) as _ }
        });
        let inputs = inputs.collect();
        let input = join.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?;
        Ok(Arc::new(Self { input, role: Role::Join { looks_up: in_slices } }))
    }
}

/// What a join needs.
enum Kind {
    /// It computes until it has a batch, however long that takes. If `in_slices`, the rows of its right side are compared
    /// with those of the left, which it holds; else all rows with the same keys are compared at once.
    Long { in_slices: bool },
    /// It has a batch soon, but whoever reads it may not stop reading.
    Short,
}

impl Kind {
    fn of(node: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let long_if = |condition: bool, in_slices| if condition { Self::Long { in_slices } } else { Self::Short };
        if node.is::<NestedLoopJoinExec>() {
            return Some(Self::Long { in_slices: true });
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            return Some(long_if(join.filter().is_some(), true));
        }
        if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
            return Some(long_if(join.filter().is_some(), false));
        }
        node.is::<CrossJoinExec>().then_some(Self::Short)
    }
}

/// The rows of a join, computed where they are asked for while that does not take long, and elsewhere then.
struct Rows {
    stream: SendableRecordBatchStream,
    spent: Duration,
    is_elsewhere: bool,
}

impl Rows {
    fn new(stream: SendableRecordBatchStream, looks_up: bool) -> Self {
        let spent = if looks_up { Duration::ZERO } else { Duration::MAX };
        Self { stream, spent, is_elsewhere: false }
    }

    fn go_elsewhere(&mut self) {
        let nothing = Box::pin(EmptyRecordBatchStream::new(self.stream.schema()));
        let stream = std::mem::replace(&mut self.stream, nothing);
        self.stream = in_its_own_task(stream);
        self.is_elsewhere = true;
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_elsewhere {
            return self.stream.poll_next_unpin(context);
        }
        if self.spent > PATIENCE {
            self.go_elsewhere();
            return self.stream.poll_next_unpin(context);
        }
        let began = Instant::now();
        let polled = self.stream.poll_next_unpin(context);
        self.spent += began.elapsed();
        polled
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

/// Hands on batches, and lets others have their turn in between. Slices are as large as a join can take in one turn, by
/// the time that it took for the slice before.
struct Turns {
    input: SendableRecordBatchStream,
    /// Rows of the next slice.
    at_once: Option<usize>,
    /// What is left of a large batch.
    rest: Option<RecordBatch>,
    /// When the turn began.
    since: Instant,
    /// When the last slice was handed on, and its rows, while the join is at it.
    handed: Option<(Instant, usize)>,
}

impl Turns {
    fn new(input: SendableRecordBatchStream, in_slices: bool) -> Self {
        let at_once = in_slices.then_some(FIRST_ROWS);
        Self { input, at_once, rest: None, since: Instant::now(), handed: None }
    }

    /// Takes note of what the join took for the last slice, if it is back from it.
    fn learn(&mut self) {
        let (Some((at, rows)), Some(at_once)) = (self.handed.take(), &mut self.at_once) else { return };
        let took = at.elapsed();
        if took > TURN {
            *at_once = (rows / 2).max(1);
        } else if took < TURN / 8 && rows >= *at_once {
            *at_once = at_once.saturating_mul(4);
        }
    }

    fn slice(&mut self, batch: RecordBatch) -> RecordBatch {
        let slice = match self.at_once.filter(|most| batch.num_rows() > *most) {
            Some(most) => {
                self.rest = Some(batch.slice(most, batch.num_rows() - most));
                batch.slice(0, most)
            }
            None => batch,
        };
        self.handed = Some((Instant::now(), slice.num_rows()));
        slice
    }
}

impl Stream for Turns {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.learn();
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
            Role::Join { .. } => f.write_str("UnhurriedExec"),
            Role::Input { in_slices } => write!(f, "UnhurriedExec: in_slices={in_slices}"),
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
        let schema = input.schema();
        Ok(match self.role {
            Role::Join { looks_up } => {
                make_cooperative(Box::pin(RecordBatchStreamAdapter::new(schema, Rows::new(input, looks_up))))
            }
            Role::Input { in_slices } => Box::pin(RecordBatchStreamAdapter::new(schema, Turns::new(input, in_slices))),
        })
    }
}
