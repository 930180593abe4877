//! One query without an index, then with one: the plan says which path was taken, the rows are the same.

use std::time::Instant;

use arrow::record_batch::RecordBatch;
use datafusion::{arrow::util::pretty::pretty_format_batches, error::DataFusionError};
use parking_lot::Mutex;

use super::{
    check::{ask, expect, failed},
    compare::same_rows,
    report::{Found, Report},
};
use crate::session::Database;

const QUERY: &str = "SELECT l_orderkey, l_linenumber, l_quantity FROM lineitem WHERE l_partkey = 17";
const INDEX: &str = "lineitem_part";

pub(crate) async fn steps(database: &Database, report: &mut Report) {
    let scanned = Mutex::new(Vec::new());
    report.step("lookup without an index", without(database, &scanned)).await;
    report.step("create index on lineitem(l_partkey)", create(database)).await;
    let scanned = scanned.into_inner();
    report.step("lookup with the index", with(database, &scanned)).await;
}

async fn without(database: &Database, scanned: &Mutex<Vec<RecordBatch>>) -> Result<Found, DataFusionError> {
    let (plan, batches, found) = explain_and_run(database).await?;
    if plan.contains(INDEX) {
        return Err(failed(format!("an index that does not exist is in the plan:\n{plan}")));
    }
    *scanned.lock() = batches;
    Ok(found)
}

async fn create(database: &Database) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    session.execute(&format!("CREATE INDEX {INDEX} ON lineitem (l_partkey)")).await?;
    let rows = ask(&session, "SELECT count(*) FROM lineitem").await?;
    let known = database.grizzly().snapshot().table("lineitem")?.indexes();
    expect("the index is known", known.iter().any(|index| &*index.name == INDEX), true)?;
    Ok(Found::new(u64::try_from(rows).unwrap_or(0), "built"))
}

async fn with(database: &Database, scanned: &[RecordBatch]) -> Result<Found, DataFusionError> {
    let (plan, batches, found) = explain_and_run(database).await?;
    if !plan.contains(INDEX) {
        return Err(failed(format!("the plan does not use the index:\n{plan}")));
    }
    same_rows(&batches, scanned, &[]).map_err(failed)?;
    Ok(Found { verdict: format!("{}, same rows as the scan", found.verdict), ..found })
}

/// The plan's text, the rows, and which access path the plan names.
async fn explain_and_run(database: &Database) -> Result<(String, Vec<RecordBatch>, Found), DataFusionError> {
    let session = database.session()?;
    let plan = session.execute(&format!("EXPLAIN {QUERY}")).await?;
    let plan = pretty_format_batches(&plan)?.to_string();
    // Once before, so that both times are those of a warm table.
    session.execute(QUERY).await?;
    let started = Instant::now();
    let batches = session.execute(QUERY).await?;
    let took = started.elapsed();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let access = plan.split("access=").nth(1).and_then(|rest| rest.split(['[', ',', '|']).next());
    let verdict = format!("EXPLAIN says {}", access.map_or("no access path", str::trim));
    Ok((plan, batches, Found::new(rows as u64, verdict).in_time(took)))
}
