//! Remotes that are away, slow, or not what they were: a typed error that names the remote, in time.

use std::time::{Duration, Instant};

use grizzly_provider::{
    Error, ErrorKind, Grizzly,
    adapter::{GrizzlySession, grizzly_error},
};

use super::shop::{Outcome, Wire, attach, session};
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
async fn what_is_no_flight_sql_server_is_refused_by_name() -> TestResult {
    let here = session(&Grizzly::open("memory://")?)?;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let silent = format!("grpc://{}?connect_timeout=300ms&timeout=300ms", silent.local_addr()?);
    for url in ["grpc://127.0.0.1:1", "ftp://host", "nonsense", &silent] {
        let create = format!("CREATE EXTERNAL TABLE x STORED AS FLIGHTSQL LOCATION '{url}'");
        let error = failure(&here, &create).await?;
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Invalid), "{url}: {error}");
        let named = url.split('?').next().unwrap_or(url);
        assert!(error.message().contains(named) || url == "nonsense", "{url}: {error}");
    }
    Ok(())
}
