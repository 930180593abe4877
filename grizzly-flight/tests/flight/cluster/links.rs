//! Links between nodes that are dead: what nobody answers is noticed in time, and told as it is.

use std::time::{Duration, Instant};

use grizzly_flight::FlightSqlConnection;
use grizzly_provider::{ErrorKind, Grizzly};

use super::{
    process::{LIMIT, Place},
    proxy::{Network, Proxy},
};
use crate::{
    failover::serve,
    support::{TestResult, ask},
};

/// A writer behind a link, and a session at a node that follows it.
struct Pair {
    writer: Grizzly,
    link: Proxy,
    session: FlightSqlConnection,
    _place: Place,
}

async fn pair() -> Result<Pair, Box<dyn std::error::Error>> {
    let place = Place::new()?;
    let (writer, url) = serve(&place.url, "one").await.map_err(|error| error.to_string())?;
    let link = Proxy::to(url.trim_start_matches("grpc://").to_owned()).await?;
    writer.advertise(&link.url)?;
    let (follower, url) = serve(&place.url, "two").await.map_err(|error| error.to_string())?;
    assert!(!follower.is_writer());
    let session = FlightSqlConnection::connect(&url).await?;
    session.update("CREATE TABLE t (a BIGINT PRIMARY KEY)").await?;
    session.update("INSERT INTO t VALUES (1)").await?;
    Ok(Pair { writer, link, session, _place: place })
}

async fn refused(session: &FlightSqlConnection, sql: &str) -> ErrorKind {
    let begun = Instant::now();
    let refused = session.update(sql).await.expect_err("nobody can carry it out");
    assert!(begun.elapsed() < LIMIT, "{sql}: {:?}", begun.elapsed());
    refused.kind()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_over_a_dead_link_is_told_in_time_as_what_it_is() -> TestResult {
    let pair = pair().await?;
    let session = &pair.session;
    session.update("BEGIN").await?;
    session.update("INSERT INTO t VALUES (2)").await?;
    pair.link.set(Network::Frozen);
    assert_eq!(refused(session, "COMMIT").await, ErrorKind::OutcomeUnknown, "it was sent");
    // What has not come further than its planning has changed nothing. Reads go on meanwhile.
    assert_eq!(refused(session, "INSERT INTO t VALUES (3)").await, ErrorKind::Unavailable);
    assert_eq!(ask(session, "SELECT count(*) FROM t WHERE a IN (1, 3)").await?, 1);
    assert_eq!(refused(session, "CREATE TABLE u (a BIGINT)").await, ErrorKind::OutcomeUnknown);
    pair.link.set(Network::Works);
    // The next one goes over a new connection.
    session.update("INSERT INTO t VALUES (4)").await?;
    assert_eq!(ask(session, "SELECT count(*) FROM t WHERE a IN (1, 3, 4)").await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_was_left_while_it_began_does_not_go_on() -> TestResult {
    let pair = pair().await?;
    let session = &pair.session;
    session.update("BEGIN").await?;
    pair.link.set(Network::Frozen);
    let left = tokio::time::timeout(Duration::from_millis(500), session.update("INSERT INTO t VALUES (2)"));
    assert!(left.await.is_err(), "its BEGIN is under way");
    pair.link.set(Network::Works);
    assert_eq!(refused(session, "INSERT INTO t VALUES (3)").await, ErrorKind::TransactionAborted);
    session.update("ROLLBACK").await?;
    session.update("INSERT INTO t VALUES (4)").await?;
    assert_eq!(ask(session, "SELECT count(*) FROM t WHERE a > 1").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_died_while_nothing_was_sent_costs_no_doubt() -> TestResult {
    let pair = pair().await?;
    pair.link.set(Network::Lost);
    // Pings find out while nobody waits.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let begun = Instant::now();
    pair.session.update("INSERT INTO t VALUES (2)").await?;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // Nobody listens there.
    pair.writer.advertise("grpc://127.0.0.1:9")?;
    let begun = Instant::now();
    loop {
        match pair.session.update("CREATE TABLE u (a BIGINT)").await {
            // The other node has not heard of it yet.
            Ok(_) => drop(pair.session.update("DROP TABLE u").await),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "it was not sent: {error}");
                break;
            }
        }
        assert!(begun.elapsed() < LIMIT);
    }
    Ok(())
}
