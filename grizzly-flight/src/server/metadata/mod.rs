//! What a client may ask about the database: catalogs, schemas, tables, keys, types, and the server itself.

mod about;
mod keys;
mod names;

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use arrow_flight::{error::FlightError, sql::ProstMessageExt};
use grizzly_provider::{Error, adapter::GrizzlySession};
use tonic::Status;

pub(crate) use names::{quoted, select_path, table_flights};

use crate::error::status;

/// A metadata command: its columns are fixed, its rows come from a session.
pub(crate) trait Metadata: ProstMessageExt + Send + Sync {
    /// The columns of the answer.
    fn columns(&self) -> SchemaRef;

    /// The answer.
    fn rows(self, session: &GrizzlySession) -> impl Future<Output = Result<RecordBatch, Status>> + Send;
}

/// A builder of arrow-flight failed.
fn builder_failed(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        FlightError::Arrow(error) => status(&Error::from(error)),
        other => Status::from(other),
    }
}
