//! Definitions: tables with shards, keys and defaults, tables from queries, indexes.

use grizzly_provider::{ErrorKind, access::IndexInfo, adapter::GrizzlySession};

use crate::support::{Sql, Test, database};

fn front() -> datafusion::error::Result<(grizzly_provider::Grizzly, Sql)> {
    let db = database()?;
    let session = Sql::Front(GrizzlySession::new(&db));
    Ok((db, session))
}

#[tokio::test]
async fn shards_are_declared_in_three_ways() -> Test {
    let (db, sql) = front()?;
    for (table, create) in [
        ("a", "CREATE TABLE a (id BIGINT, k VARCHAR, PRIMARY KEY (id, k)) PARTITION BY HASH (id) SHARDS 4"),
        ("b", "CREATE TABLE b (id BIGINT, k VARCHAR, PRIMARY KEY (id, k)) WITH (shards = 4, shard_by = 'id')"),
        (
            "c",
            "CREATE TABLE c (id BIGINT, k VARCHAR, PRIMARY KEY (id, k)) WITH ('grizzly.shards' = '4', 'grizzly.shard_by' = 'ID')",
        ),
    ] {
        sql.run(create).await?;
        let snapshot = db.snapshot().table(table)?;
        assert_eq!(snapshot.shards().len(), 4, "{create}");
        assert_eq!(snapshot.shard_by(), [0], "{create}");
        assert_eq!(snapshot.primary_key(), [0, 1], "{create}");
        let insert = format!("INSERT INTO {table} SELECT value, 'k' FROM generate_series(1, 1000)");
        assert_eq!(sql.count(&insert).await?, 1000);
        assert_eq!(sql.rows(&format!("SELECT count(*), sum(id) FROM {table}")).await?, ["1000|500500"]);
        assert!(db.snapshot().table(table)?.shards().iter().all(|shard| shard.rows > 100), "{create}");
    }
    for wrong in [
        "CREATE TABLE d (id BIGINT) PARTITION BY HASH (id) SHARDS 0",
        "CREATE TABLE d (id BIGINT) PARTITION BY HASH (id)",
        "CREATE TABLE d (id BIGINT) SHARDS 4",
        "CREATE TABLE d (id BIGINT) PARTITION BY RANGE (id) SHARDS 4",
        "CREATE TABLE d (id BIGINT) WITH (fillfactor = 70)",
    ] {
        let (kind, _, message) = sql.error(wrong).await;
        assert!(matches!(kind, Some(ErrorKind::Invalid | ErrorKind::Unsupported)), "{wrong}: {message}");
        assert!(db.snapshot().table("d").is_err(), "{wrong}");
    }
    Ok(())
}

#[tokio::test]
async fn a_table_is_created_once() -> Test {
    for sql in Sql::both()? {
        sql.run("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
        sql.run("INSERT INTO t VALUES (1)").await?;
        sql.run("CREATE TABLE IF NOT EXISTS t (other VARCHAR)").await?;
        assert!(sql.run("CREATE TABLE t (id BIGINT)").await.is_err());
        assert_eq!(sql.rows("SELECT * FROM t").await?, ["1"]);
        sql.run("DROP TABLE t").await?;
        assert!(sql.run("SELECT * FROM t").await.is_err());
        sql.run("DROP TABLE IF EXISTS t").await?;
        assert!(sql.run("DROP TABLE t").await.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn a_table_comes_from_a_query() -> Test {
    let (_, sql) = front()?;
    sql.run("CREATE TABLE a AS SELECT value AS id, value % 3 AS m FROM generate_series(1, 30000)").await?;
    assert_eq!(sql.rows("SELECT count(*), sum(m) FROM a").await?, ["30000|30000"]);
    sql.run("CREATE TABLE b (id INT PRIMARY KEY, m VARCHAR) PARTITION BY HASH (id) SHARDS 2 AS SELECT id, m FROM a WHERE id < 4").await?;
    assert_eq!(sql.rows("SELECT * FROM b ORDER BY id").await?, ["1|1", "2|2", "3|0"]);
    sql.run("CREATE OR REPLACE TABLE b AS SELECT id + 1 AS id FROM b").await?;
    assert_eq!(sql.rows("SELECT * FROM b ORDER BY id").await?, ["2", "3", "4"]);
    sql.run("CREATE TABLE IF NOT EXISTS b AS SELECT 9 AS id").await?;
    assert_eq!(sql.rows("SELECT count(*) FROM b").await?, ["3"]);
    let (kind, _, message) = sql.error("CREATE TABLE c (m BIGINT PRIMARY KEY) AS SELECT m FROM a").await;
    assert_eq!(kind, Some(ErrorKind::UniqueViolation), "{message}");
    assert!(sql.run("SELECT * FROM c").await.is_err());
    Ok(())
}

#[tokio::test]
async fn indexes_come_and_go() -> Test {
    let (db, sql) = front()?;
    let indexes = || -> grizzly_provider::Result<Vec<String>> {
        let show =
            |index: IndexInfo| format!("{}{:?}{:?}{}", index.name, index.columns, index.descending, index.unique);
        Ok(db.snapshot().table("t")?.indexes().into_iter().filter(|index| !index.primary).map(show).collect())
    };
    sql.run("CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT, b VARCHAR, UNIQUE (a, b))").await?;
    sql.run("INSERT INTO t VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'x')").await?;
    assert_eq!(indexes()?, ["t_a_b_key[1, 2][false, false]true"]);
    let (kind, _, message) = sql.error("INSERT INTO t VALUES (4, 1, 'y')").await;
    assert_eq!(kind, Some(ErrorKind::UniqueViolation), "{message}");

    sql.run("CREATE INDEX by_b ON t USING btree (B DESC, a)").await?;
    assert!(indexes()?.contains(&"by_b[2, 1][true, false]false".to_owned()), "{:?}", indexes()?);
    assert!(sql.run("CREATE INDEX by_b ON t (a)").await.is_err());
    sql.run("CREATE INDEX IF NOT EXISTS by_b ON t (a)").await?;
    sql.run("CREATE INDEX ON t (a)").await?;
    assert!(indexes()?.iter().any(|index| index.starts_with("t_a_idx")), "{:?}", indexes()?);
    let (kind, _, message) = sql.error("CREATE UNIQUE INDEX one_b ON t (b)").await;
    assert_eq!(kind, Some(ErrorKind::UniqueViolation), "{message}");
    sql.run("DROP INDEX by_b").await?;
    sql.run("DROP INDEX t_a_idx ON t").await?;
    sql.run("DROP INDEX IF EXISTS by_b").await?;
    assert!(sql.run("DROP INDEX by_b").await.is_err());
    assert_eq!(indexes()?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn datafusions_own_session_creates_indexes() -> Test {
    let db = database()?;
    let sql = Sql::vanilla(&db);
    sql.run("CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT UNIQUE)").await?;
    sql.run("CREATE INDEX by_a ON t (a DESC)").await?;
    let names: Vec<_> = db.snapshot().table("t")?.indexes().iter().map(|index| index.name.to_string()).collect();
    assert!(names.contains(&"by_a".to_owned()), "{names:?}");
    sql.run("INSERT INTO t VALUES (1, 1)").await?;
    assert_eq!(sql.error("INSERT INTO t VALUES (2, 1)").await.0, Some(ErrorKind::UniqueViolation));
    Ok(())
}

#[tokio::test]
async fn what_a_table_or_index_cannot_have_is_refused_by_name() -> Test {
    let (_, sql) = front()?;
    sql.run("CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT)").await?;
    for (statement, name) in [
        ("CREATE TABLE c (id INT CHECK (id > 0))", "CHECK"),
        ("CREATE TABLE c (id INT, CHECK (id > 0))", "CHECK"),
        ("CREATE TABLE c (id INT REFERENCES t (id))", "FOREIGN KEY"),
        ("CREATE TABLE c (id INT, FOREIGN KEY (id) REFERENCES t (id))", "FOREIGN KEY"),
        ("CREATE TABLE c (id INT GENERATED ALWAYS AS IDENTITY)", "GENERATED"),
        ("CREATE TABLE c (id INT GENERATED ALWAYS AS (1 + 1) STORED)", "GENERATED"),
        ("CREATE TABLE c (name VARCHAR COLLATE \"de\")", "COLLATE"),
        ("CREATE TEMPORARY TABLE c (id INT)", "TEMPORARY"),
        ("CREATE INDEX i ON t (a) WHERE a > 0", "partial index"),
        ("CREATE UNIQUE INDEX i ON t (a) INCLUDE (id)", "INCLUDE"),
        ("CREATE INDEX i ON t ((a + 1))", "expression"),
        ("CREATE INDEX i ON t (a + 1)", "expression"),
        ("CREATE INDEX i ON t USING gin (a)", "GIN"),
    ] {
        let (_, state, message) = sql.error(statement).await;
        assert_eq!(state, "0A000", "{statement}: {message}");
        assert!(message.to_lowercase().contains(&name.to_lowercase()), "{statement}: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn schemas_and_views_work_in_both_sessions() -> Test {
    for sql in Sql::both()? {
        sql.run("CREATE SCHEMA app").await?;
        sql.run("CREATE TABLE app.t (id BIGINT PRIMARY KEY)").await?;
        sql.run("INSERT INTO app.t VALUES (1), (2)").await?;
        sql.run("CREATE VIEW big AS SELECT id FROM app.t WHERE id > 1").await?;
        assert_eq!(sql.rows("SELECT * FROM big").await?, ["2"]);
        sql.run("UPDATE app.t SET id = id + 1").await?;
        assert_eq!(sql.rows("SELECT * FROM big ORDER BY id").await?, ["2", "3"]);
        assert_eq!(sql.count("DELETE FROM grizzly.app.t WHERE id IN (SELECT id FROM big)").await?, 2);
        sql.run("DROP VIEW big").await?;
    }
    Ok(())
}
