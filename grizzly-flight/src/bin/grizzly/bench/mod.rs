//! `grizzly bench`: the figures of BENCHMARKS.md, beside plain DataFusion over tables in memory, in one run.

mod backups;
mod commits;
mod lookups;
mod tpch;

use std::{process::ExitCode, time::Duration};

use datafusion::error::DataFusionError;

use crate::session::{Database, parse_bytes};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// TPC-H scale factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Counted runs of each query; engines take turns.
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Memory for the database and its queries.
    #[arg(long, default_value = "8GB", value_parser = parse_bytes)]
    memory: usize,
    /// Seconds of committing per number of threads.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// Runs all measurements and prints them as tables.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    let folder = std::env::temp_dir().join(format!("grizzly-bench-{}", std::process::id()));
    let url = folder.to_string_lossy().into_owned();
    let database = Database::open(&url, Some(args.memory), true)?;
    let result = measure(&args, &database).await;
    database.grizzly().close()?;
    // The folder is ours alone; what cannot be removed is the operating system's matter.
    let _ = std::fs::remove_dir_all(&folder);
    result.map(|()| ExitCode::SUCCESS)
}

async fn measure(args: &Args, database: &Database) -> Result<(), DataFusionError> {
    let stock = tpch::load(database, args.scale).await?;
    tpch::sizes(database)?;
    lookups::without_index(database, &stock, args.reps).await?;
    tpch::queries(database, &stock, args.reps).await?;
    lookups::with_index(database, args.reps).await?;
    backups::run(database, args.scale).await?;
    commits::run(Duration::from_secs(args.seconds)).await
}

/// The middle of some durations.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A duration in milliseconds, or microseconds where that reads better.
fn shown(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1_000.0 { format!("{micros:.1} us") } else { format!("{:.2} ms", micros / 1e3) }
}
