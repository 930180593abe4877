//! One partition of a scan: takes morsels, reads them, hands them on in slices of the session's batch size.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
};
use datafusion::{
    error::Result as DataFusionResult,
    execution::{
        RecordBatchStream,
        memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
    },
    physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder},
};
use futures::Stream;

use super::{dynamic::CurrentFilter, run::Run};
use crate::{
    adapter::{memory_pool::SCAN, statement::release_ended},
    batch::{batch_bytes, without_waste},
};

/// After so many morsels without a row the thread is given back, so that a scan that finds nothing can be cancelled.
const EMPTY_MORSELS_PER_POLL: usize = 8;

pub(super) struct ScanStream {
    run: Arc<Run>,
    partition: usize,
    schema: SchemaRef,
    filter: CurrentFilter,
    cut: Cut,
    taken: usize,
    current: Option<Slices>,
    /// What `current` takes, where memory has a bound.
    decoded: Option<MemoryReservation>,
    baseline: BaselineMetrics,
    morsels: Count,
    empty_morsels: Count,
}

/// How a batch is handed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// In pieces of at most so many rows.
    pub(super) rows: usize,
    /// Each in memory of its own.
    pub(super) own: bool,
}

/// A batch on its way out, piece by piece.
struct Slices {
    batch: RecordBatch,
    offset: usize,
    size: usize,
}

impl ScanStream {
    pub(super) fn new(
        run: Arc<Run>,
        partition: usize,
        schema: SchemaRef,
        filter: CurrentFilter,
        cut: Cut,
        pool: Option<&Arc<dyn MemoryPool>>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Self {
        MetricBuilder::new(metrics).counter("pruned_morsels", partition).add(run.take_pruned());
        Self {
            run,
            partition,
            schema,
            filter,
            cut,
            taken: 0,
            current: None,
            decoded: pool.map(|pool| MemoryConsumer::new(SCAN).register(pool)),
            baseline: BaselineMetrics::new(metrics, partition),
            morsels: MetricBuilder::new(metrics).counter("morsels", partition),
            empty_morsels: MetricBuilder::new(metrics).counter("empty_morsels", partition),
        }
    }

    /// The next piece of the current batch, within the limit.
    fn next_piece(&mut self) -> Option<RecordBatch> {
        let slice = self.next_slice()?;
        Some(if self.cut.own { without_waste(&slice) } else { slice })
    }

    fn next_slice(&mut self) -> Option<RecordBatch> {
        let current = self.current.as_mut()?;
        let left = current.batch.num_rows() - current.offset;
        let size = self.run.claim(left.min(current.size));
        if size == 0 {
            self.current = None;
            return None;
        }
        if size == current.batch.num_rows() {
            return self.current.take().map(|whole| whole.batch);
        }
        let slice = current.batch.slice(current.offset, size);
        current.offset += size;
        if current.offset == current.batch.num_rows() {
            self.current = None;
        }
        Some(slice)
    }

    /// Reads the next morsel: `Some(true)` if it has rows, `Some(false)` if not, `None` if there are no more morsels.
    fn read_next(&mut self) -> DataFusionResult<Option<bool>> {
        if self.run.is_exhausted() {
            return Ok(None);
        }
        let Some(morsel) = self.run.next_morsel(self.partition, self.taken) else {
            return Ok(None);
        };
        self.taken += 1;
        self.morsels.add(1);
        let filter = self.filter.poll();
        let batch = self.run.scan().read(morsel, filter)?;
        self.filter.observe(batch.as_ref().map_or(0, RecordBatch::num_rows));
        match batch {
            Some(batch) if batch.num_rows() > 0 => {
                self.charge(&batch);
                self.current = Some(Slices::new(self.named(batch)?, self.cut.rows));
                Ok(Some(true))
            }
            _ => {
                self.empty_morsels.add(1);
                Ok(Some(false))
            }
        }
    }

    /// Counts the rows among those that were decoded and not handed on, until the next are read.
    fn charge(&self, batch: &RecordBatch) {
        let Some(decoded) = &self.decoded else { return };
        // Few rows are handed on at once, as a whole.
        decoded.resize(if batch.num_rows() <= self.cut.rows { 0 } else { batch_bytes(batch) });
    }

    /// The batch with the plan's column names, which differ from the engine's for system columns.
    fn named(&self, batch: RecordBatch) -> DataFusionResult<RecordBatch> {
        if Arc::ptr_eq(batch.schema_ref(), &self.schema) {
            return Ok(batch);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<DataFusionResult<RecordBatch>>> {
        for _ in 0..EMPTY_MORSELS_PER_POLL {
            if let Some(slice) = self.next_piece() {
                return Poll::Ready(Some(Ok(slice)));
            }
            match self.read_next() {
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.decoded = None;
                    return Poll::Ready(None);
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        if let Some(slice) = self.next_piece() {
            return Poll::Ready(Some(Ok(slice)));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Slices {
    /// Cuts the batch into pieces of about the same size, none above `batch_size`. Without columns there is nothing
    /// that a smaller piece would make easier.
    fn new(batch: RecordBatch, batch_size: usize) -> Self {
        let rows = batch.num_rows();
        let size = if batch.num_columns() == 0 { rows } else { rows.div_ceil(rows.div_ceil(batch_size)) };
        Self { batch, offset: 0, size }
    }
}

impl Stream for ScanStream {
    type Item = DataFusionResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let timer = self.baseline.elapsed_compute().clone();
        let timer = timer.timer();
        let poll = self.poll_batch(cx);
        drop(timer);
        self.baseline.record_poll(poll)
    }
}

impl RecordBatchStream for ScanStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Drop for ScanStream {
    fn drop(&mut self) {
        release_ended();
    }
}
