//! Statements, tickets, errors, limits.

use arrow_flight::{CancelFlightInfoRequest, sql::Any};
use futures::TryStreamExt;
use grizzly_flight::{FlightSqlConnection, FlightSqlServer, Limits, client::ConnectOptions, error::sqlstate_of};
use grizzly_provider::{ErrorKind, Grizzly};
use prost::Message;
use std::time::Duration;

use crate::support::{Served, TestResult, ask, factory, fetch, numbers, ticket};

#[tokio::test(flavor = "multi_thread")]
async fn ddl_dml_and_queries_run_as_updates_and_as_queries() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))").await?;
    assert_eq!(connection.update("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)").await?, 3);
    assert_eq!(connection.update("UPDATE t SET name = 'c' WHERE id >= 2").await?, 2);
    assert_eq!(numbers(&connection.execute("DELETE FROM t WHERE id = 3").await?), [1]);
    assert!(connection.execute("CREATE TABLE u (id BIGINT)").await?.is_empty());
    assert_eq!(numbers(&connection.execute("SELECT id FROM t WHERE name = 'c'").await?), [2]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_runs_once_at_its_first_do_get() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT)").await?;
    let mut client = served.stock_client().await?;
    let info = client.execute("INSERT INTO t VALUES (1), (2)".to_owned(), None).await?;
    assert!(info.schema.is_empty(), "a driver must wait for the result, not fetch it in the background");
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0, "planning runs nothing");
    let ticket = ticket(&info)?;
    for _ in 0..3 {
        let batches = fetch(&mut client, ticket.clone()).await?;
        assert_eq!(numbers(&batches), [2]);
        assert_eq!(batches[0].schema().field(0).name(), "count");
    }
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 2, "a ticket sent again writes nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_fails_again_and_is_not_repeated() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT NOT NULL, PRIMARY KEY (id))").await?;
    connection.update("INSERT INTO t VALUES (1)").await?;
    let mut client = served.stock_client().await?;
    let info = client.execute("INSERT INTO t VALUES (1)".to_owned(), None).await?;
    let first = fetch(&mut client, ticket(&info)?).await.err().map(|error| error.to_string());
    connection.update("DELETE FROM t").await?;
    let second = fetch(&mut client, ticket(&info)?).await.err().map(|error| error.to_string());
    assert!(first.is_some());
    assert_eq!(first, second);
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_their_kind() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT NOT NULL, PRIMARY KEY (id))").await?;
    connection.update("INSERT INTO t VALUES (1)").await?;
    let cases = [
        ("INSERT INTO t VALUES (1)", ErrorKind::UniqueViolation),
        ("INSERT INTO t VALUES (NULL)", ErrorKind::NotNullViolation),
        ("SELEC 1", ErrorKind::Invalid),
        ("SELECT nosuch FROM t", ErrorKind::Invalid),
        ("CREATE TABLE t (id BIGINT)", ErrorKind::AlreadyExists),
    ];
    for (sql, kind) in cases {
        let error = connection.execute(sql).await.err().ok_or(sql)?;
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert!(error.message().starts_with(&served.url), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_larger_than_the_default_message_pass() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    let batches = connection.execute("SELECT repeat('x', 9000000) AS wide").await?;
    let lengths = connection.execute("SELECT length(repeat('x', 9000000))").await?;
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
    assert_eq!(numbers(&lengths), [9_000_000]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn results_stream_without_being_collected() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    // 10^10 rows: only a stream can begin to answer.
    let sql = "SELECT a.value FROM generate_series(1, 100000) a CROSS JOIN generate_series(1, 100000) b";
    let mut rows = connection.query(sql).await?.batches;
    let first = rows.try_next().await?.ok_or("no batch")?;
    assert!(first.num_rows() > 0);
    drop(rows);
    assert_eq!(ask(&connection, "SELECT 1").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_statement_can_be_cancelled() -> TestResult {
    let served = Served::start().await?;
    let mut client = served.stock_client().await?;
    let sql = "SELECT a.value FROM generate_series(1, 100000) a CROSS JOIN generate_series(1, 100000) b";
    let info = client.execute(sql.to_owned(), None).await?;
    let mut rows = client.do_get(ticket(&info)?).await?;
    assert!(rows.try_next().await?.is_some());
    let request = CancelFlightInfoRequest { info: Some(info) };
    let action = arrow_flight::Action { r#type: "CancelFlightInfo".to_owned(), body: request.encode_to_vec().into() };
    client.do_action(action).await?.message().await?.ok_or("no answer")?;
    let error = loop {
        match rows.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Err("the stream ended as if it were whole".into()),
            Err(error) => break error,
        }
    };
    let arrow_flight::error::FlightError::Tonic(status) = error else { return Err(error.into()) };
    assert_eq!(sqlstate_of(&status).as_deref(), Some("57014"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_time_out() -> TestResult {
    let limits = Limits { statement_timeout: Some(Duration::from_millis(200)), ..Limits::default() };
    let served = Served::start_with(|builder| builder.limits(limits)).await?;
    let connection = served.connect().await?;
    let sql =
        "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value <> b.value";
    let error = connection.execute(sql).await.err().ok_or("it must not finish")?;
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert_eq!(ask(&connection, "SELECT 1").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_on_every_call() -> TestResult {
    let served = Served::start_with(|builder| builder.token(Some("secret".to_owned()))).await?;
    let with = |token: Option<&str>| ConnectOptions { token: token.map(str::to_owned), ..ConnectOptions::default() };
    let good = FlightSqlConnection::connect_with(&served.url, with(Some("secret"))).await?;
    assert_eq!(ask(&good, "SELECT 1").await?, 1);
    for wrong in [None, Some("secre")] {
        let bad = FlightSqlConnection::connect_with(&served.url, with(wrong)).await?;
        let refused = bad.update("CREATE TABLE t (id BIGINT)").await.err().ok_or("it must be refused")?;
        assert_eq!(refused.kind(), ErrorKind::Permission, "{refused}");
    }
    // The password is the token, and the handshake hands out what to send from then on.
    let mut client = served.stock_client().await?;
    client.handshake("anybody", "secret").await?;
    let info = client.execute("SELECT 7".to_owned(), None).await?;
    assert_eq!(numbers(&fetch(&mut client, ticket(&info)?).await?), [7]);
    Ok(())
}

#[tokio::test]
async fn beyond_this_machine_a_token_is_mandatory() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let refused = FlightSqlServer::builder(factory(&db)).listen("0.0.0.0:0").await.err().ok_or("it must refuse")?;
    assert_eq!(refused.kind(), ErrorKind::Permission);
    let token = Some("secret".to_owned());
    FlightSqlServer::builder(factory(&db)).token(token).listen("0.0.0.0:0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_harm_nobody() -> TestResult {
    let served = Served::start().await?;
    let mut client = served.stock_client().await?;
    for bytes in
        [vec![], vec![0xff; 10], Any { type_url: "nonsense".to_owned(), value: vec![1, 2].into() }.encode_to_vec()]
    {
        let descriptor = arrow_flight::FlightDescriptor::new_cmd(bytes.clone());
        assert!(client.inner_mut().get_flight_info(descriptor.clone()).await.is_err());
        assert!(client.inner_mut().get_schema(descriptor).await.is_err());
        assert!(client.do_get(arrow_flight::Ticket::new(bytes)).await.is_err());
    }
    let connection = served.connect().await?;
    assert_eq!(ask(&connection, "SELECT 1").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_polls_and_flights_are_answered() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR)").await?;
    connection.update("INSERT INTO t VALUES (5, 'x')").await?;
    let mut client = served.stock_client().await?;
    let path = arrow_flight::FlightDescriptor::new_path(vec!["t".to_owned()]);
    let schema = client.inner_mut().get_schema(path.clone()).await?.into_inner();
    let schema = arrow::datatypes::Schema::try_from(&schema)?;
    assert_eq!(schema.fields().len(), 2);
    let poll = client.inner_mut().poll_flight_info(path).await?.into_inner();
    assert!(poll.flight_descriptor.is_none(), "it is complete");
    let info = poll.info.ok_or("no info")?;
    assert_eq!(numbers(&fetch(&mut client, ticket(&info)?).await?), [5]);
    let flights = client.inner_mut().list_flights(arrow_flight::Criteria::default()).await?.into_inner();
    let flights: Vec<_> = flights.try_collect().await?;
    let paths: Vec<_> = flights.into_iter().filter_map(|info| info.flight_descriptor).map(|d| d.path).collect();
    assert!(paths.iter().any(|path| path.last().is_some_and(|name| name == "t")), "{paths:?}");
    Ok(())
}
