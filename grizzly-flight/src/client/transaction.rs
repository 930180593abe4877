//! A transaction on a server, and points within it.

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionEndSavepointRequest, ActionEndTransactionRequest,
    EndTransaction,
};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use grizzly_provider::Result;

use super::{
    connection::{FlightSqlConnection, IngestMode, Rows, action},
    prepared::PreparedStatement,
};

/// A transaction on a server. Dropping it leaves it to the server's timeout: end it.
#[derive(Debug)]
pub struct Transaction {
    pub(super) connection: FlightSqlConnection,
    pub(super) id: Bytes,
}

impl Transaction {
    /// Runs a query within the transaction.
    pub async fn query(&self, sql: &str) -> Result<Rows> {
        self.connection.query_in(sql, Some(self.id.clone())).await
    }

    /// Runs a statement within the transaction and collects its rows.
    pub async fn execute(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.query(sql).await?.batches.try_collect().await
    }

    /// Runs a statement within the transaction and says how many rows it changed.
    pub async fn update(&self, sql: &str) -> Result<i64> {
        self.connection.update_in(sql, Some(self.id.clone())).await
    }

    /// Plans a statement that runs within the transaction.
    pub async fn prepare(&self, sql: &str) -> Result<PreparedStatement> {
        self.connection.prepare_in(sql, Some(self.id.clone())).await
    }

    /// Stores rows within the transaction.
    pub async fn ingest(
        &self,
        table: &str,
        mode: IngestMode,
        schema: SchemaRef,
        rows: impl Stream<Item = RecordBatch> + Send + 'static,
    ) -> Result<i64> {
        self.connection.ingest_in(table, mode, schema, rows, Some(self.id.clone())).await
    }

    /// Marks the present state.
    pub async fn savepoint(&self, name: &str) -> Result<Savepoint> {
        let request = ActionBeginSavepointRequest { transaction_id: self.id.clone(), name: name.to_owned() };
        let result: ActionBeginSavepointResult = self.connection.act("BeginSavepoint", &request).await?;
        Ok(Savepoint { connection: self.connection.clone(), id: result.savepoint_id })
    }

    /// Makes everything visible, or fails with `Conflict` if another transaction came first.
    pub async fn commit(self) -> Result<()> {
        self.end(EndTransaction::Commit).await
    }

    /// Forgets everything.
    pub async fn rollback(self) -> Result<()> {
        self.end(EndTransaction::Rollback).await
    }

    async fn end(self, how: EndTransaction) -> Result<()> {
        let request = ActionEndTransactionRequest { transaction_id: self.id, action: how as i32 };
        self.connection.act_raw(action("EndTransaction", &request)).await.map(drop)
    }
}

/// A point within a transaction to which it can return.
#[derive(Debug)]
pub struct Savepoint {
    pub(super) connection: FlightSqlConnection,
    pub(super) id: Bytes,
}

impl Savepoint {
    /// Keeps what was done since, and forgets the savepoint.
    pub async fn release(self) -> Result<()> {
        self.end(1).await
    }

    /// Undoes what was done since; the savepoint stays.
    pub async fn rollback(&self) -> Result<()> {
        self.end(2).await
    }

    async fn end(&self, how: i32) -> Result<()> {
        let request = ActionEndSavepointRequest { savepoint_id: self.id.clone(), action: how };
        self.connection.act_raw(action("EndSavepoint", &request)).await.map(drop)
    }
}
