//! Planning and joins that take long hold up nobody else, and end for their own client when that has had enough.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::DataType;
use datafusion::{
    common::ScalarValue,
    error::Result as DataFusionResult,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use futures::TryStreamExt;
use grizzly_flight::{FlightSqlServer, Limits, SessionFactory, error::sqlstate_of};
use grizzly_provider::{ErrorKind, Grizzly, adapter::GrizzlySession};
use parking_lot::{Condvar, Mutex};

use crate::support::{Served, TestResult, ask, numbers, ticket};

/// Where planning stands still as long as it is closed.
#[derive(Debug, Default)]
struct Barrier {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: usize,
}

impl Barrier {
    fn set(&self, closed: bool) {
        self.state.lock().closed = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.wait_while(&mut state, |state| state.closed);
        state.waiting -= 1;
    }

    async fn until_waiting(&self, count: usize) {
        while self.state.lock().waiting != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// `stall()` is 7, and whoever plans it passes the barrier.
#[derive(Debug)]
struct Stall {
    barrier: Arc<Barrier>,
    signature: Signature,
}

impl PartialEq for Stall {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.barrier, &other.barrier)
    }
}

impl Eq for Stall {}

impl std::hash::Hash for Stall {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        "stall".hash(state);
    }
}

impl ScalarUDFImpl for Stall {
    fn name(&self) -> &str {
        "stall"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        self.barrier.pass();
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(7))))
    }
}

/// A server whose sessions know `stall()`.
async fn served(limits: Limits) -> Result<(Served, Arc<Barrier>), Box<dyn std::error::Error>> {
    let (db, barrier) = (Grizzly::open("memory://")?, Arc::new(Barrier::default()));
    let function = Stall { barrier: Arc::clone(&barrier), signature: Signature::nullary(Volatility::Volatile) };
    let function = ScalarUDF::from(function);
    let factory: SessionFactory = Arc::new(move || {
        let session = GrizzlySession::new(&db);
        session.context().register_udf(function.clone());
        Ok(session)
    });
    let server = FlightSqlServer::builder(factory).limits(limits).listen("127.0.0.1:0").await?;
    Ok((Served::of(server), barrier))
}

const SLOW: &str = "SELECT stall()";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn planning_holds_up_nobody() -> TestResult {
    let (served, barrier) = served(Limits::default()).await?;
    let (slow, quick) = (served.connect().await?, served.connect().await?);
    barrier.set(true);
    let planning: Vec<_> = (0..8)
        .map(|_| {
            let slow = slow.clone();
            tokio::spawn(async move { slow.execute(SLOW).await })
        })
        .collect();
    barrier.until_waiting(planning.len()).await;
    assert_eq!(ask(&quick, "SELECT 1").await?, 1);
    assert_eq!(ask(&served.connect().await?, "SELECT 1").await?, 1, "a new client gets in");
    let defining = tokio::spawn(async move { quick.update("CREATE TABLE t AS SELECT stall() AS a").await });
    barrier.until_waiting(planning.len() + 1).await;
    assert_eq!(ask(&served.connect().await?, "SELECT 2").await?, 2);
    barrier.set(false);
    for planned in planning {
        assert_eq!(numbers(&planned.await??), [7]);
    }
    defining.await??;
    Ok(())
}

/// Joins that would not end today, and compute without a pause.
fn endless_joins() -> Vec<String> {
    let (few, many) = ("generate_series(1, 20000)", "generate_series(1, 100000000)");
    vec![
        format!("SELECT count(*) FROM {few} a, {many} b"),
        format!("SELECT count(*) FROM {few} a, {many} b WHERE a.value <> b.value"),
        format!("SELECT count(*) FROM {few} a, {many} b WHERE a.value * b.value < 0"),
        format!("SELECT count(*) FROM {few} a, {many} b WHERE a.value % 3 = b.value % 3"),
        format!("SELECT count(*) FROM {few} a, {many} b WHERE a.value % 3 = b.value % 3 AND a.value * b.value < 0"),
        format!("SELECT count(*) FROM {few} a LEFT JOIN {many} b ON a.value * b.value < 0"),
        format!("SELECT a.value FROM {few} a WHERE EXISTS (SELECT 1 FROM {many} b WHERE a.value * b.value < 0)"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn joins_hold_up_nobody() -> TestResult {
    let (served, _) = served(Limits::default()).await?;
    let (slow, quick) = (served.connect().await?, served.connect().await?);
    let joining: Vec<_> = endless_joins()
        .into_iter()
        .map(|sql| {
            let slow = slow.clone();
            tokio::spawn(async move { slow.execute(&sql).await })
        })
        .collect();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(ask(&quick, "SELECT 1").await?, 1);
        assert_eq!(ask(&served.connect().await?, "SELECT 2").await?, 2, "a new client gets in");
    }
    assert!(joining.iter().all(|joined| !joined.is_finished()), "they cannot end");
    joining.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn joins_take_no_longer_than_their_statement_may() -> TestResult {
    let limits = Limits { statement_timeout: Some(Duration::from_millis(300)), ..Limits::default() };
    let (served, _) = served(limits).await?;
    let connection = served.connect().await?;
    for sql in endless_joins() {
        let late = connection.execute(&sql).await.err().ok_or("it cannot end")?;
        assert_eq!(late.kind(), ErrorKind::Cancelled, "{sql}: {late}");
        assert_eq!(ask(&connection, "SELECT 1").await?, 1, "after {sql}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn planning_takes_no_longer_than_its_statement_may() -> TestResult {
    let limits = Limits { statement_timeout: Some(Duration::from_millis(300)), ..Limits::default() };
    let (served, barrier) = served(limits).await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (a BIGINT)").await?;
    let mut stock = served.stock_client().await?;
    let planned = stock.execute(SLOW.to_owned(), None).await?;
    barrier.set(true);
    for sql in
        [SLOW, "INSERT INTO t SELECT stall()", "CREATE TABLE u AS SELECT stall()", "CREATE VIEW v AS SELECT stall()"]
    {
        let slow = connection.update(sql).await.err().ok_or("nothing passes the barrier")?;
        assert_eq!(slow.kind(), ErrorKind::Cancelled, "{sql}: {slow}");
    }
    let rows = match stock.do_get(ticket(&planned)?).await {
        Ok(rows) => rows.try_collect::<Vec<_>>().await.map(drop),
        Err(error) => Err(error),
    };
    let Err(arrow_flight::error::FlightError::Tonic(status)) = rows else { return Err("it was fetched".into()) };
    assert_eq!(sqlstate_of(&status).as_deref(), Some("57014"));
    barrier.set(false);
    barrier.until_waiting(0).await;
    // What was called cancelled does not happen later.
    for table in ["t", "u", "v"] {
        let count = format!("SELECT count(*) FROM information_schema.tables WHERE table_name = '{table}'");
        assert_eq!(ask(&connection, &count).await?, i64::from(table == "t"), "{table}");
    }
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_statement_whose_client_left_while_it_was_planned_does_nothing() -> TestResult {
    let (served, barrier) = served(Limits::default()).await?;
    let (connection, left) = (served.connect().await?, served.connect().await?);
    connection.update("CREATE TABLE t (a BIGINT)").await?;
    barrier.set(true);
    let planning = tokio::spawn(async move { left.update("INSERT INTO t SELECT stall()").await });
    barrier.until_waiting(1).await;
    planning.abort();
    assert!(planning.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(ask(&connection, "SELECT 1").await?, 1);
    barrier.set(false);
    barrier.until_waiting(0).await;
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0);
    Ok(())
}

/// Without a time-out, too: nobody would ever end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_client_left_is_stopped_unless_it_commits() -> TestResult {
    const TRANSACTIONS: &str = "SELECT CAST(transactions AS BIGINT) FROM grizzly.activity";
    let (served, _) = served(Limits::default()).await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (a BIGINT)").await?;
    connection.update("INSERT INTO t VALUES (1)").await?;
    let endless = "SELECT a.value FROM generate_series(1, 20000) a, generate_series(1, 100000000) b \
                   WHERE a.value * b.value < 0";
    for sql in [
        format!("INSERT INTO t {endless}"),
        format!("UPDATE t SET a = 2 WHERE a IN ({endless})"),
        format!("DELETE FROM t WHERE a IN ({endless})"),
    ] {
        let left = served.connect().await?;
        let writing = tokio::spawn({
            let sql = sql.clone();
            async move { left.update(&sql).await }
        });
        while ask(&connection, TRANSACTIONS).await? == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        writing.abort();
        assert!(writing.await.is_err_and(|error| error.is_cancelled()), "{sql}");
        while ask(&connection, TRANSACTIONS).await? > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(ask(&connection, "SELECT sum(a) FROM t").await?, 1);
    Ok(())
}

/// A driver's transaction is begun anew around a definition. One that is stopped there must not go on without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_does_not_outlive_a_definition_that_was_stopped_in_it() -> TestResult {
    let limits = Limits { statement_timeout: Some(Duration::from_millis(300)), ..Limits::default() };
    let (served, barrier) = served(limits).await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (a BIGINT)").await?;
    let transaction = connection.begin().await?;
    barrier.set(true);
    let stopped =
        transaction.update("CREATE TABLE u AS SELECT stall() AS a").await.err().ok_or("it cannot be planned")?;
    assert_eq!(stopped.kind(), ErrorKind::Cancelled, "{stopped}");
    barrier.set(false);
    assert!(transaction.update("INSERT INTO t VALUES (1)").await.is_err(), "there is no transaction");
    transaction.rollback().await?;
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_double_are_refused_wherever_they_stand() -> TestResult {
    let (served, _) = served(Limits::default()).await?;
    let connection = served.connect().await?;
    let mut query = "WITH c0 AS (SELECT 1 AS x)".to_owned();
    for n in 1..30 {
        query.push_str(&format!(", c{n} AS (SELECT a.x FROM c{} a, c{} b)", n - 1, n - 1));
    }
    query.push_str(" SELECT x FROM c29");
    for sql in [
        query.clone(),
        format!("EXPLAIN {query}"),
        format!("CREATE TABLE t AS {query}"),
        format!("CREATE VIEW v AS {query}"),
        format!("COPY ({query}) TO '/nowhere/t.csv'"),
        format!("EXPLAIN COPY ({query}) TO '/nowhere/t.csv'"),
        format!("SELECT 1 WHERE EXISTS ({query})"),
    ] {
        let refused = connection.update(&sql).await.err().ok_or("it cannot be planned")?;
        assert_eq!(refused.kind(), ErrorKind::TooComplex, "{refused}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_that_double_are_refused() -> TestResult {
    let (served, _) = served(Limits::default()).await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT, v BIGINT)").await?;
    let query = |count: usize| {
        let names =
            (1..count).map(|n| format!(", c{n} AS (SELECT id, v + v AS v FROM c{})", n - 1)).collect::<String>();
        format!("WITH c0 AS (SELECT id, v FROM t){names} SELECT count(*) FROM c{} WHERE v > 5", count - 1)
    };
    assert_eq!(ask(&connection, &query(8)).await?, 0);
    let refused = connection.execute(&query(40)).await.err().ok_or("it cannot be planned")?;
    assert_eq!(refused.kind(), ErrorKind::TooComplex, "{refused}");
    // Many parts of its own are no reason.
    let many: Vec<String> = (0..120_000).map(|n| n.to_string()).collect();
    assert_eq!(ask(&connection, &format!("SELECT count(*) FROM t WHERE v IN ({})", many.join(","))).await?, 0);
    Ok(())
}
