//! A server for any Arrow Flight SQL client, and a client that uses it: transactions, prepared statements, and the
//! served table inside a plain DataFusion session.
//!
//! `cargo run --release --example flight_server`

use std::sync::Arc;

use arrow::{array::Int64Array, array::StringArray, record_batch::RecordBatch};
use datafusion::prelude::SessionContext;
use grizzly_flight::{FlightSqlConnection, FlightSqlServer, RemoteTable};
use grizzly_provider::{Grizzly, adapter::GrizzlySession};
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = Grizzly::open("memory://")?;

    // Every connection and every transaction gets a session from here: put your rules and functions into it.
    let sessions = db.clone();
    let factory = Arc::new(move || Ok(GrizzlySession::new(&sessions)));
    let server = FlightSqlServer::builder(factory).listen("127.0.0.1:0").await?;
    let url = server.url();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(async {
        let _ = stopped.await;
    }));
    println!("serving on {url}");

    let connection = FlightSqlConnection::connect(&url).await?;
    connection.update("CREATE TABLE rivers (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))").await?;

    // Many rows of parameters, one transaction.
    let insert = connection.prepare("INSERT INTO rivers VALUES (?, ?)").await?;
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as _),
        ("name", Arc::new(StringArray::from(vec!["Brooks", "Katmai", "McNeil"])) as _),
    ])?;
    println!("{} rows inserted", insert.update(Some(rows)).await?);

    // Of two transactions that change one row the first to commit wins; the other may try again.
    let (first, second) = (connection.begin().await?, connection.begin().await?);
    first.update("UPDATE rivers SET name = 'Naknek' WHERE id = 2").await?;
    second.update("UPDATE rivers SET name = 'Kvichak' WHERE id = 2").await?;
    first.commit().await?;
    match second.commit().await {
        Ok(()) => return Err("both writers won".into()),
        Err(error) => println!("the second writer: {error} (SQLSTATE {})", error.sqlstate()),
    }

    // The served table in a session of plain DataFusion; the filter is sent along.
    let context = SessionContext::new();
    context.register_table("rivers", Arc::new(RemoteTable::connect(&url, "rivers").await?))?;
    context.sql("SELECT name FROM rivers WHERE id >= 2 ORDER BY id").await?.show().await?;

    drop((insert, connection, context));
    let _ = stop.send(());
    serving.await??;
    Ok(())
}
