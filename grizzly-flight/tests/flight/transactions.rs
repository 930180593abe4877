//! Transactions by action and by SQL text, and how they end.

use std::time::Duration;

use grizzly_flight::{FlightSqlConnection, Limits, client::ConnectOptions};
use grizzly_provider::ErrorKind;

use crate::support::{Served, TestResult, ask, numbers};

async fn served_with_table() -> Result<(Served, FlightSqlConnection), Box<dyn std::error::Error>> {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT NOT NULL, v BIGINT, PRIMARY KEY (id))").await?;
    connection.update("INSERT INTO t VALUES (1, 10), (2, 20)").await?;
    Ok((served, connection))
}

const COUNT: &str = "SELECT count(*) FROM t";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_seen_by_others_once_committed() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let transaction = connection.begin().await?;
    assert_eq!(transaction.update("INSERT INTO t VALUES (3, 30)").await?, 1);
    assert_eq!(numbers(&transaction.execute(COUNT).await?), [3]);
    assert_eq!(ask(&connection, COUNT).await?, 2);
    transaction.commit().await?;
    assert_eq!(ask(&connection, COUNT).await?, 3);
    let transaction = connection.begin().await?;
    transaction.update("DELETE FROM t").await?;
    transaction.rollback().await?;
    assert_eq!(ask(&connection, COUNT).await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_writers_gets_a_conflict() -> TestResult {
    let (served, connection) = served_with_table().await?;
    let (first, second) = (connection.begin().await?, served.connect().await?.begin().await?);
    first.update("UPDATE t SET v = v + 1 WHERE id = 1").await?;
    second.update("UPDATE t SET v = v + 1 WHERE id = 1").await?;
    first.commit().await?;
    let refused = second.commit().await.err().ok_or("both committed")?;
    assert_eq!((refused.kind(), refused.sqlstate()), (ErrorKind::Conflict, "40001"));
    assert!(refused.is_retryable());
    assert_eq!(ask(&connection, "SELECT v FROM t WHERE id = 1").await?, 11);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn savepoints_undo_a_part() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let transaction = connection.begin().await?;
    transaction.update("INSERT INTO t VALUES (3, 30)").await?;
    let savepoint = transaction.savepoint("it's \"here\"").await?;
    for _ in 0..2 {
        transaction.update("DELETE FROM t").await?;
        savepoint.rollback().await?;
        assert_eq!(numbers(&transaction.execute(COUNT).await?), [3]);
    }
    savepoint.release().await?;
    transaction.commit().await?;
    assert_eq!(ask(&connection, COUNT).await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_text_opens_a_transaction_of_the_connection() -> TestResult {
    let (served, connection) = served_with_table().await?;
    let other = served.connect().await?;
    connection.execute("BEGIN").await?;
    connection.execute("DELETE FROM t").await?;
    assert_eq!(ask(&connection, COUNT).await?, 0);
    assert_eq!(ask(&other, COUNT).await?, 2);
    connection.execute("ROLLBACK").await?;
    assert_eq!(ask(&connection, COUNT).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_closed_connection_left_open_is_rolled_back() -> TestResult {
    let (served, connection) = served_with_table().await?;
    let leaving = served.connect().await?;
    leaving.execute("BEGIN").await?;
    leaving.execute("DELETE FROM t").await?;
    drop(leaving);
    assert_eq!(ask(&connection, COUNT).await?, 2);
    assert_eq!(connection.update("UPDATE t SET v = 0").await?, 2, "nobody holds the rows");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_transaction_runs_nothing_more() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let transaction = connection.begin().await?;
    let prepared = transaction.prepare("INSERT INTO t VALUES (9, 9)").await?;
    transaction.commit().await?;
    let refused = prepared.update(None).await.err().ok_or("it ran outside its transaction")?;
    assert!(matches!(refused.kind(), ErrorKind::NotFound | ErrorKind::Closed), "{refused:?}");
    assert_eq!(ask(&connection, COUNT).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_shared_by_name_across_connections() -> TestResult {
    let (served, _) = served_with_table().await?;
    let options = ConnectOptions { session: Some("mine".to_owned()), ..ConnectOptions::default() };
    let first = FlightSqlConnection::connect_with(&served.url, options.clone()).await?;
    first.execute("BEGIN").await?;
    first.execute("DELETE FROM t WHERE id = 1").await?;
    drop(first);
    let again = FlightSqlConnection::connect_with(&served.url, options).await?;
    assert_eq!(ask(&again, COUNT).await?, 1, "the transaction is still open");
    again.execute("COMMIT").await?;
    Ok(())
}

/// Those of ADBC's kind, and those of SQL, in a session that goes by a name.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_session_keeps_its_transaction_until_all_its_connections_are_gone() -> TestResult {
    let (served, other) = served_with_table().await?;
    let options = ConnectOptions { session: Some("mine".to_owned()), ..ConnectOptions::default() };
    let connect = || FlightSqlConnection::connect_with(&served.url, options.clone());
    let (first, second) = (connect().await?, connect().await?);
    first.execute("BEGIN").await?;
    first.execute("DELETE FROM t WHERE id = 1").await?;
    assert_eq!(ask(&second, COUNT).await?, 1);
    let handle = second.begin().await?;
    assert_eq!(handle.update("DELETE FROM t WHERE id = 2").await?, 1);
    let open = "SELECT CAST(transactions AS BIGINT) FROM grizzly.activity";
    drop(first);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(ask(&other, open).await?, 2, "one of its connections is still there");
    assert_eq!(ask(&second, COUNT).await?, 1);
    drop((second, handle));
    let gone = std::time::Instant::now();
    while ask(&other, open).await? > 0 {
        assert!(gone.elapsed() < Duration::from_secs(30), "their client is gone");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ask(&other, COUNT).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_bound_the_number_of_open_transactions() -> TestResult {
    let limits = Limits { sessions_per_connection: 2, transaction_idle: Duration::from_secs(60), ..Limits::default() };
    let served = Served::start_with(|builder| builder.limits(limits)).await?;
    let connection = served.connect().await?;
    let (one, two) = (connection.begin().await?, connection.begin().await?);
    let refused = connection.begin().await.err().ok_or("a third was opened")?;
    assert_eq!(refused.kind(), ErrorKind::Resource);
    one.rollback().await?;
    connection.begin().await?.rollback().await?;
    two.rollback().await?;
    Ok(())
}

/// Drivers without autocommit begin a transaction before the first statement, whatever it is.
#[tokio::test(flavor = "multi_thread")]
async fn tables_can_be_defined_before_a_transaction_writes() -> TestResult {
    let (_served, connection) = served_with_table().await?;
    let transaction = connection.begin().await?;
    transaction.update("CREATE TABLE u (id BIGINT)").await?;
    assert_eq!(transaction.update("INSERT INTO u VALUES (1)").await?, 1);
    let refused = transaction.update("CREATE TABLE w (id BIGINT)").await.err().ok_or("it had written")?;
    assert_eq!(refused.kind(), ErrorKind::TransactionState, "{refused}");
    transaction.rollback().await?;
    assert_eq!(ask(&connection, "SELECT count(*) FROM u").await?, 0);
    Ok(())
}
