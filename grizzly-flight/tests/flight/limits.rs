//! One client's excess is its own: handles, results, statements that end late, connections that are gone.

use std::{sync::Arc, time::Duration};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow_flight::{
    FlightData, FlightDescriptor,
    flight_service_client::FlightServiceClient,
    sql::{CommandStatementQuery, ProstMessageExt},
};
use futures::TryStreamExt;
use grizzly_flight::{
    FlightSqlServer, Limits,
    client::{IngestMode, Rows},
};
use grizzly_provider::{ErrorKind, Grizzly};
use prost::Message;
use tokio::sync::oneshot;
use tonic::transport::Endpoint;

use crate::{
    gate::{Gate, Point},
    support::{Served, TestResult, ask, factory, numbers, ticket},
};

/// The messages of a query's result, as they come.
async fn messages(served: &Served, sql: &str) -> Result<Vec<FlightData>, Box<dyn std::error::Error>> {
    let channel = Endpoint::from_shared(served.url.replace("grpc://", "http://"))?.connect().await?;
    let mut client = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let info = client.get_flight_info(descriptor).await?.into_inner();
    Ok(client.do_get(ticket(&info)?).await?.into_inner().try_collect().await?)
}

async fn all(rows: Rows) -> Result<Vec<RecordBatch>, grizzly_provider::Error> {
    rows.batches.try_collect().await
}

fn size(message: &FlightData) -> usize {
    message.data_body.len() + message.data_header.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_costs_what_it_holds() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT PRIMARY KEY, grp BIGINT, name VARCHAR, note VARCHAR)").await?;
    // So many that they are chunks of files, which are read back.
    let rows = 200_000_i64;
    let texts =
        |word: &str| StringViewArray::from_iter_values((0..rows).map(|id| format!("{word} of the row {id:020}")));
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..rows))),
        ("grp", Arc::new(Int64Array::from_iter_values((0..rows).map(|id| id % 1000)))),
        ("name", Arc::new(texts("name"))),
        ("note", Arc::new(texts("note"))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    connection.ingest("t", IngestMode::Append, batch.schema(), futures::stream::iter(vec![batch])).await?;
    let bytes_of_a_row = 2 * 8 + 2 * (16 + 36);
    let queries = [
        ("SELECT * FROM t WHERE grp = 7", 200),
        ("SELECT * FROM t WHERE id = 77777", 1),
        ("SELECT * FROM t ORDER BY note DESC LIMIT 20", 20),
        ("SELECT a.* FROM t a JOIN t b ON a.id = b.id WHERE b.grp = 3", 200),
        ("SELECT * FROM t", 200_000),
    ];
    for (sql, rows) in queries {
        let messages = messages(&served, sql).await?;
        let sent: usize = messages.iter().map(size).sum();
        let held = rows * bytes_of_a_row;
        assert!(sent <= 2 * held + 4096, "{sql}: {sent} bytes for {held}");
        assert!(messages.iter().all(|message| size(message) <= 4 << 20), "{sql}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_row_beside_large_ones_arrives() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT, text VARCHAR)").await?;
    let large = 3 << 20;
    let insert = format!("INSERT INTO t VALUES (1, repeat('x', {large})), (2, 'small'), (3, repeat('y', {large}))");
    assert_eq!(connection.update(&insert).await?, 3);
    let messages = messages(&served, "SELECT id, text FROM t").await?;
    assert!(messages.iter().all(|message| size(message) <= (4 << 20)), "one row each");
    assert_eq!(numbers(&connection.execute("SELECT id FROM t WHERE length(text) = 5").await?), [2]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_nothing_is_in_nobody_s_way() -> TestResult {
    let limits = Limits { handles: 20, sessions_per_connection: 3, ..Limits::default() };
    let served = Served::start_with(|builder| builder.limits(limits)).await?;
    let (greedy, modest) = (served.connect().await?, served.connect().await?);
    // More queries than handles: fetched ones make room.
    for n in 0..200 {
        assert_eq!(ask(&greedy, &format!("SELECT {n}")).await?, n);
    }
    let mut open = Vec::new();
    for n in 0..50 {
        open.push(greedy.prepare(&format!("SELECT {n}")).await?);
    }
    assert!(open[0].query(None).await.is_err(), "the oldest went");
    assert_eq!(numbers(&all(open[49].query(None).await?).await?), [49]);
    let mut transactions = Vec::new();
    for _ in 0..3 {
        transactions.push(greedy.begin().await?);
    }
    assert_eq!(greedy.begin().await.err().map(|error| error.kind()), Some(ErrorKind::Resource));
    modest.begin().await?.rollback().await?;
    assert_eq!(numbers(&all(modest.prepare("SELECT 1").await?.query(None).await?).await?), [1]);
    // With its connection its transactions are gone.
    transactions.clear();
    drop((open, greedy));
    let again = served.connect().await?;
    for _ in 0..3 {
        transactions.push(again.begin().await?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_while_it_is_fetched_aborts_its_transaction() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (a BIGINT)").await?;
    let transaction = connection.begin().await?;
    assert_eq!(transaction.update("INSERT INTO t VALUES (0)").await?, 1);
    assert!(transaction.execute("SELECT 1 / a FROM t").await.is_err());
    let refused = transaction.update("INSERT INTO t VALUES (1)").await.err().ok_or("it went on")?;
    assert_eq!(refused.kind(), ErrorKind::TransactionAborted, "{refused}");
    assert!(transaction.commit().await.is_err());
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0);
    Ok(())
}

/// A server on a database whose storage stands still when told to.
async fn gated(limits: Limits) -> Result<(String, Gate, oneshot::Sender<()>), Box<dyn std::error::Error>> {
    let gate = Gate::new(grizzly_provider::storage::open_storage("memory://")?);
    let db = Grizzly::builder("memory://").storage(Arc::new(gate.clone())).open()?;
    let server = FlightSqlServer::builder(factory(&db)).limits(limits).listen("127.0.0.1:0").await?;
    let url = server.url();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.serve_with_shutdown(async {
        let _ = stopped.await;
    }));
    Ok((url, gate, stop))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_being_committed_is_never_called_cancelled() -> TestResult {
    let limits = Limits { statement_timeout: Some(Duration::from_millis(300)), ..Limits::default() };
    let (url, gate, _stop) = gated(limits).await?;
    let connection = grizzly_flight::FlightSqlConnection::connect(&url).await?;
    connection.update("CREATE TABLE t (a BIGINT)").await?;
    gate.stop_at(Point::Sync);
    let writing = tokio::spawn({
        let connection = connection.clone();
        async move { connection.update("INSERT INTO t VALUES (1)").await }
    });
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!writing.is_finished(), "it waits for what becomes of its commit");
    gate.thaw();
    assert_eq!(writing.await??, 1);
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 1);
    // One that takes too long before that is cancelled, and leaves nothing.
    let slow = "INSERT INTO t SELECT a.value FROM range(0, 100000000) a WHERE a.value % 7 = 8 OR a.value < 0";
    let slow = connection.update(slow).await.err().ok_or("it took no time")?;
    assert_eq!(slow.kind(), ErrorKind::Cancelled, "{slow}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_while_it_replaces_a_table_leaves_the_old_one() -> TestResult {
    let served = Served::start().await?;
    let (connection, dying) = (served.connect().await?, served.connect().await?);
    connection.update("CREATE TABLE t (a BIGINT)").await?;
    connection.update("INSERT INTO t VALUES (7)").await?;
    for (table, left) in [("t", Some(7)), ("u", None)] {
        let batch =
            RecordBatch::try_from_iter([("b", Arc::new(Int64Array::from_iter_values(0..100_000)) as ArrayRef)])?;
        let rows = futures::stream::unfold(0, {
            let batch = batch.clone();
            move |sent| {
                let batch = batch.clone();
                async move {
                    if sent == 3 {
                        std::future::pending::<()>().await;
                    }
                    Some((batch, sent + 1))
                }
            }
        });
        let mode = if left.is_some() { IngestMode::Replace } else { IngestMode::Create };
        let ingesting = tokio::spawn({
            let (dying, schema) = (dying.clone(), batch.schema());
            async move { dying.ingest(table, mode, schema, Box::pin(rows)).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let look = format!("SELECT a FROM {table}");
        let seen = |batches: Vec<RecordBatch>| numbers(&batches);
        assert_eq!(connection.execute(&look).await.map(seen).ok(), left.map(|left| vec![left]), "before");
        ingesting.abort();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(connection.execute(&look).await.map(seen).ok(), left.map(|left| vec![left]), "after");
    }
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(ask(&connection, tables).await?, 1, "no table was left behind");
    Ok(())
}
