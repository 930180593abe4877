//! Loading: rows are read in one thread and inserted in another, never all in memory.

use datafusion::error::DataFusionError;
use tokio::sync::mpsc;

use super::{
    check::{ask, expect},
    data::{Generated, GeneratedBatch, Table},
    report::Found,
};
use crate::session::Database;

/// Rows per commit: large enough for throughput, small enough for the memory budget.
const COMMIT_ROWS: u64 = 500_000;
/// Batches between the two threads.
const AHEAD: usize = 4;

/// Creates a table and loads its rows.
pub(crate) async fn table(database: &Database, table: Table, batches: Generated) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    session.execute(table.definition()).await?;
    let (sender, mut receiver) = mpsc::channel::<GeneratedBatch>(AHEAD);
    let generating = tokio::task::spawn_blocking(move || {
        for batch in batches {
            // The other end is gone if inserting failed.
            if sender.blocking_send(batch).is_err() {
                return;
            }
        }
    });
    let grizzly = database.grizzly();
    let mut rows = 0;
    let mut transaction = grizzly.begin()?;
    let mut uncommitted = 0;
    while let Some(batch) = receiver.recv().await {
        let batch = batch?;
        uncommitted += tokio::task::block_in_place(|| transaction.insert(table.name(), batch))?;
        if uncommitted >= COMMIT_ROWS {
            transaction.commit_async().await?.into_result()?;
            rows += uncommitted;
            uncommitted = 0;
            transaction = grizzly.begin()?;
        }
    }
    transaction.commit_async().await?.into_result()?;
    rows += uncommitted;
    generating.await.map_err(|error| DataFusionError::External(Box::new(error)))?;
    let counted = ask(&session, &format!("SELECT count(*) FROM {}", table.name())).await?;
    expect("rows in the table", u64::try_from(counted).ok(), Some(rows))?;
    let shards = grizzly.snapshot().table(table.name())?.shards().len();
    Ok(Found::new(rows, format!("all rows counted, {shards} shards")))
}
