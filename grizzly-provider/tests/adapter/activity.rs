//! `grizzly.activity`: what the open database is busy with.

use std::time::Duration;

use grizzly_provider::{
    Error, ErrorKind, Grizzly,
    adapter::{GrizzlySession, grizzly_error},
};

use crate::support::{Test, text};

const COUNTS: &str = "SELECT sessions || ' sessions, ' || transactions || ' transactions' FROM grizzly.activity";

#[tokio::test]
async fn sessions_and_transactions_are_counted_while_they_last() -> Test {
    let db = Grizzly::open("memory://")?;
    let session = GrizzlySession::new(&db);
    session.execute("CREATE TABLE t (a BIGINT PRIMARY KEY)").await?;
    assert_eq!(text(&session.execute(COUNTS).await?)?, ["1 sessions, 0 transactions"]);
    let other = GrizzlySession::new(&db);
    other.execute("BEGIN").await?;
    other.execute("INSERT INTO t VALUES (1)").await?;
    assert_eq!(text(&session.execute(COUNTS).await?)?, ["2 sessions, 1 transactions"]);
    other.execute("COMMIT").await?;
    assert_eq!(text(&session.execute(COUNTS).await?)?, ["2 sessions, 0 transactions"]);
    other.execute("BEGIN").await?;
    drop(other);
    assert_eq!(text(&session.execute(COUNTS).await?)?, ["1 sessions, 0 transactions"]);
    Ok(())
}

#[tokio::test]
async fn the_oldest_snapshot_is_that_of_the_oldest_transaction() -> Test {
    let db = Grizzly::open("memory://")?;
    let (session, other) = (GrizzlySession::new(&db), GrizzlySession::new(&db));
    session.execute("CREATE TABLE t (a BIGINT PRIMARY KEY)").await?;
    other.execute("BEGIN").await?;
    let began = db.activity().oldest_snapshot.ok_or("a transaction is open")?;
    assert_eq!(began, db.activity().newest_commit);
    session.execute("INSERT INTO t VALUES (1)").await?;
    let behind = "SELECT CAST(oldest_snapshot < newest_commit AND snapshots > 0 AND hot_bytes > 0 AS TEXT) FROM grizzly.activity";
    assert_eq!(text(&session.execute(behind).await?)?, ["true"]);
    assert_eq!(db.activity().oldest_snapshot, Some(began));
    other.execute("ROLLBACK").await?;
    // That of the last statement goes soon.
    while db.activity().snapshots > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(db.activity().oldest_snapshot, None);
    Ok(())
}

#[tokio::test]
async fn nobody_defines_or_drops_tables_about_the_database() -> Test {
    let session = GrizzlySession::new(&Grizzly::open("memory://")?);
    for statement in [
        "CREATE SCHEMA grizzly",
        "DROP SCHEMA grizzly",
        "DROP SCHEMA grizzly CASCADE",
        "CREATE TABLE grizzly.mine (a BIGINT)",
        "CREATE TABLE grizzly.mine AS SELECT 1 AS a",
        "CREATE OR REPLACE TABLE grizzly.activity AS SELECT 1 AS a",
        "CREATE VIEW grizzly.mine AS SELECT 1 AS a",
    ] {
        let refused = session.execute(statement).await.err().ok_or(statement)?;
        let kind = grizzly_error(&refused).map(Error::kind);
        let exists = statement == "CREATE SCHEMA grizzly";
        let expected = if exists { None } else { Some(ErrorKind::Permission) };
        assert_eq!(kind, expected, "{statement}: {refused}");
        assert_eq!(text(&session.execute(COUNTS).await?)?, ["1 sessions, 0 transactions"], "{statement}");
    }
    Ok(())
}
