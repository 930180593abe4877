//! Batches that a client sends. What Arrow's decoder takes for impossible ends in a panic, which would take all other calls of
//! the connection with it; here it is the client's error.

use std::panic::AssertUnwindSafe;

use arrow::record_batch::RecordBatch;
use arrow_flight::{decode::FlightRecordBatchStream, error::FlightError};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use tonic::Status;

use crate::error::invalid;

const WHAT: &str = "the rows that were sent cannot be decoded";

/// The first batch; `None` if there is none. After an error the stream is of no use.
pub(crate) async fn first(stream: &mut FlightRecordBatchStream) -> Result<Option<RecordBatch>, Status> {
    match AssertUnwindSafe(stream.try_next()).catch_unwind().await {
        Ok(first) => first.map_err(Status::from),
        Err(_) => Err(invalid(WHAT)),
    }
}

/// All batches that follow.
pub(crate) fn rest(stream: FlightRecordBatchStream) -> impl Stream<Item = Result<RecordBatch, FlightError>> {
    let caught = AssertUnwindSafe(stream).catch_unwind();
    caught.map(|batch| batch.unwrap_or_else(|_| Err(FlightError::DecodeError(WHAT.to_owned()))))
}
