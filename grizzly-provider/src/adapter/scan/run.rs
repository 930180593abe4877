//! One execution of a scan: its snapshot, its plan, and the cursor that its partitions take morsels from. Because the
//! cursor is shared, a partition that is done early takes work from the others.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

use datafusion::execution::TaskContext;
use parking_lot::Mutex;

use super::GrizzlyScanExec;
use crate::{Morsel, Result, TableScan};

/// What the partitions of one execution share.
#[derive(Debug)]
pub(super) struct Run {
    scan: TableScan,
    pruned: AtomicUsize,
    next: AtomicUsize,
    /// Rows that may still be returned.
    budget: Option<AtomicUsize>,
    /// Each partition reads only every n-th morsel: for runners that execute partitions in different processes.
    stride: Option<usize>,
}

impl Run {
    fn start(exec: &GrizzlyScanExec, context: &Arc<TaskContext>) -> Result<Self> {
        let table = exec.table().bind(context)?;
        let steal = context.session_config().options().execution.enable_file_stream_work_stealing;
        let partitions = exec.properties.output_partitioning().partition_count();
        let scan = table.scan(exec.request())?;
        Ok(Self {
            pruned: AtomicUsize::new(scan.pruned()),
            scan,
            next: AtomicUsize::new(0),
            budget: exec.fetch.map(AtomicUsize::new),
            stride: (!steal).then_some(partitions),
        })
    }

    /// Morsels that metadata ruled out, told once: to the first partition that asks.
    pub(super) fn take_pruned(&self) -> usize {
        self.pruned.swap(0, Ordering::Relaxed)
    }

    pub(super) fn scan(&self) -> &TableScan {
        &self.scan
    }

    /// The next morsel for a partition that has `taken` so many before.
    pub(super) fn next_morsel(&self, partition: usize, taken: usize) -> Option<&Morsel> {
        let i = match self.stride {
            Some(stride) => partition + taken * stride,
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
        self.scan.morsels().get(i)
    }

    /// Whether the limit is reached.
    pub(super) fn is_exhausted(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.load(Ordering::Relaxed) == 0)
    }

    /// How many of `rows` rows may be returned under the limit; they count as returned.
    pub(super) fn claim(&self, rows: usize) -> usize {
        let Some(budget) = &self.budget else {
            return rows;
        };
        let left = budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(rows)));
        // The update never declines, so both arms hold what was left before.
        rows.min(left.unwrap_or_else(|left| left))
    }
}

/// The executions of one plan node that have begun and not yet been joined by all their partitions. A plan may be
/// executed many times, even at the same time: each `TaskContext` is one execution.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<Vec<Begun>>);

#[derive(Debug)]
struct Begun {
    context: Weak<TaskContext>,
    joined: Vec<bool>,
    run: Arc<Run>,
}

impl Runs {
    /// The run that `partition` takes part in; the first partition of an execution starts it.
    pub(super) fn join(
        &self,
        partition: usize,
        context: &Arc<TaskContext>,
        exec: &GrizzlyScanExec,
    ) -> Result<Arc<Run>> {
        let partitions = exec.properties.output_partitioning().partition_count();
        if partitions == 1 {
            return Run::start(exec, context).map(Arc::new);
        }
        let mut begun = self.0.lock();
        begun.retain(|begun| begun.context.strong_count() > 0);
        let at = begun.iter().position(|begun| {
            std::ptr::eq(begun.context.as_ptr(), Arc::as_ptr(context)) && begun.joined.get(partition) == Some(&false)
        });
        let at = match at {
            Some(at) => at,
            None => {
                let run = Arc::new(Run::start(exec, context)?);
                begun.push(Begun { context: Arc::downgrade(context), joined: vec![false; partitions], run });
                begun.len() - 1
            }
        };
        let found = &mut begun[at];
        if let Some(joined) = found.joined.get_mut(partition) {
            *joined = true;
        }
        let run = Arc::clone(&found.run);
        if found.joined.iter().all(|joined| *joined) {
            begun.swap_remove(at);
        }
        Ok(run)
    }
}
