//! A prepared statement on a server.

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    DoPutPreparedStatementResult,
};
use bytes::Bytes;
use grizzly_provider::Result;
use prost::Message;

use super::connection::{FlightSqlConnection, Rows, action};

/// A statement that the server has planned.
#[derive(Debug)]
pub struct PreparedStatement {
    pub(super) connection: FlightSqlConnection,
    pub(super) handle: Bytes,
    pub(super) columns: SchemaRef,
    pub(super) parameters: SchemaRef,
}

impl PreparedStatement {
    /// The columns of its result.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Its parameters; those whose type the statement leaves open are of type Null.
    pub fn parameters(&self) -> &SchemaRef {
        &self.parameters
    }

    /// Runs it with these values, one column per parameter, one run per row.
    pub async fn query(&self, values: Option<RecordBatch>) -> Result<Rows> {
        let command = CommandPreparedStatementQuery { prepared_statement_handle: self.handle.clone() };
        let command = match values {
            None => command,
            Some(values) => {
                let data = self.connection.encode(&command, values).await?;
                let reply = self.connection.put_reply(futures::stream::iter(data)).await?;
                self.rebound(reply)?.map_or(command, |prepared_statement_handle| CommandPreparedStatementQuery {
                    prepared_statement_handle,
                })
            }
        };
        self.connection.fetch(self.connection.describe(&command).await?).await
    }

    /// Runs it with these values and says how many rows it changed; all rows of values in one transaction.
    pub async fn update(&self, values: Option<RecordBatch>) -> Result<i64> {
        let command = CommandPreparedStatementUpdate { prepared_statement_handle: self.handle.clone() };
        self.connection.put_command(&command, values).await
    }

    /// Lets the server forget it.
    pub async fn close(self) -> Result<()> {
        let request = ActionClosePreparedStatementRequest { prepared_statement_handle: self.handle };
        self.connection.act_raw(action("ClosePreparedStatement", &request)).await.map(drop)
    }

    /// Servers without state of their own answer a binding with a new handle.
    fn rebound(&self, reply: Option<Bytes>) -> Result<Option<Bytes>> {
        let Some(reply) = reply else { return Ok(None) };
        let result = DoPutPreparedStatementResult::decode(reply);
        Ok(result.map_err(|error| self.connection.undecodable(&error))?.prepared_statement_handle)
    }
}
