//! One statement reads one snapshot, and every execution reads anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use arrow::{
    array::{ArrayRef, Int64Array},
    record_batch::RecordBatch,
};
use datafusion::{
    physical_plan::{collect, displayable},
    prelude::{SessionConfig, SessionContext},
};
use grizzly_provider::{
    Grizzly,
    adapter::{GrizzlySession, GrizzlyTables, sqlstate},
};

use super::fixtures::{TestResult, insert, query, store, table_context, value};

fn numbers(from: i64, to: i64) -> TestResult<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
    Ok(RecordBatch::try_from_iter([("id", ids)])?)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_scans_of_a_statement_see_the_same_rows() -> TestResult {
    let db = Grizzly::open("memory://")?;
    store(&db, "t", &numbers(0, 1_000)?, &["id"], 2)?;
    let context = table_context(&db, "t", 4)?;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (db, stop) = (db.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut next = 1_000;
            while !stop.load(Ordering::Relaxed) {
                let batch = numbers(next, next + 10).map_err(|error| error.to_string())?;
                insert(&db, "t", &batch).map_err(|error| error.to_string())?;
                next += 10;
            }
            Ok::<i64, String>(next)
        })
    };
    let sql = "SELECT (SELECT count(*) FROM t) AS a, (SELECT max(id) + 1 FROM t) AS b, count(*) AS c, \
               (SELECT count(*) FROM t x JOIN t y ON x.id = y.id) AS d FROM t";
    for _ in 0..200 {
        let rows = query(&context, sql).await?;
        let counts: Vec<&str> = rows[3].split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(counts.len(), 4, "{rows:?}");
        assert!(counts.iter().all(|count| count == &counts[0]), "one statement saw different snapshots: {rows:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().map_err(|_| "the writer ended abnormally")??;
    assert_eq!(value(&context, "SELECT count(*) FROM t").await?, written.to_string());
    Ok(())
}

#[tokio::test]
async fn a_plan_made_before_a_commit_reads_what_it_wrote() -> TestResult {
    let db = Grizzly::open("memory://")?;
    store(&db, "t", &numbers(0, 10)?, &[], 1)?;
    let context = table_context(&db, "t", 1)?;
    let plan = context.sql("SELECT id FROM t").await?.create_physical_plan().await?;
    let count = async || -> TestResult<usize> {
        let batches = collect(Arc::clone(&plan), context.task_ctx()).await?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    };
    assert_eq!(count().await?, 10);
    insert(&db, "t", &numbers(10, 15)?)?;
    assert_eq!(count().await?, 15, "the plan kept an old snapshot: {}", displayable(plan.as_ref()).indent(false));
    db.drop_table("t", false)?;
    assert!(count().await.is_err(), "a dropped table was read");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_keep_to_the_batch_size_and_lose_nothing() -> TestResult {
    let db = Grizzly::open("memory://")?;
    store(&db, "t", &numbers(0, 150_001)?, &[], 3)?;
    for (partitions, stealing) in [(1, true), (3, true), (3, false)] {
        let mut config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(1_000);
        config.options_mut().execution.enable_file_stream_work_stealing = stealing;
        let context = SessionContext::new_with_config(config);
        context.register_table("t", db.table("t")?)?;
        let batches = context.sql("SELECT id FROM t").await?.collect().await?;
        assert!(batches.iter().all(|batch| batch.num_rows() <= 1_000));
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 150_001);
        assert_eq!(value(&context, "SELECT sum(id) FROM t").await?, (150_000_i64 * 150_001 / 2).to_string());
        assert_eq!(value(&context, "SELECT count(*) FROM t").await?, "150001");
    }
    Ok(())
}

#[tokio::test]
async fn stock_delete_and_update_are_refused() -> TestResult {
    let db = Grizzly::open("memory://")?;
    store(&db, "t", &numbers(0, 10)?, &[], 1)?;
    let context = table_context(&db, "t", 1)?;
    for sql in ["DELETE FROM t WHERE id IN (SELECT 3)", "DELETE FROM t", "UPDATE t SET id = 1"] {
        let outcome = query(&context, sql).await;
        let error = outcome.err().ok_or_else(|| format!("{sql} was carried out"))?;
        assert_eq!(sqlstate(&error), "0A000", "{error}");
    }
    assert_eq!(value(&context, "SELECT count(*) FROM t").await?, "10");
    Ok(())
}

/// Chains as programs write them, on a thread with as little stack as Tokio's have.
#[test]
fn long_statements_run_or_are_refused_on_a_small_stack() {
    let chain = |operand: &dyn Fn(i64) -> String, operator: &str, count: i64| {
        (0..count).map(operand).collect::<Vec<_>>().join(operator)
    };
    let equal = |n: i64| format!("a = {n}");
    let cases: Vec<(String, Option<&str>)> = vec![
        (format!("SELECT count(*) FROM t WHERE {}", chain(&equal, " OR ", 10_000)), Some("3")),
        (format!("SELECT count(*) FROM t WHERE {}", chain(&|n| format!("a <> {}", n + 9), " AND ", 10_000)), Some("3")),
        (format!("SELECT count(*) FROM ({})", chain(&|n| format!("SELECT {n}"), " UNION ALL ", 2_000)), Some("2000")),
        (format!("SELECT max(a{}) FROM t", " + 0".repeat(480)), Some("2")),
        (format!("SELECT max({}) FROM t", vec!["a"; 10_000].join(" + ")), None),
        (format!("SELECT {}1", "- ".repeat(10_000)), None),
        (format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)), None),
        (format!("SELECT {}true", "NOT ".repeat(10_000)), None),
        (format!("CREATE VIEW v AS SELECT {} AS b FROM t", vec!["a"; 8_000].join(" + ")), None),
        (format!("SELECT '{}'", "x".repeat(17 << 20)), None),
    ];
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let session = GrizzlySession::new(&Grizzly::open("memory://").expect("memory is always there"));
            session.execute("CREATE TABLE t (a BIGINT)").await.expect("it is created");
            session.execute("INSERT INTO t VALUES (0), (1), (2)").await.expect("rows go in");
            for (sql, expected) in cases {
                let result = session.execute(&sql).await;
                let start = &sql[..40];
                match (expected, result) {
                    (Some(expected), Ok(rows)) => {
                        let shown = arrow::util::pretty::pretty_format_batches(&rows).expect("rows").to_string();
                        assert!(shown.contains(&format!(" {expected} ")), "{start}: {shown}");
                    }
                    (None, Err(error)) => assert!(matches!(sqlstate(&error), "54001" | "42601"), "{start}: {error}"),
                    (_, result) => unreachable!("{start}: {:?}", result.map(|rows| rows.len())),
                }
            }
            // A view of a long chain can be read and dropped.
            let text = chain(&equal, " OR ", 8_000);
            session.execute(&format!("CREATE VIEW v AS SELECT a FROM t WHERE {text}")).await.expect("it is bounded");
            assert_eq!(session.execute("SELECT * FROM v").await.expect("it is read").len(), 1);
            session.execute("DROP VIEW v").await.expect("it goes");
        });
    };
    thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join().expect("no panic");
}
