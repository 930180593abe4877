//! Result batches on their way out: one at a time as the client takes them, cancellable, with a deadline.

use std::{panic::AssertUnwindSafe, sync::Arc};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use arrow_flight::{FlightData, encode::FlightDataEncoderBuilder, error::FlightError};
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream::BoxStream};
use grizzly_provider::{Error, ErrorKind, batch::pieces};
use tokio::sync::watch;
use tonic::Status;

use super::{
    attended::{Deadline, failed_unexpectedly},
    sessions::Lease,
};
use crate::{
    conform::conform,
    error::{query_status, status},
};

/// Bytes of rows that one message carries, if a single row is not larger. gRPC clients refuse messages of more than 4 MiB
/// unless they are told otherwise.
const MESSAGE_BYTES: usize = 2 << 20;

/// A DoGet answer.
pub(crate) type FlightStream = BoxStream<'static, Result<FlightData, Status>>;

/// Batches, or the error that ends them.
pub(crate) type BatchStream = BoxStream<'static, Result<RecordBatch, Status>>;

/// Says "stop" to everything that runs for one statement.
#[derive(Debug, Clone)]
pub(crate) struct CancelSwitch(watch::Sender<bool>);

impl CancelSwitch {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Stops the statement; what it waits for ends with an error of kind `Cancelled`.
    pub(crate) fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Resolves, with the error to report, once the statement is cancelled or has run for `timeout`.
    pub(crate) async fn stopped(&self, deadline: Deadline) -> Status {
        let mut receiver = self.0.subscribe();
        let cancelled = receiver.wait_for(|cancelled| *cancelled);
        let message = match deadline {
            Some((at, timeout)) => match tokio::time::timeout_at(at, cancelled).await {
                Ok(_) => "the statement was cancelled".to_owned(),
                Err(_) => format!("the statement ran longer than {timeout:?}"),
            },
            None => {
                let _ = cancelled.await;
                "the statement was cancelled".to_owned()
            }
        };
        status(&Error::new(ErrorKind::Cancelled, message))
    }
}

/// `input` until it ends, the switch is thrown or the time is up; the latter two end it with an error, so that a
/// cut result is never taken for a whole one. Dropping the stream cancels the query.
pub(crate) fn guarded(
    input: SendableRecordBatchStream,
    switch: CancelSwitch,
    deadline: Deadline,
    lease: Lease,
) -> BatchStream {
    let stopped = Box::pin(async move { switch.stopped(deadline).await });
    futures::stream::unfold(Some((input, stopped, lease)), |state| async move {
        let (mut input, mut stopped, lease) = state?;
        tokio::select! {
            biased;
            status = &mut stopped => Some((Err(status), None)),
            batch = AssertUnwindSafe(input.next()).catch_unwind() => match batch {
                Ok(batch) => match batch? {
                    Ok(batch) => Some((Ok(batch), Some((input, stopped, lease)))),
                    Err(error) => Some((Err(query_status(&error)), None)),
                },
                // Of a stream that panicked nothing is asked any more. The panic itself is in the log.
                Err(_) => Some((Err(failed_unexpectedly(&"computing its rows panicked")), None)),
            },
        }
    })
    .boxed()
}

/// The schema as it stands on the wire: dictionaries are sent as plain values.
pub(crate) fn wire_schema(schema: &SchemaRef) -> SchemaRef {
    let encoder = FlightDataEncoderBuilder::new().with_schema(Arc::clone(schema)).build(futures::stream::empty());
    encoder.known_schema().unwrap_or_else(|| Arc::clone(schema))
}

/// Encodes batches under exactly `schema`, which is what the client was told before.
pub(crate) fn encode(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static,
) -> FlightStream {
    let target = Arc::clone(&schema);
    let conformed = batches.map(move |batch| {
        let batch = conform(batch?, &target).map_err(|error| {
            let message = "a result differs from its announced columns";
            FlightError::from(status(&Error::new(ErrorKind::Internal, message).with_source(error)))
        })?;
        Ok::<_, FlightError>(pieces(&batch, MESSAGE_BYTES))
    });
    let small = conformed.map_ok(|pieces| futures::stream::iter(pieces.into_iter().map(Ok))).try_flatten();
    // The pieces are small already; the encoder would cut those with one large row into nothing.
    let encoder = FlightDataEncoderBuilder::new().with_schema(schema).with_max_flight_data_size(usize::MAX);
    encoder.build(small).map(|data| data.map_err(Status::from)).boxed()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_rows_with_an_error() {
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::new_empty(Arc::clone(&schema));
        let rows = futures::stream::iter([true, false]).map(move |is_sound| {
            assert!(is_sound, "as it was asked to");
            Ok(batch.clone())
        });
        let rows = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
        let mut guarded = guarded(rows, CancelSwitch::new(), None, Lease::default());
        assert!(guarded.next().await.is_some_and(|rows| rows.is_ok()));
        let failed = guarded.next().await.and_then(Result::err).expect("it panicked");
        assert_eq!(failed.code(), tonic::Code::Internal);
        assert!(guarded.next().await.is_none());
    }
}
