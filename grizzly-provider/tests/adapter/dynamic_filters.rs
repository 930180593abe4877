//! Filters that joins and TopK find while they run, on a table of several morsels, against DataFusion's own table.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Decimal128Array, Int32Array, Int64Array, StringArray},
    record_batch::RecordBatch,
};
use datafusion::{execution::SessionStateBuilder, prelude::SessionContext};
use grizzly_provider::{
    Grizzly,
    adapter::{GrizzlySessionExt, GrizzlyTables},
};

use super::fixtures::{TestResult, add_memory_table, plan, query, store};

const ROWS: i64 = 200_000;

fn facts() -> TestResult<RecordBatch> {
    let ids = Int64Array::from_iter_values(0..ROWS);
    let keys = Int32Array::from_iter((0..ROWS).map(|i| (i % 17 != 0).then(|| (i * 7919 % 5_000) as i32)));
    let names = StringArray::from_iter_values((0..ROWS).map(|i| format!("n{:06}", i * 31 % ROWS)));
    let amounts = Decimal128Array::from_iter_values((0..ROWS).map(|i| i128::from(i * 37 % 1_000_003)));
    let amounts = amounts.with_precision_and_scale(15, 2)?;
    let columns: [(&str, ArrayRef, bool); 4] = [
        ("id", Arc::new(ids), false),
        ("k", Arc::new(keys), true),
        ("name", Arc::new(names), false),
        ("amount", Arc::new(amounts), false),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn dimension() -> TestResult<RecordBatch> {
    let keys = Int32Array::from_iter((0..6_000).map(|i| (i % 100 != 0).then_some(i)));
    let groups = Int64Array::from_iter_values((0..6_000).map(|i| i % 50));
    let columns: [(&str, ArrayRef, bool); 2] = [("k", Arc::new(keys), true), ("g", Arc::new(groups), false)];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

const QUERIES: [&str; 14] = [
    "SELECT count(*), sum(f.amount) FROM d JOIN f ON f.k = d.k WHERE d.g = 7",
    "SELECT count(*), min(f.id) FROM d JOIN f ON f.k = d.k WHERE d.k BETWEEN 10 AND 12",
    "SELECT count(*) FROM d JOIN f ON f.k = d.k WHERE d.g > 1000",
    "SELECT count(*) FROM f JOIN d ON f.k = d.k AND f.id = d.g",
    "SELECT count(*) FROM f WHERE f.k IN (SELECT k FROM d WHERE g = 3)",
    "SELECT count(*) FROM f WHERE f.k NOT IN (SELECT k FROM d WHERE g = 3 AND k IS NOT NULL)",
    "SELECT count(*) FROM f LEFT JOIN d ON f.k = d.k AND d.g = 4 WHERE f.id < 1000",
    // More keys than a join lists for the scan.
    "SELECT count(*), sum(f.amount) FROM d JOIN f ON f.k = d.k WHERE d.g BETWEEN 5 AND 30",
    "SELECT count(*), sum(f.id) FROM f JOIN (SELECT name FROM f WHERE id % 70 = 1) e ON f.name = e.name",
    "SELECT count(*), sum(f.id) FROM f JOIN (SELECT DISTINCT amount FROM f WHERE id < 3000) e ON f.amount = e.amount",
    "SELECT sum(f.amount) FROM f JOIN d ON f.k = d.k WHERE d.g < 10 AND f.id < (SELECT avg(id) FROM f i WHERE i.k = d.k)",
    "SELECT id, name FROM f ORDER BY name DESC LIMIT 7",
    "SELECT k, id FROM f ORDER BY k NULLS FIRST, id DESC LIMIT 5",
    "SELECT a.id, b.id FROM f a JOIN f b ON a.id = b.k WHERE a.name < 'n000100' ORDER BY a.id, b.id LIMIT 20",
];

async fn contexts(partitions: usize) -> TestResult<(SessionContext, SessionContext, Grizzly)> {
    use datafusion::prelude::SessionConfig;
    let config = SessionConfig::new().with_target_partitions(partitions);
    let memory = SessionContext::new_with_config(config.clone());
    add_memory_table(&memory, "f", &facts()?)?;
    add_memory_table(&memory, "d", &dimension()?)?;
    let db = Grizzly::open("memory://")?;
    store(&db, "f", &facts()?, &["id"], 2)?;
    store(&db, "d", &dimension()?, &[], 1)?;
    let state = SessionStateBuilder::new().with_config(config).with_default_features().with_grizzly(&db).build();
    Ok((SessionContext::new_with_state(state), memory, db))
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_top_k_agree_with_datafusion() -> TestResult {
    for partitions in [1, 4] {
        let (grizzly, memory, db) = contexts(partitions).await?;
        for sql in QUERIES {
            assert_eq!(query(&grizzly, sql).await?, query(&memory, sql).await?, "{partitions} partitions: {sql}");
        }
        db.flush()?;
        for sql in QUERIES {
            assert_eq!(
                query(&grizzly, sql).await?,
                query(&memory, sql).await?,
                "{partitions} partitions, flushed: {sql}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selective_join_narrows_the_scan() -> TestResult {
    let (grizzly, _, db) = contexts(1).await?;
    db.flush()?;
    let sql = "SELECT count(*) FROM d JOIN f ON f.k = d.k WHERE d.k = 11";
    let analyzed = query(&grizzly, &format!("EXPLAIN ANALYZE {sql}")).await?.join("\n");
    let scan = analyzed.lines().find(|line| line.contains("GrizzlyScanExec: table=public.f")).unwrap_or_default();
    assert!(scan.contains("dynamic_filters=["), "{analyzed}");
    let rows = scan.split("output_rows=").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    assert!(rows.parse::<u64>()? < 1_000, "the join's filter should leave few rows, got {rows}:\n{scan}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_stop_the_scan_and_shield_it_from_filters() -> TestResult {
    let (grizzly, _, _db) = contexts(4).await?;
    let text = plan(&grizzly, "SELECT id FROM f WHERE id >= 5 LIMIT 3").await?;
    assert!(text.contains("fetch=3"), "{text}");
    let counted = query(&grizzly, "SELECT count(*) FROM (SELECT id FROM f LIMIT 12345)").await?;
    assert!(counted.iter().any(|line| line.contains("12345")), "{counted:?}");
    // The limit chooses the rows before the join's filter sees them, however the plan is arranged.
    let sql = "SELECT count(*) FROM (SELECT k FROM f LIMIT 70000) l JOIN d ON l.k = d.k WHERE d.g = 1";
    let joined = query(&grizzly, sql).await?;
    let all = query(&grizzly, "SELECT count(*) FROM f JOIN d ON f.k = d.k WHERE d.g = 1").await?;
    assert_ne!(joined, all);
    Ok(())
}

/// The scan of `table` in the plan of `sql` after it has run.
async fn scan_of(context: &SessionContext, table: &str, sql: &str) -> TestResult<String> {
    let analyzed = query(context, &format!("EXPLAIN ANALYZE {sql}")).await?.join("\n");
    let scan = analyzed.lines().find(|line| line.contains(&format!("GrizzlyScanExec: table=public.{table}")));
    Ok(scan.ok_or_else(|| format!("no scan of {table}: {analyzed}"))?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_might_belong_to_another_column_of_the_name_is_not_taken() -> TestResult {
    let (grizzly, memory, db) = contexts(1).await?;
    db.flush()?;
    // Both sides of the inner join have a `k`; what is above it makes filters for one of them.
    for sql in [
        "SELECT j.g, j.fk FROM (SELECT f.k AS fk, d.k AS k, d.g, f.id FROM f JOIN d ON f.id = d.g) j \
         JOIN d e ON e.k = j.fk WHERE e.k = 2557 ORDER BY j.fk",
        "SELECT a.k, b.k FROM f a JOIN f b ON a.id = b.k WHERE b.name < 'n000200' ORDER BY b.k DESC, a.k LIMIT 3",
        "SELECT b.k, a.k FROM f a JOIN f b ON a.id = b.k WHERE b.name < 'n000200' ORDER BY a.k DESC, b.k LIMIT 3",
    ] {
        assert_eq!(query(&grizzly, sql).await?, query(&memory, sql).await?, "{sql}");
    }
    let once = "SELECT b.k FROM f b ORDER BY b.k DESC LIMIT 3";
    assert!(scan_of(&grizzly, "f", once).await?.contains("dynamic_filters=["));
    // A table without the rule takes no dynamic filter at all.
    let stock = SessionContext::new();
    stock.register_table("f", db.table("f")?)?;
    assert!(!scan_of(&stock, "f", once).await?.contains("dynamic_filters=["));
    assert_eq!(query(&stock, once).await?, query(&memory, once).await?);
    Ok(())
}
