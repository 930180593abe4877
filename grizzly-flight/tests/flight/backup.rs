//! Backups of a served database: taken by SQL while clients write, restored, and compared with the original as of the
//! commit that was reported.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::UInt64Type,
};
use grizzly_flight::{FlightSqlConnection, FlightSqlServer};
use grizzly_provider::{
    Backups, ClusterSettings, ErrorKind, Grizzly, RestoreTo, Settings,
    access::Csn,
    adapter::{GrizzlySession, grizzly_error},
    open_place,
};

use crate::support::{TestResult, factory, numbers};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Serves the database in `folder`, whose rows soon become files; as one of several processes if `node` is given.
async fn serve(folder: &Path, node: Option<&str>) -> Outcome<(Grizzly, FlightSqlConnection)> {
    let cluster = node.map(|node| ClusterSettings {
        node: node.to_owned(),
        lease: Duration::from_secs(20),
        poll: Duration::from_millis(10),
        ..ClusterSettings::default()
    });
    let settings = Settings { flush_rows: 100, cluster, ..Settings::default() };
    let db = Grizzly::builder(&folder.to_string_lossy()).settings(settings).open()?;
    let server = FlightSqlServer::builder(factory(&db)).listen("127.0.0.1:0").await?;
    let url = server.url();
    tokio::spawn(server.serve());
    if node.is_some() {
        db.advertise(&url)?;
    }
    Ok((db, FlightSqlConnection::connect(&url).await?))
}

/// The commit of the backup that a call took.
fn commit_of(rows: &[RecordBatch]) -> Outcome<Csn> {
    let [row] = rows else { return Err(format!("one row was expected: {rows:?}").into()) };
    let csn = row.column_by_name("csn").and_then(|column| column.as_primitive_opt::<UInt64Type>());
    Ok(Csn(csn.filter(|csn| csn.len() == 1).ok_or("no commit")?.value(0)))
}

/// A copy in memory as of a commit.
fn restored(backups: &Path, csn: Csn) -> Outcome<GrizzlySession> {
    let copy = open_place("memory://", None)?;
    let backups = Backups::open(&backups.to_string_lossy(), None)?;
    assert_eq!(backups.restore_into(&copy, RestoreTo::Csn(csn), &mut |_, _| {})?.csn, csn);
    Ok(GrizzlySession::new(&Grizzly::builder("memory://").storage(copy).open()?))
}

/// Moves money between accounts until told to stop.
async fn write(connection: FlightSqlConnection, stop: Arc<AtomicBool>, written: Arc<AtomicU64>, mut at: u64) {
    while !stop.load(Ordering::Relaxed) {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (from, to) = ((at >> 33) % 20, (at >> 40) % 20);
        let change = format!("CASE WHEN id = {from} THEN -1 ELSE 1 END");
        let sql = format!("UPDATE accounts SET balance = balance + {change} WHERE id IN ({from}, {to})");
        // Another one may have come first.
        if from != to && connection.update(&sql).await.is_ok() {
            written.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_database_is_backed_up_while_clients_write() -> TestResult {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("it's backups");
    let (_db, client) = serve(&folder.path().join("db"), None).await?;
    client.update("CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT)").await?;
    client.update("CREATE TABLE marks (round BIGINT PRIMARY KEY)").await?;
    client.update("INSERT INTO accounts SELECT value, 100 FROM generate_series(0, 19)").await?;
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for seed in 1..=4 {
        let connection = FlightSqlConnection::connect(client.url()).await?;
        writers.push(tokio::spawn(write(connection, Arc::clone(&stop), Arc::clone(&written), seed)));
    }
    let mut commits = Vec::new();
    for round in 0..4_u64 {
        let before = written.load(Ordering::SeqCst);
        while written.load(Ordering::SeqCst) < before + 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        client.update(&format!("INSERT INTO marks VALUES ({round})")).await?;
        let kind = if round == 0 { "" } else { ", 'incremental'" };
        let to = place.to_string_lossy().replace('\'', "''");
        commits.push(commit_of(&client.execute(&format!("CALL grizzly.backup('{to}'{kind})")).await?)?);
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await?;
    }
    assert!(commits.is_sorted_by(|left, right| left < right), "{commits:?}");
    for (round, csn) in commits.iter().enumerate() {
        let copy = restored(&place, *csn)?;
        let marks = numbers(&copy.execute("SELECT round FROM marks ORDER BY round").await?);
        assert_eq!(marks.len(), round + 1, "what was acknowledged before is in it");
        let balances = numbers(&copy.execute("SELECT balance FROM accounts ORDER BY id").await?);
        let then = format!("SELECT balance FROM accounts FOR SYSTEM_TIME AS OF {csn} ORDER BY id");
        assert_eq!(balances, numbers(&client.execute(&then).await?), "round {round}");
        assert_eq!((balances.len(), balances.iter().sum::<i64>()), (20, 2_000), "round {round}");
        assert_eq!(copy.handle().db().verify()?.problems, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_write_lets_the_writer_take_the_backup() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (home, place) = (folder.path().join("db"), folder.path().join("backups"));
    let (writer, _) = serve(&home, Some("one")).await?;
    let (follower, here) = serve(&home, Some("two")).await?;
    assert!(writer.is_writer() && !follower.is_writer());
    here.update("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
    here.update("INSERT INTO t VALUES (1), (2), (3)").await?;
    let call = format!("CALL grizzly.backup('{}')", place.display());
    let csn = commit_of(&here.execute(&call).await?)?;
    let copy = restored(&place, csn)?;
    assert_eq!(numbers(&copy.execute("SELECT count(*) FROM t").await?), [3]);
    // Without a server in between, it is told who could.
    let error = GrizzlySession::new(&follower).execute(&call).await.err().ok_or("it does not write")?;
    let error = grizzly_error(&error).ok_or("an error of ours")?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(Backups::open(&place.to_string_lossy(), None)?.list()?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_acts_once_and_only_when_it_is_executed() -> TestResult {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("backups");
    let (db, client) = serve(&folder.path().join("db"), None).await?;
    let backups = || Backups::open(&place.to_string_lossy(), None)?.list().map(|backups| backups.len());
    let call = format!("CALL grizzly.backup('{}')", place.display());
    let session = GrizzlySession::new(&db);
    session.execute(&format!("EXPLAIN {call}")).await?;
    drop(session.plan(&call).await?);
    drop(session.sql(&call).await?);
    client.schema(&call).await?;
    client.execute(&format!("EXPLAIN {call}")).await?;
    assert_eq!(backups()?, 0);
    session.execute(&call).await?;
    assert_eq!(backups()?, 1);
    assert_eq!(client.execute(&call).await?.len(), 1);
    assert_eq!(backups()?, 2);
    client.update(&call).await?;
    assert_eq!(backups()?, 3);
    let prepared = client.prepare(&call).await?;
    prepared.query(None).await?;
    assert_eq!(backups()?, 4);
    // What a transaction has not committed is in no backup; the transaction goes on.
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
    session.execute("BEGIN; INSERT INTO t VALUES (1)").await?;
    let csn = commit_of(&session.execute(&call).await?)?;
    session.execute("COMMIT").await?;
    let copy = restored(&place, csn)?;
    assert_eq!(numbers(&copy.execute("SELECT count(*) FROM t").await?), [0]);
    assert_eq!(numbers(&session.execute("SELECT count(*) FROM t").await?), [1]);
    Ok(())
}
