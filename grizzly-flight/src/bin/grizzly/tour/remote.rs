//! The database served over Flight SQL on loopback, and asked through it.

use std::sync::Arc;

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use datafusion::error::DataFusionError;
use grizzly_flight::{FlightSqlConnection, FlightSqlServer, client::IngestMode};
use tokio::sync::oneshot;

use super::{
    check::{expect, failed, number},
    compare::same_rows,
    queries,
    report::{Found, Report},
};
use crate::session::Database;

pub(crate) async fn steps(database: &Database, report: &mut Report) {
    report.step("Flight SQL: a query, transactions, ingest", serve_and_ask(database)).await;
}

async fn serve_and_ask(database: &Database) -> Result<Found, DataFusionError> {
    let server = FlightSqlServer::builder(database.factory()).listen("127.0.0.1:0").await?;
    let url = server.url();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(async {
        let _ = stopped.await;
    }));
    let asked = ask(database, &url).await;
    let _ = stop.send(());
    serving.await.map_err(|error| DataFusionError::External(Box::new(error)))??;
    asked
}

async fn ask(database: &Database, url: &str) -> Result<Found, DataFusionError> {
    let connection = FlightSqlConnection::connect(url).await?;
    let session = database.session()?;
    let query = queries::ALL[0].sql();
    let there = connection.execute(query).await?;
    same_rows(&there, &session.execute(query).await?, &[]).map_err(failed)?;

    connection.update("CREATE TABLE remote (id BIGINT NOT NULL, v BIGINT, PRIMARY KEY (id))").await?;
    let insert = connection.prepare("INSERT INTO remote VALUES (?, ?)").await?;
    expect("rows of a prepared insert", insert.update(Some(numbers(0..1000)?)).await?, 1000)?;
    insert.close().await?;
    let transaction = connection.begin().await?;
    expect("rows deleted", transaction.update("DELETE FROM remote WHERE id < 10").await?, 10)?;
    let within = number(&transaction.execute("SELECT count(*) FROM remote").await?)?;
    expect("rows within the transaction", within, 990)?;
    let outside = number(&connection.execute("SELECT count(*) FROM remote").await?)?;
    expect("rows outside", outside, 1000)?;
    transaction.rollback().await?;
    let more = numbers(1000..50_000)?;
    let schema = more.schema();
    let rows = futures::stream::iter([more]);
    expect("rows ingested", connection.ingest("remote", IngestMode::Append, schema, rows).await?, 49_000)?;
    let refused = connection.update("INSERT INTO remote VALUES (1, 1)").await;
    expect("a duplicate key", refused.map_err(|error| error.sqlstate().to_owned()), Err("23505".to_owned()))?;
    let total = number(&connection.execute("SELECT count(*) FROM remote").await?)?;
    expect("rows in the end", total, 50_000)?;
    Ok(Found::new(50_000, format!("{url} gives the same answers")))
}

/// Rows `(id, 2 * id)`.
fn numbers(ids: std::ops::Range<i64>) -> Result<RecordBatch, DataFusionError> {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Int64, true)]);
    let doubled = Int64Array::from_iter_values(ids.clone().map(|id| 2 * id));
    let columns = vec![Arc::new(Int64Array::from_iter_values(ids)) as _, Arc::new(doubled) as _];
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}
