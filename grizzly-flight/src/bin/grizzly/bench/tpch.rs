//! The 22 queries, warm, the two engines taking turns.

use std::time::{Duration, Instant};

use arrow::error::ArrowError;
use datafusion::{datasource::MemTable, error::DataFusionError, prelude::SessionContext};

use super::{median, shown};
use crate::{
    session::Database,
    tour::{data::Table, load, queries},
};

/// Loads all tables into the database and into plain DataFusion's memory.
pub(super) async fn load(database: &Database, scale: f64) -> Result<SessionContext, DataFusionError> {
    let stock = SessionContext::new();
    for table in Table::ALL {
        let started = Instant::now();
        let rows = load::table(database, table, table.generate(scale, 1, 1)).await?.rows;
        println!("load {:<10} {rows:>9} rows {}", table.name(), shown(started.elapsed()));
        let parts = table.parts();
        let partitions =
            (1..=parts).map(|part| table.generate(scale, part, parts).collect::<Result<Vec<_>, ArrowError>>());
        let memory = MemTable::try_new(table.schema(), partitions.collect::<Result<Vec<_>, _>>()?)?;
        stock.register_table(table.name(), std::sync::Arc::new(memory))?;
    }
    let grizzly = database.grizzly().clone();
    tokio::task::block_in_place(|| Table::ALL.iter().try_for_each(|table| grizzly.compact(table.name())))?;
    Ok(stock)
}

/// What lineitem takes.
pub(super) fn sizes(database: &Database) -> Result<(), DataFusionError> {
    let grizzly = database.grizzly();
    let statistics = grizzly.snapshot().table("lineitem")?.statistics();
    let encoded: u64 = statistics.columns.iter().map(|column| column.bytes).sum();
    let disk = grizzly.table_bytes("lineitem")?;
    println!(
        "lineitem: {} rows, encoded columns {:.1} MB in memory, {:.1} MB on disk with its primary key",
        statistics.rows,
        encoded as f64 / 1e6,
        disk as f64 / 1e6
    );
    Ok(())
}

/// Times the queries and prints both engines' medians and the ratio of their geometric means.
pub(super) async fn queries(database: &Database, stock: &SessionContext, reps: usize) -> Result<(), DataFusionError> {
    let session = database.session()?;
    let mut logs = (0.0, 0.0);
    println!("query   grizzly      DataFusion   ratio");
    for (number, query) in (1..).zip(&queries::ALL) {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for rep in 0..=reps {
            let started = Instant::now();
            session.sql(query.sql()).await?.collect().await?;
            let ours = started.elapsed();
            let started = Instant::now();
            stock.sql(query.sql()).await?.collect().await?;
            if rep > 0 {
                times[0].push(ours);
                times[1].push(started.elapsed());
            }
        }
        let [ours, theirs] = times.map(median);
        logs = (logs.0 + ours.as_secs_f64().ln(), logs.1 + theirs.as_secs_f64().ln());
        println!(
            "Q{number:<5} {:>11} {:>12}   {:.2}",
            shown(ours),
            shown(theirs),
            ours.as_secs_f64() / theirs.as_secs_f64()
        );
    }
    let count = queries::ALL.len() as f64;
    let (ours, theirs) = ((logs.0 / count).exp(), (logs.1 / count).exp());
    println!("geomean {:.1} ms against {:.1} ms: ratio {:.2}", ours * 1e3, theirs * 1e3, ours / theirs);
    Ok(())
}
