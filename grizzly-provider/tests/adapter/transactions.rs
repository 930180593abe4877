//! Transactions over several statements: isolation, atomicity, savepoints, conflicts.

use std::sync::Arc;

use futures::StreamExt;
use grizzly_provider::{ErrorKind, adapter::GrizzlySession};

use crate::support::{Sql, Test, database, failure, text};

async fn two_sessions() -> datafusion::error::Result<[Sql; 2]> {
    let db = database()?;
    let sessions = [Sql::Front(GrizzlySession::new(&db)), Sql::Front(GrizzlySession::new(&db))];
    sessions[0].run("CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT NOT NULL)").await?;
    sessions[0].run("INSERT INTO t VALUES (1, 10), (2, 20)").await?;
    Ok(sessions)
}

const ALL: &str = "SELECT id, x FROM t ORDER BY id";

#[tokio::test]
async fn a_transaction_sees_its_own_writes_and_nobody_elses() -> Test {
    let [one, two] = two_sessions().await?;
    one.run("BEGIN").await?;
    one.run("INSERT INTO t VALUES (3, 30)").await?;
    one.run("UPDATE t SET x = x + 1 WHERE id IN (SELECT id FROM t WHERE x >= 20)").await?;
    one.run("DELETE FROM t WHERE id = 1").await?;
    assert_eq!(one.rows(ALL).await?, ["2|21", "3|31"]);
    assert_eq!(two.rows(ALL).await?, ["1|10", "2|20"]);
    two.run("INSERT INTO t VALUES (9, 90)").await?;
    assert_eq!(one.rows(ALL).await?, ["2|21", "3|31"]);
    one.run("COMMIT").await?;
    assert_eq!(one.rows(ALL).await?, ["2|21", "3|31", "9|90"]);
    assert_eq!(two.rows(ALL).await?, ["2|21", "3|31", "9|90"]);
    Ok(())
}

#[tokio::test]
async fn rollback_forgets_everything() -> Test {
    let [one, two] = two_sessions().await?;
    for (begin, end) in
        [("BEGIN TRANSACTION", "ROLLBACK"), ("START TRANSACTION", "ABORT"), ("begin work", "rollback work")]
    {
        one.run(begin).await?;
        one.run("DELETE FROM t").await?;
        one.run("INSERT INTO t VALUES (5, 50)").await?;
        assert_eq!(one.rows(ALL).await?, ["5|50"]);
        one.run(end).await?;
        assert_eq!(one.rows(ALL).await?, ["1|10", "2|20"]);
        assert_eq!(two.rows(ALL).await?, ["1|10", "2|20"]);
    }
    Ok(())
}

#[tokio::test]
async fn datafusions_own_session_has_transactions_too() -> Test {
    let db = database()?;
    let (one, two) = (Sql::vanilla(&db), Sql::vanilla(&db));
    one.run("CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT)").await?;
    one.run("START TRANSACTION").await?;
    one.run("INSERT INTO t VALUES (1, 10)").await?;
    assert_eq!(one.rows(ALL).await?, ["1|10"]);
    assert_eq!(two.rows(ALL).await?, Vec::<String>::new());
    let (kind, state, _) = one.error("INSERT INTO t VALUES (1, 11)").await;
    assert_eq!((kind, state), (Some(ErrorKind::UniqueViolation), "23505"));
    let (kind, state, _) = one.error(ALL).await;
    assert_eq!((kind, state), (Some(ErrorKind::TransactionAborted), "25P02"));
    one.run("ROLLBACK").await?;
    one.run("START TRANSACTION").await?;
    one.run("INSERT INTO t VALUES (2, 20)").await?;
    one.run("COMMIT").await?;
    assert_eq!(two.rows(ALL).await?, ["2|20"]);
    Ok(())
}

#[tokio::test]
async fn a_failed_statement_aborts_the_transaction_until_rollback() -> Test {
    let failing = [
        "INSERT INTO t VALUES (7, 70), (8, 80), (1, 99)",
        "INSERT INTO t VALUES (7, NULL)",
        "INSERT INTO t SELECT value, value FROM generate_series(100000, 1, -1)",
        "SELECT * FROM missing",
        "SELEC 1",
        "UPDATE t SET id = 7",
    ];
    for statement in failing {
        let [one, two] = two_sessions().await?;
        one.run("BEGIN").await?;
        one.run("INSERT INTO t VALUES (3, 30)").await?;
        assert!(one.run(statement).await.is_err(), "{statement}");
        for next in [
            ALL,
            "INSERT INTO t VALUES (4, 40)",
            "CREATE TABLE u (id INT)",
            "SAVEPOINT late",
            "SET TRANSACTION READ ONLY",
        ] {
            let (kind, state, message) = one.error(next).await;
            assert_eq!((kind, state), (Some(ErrorKind::TransactionAborted), "25P02"), "{statement}; {next}: {message}");
        }
        one.run("ROLLBACK").await?;
        assert_eq!(one.rows(ALL).await?, ["1|10", "2|20"], "{statement}");
        assert_eq!(two.rows(ALL).await?, ["1|10", "2|20"], "{statement}");
    }
    Ok(())
}

#[tokio::test]
async fn an_aborted_transaction_does_not_commit() -> Test {
    let [one, two] = two_sessions().await?;
    one.run("BEGIN").await?;
    one.run("INSERT INTO t VALUES (3, 30)").await?;
    assert!(one.run("INSERT INTO t VALUES (1, 1)").await.is_err());
    let (kind, _, message) = one.error("COMMIT").await;
    assert_eq!(kind, Some(ErrorKind::TransactionAborted), "{message}");
    // It has ended all the same.
    one.run("INSERT INTO t VALUES (4, 40)").await?;
    assert_eq!(two.rows(ALL).await?, ["1|10", "2|20", "4|40"]);
    Ok(())
}

#[tokio::test]
async fn a_transaction_of_many_statements_keeps_only_the_savepoints_it_was_asked_for() -> Test {
    let session = GrizzlySession::new(&database()?);
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
    session.begin().await?;
    let kept = || session.handle().with_transaction(|transaction| transaction.savepoints());
    for id in 0..20 {
        session.execute(&format!("INSERT INTO t VALUES ({id})")).await?;
    }
    assert_eq!(kept(), Some(0));
    session.execute("SAVEPOINT a; INSERT INTO t VALUES (100); SAVEPOINT b; INSERT INTO t VALUES (101)").await?;
    assert_eq!(kept(), Some(2));
    assert!(session.execute("INSERT INTO t VALUES (101)").await.is_err());
    assert_eq!(kept(), Some(2));
    session.execute("ROLLBACK TO b; INSERT INTO t VALUES (102)").await?;
    assert_eq!(text(&session.execute("SELECT id FROM t WHERE id >= 100 ORDER BY id").await?)?, ["100", "102"]);
    session.execute("RELEASE b").await?;
    assert_eq!(kept(), Some(1));
    session.execute("ROLLBACK TO a; RELEASE a").await?;
    assert_eq!((kept(), text(&session.execute("SELECT count(*) FROM t").await?)?), (Some(0), vec!["20".to_owned()]));
    session.commit().await?;
    Ok(())
}

#[tokio::test]
async fn savepoints_undo_part_of_a_transaction_and_recover_an_aborted_one() -> Test {
    let [one, two] = two_sessions().await?;
    one.run("BEGIN").await?;
    one.run("INSERT INTO t VALUES (3, 30)").await?;
    one.run("SAVEPOINT a").await?;
    one.run("INSERT INTO t VALUES (4, 40)").await?;
    one.run("SAVEPOINT b").await?;
    one.run("DELETE FROM t").await?;
    one.run("ROLLBACK TO SAVEPOINT b").await?;
    assert_eq!(one.rows(ALL).await?, ["1|10", "2|20", "3|30", "4|40"]);
    assert!(one.run("INSERT INTO t VALUES (1, 1)").await.is_err());
    assert_eq!(one.error(ALL).await.1, "25P02");
    one.run("ROLLBACK TO A").await?;
    assert_eq!(one.rows(ALL).await?, ["1|10", "2|20", "3|30"]);
    one.run("UPDATE t SET x = 31 WHERE id = 3").await?;
    one.run("ROLLBACK TO a").await?;
    assert_eq!(one.rows(ALL).await?, ["1|10", "2|20", "3|30"]);
    one.run("INSERT INTO t VALUES (5, 50)").await?;
    one.run("RELEASE SAVEPOINT a").await?;
    one.run("COMMIT").await?;
    assert_eq!(two.rows(ALL).await?, ["1|10", "2|20", "3|30", "5|50"]);

    one.run("BEGIN").await?;
    let (kind, _, message) = one.error("ROLLBACK TO a").await;
    assert_eq!(kind, Some(ErrorKind::TransactionState), "{message}");
    Ok(())
}

#[tokio::test]
async fn the_second_of_two_conflicting_transactions_fails_and_says_where() -> Test {
    for (first, second) in [
        ("UPDATE t SET x = 11 WHERE id = 1", "UPDATE t SET x = 12 WHERE id = 1"),
        ("DELETE FROM t WHERE id = 1", "UPDATE t SET x = 12 WHERE id = 1"),
        ("UPDATE t SET x = 11 WHERE id = 1", "DELETE FROM t WHERE id = 1"),
        ("INSERT INTO t VALUES (1000, 1)", "INSERT INTO t VALUES (1000, 2)"),
    ] {
        let [one, two] = two_sessions().await?;
        one.run("BEGIN").await?;
        two.run("BEGIN").await?;
        one.run(first).await?;
        two.run(second).await?;
        one.run("COMMIT").await?;
        let after = one.rows(ALL).await?;
        let (kind, state, message) = two.error("COMMIT").await;
        assert_eq!((kind, state), (Some(ErrorKind::Conflict), "40001"), "{first}; {second}: {message}");
        assert!(message.contains("table") && message.contains('t') && message.contains('1'), "{message}");
        // The transaction is over, and nothing of it is left.
        assert_eq!(two.rows(ALL).await?, after, "{first}; {second}");
        two.run("BEGIN").await?;
        two.run("UPDATE t SET x = 0").await?;
        two.run("COMMIT").await?;
    }
    Ok(())
}

#[tokio::test]
async fn retried_increments_are_never_lost() -> Test {
    let db = database()?;
    let setup = GrizzlySession::new(&db);
    setup.execute("CREATE TABLE c (id BIGINT PRIMARY KEY, n BIGINT); INSERT INTO c VALUES (1, 0)").await?;
    let mut tasks = Vec::new();
    for task in 0..4 {
        let session = Arc::new(GrizzlySession::new(&db));
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while done < 25 {
                let outcome = if task % 2 == 0 {
                    session.execute("UPDATE c SET n = n + 1 WHERE id = 1").await
                } else {
                    session.execute("BEGIN; UPDATE c SET n = (SELECT n FROM c WHERE id = 1) + 1; COMMIT").await
                };
                match outcome {
                    Ok(_) => done += 1,
                    Err(error) if failure(&error).0 == Some(ErrorKind::Conflict) => {
                        if session.in_transaction() {
                            session.rollback().await?;
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let n = Sql::Front(setup).rows("SELECT n FROM c").await?;
    assert_eq!(n, ["100"]);
    Ok(())
}

#[tokio::test]
async fn the_state_of_a_transaction_is_checked() -> Test {
    let [one, _] = two_sessions().await?;
    for statement in ["COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a", "SET TRANSACTION READ ONLY"] {
        let (kind, _, message) = one.error(statement).await;
        assert_eq!(kind, Some(ErrorKind::TransactionState), "{statement}: {message}");
    }
    one.run("BEGIN").await?;
    let (kind, _, message) = one.error("BEGIN").await;
    assert_eq!(kind, Some(ErrorKind::TransactionState), "{message}");
    one.run("ROLLBACK").await?;

    for definition in
        ["CREATE TABLE u (id INT)", "CREATE INDEX i ON t (x)", "DROP TABLE t", "CREATE VIEW v AS SELECT 1"]
    {
        one.run("BEGIN").await?;
        let (kind, _, message) = one.error(definition).await;
        assert_eq!(kind, Some(ErrorKind::TransactionState), "{definition}: {message}");
        one.run("ROLLBACK").await?;
    }
    let (kind, state, message) = one.error("BEGIN ISOLATION LEVEL SERIALIZABLE").await;
    assert_eq!((kind, state), (Some(ErrorKind::Unsupported), "0A000"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_read_only_transaction_does_not_write() -> Test {
    let [one, _] = two_sessions().await?;
    for begin in [&["START TRANSACTION READ ONLY"][..], &["BEGIN", "SET TRANSACTION READ ONLY"]] {
        one.all(begin).await?;
        assert_eq!(one.rows(ALL).await?, ["1|10", "2|20"]);
        let (kind, _, message) = one.error("DELETE FROM t").await;
        assert_eq!(kind, Some(ErrorKind::TransactionState), "{message}");
        one.run("ROLLBACK").await?;
    }
    one.run("BEGIN READ WRITE").await?;
    one.run("DELETE FROM t WHERE id = 1").await?;
    one.run("COMMIT AND CHAIN").await?;
    one.run("DELETE FROM t").await?;
    one.run("END").await?;
    assert_eq!(one.rows(ALL).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_dropped_statement_leaves_nothing_behind() -> Test {
    let db = database()?;
    let session = GrizzlySession::new(&db);
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT)").await?;
    let insert = "INSERT INTO t SELECT value, 0 FROM generate_series(1, 1000000)";

    let mut rows = session.sql(insert).await?.execute_stream().await?;
    let first = tokio::time::timeout(std::time::Duration::from_millis(1), rows.next()).await;
    drop(rows);
    let whole = if first.is_ok() { "1000000" } else { "0" };
    let sql = Sql::Front(session);
    assert_eq!(sql.rows("SELECT count(*) FROM t").await?, [whole]);

    let Sql::Front(session) = sql else { return Ok(()) };
    session.begin().await?;
    let mut rows = session
        .sql("INSERT INTO t SELECT value, 0 FROM generate_series(2000000, 9000000)")
        .await?
        .execute_stream()
        .await?;
    let first = tokio::time::timeout(std::time::Duration::from_millis(1), rows.next()).await;
    assert!(first.is_err(), "seven million rows within a millisecond");
    drop(rows);
    let error = session.execute("SELECT 1 FROM t").await.err().map(|error| failure(&error).0);
    assert_eq!(error, Some(Some(ErrorKind::TransactionAborted)));
    session.rollback().await?;
    assert_eq!(Sql::Front(session).rows("SELECT count(*) FROM t").await?, [whole]);
    Ok(())
}

#[tokio::test]
async fn several_statements_in_one_text_run_in_order() -> Test {
    let db = database()?;
    let session = GrizzlySession::new(&db);
    let rows = session
        .execute(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, x VARCHAR); ; BEGIN; INSERT INTO t VALUES (1, 'a;b'); -- ; \n \
             SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT; SELECT x FROM t;",
        )
        .await?;
    assert_eq!(text(&rows)?, ["a;b"]);
    assert!(session.sql("SELECT 1; SELECT 2").await.is_err());
    assert!(session.sql("  ").await.is_err());
    assert!(
        session
            .execute("INSERT INTO t VALUES (2, 'b'); INSERT INTO t VALUES (1, 'x'); INSERT INTO t VALUES (3, 'c')")
            .await
            .is_err()
    );
    assert_eq!(Sql::Front(session).rows("SELECT id FROM t ORDER BY id").await?, ["1", "2"]);
    Ok(())
}

#[tokio::test]
async fn every_level_that_is_given_is_snapshot() -> Test {
    for level in ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SNAPSHOT"] {
        let [one, two] = two_sessions().await?;
        one.run(&format!("START TRANSACTION ISOLATION LEVEL {level}")).await?;
        assert_eq!(one.rows(ALL).await?, ["1|10", "2|20"], "{level}");
        two.run("UPDATE t SET x = 11 WHERE id = 1").await?;
        assert_eq!(one.rows(ALL).await?, ["1|10", "2|20"], "{level}");
        one.run("COMMIT").await?;
        assert_eq!(one.rows(ALL).await?, ["1|11", "2|20"], "{level}");
    }
    Ok(())
}

#[tokio::test]
async fn datafusions_own_session_gives_snapshot_for_serializable() -> Test {
    let db = database()?;
    let (one, two) = (Sql::vanilla(&db), Sql::vanilla(&db));
    one.run("CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT)").await?;
    one.run("START TRANSACTION ISOLATION LEVEL SERIALIZABLE").await?;
    assert_eq!(one.rows(ALL).await?, Vec::<String>::new());
    two.run("INSERT INTO t VALUES (1, 10)").await?;
    assert_eq!(one.rows(ALL).await?, Vec::<String>::new());
    one.run("COMMIT").await?;
    assert_eq!(one.rows(ALL).await?, ["1|10"]);
    Ok(())
}

/// Each finds no row of the other and inserts one of its own: G2. A row that both write excludes it.
#[tokio::test]
async fn write_skew_on_predicates_may_happen_unless_both_write_a_common_row() -> Test {
    for guarded in [false, true] {
        let [one, two] = two_sessions().await?;
        one.run("CREATE TABLE guard (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)").await?;
        one.run("INSERT INTO guard VALUES (1, 0)").await?;
        for (session, id) in [(&one, 3), (&two, 4)] {
            session.run("BEGIN").await?;
            assert_eq!(session.rows("SELECT count(*) FROM t WHERE x > 20").await?, ["0"]);
            session.run(&format!("INSERT INTO t VALUES ({id}, 30)")).await?;
            if guarded {
                session.run("UPDATE guard SET n = n + 1 WHERE id = 1").await?;
            }
        }
        one.run("COMMIT").await?;
        if guarded {
            let refused = two.run("COMMIT").await.err().ok_or("both wrote the guard")?;
            assert_eq!(failure(&refused).0, Some(ErrorKind::Conflict));
            assert_eq!(two.rows(ALL).await?, ["1|10", "2|20", "3|30"]);
        } else {
            two.run("COMMIT").await?;
            assert_eq!(two.rows(ALL).await?, ["1|10", "2|20", "3|30", "4|30"]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_table_that_was_replaced_since_cannot_be_read() -> Test {
    for change in ["CREATE OR REPLACE TABLE t AS SELECT 7 AS id, 70 AS x", "DROP TABLE t"] {
        let [one, two] = two_sessions().await?;
        one.run("BEGIN").await?;
        two.run(change).await?;
        let refused = one.run(ALL).await.err().ok_or("it is another table")?;
        assert_eq!(failure(&refused).1, "42P01", "{change}");
        one.run("ROLLBACK").await?;
    }
    Ok(())
}
