//! What stands at the root of every task, so that whatever goes wrong in it arrives as an error. Without it, a task
//! that panics looks on the wire like one that has no more rows.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use datafusion::{
    common::{internal_err, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
        ReplaceChildrenOptions, repartition::RepartitionExec, stream::RecordBatchStreamAdapter,
    },
};
use datafusion_distributed::{BroadcastExec, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse};
use futures::StreamExt;
use grizzly_provider::{
    Error, ErrorKind,
    adapter::{UnhurriedExec, grizzly_error},
};

/// How the text of a Grizzly error begins that travels; its SQLSTATE and message follow.
const MARK: &str = "grizzly error ";

/// Puts the guard into a task's plan: below the head that hands rows to the next stage, which is exchanged later.
pub(super) fn guarded(event: WorkerPlanRewriteEvent<'_>) -> Result<WorkerPlanRewriteEventResponse> {
    let plan = UnhurriedExec::around_joins(event.plan)?;
    let has_head = plan.is::<RepartitionExec>() || plan.is::<BroadcastExec>();
    let child = plan.children().first().filter(|_| has_head).map(|child| Arc::clone(child));
    let plan = match child {
        Some(child) => {
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            plan.replace_children(vec![Arc::new(GuardExec { task: child })], options)?
        }
        None => Arc::new(GuardExec { task: plan }),
    };
    Ok(WorkerPlanRewriteEventResponse::new(plan))
}

/// `error` as one that a text can carry: what is Grizzly's keeps its kind.
fn portable(error: DataFusionError) -> DataFusionError {
    match grizzly_error(&error) {
        Some(inner) => DataFusionError::External(format!("{MARK}{} {inner}", inner.sqlstate()).into()),
        None => error,
    }
}

/// The error that a text carried here, if it is Grizzly's.
pub(super) fn carried(text: &str) -> Option<Error> {
    let (_, rest) = text.split_once(MARK)?;
    let (sqlstate, message) = rest.split_once(' ')?;
    Some(Error::new(ErrorKind::from_sqlstate(sqlstate)?, message))
}

fn panicked(panic: &(dyn Any + Send)) -> DataFusionError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    DataFusionError::Internal(format!("a task panicked: {}", text.unwrap_or("it did not say why")))
}

/// Runs a task and turns its panics into errors.
#[derive(Debug)]
struct GuardExec {
    task: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for GuardExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuardExec")
    }
}

impl ExecutionPlan for GuardExec {
    fn name(&self) -> &'static str {
        "GuardExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.task.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.task]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([task]) = <[_; 1]>::try_from(children) else {
            return internal_err!("GuardExec has exactly one child");
        };
        Ok(Arc::new(Self { task }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let started = catch_unwind(AssertUnwindSafe(|| self.task.execute(partition, context)));
        let rows = started.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))).map_err(portable)?;
        let rows = AssertUnwindSafe(rows).catch_unwind();
        let rows = rows.map(|rows| rows.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))).map_err(portable));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_an_error_survives_as_text() {
        for kind in ErrorKind::ALL {
            let sent = portable(Error::new(kind, "table t: broken").into()).context("stage 1");
            let received = carried(&sent.to_string()).expect("Grizzly's");
            assert_eq!(received.kind(), kind);
            assert!(received.message().starts_with("table t: broken"), "{received}");
        }
        let other = portable(DataFusionError::Execution("Divide by zero".to_owned()));
        assert!(matches!(other, DataFusionError::Execution(_)));
        assert!(carried(&other.to_string()).is_none());
    }
}
