//! `grizzly verify`: checks a whole database.

use std::process::ExitCode;

use datafusion::error::DataFusionError;

use crate::session::Database;

/// Options of `grizzly verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The database.
    #[arg(long, value_name = "URL")]
    db: String,
}

/// Prints what was checked and what is wrong; fails if anything is.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    let database = Database::open(&args.db, None, false)?;
    let report = tokio::task::block_in_place(|| database.grizzly().verify())?;
    println!(
        "checked {} tables, {} segments, {} chunks, {} index entries",
        report.tables, report.segments, report.chunks, report.index_entries
    );
    for problem in &report.problems {
        println!("problem: {problem}");
    }
    database.close()?;
    if report.problems.is_empty() {
        println!("no problems");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
