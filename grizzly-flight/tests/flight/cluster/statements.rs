//! What a statement means does not depend on how many nodes carry it out.

use std::time::Duration;

use arrow::{array::AsArray, record_batch::RecordBatch, util::pretty::pretty_format_batches};
use grizzly_flight::{FlightSqlConnection, NodeSettings};
use grizzly_provider::Grizzly;

use super::nodes::{TestNode, database, settings, three};
use crate::support::{TestResult, ask, numbers};

/// All text of a result.
fn text(batches: &[RecordBatch]) -> Result<String, Box<dyn std::error::Error>> {
    Ok(pretty_format_batches(batches)?.to_string())
}

async fn explain(connection: &FlightSqlConnection, sql: &str) -> Result<String, Box<dyn std::error::Error>> {
    text(&connection.execute(&format!("EXPLAIN {sql}")).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_stages_and_nodes_and_a_table_lists_them() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    let plan = explain(&connection, "SELECT grp, sum(amount) FROM t GROUP BY grp").await?;
    assert!(plan.contains("ClusterExec"), "{plan}");
    assert!(plan.contains("Stage 1") && plan.contains("Stage 2 runs on"), "{plan}");
    assert!(plan.contains("shards=2/6"), "{plan}");
    for node in &nodes {
        assert!(plan.contains(&node.proxy.url), "{plan}");
    }
    let listed = connection.execute("SELECT url FROM grizzly.nodes WHERE state = 'live' ORDER BY url").await?;
    let listed: Vec<String> =
        listed.iter().flat_map(|rows| rows.column(0).as_string::<i32>().iter().flatten()).map(str::to_owned).collect();
    let mut urls: Vec<String> = nodes.iter().map(|node| node.proxy.url.clone()).collect();
    urls.sort();
    assert_eq!(listed, urls);
    assert_eq!(ask(&connection, "SELECT count(*) FROM grizzly.nodes WHERE is_own").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn small_queries_stay_on_one_node() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    for (limit, sql, divided) in [
        (1_001, "SELECT sum(amount) FROM t", false),
        (1_000, "SELECT sum(amount) FROM t", true),
        (1, "SELECT name FROM t WHERE id = 7", false),
        (1, "SELECT count(*) FROM t", false),
        (1, "SELECT * FROM grizzly.nodes", false),
    ] {
        connection.update(&format!("SET grizzly.distribute_rows = {limit}")).await?;
        let plan = explain(&connection, sql).await?;
        assert_eq!(plan.contains("Stage 1"), divided, "{limit}, {sql}\n{plan}");
    }
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 1_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_sees_its_own_writes_and_nobody_else_does() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let (writer, reader) = (nodes[0].connect().await?, nodes[1].connect().await?);
    let sum = "SELECT sum(amount) FROM t";
    let before = ask(&reader, sum).await?;
    writer.update("BEGIN").await?;
    assert_eq!(ask(&writer, sum).await?, before);
    writer.update("INSERT INTO t VALUES (5000, 1, 'new', 1000000)").await?;
    assert_eq!(ask(&writer, sum).await?, before + 1_000_000);
    assert_eq!(ask(&reader, sum).await?, before);
    writer.update("COMMIT").await?;
    assert_eq!(ask(&reader, sum).await?, before + 1_000_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_keeps_its_snapshot_on_all_nodes() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let (reader, writer) = (nodes[0].connect().await?, nodes[1].connect().await?);
    let sum = "SELECT sum(amount) FROM t";
    let then = db.snapshot().csn();
    reader.update("BEGIN").await?;
    let before = ask(&reader, sum).await?;
    writer.update("UPDATE t SET amount = amount + 1 WHERE grp < 5").await?;
    assert_eq!(ask(&reader, sum).await?, before);
    reader.update("COMMIT").await?;
    assert_eq!(ask(&reader, sum).await?, before + 500);
    assert_eq!(ask(&reader, &format!("SELECT sum(amount) FROM t FOR SYSTEM_TIME AS OF {then}")).await?, before);
    let versions = "SELECT count(*) FROM \"t$rows\" WHERE deleted IS NOT NULL";
    assert_eq!(ask(&reader, versions).await?, 500);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_writes_reads_its_rows_here_and_once() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[2].connect().await?;
    connection.update("CREATE TABLE sums (grp BIGINT NOT NULL, total BIGINT, PRIMARY KEY (grp))").await?;
    let insert = "INSERT INTO sums SELECT grp, sum(amount) FROM t GROUP BY grp";
    assert!(!explain(&connection, insert).await?.contains("Stage 1"));
    assert_eq!(connection.update(insert).await?, 10);
    assert_eq!(ask(&connection, "SELECT sum(total) FROM sums").await?, 999_000);
    let delete = "DELETE FROM t WHERE amount > (SELECT avg(amount) FROM t)";
    assert_eq!(connection.update(delete).await?, 500);
    assert_eq!(ask(&connection, "SELECT sum(1) FROM t").await?, 500);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_query_fails_as_it_does_on_one_node() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    let failed = connection.execute("SELECT sum(100 / (id - 500)) FROM t").await.expect_err("it divides by zero");
    assert!(failed.message().to_lowercase().contains("divide by zero"), "{failed}");
    assert_eq!(nodes[0].live(), 3);
    assert_eq!(ask(&connection, "SELECT sum(1) FROM t").await?, 1_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_query_and_settings_of_the_session_travel() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[1].connect().await?;
    connection.update("SET datafusion.execution.time_zone = '+05:00'").await?;
    let hour = "SELECT max(date_part('hour', to_timestamp_seconds(id * 60))) FROM t";
    let here = ask(&connection, hour).await?;
    connection.update("SET grizzly.distribute_rows = 100000").await?;
    assert_eq!(ask(&connection, hour).await?, here);
    connection.update("SET grizzly.distribute_rows = 1").await?;
    let prepared = connection.prepare("SELECT sum(amount) FROM t WHERE grp = 3").await?;
    for _ in 0..2 {
        use futures::TryStreamExt;
        let rows: Vec<RecordBatch> = prepared.query(None).await?.batches.try_collect().await?;
        assert_eq!(numbers(&rows), [99_600]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_database_gets_no_work() -> TestResult {
    let (db, other) = (database(1_000).await?, Grizzly::open("memory://")?);
    let nodes = three(&db).await?;
    let stranger = TestNode::start(&other, settings()).await?;
    let mut lease = other.read_nodes()?.remove(0);
    // Its lease lands among ours, and changes as if it were alive.
    let connection = nodes[0].connect().await?;
    for beat in 1_000..1_010 {
        lease.beat = beat;
        db.write_node(&lease)?;
        assert_eq!(ask(&connection, "SELECT sum(amount) FROM t").await?, 999_000);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stranger.live(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_is_gone_at_once_and_one_that_dies_after_its_lease() -> TestResult {
    let db = database(1_000).await?;
    let [a, b, c] = three(&db).await?;
    b.cluster.leave().await?;
    a.sees(2).await?;
    let stopped = NodeSettings { lease: Duration::from_secs(3600), ..settings() };
    let d = TestNode::start(&db, stopped).await?;
    a.sees(3).await?;
    // It never writes its lease again.
    a.sees(2).await?;
    assert!(c.live() >= 2 && d.live() >= 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_nodes_do_not_know_stays_here() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    let query = "SELECT sum(only_here(id)) FROM t";
    assert!(!explain(&connection, query).await?.contains("Stage 1"));
    assert_eq!(ask(&connection, query).await?, 499_500);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_analyze_runs_on_one_node() -> TestResult {
    let db = database(600).await?;
    let nodes = three(&db).await?;
    let query = "SELECT grp, sum(amount) FROM t GROUP BY grp";
    for node in &nodes {
        let connection = node.connect().await?;
        assert!(explain(&connection, query).await?.contains("Stage 1"), "the query itself runs on all of them");
        let plan = explain(&connection, &format!("ANALYZE {query}")).await?;
        assert!(!plan.contains("ClusterExec") && !plan.contains("Stage 1") && !plan.contains("shards="), "{plan}");
        // The one scan has read all the rows, of all shards.
        let scans: Vec<&str> = plan.lines().filter(|line| line.contains("GrizzlyScanExec")).collect();
        let [scan] = scans.as_slice() else { return Err(plan.into()) };
        assert!(scan.contains("output_rows=600") && scan.contains("morsels=6"), "{scan}");
    }
    Ok(())
}
