//! What a cluster refuses, with a typed error and soon: a store that is not there, a database that others write, and
//! work that was meant for another cluster.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_flight::{
    FlightClient,
    sql::{CommandStatementQuery, ProstMessageExt},
};
use datafusion::{execution::TaskContext, physical_plan::metrics::ExecutionPlanMetricsSet};
use datafusion_distributed::{
    MaybeEncoded, SetPlanRequest, TaskKey,
    grpc::{BoxCloneSyncChannel, create_worker_client},
};
use futures::{StreamExt, TryStreamExt, stream};
use grizzly_provider::ErrorKind;
use parking_lot::Mutex;
use prost::Message;
use tonic::{
    codegen::http::{HeaderMap, HeaderName, HeaderValue},
    transport::Endpoint,
};
use url::Url;
use uuid::Uuid;

use super::{
    nodes::{database, three},
    process::{Outcome, Place, Process, signal},
};
use crate::support::ask;

/// Within this a process that cannot do what it should says so and ends.
const SOON: Duration = Duration::from_secs(20);

/// Runs the command, which must fail, and returns what it says.
fn refused(args: &[&str], environment: &[(&str, &str)]) -> Outcome<String> {
    let begun = Instant::now();
    let run = Command::new(env!("CARGO_BIN_EXE_grizzly"))
        .args(args)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(begun.elapsed() < SOON, "it took {:?}: {said}", begun.elapsed());
    assert!(!run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    Ok(said)
}

/// A node over a bucket at `endpoint`, which is no store.
fn without_store(endpoint: &str, timeout: &str) -> Outcome<String> {
    let environment = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_TIMEOUT", timeout),
    ];
    refused(&["serve", "--cluster", "--db", "s3://bucket/db"], &environment)
}

#[test]
fn a_store_that_is_not_there_is_an_error_that_names_it() -> Outcome {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let said = without_store(&format!("http://{address}"), "30s")?;
    assert!(said.contains("error [08006]") && said.contains("s3://bucket/db"), "{said}");
    Ok(())
}

#[test]
fn a_store_that_is_silent_is_an_error_that_names_it() -> Outcome {
    // Connections are made, and nobody reads what comes.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let said = without_store(&format!("http://{}", listener.local_addr()?), "1s")?;
    assert!(said.contains("error [08006]") && said.contains("s3://bucket/db"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_alone_cannot_open_what_a_cluster_writes() -> Outcome {
    let place = Place::new()?;
    let node = Process::start(&place)?;
    let connection = node.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
    connection.update("INSERT INTO t VALUES (1), (2)").await?;
    for args in [
        ["sql", "--db", &place.url, "-c", "INSERT INTO t VALUES (3)"].as_slice(),
        &["serve", "--db", &place.url],
        &["verify", "--db", &place.url],
    ] {
        let said = tokio::task::block_in_place(|| refused(args, &[]))?;
        assert!(said.contains("error [08006]") && said.contains("cluster"), "{args:?}: {said}");
    }
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 2);
    connection.update("INSERT INTO t VALUES (3)").await?;
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 3);
    Ok(())
}

/// A process that stands still until this is dropped.
struct Frozen(String);

impl Frozen {
    fn new(pid: String) -> Outcome<Self> {
        signal(&pid, "STOP")?;
        Ok(Self(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // There is nobody to tell if it is gone.
        let _ = signal(&self.0, "CONT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_silent_for_a_while_costs_errors_and_nothing_else() -> Outcome {
    // A folder is never silent: this is about buckets, and part of .ci/run's step over S3.
    let Ok(store) = std::env::var("GRIZZLY_STORE_PID") else { return Ok(()) };
    let place = Place::new()?;
    let nodes = [Process::start(&place)?, Process::start(&place)?];
    let connections = [nodes[0].connect().await?, nodes[1].connect().await?];
    connections[1].update("CREATE TABLE t (id BIGINT)").await?;
    connections[1].update("INSERT INTO t VALUES (-1)").await?;
    let frozen = Frozen::new(store)?;
    for (id, connection) in connections.iter().enumerate() {
        assert_eq!(ask(connection, "SELECT count(*) FROM t WHERE id < 0").await?, 1, "it is in memory");
        let begun = Instant::now();
        let refused = connection.update(&format!("INSERT INTO t VALUES ({id})")).await.expect_err("nothing is stored");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(
            matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::Closed | ErrorKind::OutcomeUnknown),
            "{refused}"
        );
    }
    drop(frozen);
    for (id, connection) in (2_i64..).zip(&connections) {
        let begun = Instant::now();
        while let Err(refused) = connection.update(&format!("INSERT INTO t VALUES ({id})")).await {
            assert!(begun.elapsed() < 2 * SOON, "{refused}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for connection in &connections {
        connection.update("DELETE FROM t WHERE id > 3").await?;
        // One that failed may have been carried out.
        assert_eq!(ask(connection, "SELECT count(DISTINCT id) FROM t WHERE id IN (-1, 2, 3)").await?, 3);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_another_cluster_is_unknown() -> Outcome {
    let (ours, theirs) = (three(&database(100).await?).await?, three(&database(10).await?).await?);
    let mut there = FlightClient::new(Endpoint::from_shared(theirs[0].url.replace("grpc", "http"))?.connect().await?);
    let query = CommandStatementQuery { query: "SELECT * FROM t".to_owned(), transaction_id: None };
    let descriptor = arrow_flight::FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
    let info = there.get_flight_info(descriptor).await?;
    let ticket = info.endpoint.first().and_then(|endpoint| endpoint.ticket.clone()).ok_or("no ticket")?;
    for node in &ours {
        let mut here = FlightClient::new(Endpoint::from_shared(node.url.replace("grpc", "http"))?.connect().await?);
        let failed = match here.do_get(ticket.clone()).await {
            Ok(rows) => rows.try_collect::<Vec<_>>().await.err(),
            Err(error) => Some(error),
        };
        let Some(arrow_flight::error::FlightError::Tonic(status)) = failed else {
            return Err(format!("{failed:?}").into());
        };
        assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
    }
    // Where it belongs it is still good.
    let rows: Vec<_> = there.do_get(ticket).await?.try_collect().await?;
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_another_cluster_is_refused() -> Outcome {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let url = Url::parse(&nodes[1].url.replace("grpc", "http"))?;
    let channel = Endpoint::from_shared(url.to_string())?.connect().await?;
    let mut client = create_worker_client(BoxCloneSyncChannel::new(channel));
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("grizzly-database", Uuid::from_u128(7).to_string()),
        ("grizzly-commit", db.snapshot().csn().to_string()),
        ("grizzly-settings", String::new()),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value)?);
    }
    let task = SetPlanRequest {
        task_key: TaskKey { query_id: Uuid::from_u128(1), stage_id: 1, task_number: 0 },
        task_count: 1,
        plan: MaybeEncoded::Encoded(Vec::new()),
        work_unit_feed_declarations: Vec::new(),
        target_worker_url: url,
        query_start_time_ns: 0,
    };
    let (metrics, context) = (ExecutionPlanMetricsSet::new(), Arc::new(TaskContext::default()));
    let sent = client.coordinator_channel(headers, task, stream::pending().boxed(), metrics, &context);
    let failed = match tokio::time::timeout(SOON, sent).await? {
        Ok(mut answers) => answers.next().await.and_then(Result::err),
        Err(error) => Some(error),
    };
    let failed = failed.ok_or("it was taken")?.to_string();
    assert!(failed.contains("serves database") && failed.contains(&Uuid::from_u128(7).to_string()), "{failed}");
    let connection = nodes[0].connect().await?;
    assert_eq!(ask(&connection, "SELECT sum(amount) FROM t").await?, 999_000);
    assert_eq!(nodes[0].live(), 3);
    Ok(())
}

/// A bucket's server that answers each request with an error; when they came.
fn failing_bucket() -> std::io::Result<(String, Arc<Mutex<Vec<Instant>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let asked = Arc::<Mutex<Vec<Instant>>>::default();
    let times = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            times.lock().push(Instant::now());
            let mut request = [0; 16 * 1024];
            if matches!(client.read(&mut request), Ok(1..)) {
                let answer = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                // A client that is gone needs none.
                drop(client.write_all(answer.as_bytes()));
            }
        }
    });
    Ok((url, asked))
}

#[test]
fn an_error_of_a_store_is_repeated_for_five_seconds() -> Outcome {
    let (endpoint, asked) = failing_bucket()?;
    let said = without_store(&endpoint, "30s")?;
    assert!(said.contains("error [08006]") && said.contains("s3://bucket/db"), "{said}");
    let asked = asked.lock();
    let (Some(first), Some(last)) = (asked.first(), asked.last()) else { return Err("it was never asked".into()) };
    // The last pause may be a second long.
    let tried = last.duration_since(*first);
    assert!(Duration::from_secs(4) < tried && tried < Duration::from_secs(9), "{} times in {tried:?}", asked.len());
    Ok(())
}
