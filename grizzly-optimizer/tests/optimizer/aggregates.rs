//! Aggregates answered from metadata.

use std::sync::Arc;

use datafusion::{
    arrow::array::{Int64Array, RecordBatch},
    common::ScalarValue,
    error::Result,
    physical_plan::collect,
};
use grizzly_provider::{access::AsOf, adapter::GrizzlyTables};

use crate::{
    database::{ROWS, batch, database, in_memory, insert, with_rules},
    rows::{plan, sorted_rows},
};

#[tokio::test]
async fn whole_table_aggregates_give_what_a_scan_gives() -> Result<()> {
    let (ctx, memory) = (with_rules(&database()?, vec![])?, in_memory()?);
    for sql in [
        "SELECT count(*) FROM t",
        "SELECT count(*), min(id), max(id) FROM t",
        "SELECT max(part) - min(part), count(day) FROM t",
        "SELECT min(name), max(name), count(name) FROM t",
        "SELECT min(price), max(price), count(price) FROM t",
        "SELECT count(DISTINCT day) FROM t",
        "SELECT sum(id), count(*) FROM t",
        "SELECT count(*) FROM t WHERE part = 17",
        "SELECT count(*) FILTER (WHERE part = 17) FROM t",
        "SELECT count(*) FROM (SELECT * FROM t LIMIT 10)",
        "SELECT count(*) FROM t HAVING max(id) > 3",
    ] {
        assert_eq!(sorted_rows(&ctx, sql).await?, sorted_rows(&memory, sql).await?, "{sql}");
    }
    Ok(())
}

#[tokio::test]
async fn a_count_is_of_the_moment_it_runs() -> Result<()> {
    let db = database()?;
    let ctx = with_rules(&db, vec![])?;
    let sql = "SELECT count(*) FROM t";
    assert!(plan(&ctx, sql).await?.contains("MetadataAggregateExec: [count("));
    // The plan is made once, before the row is there.
    let planned = ctx.sql(sql).await?.create_physical_plan().await?;
    insert(&db, one_more()?)?;
    let batches = collect(planned, ctx.task_ctx()).await?;
    let count = ScalarValue::try_from_array(batches[0].column(0), 0)?;
    assert_eq!(count, ScalarValue::Int64(Some(ROWS + 1)));
    Ok(())
}

#[tokio::test]
async fn a_count_of_the_past_is_of_the_past() -> Result<()> {
    let db = database()?;
    let ctx = with_rules(&db, vec![])?;
    let before = db.snapshot().csn();
    insert(&db, one_more()?)?;
    ctx.register_table("past", Arc::new(db.table("t")?.as_of(AsOf::Csn(before))))?;
    let sql = "SELECT (SELECT count(*) FROM past) AS a, (SELECT max(id) FROM past) AS b, (SELECT count(*) FROM t) AS c";
    assert_eq!(sorted_rows(&ctx, sql).await?, [format!("{ROWS} | {} | {}", ROWS - 1, ROWS + 1)]);
    Ok(())
}

/// A row with the next id.
fn one_more() -> Result<RecordBatch> {
    let row = batch()?.slice(0, 1);
    let mut columns = row.columns().to_vec();
    columns[0] = Arc::new(Int64Array::from(vec![ROWS]));
    Ok(RecordBatch::try_new(row.schema(), columns)?)
}
