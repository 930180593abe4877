//! Prepared statements: parameter types, rows of parameters, the way drivers use them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::DataType,
};
use futures::TryStreamExt;
use grizzly_flight::FlightSqlConnection;
use grizzly_provider::ErrorKind;

use crate::support::{Served, TestResult, ask, fetch, numbers, ticket};

async fn served_with_table() -> Result<(Served, FlightSqlConnection), Box<dyn std::error::Error>> {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))").await?;
    Ok((served, connection))
}

fn rows(ids: &[i64], names: &[Option<&str>]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let ids = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
    RecordBatch::try_from_iter([("0", ids), ("1", Arc::new(StringArray::from(names.to_vec())) as ArrayRef)])
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_parameters_run_in_one_transaction() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let insert = connection.prepare("INSERT INTO t VALUES (?, ?)").await?;
    assert_eq!(insert.parameters().fields().len(), 2);
    assert_eq!(insert.parameters().field(0).data_type(), &DataType::Int64);
    assert_eq!(insert.update(Some(rows(&[1, 2, 3], &[Some("a"), None, Some("c")])?)).await?, 3);
    assert_eq!(ask(&connection, "SELECT count(*) FROM t WHERE name IS NULL").await?, 1);
    let refused = insert.update(Some(rows(&[4, 5, 1], &[None, None, None])?)).await;
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::UniqueViolation));
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 3, "all rows or none");
    insert.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_batch_aborts_its_transaction() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let transaction = connection.begin().await?;
    transaction.update("INSERT INTO t VALUES (1, 'gone')").await?;
    let insert = transaction.prepare("INSERT INTO t VALUES (?, ?)").await?;
    assert!(insert.update(Some(rows(&[2, 2], &[None, None])?)).await.is_err());
    let refused = transaction.execute("SELECT count(*) FROM t").await.err().ok_or("it goes on as if nothing were")?;
    assert_eq!(refused.kind(), ErrorKind::TransactionAborted);
    transaction.rollback().await?;
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0);
    Ok(())
}

/// An UPDATE cannot become one statement for all rows, as an INSERT of values does.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_runs_once_per_row_of_parameters() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    connection.update("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").await?;
    let update = connection.prepare("UPDATE t SET name = $2 WHERE id >= $1").await?;
    assert_eq!(update.update(Some(rows(&[1, 2, 3], &[Some("x"), Some("y"), Some("z")])?)).await?, 6);
    assert_eq!(ask(&connection, "SELECT count(DISTINCT name) FROM t").await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_take_parameters() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    connection.update("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (12, 'l')").await?;
    let query = connection.prepare("SELECT id FROM t WHERE id >= $1 AND name <> $2 ORDER BY id").await?;
    let found = query.query(Some(rows(&[2], &[Some("b")])?)).await?.batches.try_collect::<Vec<_>>().await?;
    assert_eq!(numbers(&found), [12]);
    let again = query.query(Some(rows(&[1], &[Some("a")])?)).await?.batches.try_collect::<Vec<_>>().await?;
    assert_eq!(numbers(&again), [2, 12]);
    let fresh = connection.prepare("SELECT id FROM t WHERE id = ?").await?;
    let none = fresh.query(None).await.err().ok_or("parameters are missing")?;
    assert_eq!(none.kind(), ErrorKind::Invalid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_parameters_keep_their_order() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let list: Vec<String> = (1..=11).map(|n| format!("CAST(${n} AS BIGINT) * {}", 1_i64 << n)).collect();
    let query = connection.prepare(&format!("SELECT {}", list.join(" + "))).await?;
    let ones = (0..11).map(|n| (n.to_string(), Arc::new(Int64Array::from(vec![i64::from(n == 10)])) as ArrayRef));
    let rows = query.query(Some(RecordBatch::try_from_iter(ones)?)).await?;
    let found = rows.batches.try_collect::<Vec<_>>().await?;
    assert_eq!(numbers(&found), [1 << 11], "the eleventh value belongs to $11");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_do_not_fit_are_refused() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let insert = connection.prepare("INSERT INTO t (id) VALUES (?)").await?;
    let fraction = RecordBatch::try_from_iter([("0", Arc::new(Float64Array::from(vec![1.5])) as ArrayRef)])?;
    let refused = insert.update(Some(fraction)).await.err().ok_or("1.5 was rounded")?;
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    let refused = insert.update(Some(rows(&[1], &[None])?)).await.err().ok_or("two values for one parameter")?;
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    Ok(())
}

/// Python's ADBC sends everything through prepare and execute-as-query, BEGIN and DDL included.
#[tokio::test(flavor = "multi_thread")]
async fn everything_may_be_prepared_and_executed_as_a_query() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let run = async |sql: &str| -> Result<Vec<RecordBatch>, Box<dyn std::error::Error>> {
        let prepared = connection.prepare(sql).await?;
        let batches = prepared.query(None).await?.batches.try_collect().await?;
        prepared.close().await?;
        Ok(batches)
    };
    run("CREATE TABLE u (id BIGINT)").await?;
    run("BEGIN").await?;
    assert_eq!(numbers(&run("INSERT INTO u VALUES (1), (2)").await?), [2]);
    run("ROLLBACK").await?;
    assert_eq!(numbers(&run("INSERT INTO u VALUES (3)").await?), [1]);
    assert_eq!(numbers(&run("SELECT id FROM u").await?), [3]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_follows_its_table_through_drop_and_create() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    connection.update("INSERT INTO t VALUES (1, 'a')").await?;
    let count = connection.prepare("SELECT count(*) FROM t").await?;
    let run = async || -> Result<Vec<i64>, Box<dyn std::error::Error>> {
        Ok(numbers(&count.query(None).await?.batches.try_collect::<Vec<_>>().await?))
    };
    assert_eq!(run().await?, [1]);
    connection.update("DROP TABLE t").await?;
    assert!(run().await.is_err());
    connection.update("CREATE TABLE t (name VARCHAR)").await?;
    assert_eq!(run().await?, [0]);
    Ok(())
}

/// A table that is loaded anew by CREATE OR REPLACE, again and again, is there for everybody at every time.
#[tokio::test(flavor = "multi_thread")]
async fn statements_find_a_table_that_is_replaced_beside_them() -> TestResult {
    let (served, connection) = served_with_table().await?;
    let create = "CREATE OR REPLACE TABLE u AS SELECT value AS id, 7 AS a FROM range(0, 100)";
    connection.execute(create).await?;
    let query = connection.prepare("SELECT a FROM u WHERE id = $1").await?;
    let update = connection.prepare("UPDATE u SET a = a + 1 WHERE id < $1").await?;
    let add = connection.prepare("INSERT INTO u VALUES ($1, 0)").await?;
    let numbers_of = |ids: Vec<i64>| RecordBatch::try_from_iter([("0", Arc::new(Int64Array::from(ids)) as ArrayRef)]);
    let number = |id: i64| numbers_of(vec![id]);
    // A ticket that is sent after the table was replaced, by a client that plans and fetches in two steps.
    let mut stock = served.stock_client().await?;
    let planned = stock.execute("SELECT count(*), sum(a) FROM u".to_owned(), None).await?;
    connection.execute(create).await?;
    assert_eq!(numbers(&fetch(&mut stock, ticket(&planned)?).await?), [100]);
    let rows: Vec<_> = query.query(Some(number(5)?)).await?.batches.try_collect().await?;
    assert_eq!(numbers(&rows), [7]);
    connection.execute(create).await?;
    assert_eq!(update.update(Some(number(10)?)).await?, 10);
    // The same with several rows of parameters, all or none of them.
    connection.execute(create).await?;
    assert_eq!(update.update(Some(numbers_of(vec![3, 5])?)).await?, 8);
    connection.execute(create).await?;
    assert_eq!(add.update(Some(numbers_of(vec![200, 201, 202])?)).await?, 3);
    assert_eq!(ask(&connection, "SELECT count(*) FROM u WHERE a = 0").await?, 3);
    // Another number of shards, and an index that was there: the plan is made anew.
    connection.execute("CREATE INDEX by_a ON u (a)").await?;
    connection.execute("DROP TABLE u").await?;
    connection.execute("CREATE TABLE u (id BIGINT, a BIGINT) PARTITION BY HASH (id) SHARDS 3").await?;
    connection.execute("INSERT INTO u SELECT value, 7 FROM range(0, 100)").await?;
    assert_eq!(ask(&connection, "SELECT count(*) FROM u WHERE id = 5").await?, 1);
    assert_eq!(update.update(Some(number(3)?)).await?, 3);

    let replacing = served.connect().await?;
    let asked = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&asked);
    let replaced = tokio::spawn(async move {
        while !over.load(Ordering::Relaxed) {
            replacing.execute(create).await?;
        }
        Ok::<_, grizzly_provider::Error>(())
    });
    for key in 50..80 {
        assert_eq!(ask(&connection, &format!("SELECT count(*) FROM u WHERE a > 0 AND id <> {key}")).await?, 99);
        assert_eq!(ask(&connection, "SELECT count(*) FROM u x JOIN u y ON x.id = y.id").await?, 100);
        let rows: Vec<_> = query.query(Some(number(key)?)).await?.batches.try_collect().await?;
        assert_eq!(numbers(&rows), [7]);
    }
    asked.store(true, Ordering::Relaxed);
    replaced.await??;
    // What was planned while the table was replaced is not kept for the new one.
    for key in 50..53 {
        assert_eq!(ask(&connection, &format!("SELECT count(*) FROM u WHERE a > 0 AND id <> {key}")).await?, 99);
    }
    Ok(())
}
