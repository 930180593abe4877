//! A server's tables in a DataFusion session here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::{arrow::util::pretty::pretty_format_batches, prelude::SessionContext};
use grizzly_flight::{FlightSqlCatalog, FlightSqlConnection, RemoteTable, client::ConnectOptions};
use grizzly_provider::{ErrorKind, adapter::grizzly_error};

use crate::support::{Served, TestResult, numbers};

async fn served_with_table() -> Result<Served, Box<dyn std::error::Error>> {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection
        .update("CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR, price DECIMAL(15, 2), day DATE, PRIMARY KEY (id))")
        .await?;
    connection
        .update(
            "INSERT INTO t VALUES (1, 'a', 0.05, '2026-01-01'), (2, NULL, 0.06, '2026-01-02'), \
             (3, 'it''s', -0.05, NULL), (4, 'A%', NULL, '2026-01-04')",
        )
        .await?;
    Ok(served)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_gives_the_rows_that_staying_here_gives() -> TestResult {
    let served = served_with_table().await?;
    let table = RemoteTable::connect(&served.url, "t").await?;
    let remote = SessionContext::new();
    remote.register_table("t", Arc::new(table))?;
    let local = SessionContext::new();
    let all = remote.sql("SELECT * FROM t").await?.cache().await?;
    local.register_table("t", all.into_view())?;
    let conditions = [
        "id > 1",
        "id <> 2 AND id < 4",
        "name = 'it''s'",
        "name IS NULL",
        "name IS NOT NULL",
        "NOT (id = 1)",
        "price = 0.05",
        "price BETWEEN -0.05 AND 0.05",
        "price < 0.06",
        "day >= DATE '2026-01-02'",
        "id IN (1, 3, 7)",
        "name NOT IN ('a', 'b')",
        "name LIKE 'A%'",
        "name LIKE '%t''s'",
        "upper(name) = 'A'",
        "id % 2 = 0",
        "id = 1 OR price IS NULL",
        "name NOT IN ('a', NULL)",
        "true",
        "false",
        "id = price",
    ];
    for condition in conditions {
        let sql = format!("SELECT id, day FROM t WHERE {condition} ORDER BY id");
        let there = remote.sql(&sql).await?.collect().await?;
        let here = local.sql(&sql).await?.collect().await?;
        assert_eq!(
            pretty_format_batches(&there)?.to_string(),
            pretty_format_batches(&here)?.to_string(),
            "{condition}"
        );
        let count = format!("SELECT count(*) FROM t WHERE {condition}");
        let (there, here) = (remote.sql(&count).await?.collect().await?, local.sql(&count).await?.collect().await?);
        assert_eq!(numbers(&there), numbers(&here), "{condition}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_what_is_sent() -> TestResult {
    let served = served_with_table().await?;
    let context = SessionContext::new();
    context.register_table("t", Arc::new(RemoteTable::connect(&served.url, "t").await?))?;
    let sql = "EXPLAIN SELECT name FROM t WHERE id > 1 AND find_in_set(name, 'A') = 1 LIMIT 3";
    let plan = pretty_format_batches(&context.sql(sql).await?.collect().await?)?.to_string();
    assert!(plan.contains("RemoteScanExec: remote=grpc://127.0.0.1:"), "{plan}");
    assert!(plan.contains("SELECT \"q1\".\"name\" FROM \"t\" AS \"q1\" WHERE"), "{plan}");
    let sent = plan.lines().find(|line| line.contains("RemoteScanExec")).ok_or("no scan")?;
    assert!(sent.contains("\"id\" > 1") && !sent.contains("find_in_set") && !sent.contains("LIMIT"), "{sent}");
    let sql = "EXPLAIN SELECT name FROM t WHERE id > 1 LIMIT 3";
    let plan = pretty_format_batches(&context.sql(sql).await?.collect().await?)?.to_string();
    assert!(plan.contains("LIMIT 3"), "{plan}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_is_a_catalog() -> TestResult {
    let served = served_with_table().await?;
    let catalog = FlightSqlCatalog::connect(&served.url, Some("grizzly"), ConnectOptions::default()).await?;
    let context = SessionContext::new();
    context.register_catalog("there", Arc::new(catalog));
    let rows = context.sql("SELECT max(id) FROM there.public.t").await?.collect().await?;
    assert_eq!(numbers(&rows), [4]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_is_away_is_named_in_time() -> TestResult {
    let served = served_with_table().await?;
    let table = RemoteTable::connect(&served.url, "t").await?;
    let url = served.url.clone();
    drop(served);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let context = SessionContext::new();
    context.register_table("t", Arc::new(table))?;
    let error = context.sql("SELECT * FROM t").await?.collect().await.err().ok_or("nobody is there")?;
    let inner = grizzly_error(&error).ok_or("an error of ours")?;
    assert_eq!(inner.kind(), ErrorKind::Unavailable, "{inner}");
    assert!(inner.message().contains(&url), "{inner}");

    // Connects, then never speaks: the handshake of HTTP/2 is what times out.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("grpc://{}", silent.local_addr()?);
    let timeout = Duration::from_millis(300);
    let options = ConnectOptions { connect_timeout: timeout, timeout: Some(timeout), ..ConnectOptions::default() };
    let started = Instant::now();
    let error = match FlightSqlConnection::connect_with(&url, options).await {
        Ok(connection) => connection.execute("SELECT 1").await.err(),
        Err(error) => Some(error),
    };
    let error = error.ok_or("nobody speaks there")?;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&url), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    Ok(())
}
