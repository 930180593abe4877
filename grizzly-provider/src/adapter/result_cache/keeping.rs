//! The streams of a query whose result is kept, or was.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    error::Result,
    execution::{RecordBatchStream, SendableRecordBatchStream},
};
use futures::{Stream, StreamExt};

use super::{Collecting, ResultCache, question::Question};
use crate::{access::Csn, adapter::statement::release_ended};

/// Hands on what is computed, and keeps it if it ended well.
pub(super) struct Keeping {
    input: SendableRecordBatchStream,
    question: Arc<Question>,
    changes: Vec<Csn>,
    tables: String,
    /// `None` once it is known that nothing will be kept, or something has been.
    collecting: Option<Collecting>,
    /// When the client last asked for a batch that has not come yet.
    asked: Option<Instant>,
    /// How long the client has waited, which is what a hit saves. That it thinks in between does not count.
    waited: Duration,
}

impl Keeping {
    pub(super) fn new(
        cache: &Arc<ResultCache>,
        input: SendableRecordBatchStream,
        question: Arc<Question>,
        changes: Vec<Csn>,
        tables: String,
    ) -> Self {
        let collecting = Some(Collecting::new(cache));
        Self { input, question, changes, tables, collecting, asked: None, waited: Duration::ZERO }
    }

    fn keep(&mut self) {
        let Some(collecting) = self.collecting.take() else { return };
        let (changes, tables) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.tables));
        collecting.keep(&self.question, changes, self.input.schema(), tables, self.waited);
    }
}

impl Stream for Keeping {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let asked = *self.asked.get_or_insert_with(Instant::now);
        let next = ready!(self.input.poll_next_unpin(cx));
        self.asked = None;
        self.waited += asked.elapsed();
        match &next {
            Some(Ok(batch)) => self.collecting = self.collecting.take().and_then(|all| all.with(batch)),
            Some(Err(_)) => self.collecting = None,
            None => self.keep(),
        }
        Poll::Ready(next)
    }
}

impl RecordBatchStream for Keeping {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

/// A result that was kept.
pub(super) struct Replay {
    batches: Arc<[RecordBatch]>,
    next: usize,
    schema: SchemaRef,
}

impl Replay {
    pub(super) fn new(batches: Arc<[RecordBatch]>, schema: SchemaRef) -> Self {
        Self { batches, next: 0, schema }
    }
}

impl Stream for Replay {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let batch = self.batches.get(self.next).cloned();
        self.next += 1;
        Poll::Ready(batch.map(Ok))
    }
}

impl RecordBatchStream for Replay {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // As scans do: there is none here.
        release_ended();
    }
}
