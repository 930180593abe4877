//! Nodes that die, freeze or are cut off: the right answer or one clear error, and the next query works.

use std::time::{Duration, Instant};

use grizzly_flight::{FlightSqlConnection, NodeSettings};
use grizzly_provider::ErrorKind;

use super::{
    nodes::{TestNode, database, settings, three, three_with},
    proxy::Network,
};
use crate::support::{TestResult, ask};

const SUM: &str = "SELECT sum(amount) FROM t";
const ALL: i64 = 999_000;
/// All rows in one order, through a shuffle: some of every node's data crosses every other node.
const JOIN: &str = "SELECT count(*) FROM t a JOIN t b ON a.id = b.amount";

/// What a query may take when a node fails under it.
const LIMIT: Duration = Duration::from_secs(10);

async fn timed(connection: &FlightSqlConnection, sql: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let answer = ask(connection, sql).await?;
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    Ok(answer)
}

/// The node is as `network` says; queries go on without it, and with it once it is back.
async fn goes_on_without(nodes: &[TestNode; 3], network: Network) -> TestResult {
    let connection = nodes[0].connect().await?;
    assert_eq!(ask(&connection, SUM).await?, ALL);
    nodes[1].proxy.set(network);
    assert_eq!(timed(&connection, SUM).await?, ALL);
    // Now it is known, and costs nothing.
    let begun = Instant::now();
    assert_eq!(ask(&connection, JOIN).await?, 500);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(nodes[0].live(), 2);
    nodes[1].proxy.set(Network::Works);
    nodes[0].sees(3).await?;
    assert_eq!(ask(&connection, SUM).await?, ALL);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_is_left_out_until_it_is_back() -> TestResult {
    let db = database(1_000).await?;
    goes_on_without(&three(&db).await?, Network::Cut).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_frozen_is_left_out_until_it_is_back() -> TestResult {
    let db = database(1_000).await?;
    goes_on_without(&three(&db).await?, Network::Frozen).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_in_mid_query_costs_a_retry() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    for bytes in [0, 300, 2_000] {
        for failing in [1, 2] {
            nodes[failing].proxy.set_after(bytes, Network::Cut);
            assert_eq!(timed(&connection, JOIN).await?, 500, "after {bytes} bytes of node {failing}");
            nodes[failing].proxy.set(Network::Works);
            nodes[0].sees(3).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_freezes_in_mid_query_costs_a_retry() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    nodes[2].proxy.set_after(300, Network::Frozen);
    assert_eq!(timed(&connection, JOIN).await?, 500);
    assert_eq!(nodes[2].proxy.network(), Network::Frozen);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_other_node_a_query_runs_here() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    for node in &nodes {
        node.proxy.set(Network::Cut);
    }
    assert_eq!(timed(&connection, SUM).await?, ALL);
    assert_eq!(timed(&connection, JOIN).await?, 500);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn once_rows_were_delivered_a_failure_is_an_error_that_names_the_node() -> TestResult {
    let db = database(60_000).await?;
    let nodes = three_with(&db, NodeSettings { held_bytes: 0, ..settings() }).await?;
    let connection = nodes[0].connect().await?;
    let rows = "SELECT id, name, amount FROM t";
    let mut failures = 0;
    for bytes in [5_000, 15_000, 40_000, 80_000, 120_000] {
        nodes[1].proxy.set_after(bytes, Network::Cut);
        match connection.execute(rows).await {
            Ok(batches) => assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 60_000),
            Err(failed) => {
                assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
                assert!(failed.is_retryable() && failed.sqlstate().starts_with("08"));
                assert!(failed.message().contains(&nodes[1].proxy.url), "{failed}");
                failures += 1;
            }
        }
        nodes[1].proxy.set(Network::Works);
        nodes[0].sees(3).await?;
    }
    assert!(failures > 0, "every result was delivered at once");
    // Run again, as the error says, it works.
    let all: usize = connection.execute(rows).await?.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(all, 60_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_is_not_delivered_twice() -> TestResult {
    let db = database(60_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    nodes[1].proxy.set_after(60_000, Network::Cut);
    let rows = connection.execute("SELECT id, name, amount FROM t").await?;
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 60_000);
    assert_eq!(nodes[1].proxy.network(), Network::Cut);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_panics_is_an_error_and_not_the_end_of_its_rows() -> TestResult {
    let db = database(1_000).await?;
    let nodes = three(&db).await?;
    let connection = nodes[0].connect().await?;
    let failed = connection.execute("SELECT sum(panics(id)) FROM t").await.expect_err("it panics");
    assert!(failed.message().contains("as it was asked to"), "{failed}");
    assert_eq!(ask(&connection, SUM).await?, ALL);
    Ok(())
}
