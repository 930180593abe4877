//! DELETE, UPDATE, MERGE and INSERT do what SQL says, through DataFusion's own sessions and through Grizzly's.

use grizzly_provider::ErrorKind;

use crate::support::{Sql, Test};

/// t: ids 1 to 5 with x = 10 times the id; s: ids 2 and 4.
const TABLES: [&str; 4] = [
    "CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT, a BIGINT, b BIGINT)",
    "INSERT INTO t VALUES (1, 10, 0, 0), (2, 20, 0, 0), (3, 30, 0, 0), (4, 40, 0, 0), (5, 50, 0, 0)",
    "CREATE TABLE s (id BIGINT PRIMARY KEY, x BIGINT)",
    "INSERT INTO s VALUES (2, 200), (4, 400)",
];

async fn both_with_tables() -> datafusion::error::Result<[Sql; 2]> {
    let both = Sql::both()?;
    for sql in &both {
        sql.all(&TABLES).await?;
    }
    Ok(both)
}

async fn ids(sql: &Sql) -> datafusion::error::Result<String> {
    Ok(sql.rows("SELECT id FROM t ORDER BY id").await?.join(" "))
}

#[tokio::test]
async fn delete_deletes_the_rows_its_condition_holds_for() -> Test {
    for (delete, count, left) in [
        ("DELETE FROM t WHERE id IN (SELECT id FROM s)", 2, "1 3 5"),
        ("DELETE FROM t WHERE id NOT IN (SELECT id FROM s)", 3, "2 4"),
        ("DELETE FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.id = t.id)", 2, "1 3 5"),
        ("DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.id = t.id)", 3, "2 4"),
        ("DELETE FROM t WHERE x = (SELECT max(x) FROM t)", 1, "1 2 3 4"),
        ("DELETE FROM t WHERE x > (SELECT avg(x) FROM t)", 2, "1 2 3"),
        ("DELETE FROM t WHERE false", 0, "1 2 3 4 5"),
        ("DELETE FROM t WHERE id = 1 AND id = 2", 0, "1 2 3 4 5"),
        ("DELETE FROM t WHERE NULL", 0, "1 2 3 4 5"),
        ("DELETE FROM t WHERE id = 3", 1, "1 2 4 5"),
        ("DELETE FROM t WHERE id BETWEEN 2 AND 3 OR x = 50", 3, "1 4"),
        ("DELETE FROM t WHERE true", 5, ""),
        ("DELETE FROM t", 5, ""),
        ("TRUNCATE TABLE t", 5, ""),
    ] {
        for sql in both_with_tables().await? {
            assert_eq!(sql.count(delete).await?, count, "{delete}");
            assert_eq!(ids(&sql).await?, left, "{delete}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn update_computes_all_values_from_the_old_row() -> Test {
    for (update, count, third) in [
        ("UPDATE t SET a = (x + 1) * 2, b = (x + 1) * 3", 5, "3|30|62|93"),
        ("UPDATE t SET a = x, x = a WHERE id = 3", 1, "3|0|30|0"),
        ("UPDATE t SET a = (SELECT max(x) FROM s)", 5, "3|30|400|0"),
        ("UPDATE t SET a = (SELECT max(x) FROM s WHERE false)", 5, "3|30|NULL|0"),
        ("UPDATE t SET a = (SELECT max(x) FROM t) + 1 WHERE id > 2", 3, "3|30|51|0"),
        ("UPDATE t SET a = 1 WHERE id IN (SELECT id + 1 FROM s)", 2, "3|30|1|0"),
        ("UPDATE t SET a = (SELECT max(s.x) FROM s WHERE s.id = t.id + 1) WHERE id = 3", 1, "3|30|400|0"),
        ("UPDATE t AS u SET a = u.x + 1 WHERE u.id = 3", 1, "3|30|31|0"),
        ("UPDATE t SET a = 1 WHERE false", 0, "3|30|0|0"),
        ("UPDATE t SET a = NULL WHERE id = 3", 1, "3|30|NULL|0"),
        ("UPDATE t SET a = '7' WHERE id = 3", 1, "3|30|7|0"),
    ] {
        for sql in both_with_tables().await? {
            assert_eq!(sql.count(update).await?, count, "{update}");
            assert_eq!(sql.rows("SELECT * FROM t WHERE id = 3").await?, [third], "{update}");
            assert_eq!(ids(&sql).await?, "1 2 3 4 5", "{update}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn update_may_change_keys_as_long_as_they_end_up_distinct() -> Test {
    for sql in both_with_tables().await? {
        assert_eq!(sql.count("UPDATE t SET id = id + 1").await?, 5);
        assert_eq!(ids(&sql).await?, "2 3 4 5 6");
        assert_eq!(sql.count("UPDATE t SET id = 8 - id").await?, 5);
        assert_eq!(sql.rows("SELECT id, x FROM t ORDER BY id").await?, ["2|50", "3|40", "4|30", "5|20", "6|10"]);

        let (kind, state, message) = sql.error("UPDATE t SET id = 3 WHERE id = 2").await;
        assert_eq!((kind, state), (Some(ErrorKind::UniqueViolation), "23505"), "{message}");
        let (kind, _, message) = sql.error("UPDATE t SET id = 9").await;
        assert_eq!(kind, Some(ErrorKind::UniqueViolation), "{message}");
        assert_eq!(ids(&sql).await?, "2 3 4 5 6");
        assert_eq!(sql.rows("SELECT x FROM t WHERE id = 3").await?, ["40"]);
    }
    Ok(())
}

#[tokio::test]
async fn merge_knows_every_kind_of_clause() -> Test {
    let merge = "MERGE INTO t USING (VALUES (2, 200), (3, 300), (4, 400), (7, 700), (8, 800)) AS n(id, x) ON t.id = n.id \
        WHEN MATCHED AND n.id = 3 THEN DELETE \
        WHEN MATCHED AND n.x > 300 THEN UPDATE SET a = n.x, b = t.x + 1 \
        WHEN NOT MATCHED AND n.id = 8 THEN INSERT (id) VALUES (n.id) \
        WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.x, 1, 2) \
        WHEN NOT MATCHED BY SOURCE AND t.id = 1 THEN UPDATE SET x = -1 \
        WHEN NOT MATCHED BY SOURCE THEN DELETE";
    for sql in both_with_tables().await? {
        assert_eq!(sql.count(merge).await?, 6);
        let rows = sql.rows("SELECT * FROM t ORDER BY id").await?;
        assert_eq!(rows, ["1|-1|0|0", "2|20|0|0", "4|40|400|41", "7|700|1|2", "8|NULL|NULL|NULL"]);
    }
    Ok(())
}

#[tokio::test]
async fn merge_with_one_kind_of_clause_touches_nothing_else() -> Test {
    for (merge, count, left) in [
        ("WHEN MATCHED THEN DELETE", 2, "1 3 5"),
        ("WHEN MATCHED AND s.x > 200 THEN DELETE", 1, "1 2 3 5"),
        ("WHEN NOT MATCHED BY SOURCE THEN DELETE", 3, "2 4"),
        ("WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)", 0, "1 2 3 4 5"),
        ("WHEN MATCHED THEN UPDATE SET id = t.id + 10", 2, "1 3 5 12 14"),
    ] {
        for sql in both_with_tables().await? {
            assert_eq!(sql.count(&format!("MERGE INTO t USING s ON t.id = s.id {merge}")).await?, count, "{merge}");
            assert_eq!(ids(&sql).await?, left, "{merge}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn merge_refuses_to_change_a_row_twice() -> Test {
    for sql in both_with_tables().await? {
        let twice = "MERGE INTO t USING (VALUES (1, 1), (1, 2)) AS n(id, x) ON t.id = n.id";
        let (kind, state, message) = sql.error(&format!("{twice} WHEN MATCHED THEN UPDATE SET x = n.x")).await;
        assert_eq!((kind, state), (Some(ErrorKind::Cardinality), "21000"), "{message}");
        assert!(message.contains("public.t"), "{message}");
        // Matched twice, but changed once.
        let once = format!("{twice} WHEN MATCHED AND n.x = 2 THEN UPDATE SET x = n.x");
        assert_eq!(sql.count(&once).await?, 1);
        assert_eq!(sql.rows("SELECT x FROM t WHERE id = 1").await?, ["2"]);

        let both_new = "MERGE INTO t USING (VALUES (9), (9)) AS n(id) ON t.id = n.id \
            WHEN NOT MATCHED THEN INSERT (id) VALUES (n.id)";
        let (kind, _, message) = sql.error(both_new).await;
        assert_eq!(kind, Some(ErrorKind::UniqueViolation), "{message}");
        assert_eq!(ids(&sql).await?, "1 2 3 4 5");
    }
    Ok(())
}

#[tokio::test]
async fn merge_may_give_a_deleted_rows_key_to_another() -> Test {
    let merge = "MERGE INTO t USING (VALUES (1, 5), (2, 1), (6, 2)) AS n(id, new) ON t.id = n.id \
        WHEN MATCHED AND n.id = 1 THEN DELETE \
        WHEN MATCHED THEN UPDATE SET id = n.new \
        WHEN NOT MATCHED THEN INSERT (id, x) VALUES (n.new, 60)";
    for sql in both_with_tables().await? {
        assert_eq!(sql.count(merge).await?, 3);
        assert_eq!(sql.rows("SELECT id, x FROM t ORDER BY id").await?, ["1|20", "2|60", "3|30", "4|40", "5|50"]);
    }
    Ok(())
}

#[tokio::test]
async fn explain_changes_nothing_and_explain_analyze_does() -> Test {
    let changes = [
        "DELETE FROM t WHERE id = 1",
        "UPDATE t SET x = 0 WHERE id = 2",
        "INSERT INTO t VALUES (6, 60, 0, 0)",
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND t.id = 4 THEN DELETE",
    ];
    for sql in both_with_tables().await? {
        for change in changes {
            for explain in ["EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN FORMAT TREE"] {
                sql.run(&format!("{explain} {change}")).await?;
            }
        }
        sql.run("EXPLAIN TRUNCATE TABLE t").await?;
        assert_eq!(sql.rows("SELECT count(*), sum(x) FROM t").await?, ["5|150"]);
        for change in changes {
            let plan = sql.rows(&format!("EXPLAIN ANALYZE {change}")).await?.join("\n");
            assert!(plan.contains("GrizzlyDmlExec"), "{plan}");
        }
        assert_eq!(sql.rows("SELECT id, x FROM t ORDER BY id").await?, ["2|0", "3|30", "5|50", "6|60"]);
    }
    Ok(())
}

#[tokio::test]
async fn explain_analyze_evaluates_scalar_subqueries_below_the_sink() -> Test {
    for sql in both_with_tables().await? {
        sql.run("EXPLAIN ANALYZE UPDATE t SET a = (SELECT max(x) FROM s) WHERE id = 1").await?;
        assert_eq!(sql.rows("SELECT a FROM t WHERE id = 1").await?, ["400"]);
        let plan = sql.rows("EXPLAIN UPDATE t SET a = (SELECT max(x) FROM s)").await?.join("\n");
        let (sink, subquery) = (plan.find("GrizzlyDmlExec"), plan.find("ScalarSubqueryExec"));
        assert!(sink.is_some() && sink < subquery, "{plan}");
    }
    Ok(())
}

#[tokio::test]
async fn prepared_statements_write_each_time_they_are_executed() -> Test {
    for sql in both_with_tables().await? {
        sql.run("PREPARE d(BIGINT) AS DELETE FROM t WHERE id = $1").await?;
        assert_eq!(sql.count("EXECUTE d(1)").await?, 1);
        assert_eq!(sql.count("EXECUTE d(1)").await?, 0);
        assert_eq!(sql.count("EXECUTE d(2)").await?, 1);
        sql.run("PREPARE i(BIGINT, BIGINT) AS INSERT INTO t (id, x) VALUES ($1, $2)").await?;
        assert_eq!(sql.count("EXECUTE i(1, 11)").await?, 1);
        assert_eq!(sql.count("EXECUTE d(1)").await?, 1);
        sql.run("PREPARE u(BIGINT) AS UPDATE t SET a = x + $1 WHERE id IN (SELECT id FROM s)").await?;
        assert_eq!(sql.count("EXECUTE u(5)").await?, 1);
        sql.run("PREPARE m AS MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE").await?;
        assert_eq!(sql.rows("SELECT id, x, a FROM t ORDER BY id").await?, ["3|30|0", "4|40|45", "5|50|0"]);
        assert_eq!(sql.count("EXECUTE m").await?, 1);
        assert_eq!(sql.count("EXECUTE m").await?, 0);
        assert_eq!(ids(&sql).await?, "3 5");
    }
    Ok(())
}

#[tokio::test]
async fn delete_with_a_limit_is_refused_by_name() -> Test {
    for sql in both_with_tables().await? {
        let (kind, state, message) = sql.error("DELETE FROM t WHERE id > 1 LIMIT 1").await;
        assert_eq!((kind, state), (Some(ErrorKind::Unsupported), "0A000"), "{message}");
        assert!(message.contains("LIMIT"), "{message}");
        assert_eq!(ids(&sql).await?, "1 2 3 4 5");
    }
    Ok(())
}

#[tokio::test]
async fn a_statement_does_not_read_what_it_writes() -> Test {
    for sql in Sql::both()? {
        sql.run("CREATE TABLE n (x BIGINT)").await?;
        sql.run("INSERT INTO n VALUES (1), (2), (3)").await?;
        for doubled in [6, 12, 24, 48] {
            assert_eq!(sql.count("INSERT INTO n SELECT x FROM n").await?, doubled / 2);
            assert_eq!(sql.rows("SELECT count(*) FROM n").await?, [doubled.to_string()]);
        }
        assert_eq!(sql.count("UPDATE n SET x = x + 1").await?, 48);
        assert_eq!(sql.rows("SELECT x, count(*) FROM n GROUP BY x ORDER BY x").await?, ["2|16", "3|16", "4|16"]);
        assert_eq!(sql.count("INSERT INTO n SELECT a.x FROM n a, n b").await?, 48 * 48);
        assert_eq!(sql.count("INSERT OVERWRITE n SELECT DISTINCT x + 10 FROM n").await?, 3);
        assert_eq!(sql.rows("SELECT x FROM n ORDER BY x").await?, ["12", "13", "14"]);
    }
    Ok(())
}

#[tokio::test]
async fn inserts_fill_defaults_and_cast_and_check() -> Test {
    for sql in Sql::both()? {
        sql.run("CREATE TABLE d (id INT PRIMARY KEY, name VARCHAR NOT NULL DEFAULT 'none', n SMALLINT)").await?;
        assert_eq!(sql.count("INSERT INTO d (id) VALUES (1), (2)").await?, 2);
        assert_eq!(sql.count("INSERT INTO d (n, id) VALUES ('5', 3.0)").await?, 1);
        assert_eq!(sql.rows("SELECT * FROM d ORDER BY id").await?, ["1|none|NULL", "2|none|NULL", "3|none|5"]);

        let (kind, state, message) = sql.error("INSERT INTO d VALUES (4, NULL, 1)").await;
        assert_eq!((kind, state), (Some(ErrorKind::NotNullViolation), "23502"), "{message}");
        assert!(message.contains("column name of table public.d"), "{message}");
        let (kind, _, message) = sql.error("INSERT INTO d VALUES (NULL, 'x', 1)").await;
        assert_eq!(kind, Some(ErrorKind::NotNullViolation), "{message}");
        let (kind, _, message) = sql.error("UPDATE d SET name = NULL WHERE id = 1").await;
        assert_eq!(kind, Some(ErrorKind::NotNullViolation), "{message}");
        let (kind, state, message) = sql.error("INSERT INTO d VALUES (5, 'x', 1), (1, 'y', 2)").await;
        assert_eq!((kind, state), (Some(ErrorKind::UniqueViolation), "23505"), "{message}");
        let (kind, _, message) = sql.error("INSERT INTO d VALUES (6, 'x', 1), (6, 'y', 2)").await;
        assert_eq!(kind, Some(ErrorKind::UniqueViolation), "{message}");
        assert_eq!(sql.rows("SELECT count(*) FROM d").await?, ["3"]);

        assert_eq!(sql.count("INSERT OR REPLACE INTO d VALUES (1, 'one', 1), (7, 'seven', 7)").await?, 2);
        assert_eq!(sql.count("REPLACE INTO d VALUES (1, 'uno', 1)").await?, 1);
        assert_eq!(sql.rows("SELECT id, name FROM d WHERE n IN (1, 7) ORDER BY id").await?, ["1|uno", "7|seven"]);
    }
    Ok(())
}

#[tokio::test]
async fn large_statements_are_written_completely() -> Test {
    for sql in Sql::both()? {
        sql.run("CREATE TABLE big (id BIGINT PRIMARY KEY, x BIGINT)").await?;
        let insert = "INSERT INTO big SELECT value, value % 7 FROM generate_series(1, 50000)";
        assert_eq!(sql.count(insert).await?, 50_000);
        assert_eq!(sql.count("UPDATE big SET x = x + 1").await?, 50_000);
        assert_eq!(sql.count("UPDATE big SET id = id + 1").await?, 50_000);
        assert_eq!(sql.count("DELETE FROM big WHERE x = 1").await?, 7_142);
        assert_eq!(sql.rows("SELECT count(*), min(id), max(id), min(x) FROM big").await?, ["42858|2|50001|2"]);
        let (kind, _, message) = sql.error("INSERT INTO big SELECT value, 0 FROM generate_series(50002, 0, -1)").await;
        assert_eq!(kind, Some(ErrorKind::UniqueViolation), "{message}");
        assert_eq!(sql.rows("SELECT count(*), max(id) FROM big").await?, ["42858|50001"]);
    }
    Ok(())
}

async fn front_with_tables() -> Result<Sql, Box<dyn std::error::Error>> {
    let [_, front] = both_with_tables().await?;
    Ok(front)
}

#[tokio::test]
async fn on_conflict_do_nothing_keeps_old_rows_and_the_first_of_new_ones() -> Test {
    let sql = front_with_tables().await?;
    let insert = "INSERT INTO t (id, x) VALUES (1, 11), (6, 60), (6, 61) ON CONFLICT DO NOTHING";
    assert_eq!(sql.count(insert).await?, 1);
    assert_eq!(sql.count(insert).await?, 0);
    assert_eq!(sql.count("INSERT INTO t (id, x) VALUES (7, 70), (2, 0) ON CONFLICT (id) DO NOTHING").await?, 1);
    assert_eq!(
        sql.rows("SELECT id, x FROM t WHERE id IN (1, 2, 6, 7) ORDER BY id").await?,
        ["1|10", "2|20", "6|60", "7|70"]
    );

    sql.run("CREATE TABLE u (id BIGINT PRIMARY KEY, code BIGINT UNIQUE)").await?;
    sql.run("INSERT INTO u VALUES (1, 1), (2, NULL)").await?;
    let rows = "(3, NULL), (4, 1), (5, 5), (6, 5), (2, 9)";
    assert_eq!(sql.count(&format!("INSERT INTO u VALUES {rows} ON CONFLICT DO NOTHING")).await?, 2);
    assert_eq!(sql.rows("SELECT * FROM u ORDER BY id").await?, ["1|1", "2|NULL", "3|NULL", "5|5"]);
    let (kind, _, message) = sql.error("INSERT INTO u VALUES (9, 1) ON CONFLICT (id) DO NOTHING").await;
    assert_eq!(kind, Some(ErrorKind::UniqueViolation), "{message}");
    let (kind, _, message) = sql.error("INSERT INTO t (id) VALUES (1) ON CONFLICT (x) DO NOTHING").await;
    assert_eq!(kind, Some(ErrorKind::Invalid), "{message}");
    Ok(())
}

#[tokio::test]
async fn on_conflict_do_update_sees_old_and_new_row() -> Test {
    let sql = front_with_tables().await?;
    let upsert =
        "INSERT INTO t (id, x) VALUES (1, 5), (6, 60) ON CONFLICT (id) DO UPDATE SET x = t.x + excluded.x, A = 1";
    assert_eq!(sql.count(upsert).await?, 2);
    assert_eq!(sql.rows("SELECT * FROM t WHERE id IN (1, 6) ORDER BY id").await?, ["1|15|1|0", "6|60|NULL|NULL"]);
    let guarded = "INSERT INTO t AS o (id, x) VALUES (2, 1), (3, 99) ON CONFLICT (id) DO UPDATE SET (x, b) = (excluded.x, 7) \
        WHERE o.x < excluded.x";
    assert_eq!(sql.count(guarded).await?, 1);
    assert_eq!(sql.rows("SELECT id, x, b FROM t WHERE id IN (2, 3) ORDER BY id").await?, ["2|20|0", "3|99|7"]);
    let twice = "INSERT INTO t (id, x) VALUES (1, 1), (1, 2) ON CONFLICT (id) DO UPDATE SET x = excluded.x";
    assert_eq!(sql.error(twice).await.0, Some(ErrorKind::Cardinality));
    let from_query =
        "INSERT INTO t (id, x) SELECT id, x FROM s WHERE x > 200 ON CONFLICT (id) DO UPDATE SET x = excluded.x";
    sql.run(&format!("EXPLAIN {from_query}")).await?;
    assert_eq!(sql.rows("SELECT x FROM t WHERE id = 4").await?, ["40"]);
    assert_eq!(sql.count(from_query).await?, 1);
    assert_eq!(sql.rows("SELECT x FROM t WHERE id = 4").await?, ["400"]);
    sql.run("PREPARE up AS INSERT INTO t (id, x) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET x = excluded.x")
        .await?;
    assert_eq!(sql.count("EXECUTE up(5, 55)").await?, 1);
    assert_eq!(sql.rows("SELECT x FROM t WHERE id = 5").await?, ["55"]);
    Ok(())
}

#[tokio::test]
async fn update_from_and_delete_using_join() -> Test {
    let sql = front_with_tables().await?;
    assert_eq!(sql.count("UPDATE t SET a = s.x + t.x FROM s WHERE s.id = t.id AND s.x > 200").await?, 1);
    assert_eq!(sql.rows("SELECT a FROM t WHERE id = 4").await?, ["440"]);
    assert_eq!(sql.count("UPDATE t AS o SET b = p.x FROM s p, s q WHERE p.id = o.id AND q.id = p.id + 2").await?, 1);
    assert_eq!(sql.rows("SELECT id FROM t WHERE b = 200").await?, ["2"]);
    let ambiguous = sql.error("UPDATE t SET a = s.x FROM s WHERE t.id = 1").await;
    assert_eq!(ambiguous.0, Some(ErrorKind::Cardinality), "{}", ambiguous.2);

    assert_eq!(sql.count("DELETE FROM t USING s WHERE t.id < s.id AND t.id > 1").await?, 2);
    assert_eq!(ids(&sql).await?, "1 4 5");
    assert_eq!(sql.count("DELETE FROM t AS o WHERE o.id > 4 AND EXISTS (SELECT 1 FROM s WHERE s.id < o.id)").await?, 1);
    assert_eq!(ids(&sql).await?, "1 4");
    assert_eq!(sql.count("UPDATE t SET (A, b) = (7, x) WHERE ID = 1").await?, 1);
    assert_eq!(sql.rows("SELECT a, b FROM t WHERE id = 1").await?, ["7|10"]);
    Ok(())
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() -> Test {
    let sql = front_with_tables().await?;
    for (statement, name) in [
        ("DELETE FROM t RETURNING id", "RETURNING"),
        ("UPDATE t SET x = 1 RETURNING id", "RETURNING"),
        ("INSERT INTO t (id) VALUES (9) RETURNING id", "RETURNING"),
        ("UPDATE t SET x = 1 LIMIT 1", "LIMIT"),
        ("SELECT * FROM t FOR UPDATE", "FOR UPDATE"),
        ("SELECT * FROM (SELECT * FROM t FOR SHARE) q", "FOR UPDATE"),
        ("INSERT INTO t (id) VALUES (1) ON DUPLICATE KEY UPDATE x = 1", "ON CONFLICT"),
        ("ALTER TABLE t ADD COLUMN c INT", "ALTER TABLE"),
    ] {
        let (_, state, message) = sql.error(statement).await;
        assert_eq!(state, "0A000", "{statement}: {message}");
        assert!(message.contains(name), "{statement}: {message}");
    }
    assert_eq!(ids(&sql).await?, "1 2 3 4 5");
    Ok(())
}

#[tokio::test]
async fn history_cannot_be_written() -> Test {
    let sql = front_with_tables().await?;
    for statement in [
        "DELETE FROM \"t$rows\"",
        "INSERT INTO \"t$rows\" SELECT * FROM \"t$rows\"",
        "UPDATE t FOR SYSTEM_TIME AS OF 1 SET x = 1",
    ] {
        let (_, state, message) = sql.error(statement).await;
        assert_eq!(state, "0A000", "{statement}: {message}");
    }
    Ok(())
}
