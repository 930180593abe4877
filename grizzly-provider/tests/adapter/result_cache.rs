//! Kept results: found again, right after every commit, and never where a query would answer differently.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray, UInt64Array},
    datatypes::UInt64Type,
};
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result},
    physical_plan::{collect, displayable, execution_plan::reset_plan_states},
};
use futures::StreamExt;
use grizzly_provider::{Grizzly, Settings, adapter::GrizzlySession};

use crate::support::{Test, text};

const BUDGET: usize = 1 << 20;

fn database(result_cache: usize) -> Result<Grizzly> {
    Ok(Grizzly::builder("memory://").settings(Settings { result_cache, ..Settings::default() }).open()?)
}

/// A session that keeps the results of all queries, however small.
async fn session(db: &Grizzly) -> Result<GrizzlySession> {
    let session = GrizzlySession::new(db);
    session.execute("SET grizzly.result_cache_rows = 0").await?;
    Ok(session)
}

async fn filled() -> Result<(Grizzly, GrizzlySession)> {
    let db = database(BUDGET)?;
    let session = session(&db).await?;
    session
        .execute(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT, name VARCHAR);
             INSERT INTO t VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 20, 'c');
             CREATE TABLE s (id BIGINT PRIMARY KEY, t BIGINT);
             INSERT INTO s VALUES (1, 1), (2, 1), (3, 3)",
        )
        .await?;
    Ok((db, session))
}

async fn rows(session: &GrizzlySession, sql: &str) -> Result<Vec<String>> {
    text(&session.execute(sql).await?)
}

/// The one row of `grizzly.cache_totals`, by column.
async fn totals(session: &GrizzlySession) -> Result<BTreeMap<String, u64>> {
    let batches = session.execute("SELECT * FROM grizzly.cache_totals").await?;
    let [batch] = batches.as_slice() else { return Ok(BTreeMap::new()) };
    let names = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let values = batch.columns().iter().map(|column| column.as_primitive::<UInt64Type>().value(0));
    Ok(names.into_iter().zip(values).collect())
}

async fn hits(session: &GrizzlySession) -> Result<u64> {
    Ok(totals(session).await?["hits"])
}

async fn kept(session: &GrizzlySession) -> Result<u64> {
    Ok(totals(session).await?["kept"])
}

#[tokio::test]
async fn a_query_that_comes_again_is_answered_from_the_cache() -> Test {
    let (db, one) = filled().await?;
    let query = "SELECT x, count(*) FROM t GROUP BY x ORDER BY x";
    for before in 0..3 {
        assert_eq!(rows(&one, query).await?, ["10|1", "20|2"]);
        assert_eq!(hits(&one).await?, before);
    }
    // So it is in another session, and through the other ways to run it.
    let two = session(&db).await?;
    assert_eq!(rows(&two, query).await?, ["10|1", "20|2"]);
    assert_eq!(text(&two.sql(query).await?.collect().await?)?, ["10|1", "20|2"]);
    let plan = two.plan(query).await?;
    assert_eq!(text(&two.execute_plan(&plan, Vec::<ScalarValue>::new()).await?.collect().await?)?, ["10|1", "20|2"]);
    assert_eq!(hits(&two).await?, 5);

    let shown = "SELECT tables, rows, hits, bytes > 100, compute_ms > 0, plan LIKE '%TableScan: t%' FROM grizzly.cache";
    assert_eq!(rows(&one, shown).await?, ["public.t|2|5|true|true|true"]);
    let totals = totals(&one).await?;
    assert_eq!(totals["budget"], BUDGET as u64);
    assert_eq!((totals["results"], totals["kept"], totals["misses"], totals["evicted"]), (1, 1, 1, 0));
    Ok(())
}

#[tokio::test]
async fn a_result_is_right_after_every_commit() -> Test {
    let (db, one) = filled().await?;
    let two = session(&db).await?;
    let sum = "SELECT sum(x) FROM t";
    let joined = "SELECT t.name, count(*) FROM t JOIN s ON s.t = t.id GROUP BY t.name ORDER BY t.name";
    let nested = "SELECT id FROM s WHERE t IN (SELECT id FROM t WHERE x = (SELECT max(x) FROM t)) ORDER BY id";
    let steps: [(&str, [&[&str]; 3]); 5] = [
        ("SELECT 1", [&["50"], &["a|2", "c|1"], &["3"]]),
        ("INSERT INTO t VALUES (4, 30, 'd')", [&["80"], &["a|2", "c|1"], &[]]),
        ("INSERT INTO s VALUES (4, 4)", [&["80"], &["a|2", "c|1", "d|1"], &["4"]]),
        ("UPDATE t SET x = 90, name = 'z' WHERE id = 1", [&["160"], &["c|1", "d|1", "z|2"], &["1", "2"]]),
        ("DELETE FROM t WHERE id = 3", [&["140"], &["d|1", "z|2"], &["1", "2"]]),
    ];
    for (step, (change, answers)) in steps.into_iter().enumerate() {
        if step % 2 == 0 { &one } else { &two }.execute(change).await?;
        for session in [&one, &two, &one] {
            for (query, answer) in [sum, joined, nested].into_iter().zip(answers) {
                assert_eq!(rows(session, query).await?, answer, "{query} after {change}");
            }
        }
    }
    // Each was computed once after each change of a table of its own, and found twice.
    let totals = totals(&one).await?;
    assert_eq!(totals["misses"], 4 + 5 + 5);
    assert_eq!(totals["hits"] + totals["misses"], 5 * 3 * 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_beside_a_writer_see_each_commit_at_once() -> Test {
    let (db, writer) = filled().await?;
    let query = "SELECT sum(x), (SELECT count(*) FROM s) FROM t";
    let mut readers = Vec::new();
    for _ in 0..2 {
        let reader = session(&db).await?;
        readers.push(tokio::spawn(async move {
            let mut last = 0;
            while last < 50 + 40 {
                let row = rows(&reader, query).await?;
                let sum = row.iter().find_map(|row| row.split('|').next()?.parse().ok()).unwrap_or(-1_i64);
                assert!(sum >= last, "{sum} after {last}");
                last = sum;
            }
            Ok::<_, DataFusionError>(())
        }));
    }
    for step in 1..=40 {
        writer.execute("UPDATE t SET x = x + 1 WHERE id = 1").await?;
        for _ in 0..2 {
            assert_eq!(rows(&writer, query).await?, [format!("{}|3", 50 + step)]);
        }
    }
    for reader in readers {
        reader.await??;
    }
    assert!(hits(&writer).await? >= 40);
    Ok(())
}

#[tokio::test]
async fn another_table_of_the_same_name_is_another() -> Test {
    let (db, one) = filled().await?;
    let two = session(&db).await?;
    let count = "SELECT count(*) FROM t WHERE id > 0";
    let all = "SELECT * FROM t ORDER BY id";
    for session in [&one, &two] {
        assert_eq!(rows(session, count).await?, ["3"]);
        assert_eq!(rows(session, all).await?, ["1|10|a", "2|20|b", "3|20|c"]);
    }
    one.execute("DROP TABLE t; CREATE TABLE t (id DOUBLE, y VARCHAR); INSERT INTO t VALUES (1.5, 'new')").await?;
    for session in [&two, &one] {
        assert_eq!(rows(session, count).await?, ["1"]);
        assert_eq!(rows(session, all).await?, ["1.5|new"]);
    }
    // The same name in another schema.
    one.execute("CREATE SCHEMA other; CREATE TABLE other.t (id DOUBLE, y VARCHAR)").await?;
    two.execute("SET datafusion.catalog.default_schema = 'other'").await?;
    assert_eq!(rows(&two, count).await?, ["0"]);
    assert_eq!(rows(&one, count).await?, ["1"]);
    // An index changes no row, but what the table is.
    one.execute("CREATE INDEX t_id ON t (id)").await?;
    assert_eq!(rows(&one, all).await?, ["1.5|new"]);
    one.execute("DROP TABLE t").await?;
    assert!(one.execute(all).await.is_err());
    Ok(())
}

#[tokio::test]
async fn what_changes_by_itself_is_never_kept() -> Test {
    let (_, session) = filled().await?;
    session.execute("CREATE VIEW late AS SELECT id, now() AS seen FROM t").await?;
    for query in [
        "SELECT random() FROM t",
        "SELECT uuid() FROM t",
        "SELECT id FROM t WHERE random() < 2",
        "SELECT id FROM t WHERE x > (SELECT random() FROM s LIMIT 1)",
        "SELECT now() FROM t",
        "SELECT current_date FROM t",
        "SELECT id FROM t WHERE now() > TIMESTAMP '2020-01-01'",
        "SELECT * FROM late",
        "SELECT count(*) FROM \"t$rows\"",
        "SELECT count(*) FROM t, \"s$shards\"",
        "SELECT count(*) FROM t, grizzly.cache_totals",
        "SELECT count(*) FROM t, information_schema.tables",
        "SELECT count(*) FROM t FOR SYSTEM_TIME AS OF now()",
        "SELECT 1",
        "VALUES (1)",
        "EXPLAIN SELECT count(*) FROM t",
        "EXPLAIN ANALYZE SELECT count(*) FROM t",
        "INSERT INTO s SELECT id + (SELECT max(id) FROM s), x FROM t",
    ] {
        for _ in 0..2 {
            session.execute(query).await?;
        }
        let totals = totals(&session).await?;
        assert_eq!((totals["kept"], totals["hits"], totals["misses"]), (0, 0, 0), "{query}");
    }
    assert_ne!(rows(&session, "SELECT random() FROM t").await?, rows(&session, "SELECT random() FROM t").await?);
    Ok(())
}

#[tokio::test]
async fn a_transaction_reads_its_own_writes_and_its_own_past() -> Test {
    let (db, one) = filled().await?;
    let two = session(&db).await?;
    let (sum, other) = ("SELECT sum(x) FROM t", "SELECT count(*) FROM s");
    assert_eq!(rows(&one, sum).await?, ["50"]);
    assert_eq!(rows(&one, other).await?, ["3"]);

    one.execute("BEGIN").await?;
    assert_eq!(rows(&one, sum).await?, ["50"]);
    assert_eq!(hits(&one).await?, 1);
    one.execute("UPDATE t SET x = x + 100 WHERE id = 1").await?;
    let before = kept(&one).await?;
    for _ in 0..2 {
        assert_eq!(rows(&one, sum).await?, ["150"]);
    }
    assert_eq!((kept(&one).await?, hits(&one).await?), (before, 1));
    assert_eq!(rows(&two, sum).await?, ["50"]);
    assert_eq!(rows(&one, other).await?, ["3"]);
    one.execute("ROLLBACK").await?;
    assert_eq!(rows(&one, sum).await?, ["50"]);

    // One that has begun before a commit stays there, and leaves what is newer alone.
    one.execute("BEGIN").await?;
    two.execute("DELETE FROM t WHERE id = 3").await?;
    for _ in 0..2 {
        assert_eq!(rows(&two, sum).await?, ["30"]);
        assert_eq!(rows(&one, sum).await?, ["50"]);
    }
    one.execute("COMMIT").await?;
    assert_eq!(rows(&one, sum).await?, ["30"]);
    one.execute("BEGIN; SAVEPOINT a; DELETE FROM t; ROLLBACK TO a").await?;
    assert_eq!(rows(&one, sum).await?, ["30"]);
    one.execute("DELETE FROM t; COMMIT").await?;
    assert_eq!(rows(&two, sum).await?, ["NULL"]);
    Ok(())
}

#[tokio::test]
async fn values_are_part_of_the_question() -> Test {
    let (_, session) = filled().await?;
    let plan = session.plan("SELECT name FROM t WHERE x >= $1 ORDER BY name").await?;
    let joined = session.plan("SELECT count(*) FROM t JOIN s ON s.t = t.id WHERE t.x = $1").await?;
    for _ in 0..2 {
        for (x, names, count) in [(10_i64, vec!["a", "b", "c"], "2"), (20, vec!["b", "c"], "1"), (30, vec![], "0")] {
            let value = vec![ScalarValue::Int64(Some(x))];
            assert_eq!(text(&session.execute_plan(&plan, value.clone()).await?.collect().await?)?, names);
            assert_eq!(text(&session.execute_plan(&joined, value).await?.collect().await?)?, [count]);
            assert_eq!(rows(&session, &format!("SELECT name FROM t WHERE x >= {x} ORDER BY name")).await?, names);
        }
    }
    assert!(hits(&session).await? >= 6);
    session.execute("PREPARE q AS SELECT name FROM t WHERE id = $1").await?;
    for (id, name) in [(1, "a"), (2, "b"), (1, "a"), (2, "b")] {
        assert_eq!(rows(&session, &format!("EXECUTE q({id})")).await?, [name]);
    }
    // Texts that would look alike if they were pasted together.
    let odd = ["SELECT 'a'', ''b' FROM t LIMIT 1", "SELECT 'a', 'b' FROM t LIMIT 1", "SELECT 1 FROM t LIMIT 1"];
    for (query, answer) in odd.into_iter().zip(["a', 'b", "a|b", "1"]) {
        for _ in 0..2 {
            assert_eq!(rows(&session, query).await?, [answer]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn settings_are_part_of_the_question() -> Test {
    let (db, one) = filled().await?;
    let two = session(&db).await?;
    let query = "SELECT max(name) FROM t";
    assert_eq!(rows(&one, query).await?, ["c"]);
    two.execute("SET datafusion.execution.time_zone = '+05:00'").await?;
    assert_eq!(rows(&two, query).await?, ["c"]);
    assert_eq!((hits(&one).await?, kept(&one).await?), (0, 2));
    assert_eq!(rows(&two, query).await?, ["c"]);
    assert_eq!(rows(&one, query).await?, ["c"]);
    assert_eq!(hits(&one).await?, 2);
    let before = totals(&one).await?;
    two.execute("SET grizzly.result_cache = false").await?;
    assert_eq!(rows(&two, query).await?, ["c"]);
    let after = totals(&one).await?;
    assert_eq!((before["hits"], before["misses"]), (after["hits"], after["misses"]));
    Ok(())
}

#[tokio::test]
async fn memory_stays_below_the_budget() -> Test {
    let db = database(256 * 1024)?;
    let session = session(&db).await?;
    session.execute("CREATE TABLE n (id BIGINT, word VARCHAR)").await?;
    session
        .execute("INSERT INTO n SELECT value, 'a word of some length ' || value FROM generate_series(1, 5000)")
        .await?;
    for limit in 1..300 {
        let query = format!("SELECT id, word FROM n WHERE id <= {} ORDER BY id", limit * 7);
        assert_eq!(rows(&session, &query).await?.len(), limit * 7);
        let totals = totals(&session).await?;
        assert!(totals["bytes"] <= totals["budget"], "{totals:?}");
    }
    let totals = totals(&session).await?;
    assert!(totals["evicted"] > 0 && totals["results"] > 0, "{totals:?}");
    let shown =
        rows(&session, "SELECT sum(bytes) = (SELECT bytes FROM grizzly.cache_totals) FROM grizzly.cache").await?;
    assert_eq!(shown, ["true"]);
    // Too much for one: it is computed again.
    let before = kept(&session).await?;
    for _ in 0..2 {
        assert_eq!(rows(&session, "SELECT id, word FROM n").await?.len(), 5000);
    }
    assert_eq!((kept(&session).await?, hits(&session).await?), (before, 0));
    Ok(())
}

#[tokio::test]
async fn a_result_of_a_few_rows_keeps_no_large_batch_alive() -> Test {
    let db = database(BUDGET)?;
    let session = session(&db).await?;
    session.execute("CREATE TABLE n (id BIGINT, word VARCHAR)").await?;
    session.execute("INSERT INTO n SELECT value, repeat('x', 100) FROM generate_series(1, 20000)").await?;
    assert_eq!(rows(&session, "SELECT id, word FROM n ORDER BY id LIMIT 3").await?.len(), 3);
    let bytes = session.execute("SELECT bytes FROM grizzly.cache").await?;
    let bytes: Vec<u64> = bytes.iter().flat_map(|batch| numbers(batch.column(0))).collect();
    assert!(matches!(bytes.as_slice(), [bytes] if *bytes < 16 * 1024), "{bytes:?}");
    Ok(())
}

fn numbers(column: &dyn Array) -> Vec<u64> {
    column.as_any().downcast_ref::<UInt64Array>().map(|column| column.values().to_vec()).unwrap_or_default()
}

#[tokio::test]
async fn what_does_not_end_well_is_not_kept() -> Test {
    let (_, session) = filled().await?;
    session.execute("INSERT INTO t SELECT value, 7 * value, 'n' FROM generate_series(10, 30000)").await?;
    let query = "SELECT id, x FROM t";
    let mut stream = session.sql(query).await?.execute_stream().await?;
    assert!(stream.next().await.is_some());
    drop(stream);
    assert_eq!(kept(&session).await?, 0);

    let fails = "SELECT CAST(name AS BIGINT) FROM t ORDER BY id";
    for _ in 0..2 {
        assert!(session.execute(fails).await.is_err());
    }
    assert_eq!((kept(&session).await?, hits(&session).await?), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_physical_plan_may_run_again() -> Test {
    let (_, session) = filled().await?;
    let plan = session.sql("SELECT sum(x) FROM t").await?.create_physical_plan().await?;
    assert!(displayable(plan.as_ref()).indent(false).to_string().starts_with("ResultCacheExec: tables=[public.t]"));
    for (change, sum) in [(None, "50"), (None, "50"), (Some("DELETE FROM t WHERE id = 1"), "40"), (None, "40")] {
        if let Some(change) = change {
            session.execute(change).await?;
        }
        let again = reset_plan_states(Arc::clone(&plan))?;
        assert_eq!(text(&collect(again, session.context().task_ctx()).await?)?, [sum]);
    }
    assert_eq!(hits(&session).await?, 2);
    Ok(())
}

#[tokio::test]
async fn many_rows_in_several_streams_keep_their_order() -> Test {
    let db = database(64 << 20)?;
    let session = session(&db).await?;
    session.execute("CREATE TABLE n (id BIGINT PRIMARY KEY, m BIGINT) PARTITION BY HASH (id) SHARDS 4").await?;
    session.execute("INSERT INTO n SELECT value, value % 1000 FROM generate_series(1, 200000)").await?;
    for query in [
        "SELECT id, m FROM n ORDER BY m DESC, id LIMIT 20000",
        "SELECT m, count(*), sum(id) FROM n GROUP BY m ORDER BY m",
        "SELECT id FROM n WHERE m = 7 ORDER BY id",
    ] {
        let first = rows(&session, query).await?;
        assert_eq!(rows(&session, query).await?, first, "{query}");
    }
    let mut first = rows(&session, "SELECT id FROM n WHERE m < 500").await?;
    let mut second = rows(&session, "SELECT id FROM n WHERE m < 500").await?;
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!(first, second);
    assert_eq!(first.len(), 100_000);
    assert_eq!(hits(&session).await?, 4);
    Ok(())
}

#[tokio::test]
async fn explain_shows_the_node_where_it_is() -> Test {
    let (_, session) = filled().await?;
    let node = "ResultCacheExec: tables=[public.s, public.t]";
    let explained = async |sql: &str| Ok::<_, DataFusionError>(rows(&session, sql).await?.join("\n"));
    let query = "SELECT count(*) FROM t JOIN s ON s.t = t.id";
    assert!(explained(&format!("EXPLAIN {query}")).await?.contains(node));
    let late = explained("EXPLAIN SELECT count(*) FROM t WHERE now() > TIMESTAMP '2020-01-01'").await?;
    assert!(!late.contains("ResultCacheExec"), "{late}");
    // It computes, so that it can measure.
    assert!(!explained(&format!("EXPLAIN ANALYZE {query}")).await?.contains("ResultCacheExec"));
    session.execute("SET grizzly.result_cache_rows = 1000").await?;
    assert!(!explained(&format!("EXPLAIN {query}")).await?.contains("ResultCacheExec"));
    session.execute("SET grizzly.result_cache_rows = 0; SET grizzly.result_cache = false").await?;
    assert!(!explained(&format!("EXPLAIN {query}")).await?.contains("ResultCacheExec"));
    Ok(())
}

#[tokio::test]
async fn without_a_budget_there_is_no_cache() -> Test {
    let db = database(0)?;
    let session = session(&db).await?;
    session.execute("CREATE TABLE t (id BIGINT)").await?;
    let plan = rows(&session, "EXPLAIN SELECT count(*) FROM t").await?.join("\n");
    assert!(!plan.contains("ResultCacheExec"));
    assert!(session.execute("SELECT * FROM grizzly.cache").await.is_err());
    Ok(())
}

#[tokio::test]
async fn flush_and_compaction_leave_results_in_force() -> Test {
    let (db, session) = filled().await?;
    let query = "SELECT sum(x) FROM t";
    assert_eq!(rows(&session, query).await?, ["50"]);
    db.flush()?;
    assert_eq!(rows(&session, query).await?, ["50"]);
    db.compact("t")?;
    assert_eq!(rows(&session, query).await?, ["50"]);
    assert_eq!(hits(&session).await?, 2);
    Ok(())
}

#[tokio::test]
async fn kept_results_do_not_keep_the_database_open() -> Test {
    let folder = tempfile::tempdir()?;
    let url = folder.path().to_string_lossy().into_owned();
    for count in ["1", "2"] {
        let settings = Settings { result_cache: BUDGET, ..Settings::default() };
        let db = Grizzly::builder(&url).settings(settings).open()?;
        let session = session(&db).await?;
        session.execute("CREATE TABLE IF NOT EXISTS t (id BIGINT); INSERT INTO t VALUES (1)").await?;
        for _ in 0..2 {
            assert_eq!(rows(&session, "SELECT count(id) FROM t WHERE id IN (SELECT id FROM t)").await?, [count]);
        }
        assert_eq!(hits(&session).await?, 1);
    }
    Ok(())
}
