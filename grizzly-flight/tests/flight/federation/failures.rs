//! Remotes that are away, slow, or not what they were: a typed error that names the remote, in time.

use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use datafusion::{logical_expr::LogicalPlan, scalar::ScalarValue};
use grizzly_flight::federation;
use grizzly_provider::{
    Error, ErrorKind, Grizzly,
    adapter::{GrizzlySession, grizzly_error},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::shop::{Outcome, Wire, attach, rows, session};
use crate::support::{Served, TestResult, numbers};

async fn served() -> Outcome<Served> {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT NOT NULL, v BIGINT, PRIMARY KEY (id))").await?;
    connection.update("INSERT INTO t VALUES (1, 10), (2, 20)").await?;
    Ok(served)
}

/// The error of a statement that must fail within 5 seconds.
async fn failure(session: &GrizzlySession, sql: &str) -> Outcome<Error> {
    let started = Instant::now();
    let error = session.execute(sql).await.err().ok_or_else(|| format!("{sql} must fail"))?;
    assert!(started.elapsed() < Duration::from_secs(5), "{sql} took {:?}", started.elapsed());
    let inner = grizzly_error(&error).ok_or_else(|| format!("no error of ours: {error}"))?;
    Ok(Error::new(inner.kind(), inner.message()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_remote_is_named_and_a_new_one_in_its_place_is_found() -> TestResult {
    let far = served().await?;
    let here = session(&Grizzly::open("memory://")?)?;
    attach(&here, "far", &far.url).await?;
    let create =
        format!("CREATE EXTERNAL TABLE ext STORED AS FLIGHTSQL LOCATION '{}' OPTIONS ('flightsql.table' 't')", far.url);
    here.execute(&create).await?;
    let url = far.url.clone();
    drop(far);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for sql in ["SELECT * FROM far.public.t", "SELECT count(*) FROM ext", "INSERT INTO ext VALUES (3, 30)"] {
        let error = failure(&here, sql).await?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains(&url), "{error}");
    }
    // What is here can be used without the remote.
    here.execute("SHOW TABLES").await?;
    assert_eq!(numbers(&here.execute("SELECT 1").await?), [1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_stops_speaking_is_named_within_its_timeout() -> TestResult {
    let far = served().await?;
    let wire = Wire::to(&far.url).await?;
    let here = session(&Grizzly::open("memory://")?)?;
    attach(&here, "far", &format!("{}?timeout=400ms", wire.url)).await?;
    let slow = "SELECT count(*) FROM far.public.t";
    assert_eq!(numbers(&here.execute(slow).await?), [2]);
    let create = format!(
        "CREATE EXTERNAL TABLE ext STORED AS FLIGHTSQL LOCATION '{}' OPTIONS ('flightsql.table' 't', \
         'flightsql.timeout' '400ms')",
        wire.url
    );
    here.execute(&create).await?;
    wire.stall();
    for sql in [slow, "SELECT sum(v) FROM ext"] {
        let error = failure(&here, sql).await?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains(&wire.url) && error.message().contains("400ms"), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_another_one_now_is_an_error_and_never_wrong_rows() -> TestResult {
    let far = served().await?;
    let there = far.connect().await?;
    let here = session(&Grizzly::open("memory://")?)?;
    let create = format!("CREATE EXTERNAL TABLE t STORED AS FLIGHTSQL LOCATION '{}'", far.url);
    here.execute(&create).await?;
    let queries = ["SELECT v FROM t", "SELECT id, v FROM t WHERE id > 1", "SELECT v, count(*) FROM t GROUP BY v"];
    for columns in ["id BIGINT NOT NULL, v VARCHAR", "id BIGINT NOT NULL, w BIGINT", "id BIGINT NOT NULL, v DOUBLE"] {
        there.update("DROP TABLE t").await?;
        there.update(&format!("CREATE TABLE t ({columns}, PRIMARY KEY (id))")).await?;
        there.update("INSERT INTO t VALUES (2, '7')").await?;
        for sql in queries {
            let error = failure(&here, sql).await?;
            assert!(error.message().contains(&far.url), "{columns}, {sql}: {error}");
            assert!(!error.is_retryable(), "{columns}, {sql}: {error:?}");
        }
    }
    // A wider number is the same number.
    there.update("DROP TABLE t").await?;
    there.update("CREATE TABLE t (id BIGINT NOT NULL, v INT, PRIMARY KEY (id))").await?;
    there.update("INSERT INTO t VALUES (2, 7)").await?;
    assert_eq!(numbers(&here.execute("SELECT v FROM t").await?), [7]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_changes_or_goes_between_planning_and_execution_is_named() -> TestResult {
    let far = served().await?;
    let there = far.connect().await?;
    let here = session(&Grizzly::open("memory://")?)?;
    attach(&here, "far", &far.url).await?;
    here.execute("CREATE TABLE mine (id BIGINT NOT NULL, PRIMARY KEY (id))").await?;
    here.execute("INSERT INTO mine VALUES (2)").await?;
    let queries = [
        "SELECT v FROM far.public.t",
        "SELECT v, count(*) FROM far.public.t GROUP BY v",
        "SELECT m.id, t.v FROM mine m JOIN far.public.t t ON t.id = m.id",
    ];
    let changes = [
        vec!["DROP TABLE t"],
        vec!["DROP TABLE t", "CREATE TABLE t (id BIGINT NOT NULL, v VARCHAR, PRIMARY KEY (id))"],
        vec!["DROP TABLE t", "CREATE TABLE t (id BIGINT NOT NULL, w BIGINT, PRIMARY KEY (id))"],
    ];
    let again = "CREATE TABLE t (v BIGINT, id BIGINT NOT NULL, PRIMARY KEY (id))";
    for change in &changes {
        let mut plans = Vec::new();
        for sql in queries {
            plans.push(here.plan(sql).await?);
        }
        for statement in change {
            there.update(statement).await?;
        }
        if change.len() > 1 {
            there.update("INSERT INTO t VALUES (2, '7')").await?;
        }
        for (plan, sql) in plans.iter().zip(queries) {
            let error = ran(&here, plan).await.err().ok_or_else(|| format!("{change:?}, {sql} must fail"))?;
            assert!(error.message().contains(&far.url), "{change:?}, {sql}: {error}");
            assert!(!error.is_retryable(), "{change:?}, {sql}: {error:?}");
        }
        there.update("DROP TABLE IF EXISTS t").await?;
        there.update(again).await?;
        there.update("INSERT INTO t VALUES (20, 2)").await?;
    }
    // Columns are asked for by name: in another order they are the same.
    let plan = here.plan(queries[2]).await?;
    there.update("DROP TABLE t").await?;
    there.update("CREATE TABLE t (id BIGINT NOT NULL, x INT, v BIGINT, PRIMARY KEY (id))").await?;
    there.update("INSERT INTO t VALUES (2, 0, 30)").await?;
    assert_eq!(rows(&ran(&here, &plan).await?)?, ["2|30"]);
    let (started, url) = (Instant::now(), far.url.clone());
    drop((there, far));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = ran(&here, &plan).await.err().ok_or("nobody is there")?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains(&url) && started.elapsed() < Duration::from_secs(5), "{error}");
    Ok(())
}

/// What a plan gives.
async fn ran(session: &GrizzlySession, plan: &LogicalPlan) -> Result<Vec<RecordBatch>, Error> {
    let result = async { session.execute_plan(plan, Vec::<ScalarValue>::new()).await?.collect().await }.await;
    result.map_err(|error| match grizzly_error(&error) {
        Some(inner) => Error::new(inner.kind(), inner.message()),
        None => Error::new(ErrorKind::Internal, format!("no error of ours: {error}")),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_goes_half_way_is_an_error_and_no_rows() -> TestResult {
    let far = served().await?;
    let fill = "INSERT INTO t SELECT value, value * 7919 % 100003 FROM generate_series(10, 200000)";
    far.connect().await?.update(fill).await?;
    let wire = Wire::to(&far.url).await?;
    let here = session(&Grizzly::open("memory://")?)?;
    attach(&here, "far", &wire.url).await?;
    here.execute("CREATE TABLE copy (id BIGINT NOT NULL, v BIGINT, PRIMARY KEY (id))").await?;
    for sql in ["SELECT id, v FROM far.public.t", "INSERT INTO copy SELECT id, v FROM far.public.t"] {
        wire.cut_after(500_000);
        let error = failure(&here, sql).await?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{sql}: {error}");
        assert!(error.message().contains(&wire.url), "{sql}: {error}");
        wire.cut_after(u64::MAX);
        assert_eq!(numbers(&here.execute("SELECT count(*) FROM far.public.t").await?), [199_993], "it is back");
    }
    assert_eq!(numbers(&here.execute("SELECT count(*) FROM copy").await?), [0]);
    Ok(())
}

/// A server that answers whatever it is told with `answer`, and hangs up; it stays silent if that is empty.
async fn answering(answer: &'static [u8]) -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut told = [0; 1024];
            if answer.is_empty() {
                silent.push(client);
            } else if matches!(client.read(&mut told).await, Ok(1..)) {
                drop(client.write_all(answer).await);
            }
        }
    });
    Ok(format!("grpc://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_flight_sql_server_is_refused_by_name() -> TestResult {
    let here = session(&Grizzly::open("memory://")?)?;
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let silent = answering(b"").await?;
    let web = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello!";
    let urls = [
        (format!("grpc://{closed}"), ErrorKind::Unavailable),
        (answering(web).await?, ErrorKind::Unavailable),
        (answering(b"220 mail ready\r\n").await?, ErrorKind::Unavailable),
        (format!("{silent}?timeout=300ms"), ErrorKind::Unavailable),
        // However long an answer may take otherwise.
        (format!("{silent}?connect_timeout=300ms"), ErrorKind::Unavailable),
        ("ftp://host".to_owned(), ErrorKind::Invalid),
        ("nonsense".to_owned(), ErrorKind::Invalid),
    ];
    for (url, kind) in &urls {
        let named = url.split('?').next().unwrap_or(url);
        let create = format!("CREATE EXTERNAL TABLE x STORED AS FLIGHTSQL LOCATION '{url}'");
        let started = Instant::now();
        let attached = federation::attach(url).await.err().ok_or_else(|| format!("{url} is no database"))?;
        assert!(started.elapsed() < Duration::from_secs(5), "{url} took {:?}", started.elapsed());
        for error in [failure(&here, &create).await?, attached] {
            assert_eq!(error.kind(), *kind, "{url}: {error}");
            assert!(error.message().contains(named) || url == "nonsense", "{url}: {error}");
        }
    }
    Ok(())
}
