//! Small tools of the steps: one number out of a result, expectations, verification.

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
    record_batch::RecordBatch,
};
use datafusion::error::DataFusionError;
use grizzly_provider::{Error, ErrorKind, adapter::GrizzlySession};

use super::report::Found;
use crate::session::Database;

/// The number in the first row and column of a result.
pub(crate) fn number(batches: &[RecordBatch]) -> Result<i64, DataFusionError> {
    let batch = batches.iter().find(|batch| batch.num_rows() > 0 && batch.num_columns() > 0);
    let batch = batch.ok_or_else(|| failed("expected a number, got no row"))?;
    let numbers = cast(batch.column(0), &DataType::Int64)?;
    numbers.as_primitive::<Int64Type>().iter().next().flatten().ok_or_else(|| failed("expected a number, got NULL"))
}

/// Runs a query whose result is one number.
pub(crate) async fn ask(session: &GrizzlySession, sql: &str) -> Result<i64, DataFusionError> {
    number(&session.execute(sql).await?)
}

/// Fails with both values unless they are equal.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), DataFusionError> {
    if found == expected { Ok(()) } else { Err(failed(format!("{what}: expected {expected:?}, found {found:?}"))) }
}

/// A step's own finding that something is wrong.
pub(crate) fn failed(message: impl Into<String>) -> DataFusionError {
    Error::new(ErrorKind::Internal, message).into()
}

/// Checks the whole database.
pub(crate) async fn verify(database: &Database) -> Result<Found, DataFusionError> {
    let report = tokio::task::block_in_place(|| database.grizzly().verify())?;
    if let Some(problem) = report.problems.first() {
        return Err(failed(format!("{} problems, the first: {problem}", report.problems.len())));
    }
    let verdict = format!("{} segments, {} chunks, no problem", report.segments, report.chunks);
    Ok(Found::new(report.index_entries, verdict))
}
