//! Nodes on one folder or bucket, each a process with a server: writes go to whichever node writes, through any of
//! them, and when that one is killed another goes on.

use std::{
    collections::BTreeSet,
    error::Error,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::Int64Array,
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use grizzly_flight::{FlightSqlConnection, FlightSqlServer, client::IngestMode};
use grizzly_provider::{ClusterSettings, ErrorKind, Grizzly, Settings};
use parking_lot::Mutex;

use crate::{
    cluster::process::Place,
    support::{TestResult, ask, factory, numbers},
};

const NODES: usize = 3;
const CLIENTS: i64 = 8;
/// Kills; more with `GRIZZLY_FAILOVERS=20`.
const KILLS: usize = 4;
/// What a busy machine may take, after the lease has run out, until writes go on.
const BEYOND_LEASE: Duration = Duration::from_secs(4);
/// Names the database to a node; its presence makes the test act as one.
const DATABASE: &str = "GRIZZLY_FAILOVER_DATABASE";

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Short on a disk; what is usual where a store takes its time.
fn lease(db: &str) -> Duration {
    if db.starts_with("s3://") { ClusterSettings::default().lease } else { Duration::from_millis(1000) }
}

fn open(db: &str, node: &str) -> Outcome<Grizzly> {
    let cluster = ClusterSettings {
        node: node.to_owned(),
        lease: lease(db),
        poll: Duration::from_millis(10),
        ..ClusterSettings::default()
    };
    // Small, so that segments are written and merged while clients commit.
    let settings = Settings { flush_rows: 200, cluster: Some(cluster), ..Settings::default() };
    Ok(Grizzly::builder(db).settings(settings).open()?)
}

/// A node in this process.
pub(crate) async fn serve(db: &str, node: &str) -> Outcome<(Grizzly, String)> {
    let db = open(db, node)?;
    let server = FlightSqlServer::builder(factory(&db)).listen("127.0.0.1:0").await?;
    let url = server.url();
    tokio::spawn(server.serve());
    db.advertise(&url)?;
    Ok((db, url))
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_writes_and_reads_them_back() -> TestResult {
    let place = Place::new()?;
    let (writer, writer_url) = serve(&place.url, "one").await.map_err(|error| error.to_string())?;
    let (follower, url) = serve(&place.url, "two").await.map_err(|error| error.to_string())?;
    assert!(writer.is_writer() && !follower.is_writer());
    let there = FlightSqlConnection::connect(&writer_url).await?;
    let here = FlightSqlConnection::connect(&url).await?;
    here.update("CREATE TABLE t (a BIGINT PRIMARY KEY, b BIGINT)").await?;
    assert_eq!(here.update("INSERT INTO t VALUES (1, 10), (2, 20)").await?, 2);
    assert_eq!(ask(&here, "SELECT sum(b) FROM t").await?, 30, "a session sees its own write");
    assert_eq!(ask(&there, "SELECT sum(b) FROM t").await?, 30);
    assert_eq!(numbers(&here.execute("UPDATE t SET b = b + 1 WHERE a = 1").await?), [1]);

    // A transaction by SQL: reads in it see its writes, nobody else does.
    here.update("BEGIN").await?;
    here.update("DELETE FROM t WHERE a = 1").await?;
    assert_eq!(ask(&here, "SELECT count(*) FROM t").await?, 1);
    assert_eq!(ask(&there, "SELECT count(*) FROM t").await?, 2);
    here.update("ROLLBACK").await?;
    assert_eq!(ask(&here, "SELECT count(*) FROM t").await?, 2);

    // One by Flight's actions, with a prepared statement and a savepoint.
    let transaction = here.begin().await?;
    let insert = transaction.prepare("INSERT INTO t VALUES ($1, $2)").await?;
    let schema =
        Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)]));
    let rows = |ids: &[i64]| {
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(Int64Array::from(ids.to_vec()))];
        RecordBatch::try_new(Arc::clone(&schema), columns)
    };
    assert_eq!(insert.update(Some(rows(&[3, 4])?)).await?, 2);
    let savepoint = transaction.savepoint("s").await?;
    transaction.update("DELETE FROM t").await?;
    savepoint.rollback().await?;
    assert_eq!(numbers(&transaction.execute("SELECT count(*) FROM t").await?), [4]);
    transaction.commit().await?;
    assert_eq!(ask(&here, "SELECT count(*) FROM t").await?, 4);

    // Bulk ingest, and errors as they are.
    let batch = rows(&[5, 6, 7])?;
    let stream = futures::stream::iter([batch]);
    assert_eq!(here.ingest("t", IngestMode::Append, Arc::clone(&schema), stream).await?, 3);
    assert_eq!(ask(&here, "SELECT count(*) FROM t").await?, 7);
    let twice = here.update("INSERT INTO t VALUES (1, 1)").await;
    assert_eq!(twice.map_err(|error| error.kind()), Err(ErrorKind::UniqueViolation));

    // The writer leaves in the middle of a transaction: the transaction is lost, the session is not.
    here.update("BEGIN").await?;
    here.update("INSERT INTO t VALUES (100, 1)").await?;
    writer.close()?;
    assert!(here.update("INSERT INTO t VALUES (101, 1)").await.is_err());
    assert!(here.update("COMMIT").await.is_err());
    drop(here.update("ROLLBACK").await);
    let begun = Instant::now();
    while here.update("INSERT INTO t VALUES (102, 1)").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody took over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(follower.is_writer());
    assert_eq!(numbers(&here.execute("SELECT a FROM t WHERE a >= 100").await?), [102]);
    Ok(())
}

#[test]
fn a_killed_writer_is_replaced_and_nothing_acknowledged_is_lost_or_doubled() -> Outcome {
    match std::env::var(DATABASE) {
        Ok(db) => tokio::runtime::Runtime::new()?.block_on(be_a_node(&db)),
        Err(_) => tokio::runtime::Runtime::new()?.block_on(kill_writers()),
    }
}

/// A node in a process of its own: says where it listens, and whenever it becomes the writer.
async fn be_a_node(db: &str) -> Outcome {
    let (db, url) = serve(db, &std::process::id().to_string()).await?;
    say(&format!("listening {url}"))?;
    let mut wrote = false;
    loop {
        let writes = db.is_writer();
        if writes && !wrote {
            say("writes")?;
        }
        wrote = writes;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Fails when the parent is gone, and ends the node by that.
fn say(line: &str) -> Outcome {
    let mut output = std::io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes())?;
    Ok(output.flush()?)
}

/// A node as the parent sees it.
struct Node {
    child: Child,
    url: String,
    writes: Arc<AtomicBool>,
}

impl Node {
    fn start(db: &str) -> Outcome<Self> {
        let name = "failover::a_killed_writer_is_replaced_and_nothing_acknowledged_is_lost_or_doubled";
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", name, "--nocapture"])
            .env(DATABASE, db)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("a node has no output")?).lines();
        let url = loop {
            let line = lines.next().ok_or("a node ended at once")??;
            if let Some(url) = line.strip_prefix("listening ") {
                break url.to_owned();
            }
        };
        let writes = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&writes);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line == "writes" {
                    seen.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Self { child, url, writes })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already dead in the good case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the clients share.
struct World {
    urls: Mutex<Vec<String>>,
    acknowledged: Mutex<Vec<i64>>,
    last: Mutex<Instant>,
    stop: AtomicBool,
}

async fn kill_writers() -> Outcome {
    let kills = std::env::var("GRIZZLY_FAILOVERS").map_or(Ok(KILLS), |kills| kills.parse())?;
    let place = Place::new().map_err(|error| error.to_string())?;
    let mut nodes = (0..NODES).map(|_| Node::start(&place.url)).collect::<Outcome<Vec<_>>>()?;
    let connection = FlightSqlConnection::connect(&nodes[1].url).await?;
    // Without a key, so that a row that came twice would be there twice.
    connection.update("CREATE TABLE t (id BIGINT, client BIGINT)").await?;
    let world = Arc::new(World {
        urls: Mutex::new(nodes.iter().map(|node| node.url.clone()).collect()),
        acknowledged: Mutex::default(),
        last: Mutex::new(Instant::now()),
        stop: AtomicBool::new(false),
    });
    let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(run_client(client, Arc::clone(&world)))).collect();
    let mut longest = Duration::ZERO;
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(700)).await;
        longest = longest.max(kill_the_writer(&mut nodes, &place.url, &world).await?);
    }
    world.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await?;
    }
    check(&nodes, &world).await?;
    let commits = world.acknowledged.lock().len();
    println!("{kills} kills, {commits} acknowledged commits, writes went on after {longest:?} at most");
    assert!(commits > 20 * kills, "too few commits to mean anything: {commits}");
    // On a disk and a machine that does nothing else, 1.4 seconds at a lease of one.
    let at_most = lease(&place.url) + BEYOND_LEASE;
    assert!(longest < at_most, "writes went on after {longest:?}, not within {at_most:?}");
    Ok(())
}

/// Kills the node that writes, starts another one, and returns how long no commit was acknowledged.
async fn kill_the_writer(nodes: &mut Vec<Node>, db: &str, world: &World) -> Outcome<Duration> {
    let writer = nodes.iter().position(|node| node.writes.load(Ordering::SeqCst)).ok_or("nobody writes")?;
    let mut dead = nodes.swap_remove(writer);
    dead.child.kill()?;
    let killed = Instant::now();
    dead.child.wait()?;
    world.urls.lock().retain(|url| *url != dead.url);
    // Not one that was on its way when the writer died.
    while *world.last.lock() < killed + lease(db) / 2 {
        if killed.elapsed() > Duration::from_secs(30) {
            return Err("writes did not go on".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let interrupted = world.last.lock().saturating_duration_since(killed);
    let db = db.to_owned();
    let node = tokio::task::spawn_blocking(move || Node::start(&db)).await??;
    world.urls.lock().push(node.url.clone());
    nodes.push(node);
    while !nodes.iter().any(|node| node.writes.load(Ordering::SeqCst)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(interrupted)
}

/// Commits one row after the other through any node, sometimes as a transaction. Never tries a row again.
async fn run_client(client: i64, world: Arc<World>) {
    let mut connection = None;
    for number in 0_i64.. {
        if world.stop.load(Ordering::SeqCst) {
            return;
        }
        let id = client * 1_000_000 + number;
        let url = {
            let urls = world.urls.lock();
            urls[(number / 50 + client) as usize % urls.len()].clone()
        };
        if number % 50 == 0 {
            connection = None;
        }
        let usable = match connection.take() {
            Some(usable) => Ok(usable),
            None => FlightSqlConnection::connect(&url).await,
        };
        let Ok(usable) = usable else { continue };
        if commit(&usable, client, id, number % 3 == 0).await.is_ok() {
            world.acknowledged.lock().push(id);
            *world.last.lock() = Instant::now();
            connection = Some(usable);
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn commit(
    connection: &FlightSqlConnection,
    client: i64,
    id: i64,
    transaction: bool,
) -> Result<(), grizzly_provider::Error> {
    let insert = format!("INSERT INTO t VALUES ({id}, {client})");
    if !transaction {
        return connection.update(&insert).await.map(drop);
    }
    let transaction = connection.begin().await?;
    transaction.update(&insert).await?;
    transaction.commit().await
}

/// A write through a node makes its session see all that was written before.
async fn all_rows(connection: &FlightSqlConnection) -> Result<Vec<RecordBatch>, grizzly_provider::Error> {
    connection.update("DELETE FROM t WHERE id < 0").await?;
    connection.execute("SELECT id FROM t").await
}

/// Every node has every acknowledged row, and no row twice.
async fn check(nodes: &[Node], world: &World) -> Outcome {
    let acknowledged: BTreeSet<i64> = world.acknowledged.lock().iter().copied().collect();
    for node in nodes {
        let connection = FlightSqlConnection::connect(&node.url).await?;
        let begun = Instant::now();
        let found = loop {
            match all_rows(&connection).await {
                Ok(rows) => break numbers(&rows),
                // It may be asked to try again while a writer takes over.
                Err(error) if begun.elapsed() > Duration::from_secs(30) => {
                    return Err(format!("{}: {error}", node.url).into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let rows: BTreeSet<i64> = found.iter().copied().collect();
        let lost: Vec<_> = acknowledged.difference(&rows).take(5).collect();
        if !lost.is_empty() || rows.len() != found.len() {
            let (found, rows) = (found.len(), rows.len());
            return Err(format!("{}: lost {lost:?}; {found} rows, {rows} of them different", node.url).into());
        }
    }
    Ok(())
}
