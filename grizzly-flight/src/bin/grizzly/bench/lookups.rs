//! Single values and few rows: by scan, by secondary index, by primary key in Rust.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, Int64Array};
use datafusion::{error::DataFusionError, prelude::SessionContext, scalar::ScalarValue};

use super::{median, shown};
use crate::session::Database;

/// So many parts there are at every scale from 0.1 on.
const PARTS: usize = 20_000;

/// Part numbers to look up, each once before one comes again.
fn parts(count: usize) -> impl Iterator<Item = i64> {
    (0..count).map(|number| 1 + (number * 7_919 % PARTS) as i64)
}

/// `SELECT *` of the line items of one part by scan.
pub(super) async fn without_index(
    database: &Database,
    stock: &SessionContext,
    reps: usize,
) -> Result<(), DataFusionError> {
    let session = database.session()?;
    let mut times: [Vec<Duration>; 2] = Default::default();
    for part in parts(reps * 4) {
        let sql = format!("SELECT * FROM lineitem WHERE l_partkey = {part}");
        let started = Instant::now();
        session.sql(&sql).await?.collect().await?;
        times[0].push(started.elapsed());
        let started = Instant::now();
        stock.sql(&sql).await?.collect().await?;
        times[1].push(started.elapsed());
    }
    let [ours, theirs] = times.map(median);
    println!("SELECT * by l_partkey without an index: {} (DataFusion {})", shown(ours), shown(theirs));
    Ok(())
}

/// The same with the index, as new SQL text each time and as a prepared plan; then by primary key in Rust.
pub(super) async fn with_index(database: &Database, reps: usize) -> Result<(), DataFusionError> {
    let session = database.session()?;
    let started = Instant::now();
    session.execute("CREATE INDEX lineitem_part ON lineitem (l_partkey)").await?;
    println!("create index on l_partkey: {}", shown(started.elapsed()));
    let plan = session.plan("SELECT * FROM lineitem WHERE l_partkey = $1").await?;
    let mut times: [Vec<Duration>; 2] = Default::default();
    let lookups: Vec<i64> = parts((reps * 800).min(PARTS)).collect();
    // Each way has parts of its own: whoever reads rows second finds them in the processor's caches.
    for pair in lookups.chunks_exact(2) {
        let (part, other) = (pair[0], pair[1]);
        let started = Instant::now();
        session.sql(&format!("SELECT * FROM lineitem WHERE l_partkey = {part}")).await?.collect().await?;
        times[0].push(started.elapsed());
        let started = Instant::now();
        session.execute_plan(&plan, vec![ScalarValue::Int64(Some(other))]).await?.collect().await?;
        times[1].push(started.elapsed());
    }
    let [text, prepared] = times.map(median);
    println!("SELECT * by l_partkey with the index: {} as SQL text, {} prepared", shown(text), shown(prepared));
    let grizzly = database.grizzly();
    let mut got = Vec::new();
    for key in parts(reps * 2_000) {
        let key: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![key]))];
        let started = Instant::now();
        let row = grizzly.get("part", &key)?;
        got.push(started.elapsed());
        if row.is_none() {
            return Err(DataFusionError::Execution("a part that was loaded is not found by its key".to_owned()));
        }
    }
    println!("get a part by key in Rust: {}", shown(median(got)));
    Ok(())
}
