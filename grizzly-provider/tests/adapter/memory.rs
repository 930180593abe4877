//! Queries that need more memory than there is: they spill, or take joins that do, and answer the same.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    record_batch::RecordBatch,
};
use datafusion::{
    execution::{SessionStateBuilder, runtime_env::RuntimeEnvBuilder},
    prelude::{SessionConfig, SessionContext},
};
use grizzly_provider::{
    Grizzly,
    adapter::{GrizzlySession, GrizzlySessionExt, GrizzlyTables, SpillingPool, sqlstate},
};

use super::fixtures::{TestResult, store};

const ROWS: i64 = 700_000;
/// Less than a side of the joins needs.
const SMALL: usize = 48 << 20;

/// Rows of about a hundred bytes, in an order that is not that of `k`.
fn wide(name: &str) -> TestResult<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    let keys: ArrayRef =
        Arc::new(Int64Array::from_iter((0..ROWS).map(|id| (id % 11 != 3).then_some(id * 7919 % ROWS))));
    let texts = (0..ROWS).map(|id| format!("{name} {id:0>80}"));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    Ok(RecordBatch::try_from_iter([("id", ids), ("k", keys), ("text", texts)])?)
}

/// What makes sessions whose queries have so many bytes.
fn builder(memory: usize, partitions: usize) -> TestResult<SessionStateBuilder> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(SpillingPool::new(memory))).build_arc()?;
    let mut config = SessionConfig::new().with_target_partitions(partitions);
    config.options_mut().execution.sort_spill_reservation_bytes = 256 << 10;
    Ok(SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features())
}

fn session(db: &Grizzly, memory: usize, partitions: usize) -> TestResult<GrizzlySession> {
    Ok(GrizzlySession::with_state(builder(memory, partitions)?.with_grizzly(db).build())?)
}

/// A session of DataFusion alone.
fn plain(db: &Grizzly, memory: usize, partitions: usize) -> TestResult<SessionContext> {
    let context = SessionContext::new_with_state(builder(memory, partitions)?.build());
    for table in ["a", "b"] {
        context.register_table(table, db.table(table)?)?;
    }
    Ok(context)
}

async fn rows(session: &GrizzlySession, sql: &str) -> TestResult<String> {
    let batches = session.execute(sql).await.map_err(|error| format!("{sql}: {error}"))?;
    Ok(arrow::util::pretty::pretty_format_batches(&batches)?.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_do_not_fit_in_memory_sort_instead() -> TestResult {
    let db = Grizzly::open("memory://")?;
    store(&db, "a", &wide("a")?, &["id"], 2)?;
    store(&db, "b", &wide("b")?, &["id"], 2)?;
    let (mut too_large, mut answered, mut refused) = (0, 0, Vec::new());
    for partitions in [1, 2] {
        let (small, large) = (session(&db, SMALL, partitions)?, session(&db, 4 << 30, partitions)?);
        for sql in [
            "SELECT count(*), min(a.text || b.text), max(b.text || a.text) FROM a JOIN b ON a.k = b.k",
            "SELECT count(*), count(b.text), max(b.text) FROM a LEFT JOIN b ON a.k = b.k + 7",
            "SELECT count(*), count(a.text), count(b.text) FROM a FULL JOIN b ON a.k = b.k + 1000",
            "SELECT count(*), max(a.text) FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.text > a.text)",
            "SELECT count(*), max(a.text) FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.text < a.text)",
            "SELECT a.text, b.text FROM a JOIN b ON a.k = b.k ORDER BY a.text DESC, b.text LIMIT 3",
        ] {
            let hashed = plain(&db, SMALL, partitions)?.sql(sql).await?.collect().await;
            let Err(error) = hashed else { continue };
            assert_eq!(sqlstate(&error), "53200", "{sql}: {error}");
            too_large += 1;
            match small.execute(sql).await {
                Ok(batches) => {
                    let sorted = arrow::util::pretty::pretty_format_batches(&batches)?.to_string();
                    assert_eq!(sorted, rows(&large, sql).await?, "{sql}");
                    answered += 1;
                }
                // Sorts that are short of memory at the same time may not get their first batch.
                Err(error) => {
                    assert_eq!(sqlstate(&error), "53200", "{sql}: {error}");
                    refused.push(format!("{sql}: {error}"));
                }
            }
        }
    }
    let answers = format!("of {too_large} that do not fit {answered} were answered");
    assert!(too_large >= 6 && answered * 2 >= too_large, "{answers}, others not: {refused:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_other_way_is_refused_by_name() -> TestResult {
    let db = Grizzly::open("memory://")?;
    store(&db, "a", &wide("a")?, &["id"], 2)?;
    let small = session(&db, 4 << 20, 2)?;
    // NOT IN over NULLs compares with every row.
    let sql = "SELECT count(*) FROM a WHERE text NOT IN (SELECT text FROM a WHERE k > 5)";
    let refused = small.execute(sql).await.err().ok_or("it cannot fit")?;
    assert_eq!(sqlstate(&refused), "53200", "{refused}");
    // Its tasks give back what they hold when they are next polled, which the refusal does not wait for.
    let mut next = Err("it was not asked yet".into());
    for _ in 0..100 {
        next = rows(&small, "SELECT count(*) AS n FROM a WHERE id < 10").await;
        if next.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(next?.matches("10").count(), 1);
    Ok(())
}

/// Results that are large where their arguments are small are refused before they are made.
#[tokio::test(flavor = "multi_thread")]
async fn functions_make_no_more_than_memory_allows() -> TestResult {
    let db = Grizzly::open("memory://")?;
    store(&db, "a", &wide("a")?, &["id"], 2)?;
    store(&db, "b", &wide("b")?, &["id"], 2)?;
    let (small, large) = (session(&db, 16 << 20, 2)?, session(&db, 4 << 30, 2)?);
    for sql in [
        "SELECT length(repeat('x', 500000000))",
        "SELECT sum(length(repeat(text, 1000))) FROM a",
        "SELECT length(rpad('x', 500000000, 'yz'))",
        "SELECT cardinality(range(0, 60000000))",
        "SELECT sum(cardinality(range(id, id + 10000))) FROM a",
        "SELECT cardinality(generate_series(60000000, 1, -1))",
        "SELECT count(*) FROM (SELECT unnest(range(0, 60000000)))",
        "SELECT cardinality(array_repeat('abcdefghijklmnop', 50000000))",
        "SELECT cardinality(range(TIMESTAMP '2020-01-01', TIMESTAMP '2021-01-01', INTERVAL '1' SECOND))",
        "SELECT cardinality(array_resize(make_array(1), 50000000, 7))",
        "SELECT length(replace(repeat('x', 100000), 'x', repeat('y', 1000)))",
        "SELECT sum(length(replace(text, '0', repeat('y', 5000)))) FROM a",
        "SELECT sum(length(regexp_replace(text, '0', repeat('y', 5000), 'g'))) FROM a",
        "SELECT length(array_to_string(array_repeat('a', 20000), repeat('-', 10000)))",
        "SELECT sum(length(concat(text, repeat('x', 100000)))) FROM a",
        "SELECT sum(length(concat_ws(repeat('-', 100000), text, text))) FROM a",
        "SELECT sum(length(text || repeat('x', 100000))) FROM a",
        "SELECT sum(length(t || t || t || t || t)) FROM (SELECT text || repeat('y', 400) AS t FROM a)",
        "SELECT sum(cardinality(make_array(text, text, repeat('x', 100000)))) FROM a",
        "SELECT sum(cardinality(ARRAY[text, text, repeat('x', 100000)])) FROM a",
        "SELECT sum(cardinality(array_concat(l, l, l, l, l))) FROM (SELECT array_repeat(id, 50) AS l FROM a)",
        "SELECT sum(length(to_char(to_timestamp(id), repeat('%A', 10000)))) FROM a",
        "SELECT sum(cardinality(l)) FROM (SELECT array_agg(text) OVER (ORDER BY id) AS l FROM a WHERE id < 20000)",
        "SELECT sum(length(l)) FROM (SELECT string_agg(text, ',') OVER (ORDER BY id) AS l FROM a WHERE id < 20000)",
        "SELECT levenshtein(repeat('x', 100000), repeat('y', 100000))",
    ] {
        let refused = small.execute(sql).await.err().ok_or("it takes too much")?;
        assert_eq!(sqlstate(&refused), "53200", "{sql}: {refused}");
    }
    for sql in [
        "SELECT repeat('ab', 3), repeat(NULL, 3), repeat('x', -1), lpad('x', 4, 'yz'), rpad(NULL, 9), range(3), range(1, 9, 3)",
        "SELECT range(9, 1, -2), generate_series(1, 3), array_repeat(1, 3), range(DATE '2020-01-01', DATE '2020-01-04', INTERVAL '1' DAY)",
        "SELECT sum(length(repeat(text, 2))), sum(length(lpad(text, 200))), sum(cardinality(range(id % 5))) FROM a",
        "SELECT 'a' || 'b', NULL || 'x', min(text || '-' || k), count(text || NULL), max(text || text) FROM a",
        "SELECT text || '!', k || text FROM a WHERE id IN (1, 2, 3) ORDER BY id",
        "SELECT sum(length(replace(text, '0', 'zero'))), min(replace(text, '', '-')), max(replace(text, '0', '')) FROM a",
        "SELECT min(regexp_replace(text, '(0+)', '<\\1>', 'g')), max(regexp_replace(text, '0', 'x')) FROM a",
        "SELECT concat('a', NULL, 1), concat_ws('-', 'a', NULL, 'b'), min(concat(text, k)), max(concat_ws('/', text, k)) FROM a",
        "SELECT array_to_string(make_array(1, NULL, 3), '-', '*'), array_resize(make_array(1, 2), 4, 9), ARRAY[1, 2] || ARRAY[3]",
        "SELECT array_concat(make_array(1), make_array(2, 3)), array_append(make_array('a'), 'b'), array_prepend(1, ARRAY[2])",
        "SELECT max(cardinality(l)) FROM (SELECT array_agg(k) OVER (PARTITION BY id % 1000 ORDER BY id) AS l FROM a WHERE id < 5000)",
        "SELECT length(string_agg(text, ',' ORDER BY id)), cardinality(array_agg(id)) FROM a WHERE id < 1000",
        "SELECT levenshtein('kitten', 'sitting'), to_char(DATE '2020-01-02', '%Y'), min(levenshtein(text, 'a')) FROM a",
        "SELECT range(TIMESTAMP '2020-01-01', TIMESTAMP '2020-01-03', INTERVAL '1' DAY)",
        "SELECT sum(cardinality(array_repeat(text, CAST(id % 3 AS BIGINT)))), sum(cardinality(range(k, k + 2, 1))) FROM a",
    ] {
        assert_eq!(rows(&small, sql).await?, rows(&large, sql).await?, "{sql}");
        let plain = plain(&db, 4 << 30, 2)?.sql(sql).await?.collect().await?;
        let plain = arrow::util::pretty::pretty_format_batches(&plain)?.to_string();
        assert_eq!(rows(&small, sql).await?, plain, "{sql}");
    }
    Ok(())
}
