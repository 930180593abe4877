//! Which plans may run on several nodes, and which are worth it.

use std::{ops::ControlFlow, sync::Arc};

use datafusion::physical_plan::ExecutionPlan;
use grizzly_provider::{
    Result,
    adapter::{GrizzlyScanExec, MetadataAggregateExec},
};

/// Operators that mean the same on another node, and travel. Everything else keeps its plan at home: sinks, remote and
/// in-memory tables, tables about tables, session actions, and whatever is not known here.
const MAY_TRAVEL: [&str; 21] = [
    "AggregateExec",
    "BoundedWindowAggExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "CrossJoinExec",
    "EmptyExec",
    "FilterExec",
    "GlobalLimitExec",
    "HashJoinExec",
    "LocalLimitExec",
    "NestedLoopJoinExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "SortExec",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "UnhurriedExec",
    "UnionExec",
    "WindowAggExec",
];

/// What a plan reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Rows that its scans look at, about.
    pub(super) rows: u64,
    /// The table of its largest scan.
    pub(super) table: u64,
    largest: u64,
}

/// What `plan` reads, if it may run on several nodes.
pub(super) fn work(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Work>> {
    let mut work = Work::default();
    Ok(add(plan, &mut work)?.is_continue().then_some(work))
}

fn add(plan: &Arc<dyn ExecutionPlan>, work: &mut Work) -> Result<ControlFlow<()>> {
    if plan.is::<MetadataAggregateExec>() {
        // It will hardly read anything.
        return Ok(ControlFlow::Continue(()));
    }
    if let Some(scan) = plan.downcast_ref::<GrizzlyScanExec>() {
        let rows = scan.rows_looked_at()?;
        work.rows = work.rows.saturating_add(rows);
        if rows >= work.largest {
            (work.largest, work.table) = (rows, scan.table().id());
        }
        return Ok(ControlFlow::Continue(()));
    }
    if !MAY_TRAVEL.contains(&plan.name()) {
        return Ok(ControlFlow::Break(()));
    }
    for child in plan.children() {
        if add(child, work)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
