//! `grizzly verify`: checks a whole database.

use std::process::ExitCode;

use datafusion::error::DataFusionError;

use crate::{keys::KeyArgs, output, session::Database};

/// Options of `grizzly verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The database.
    #[arg(long, value_name = "URL")]
    db: String,
    #[command(flatten)]
    key: KeyArgs,
}

/// Prints what was checked and what is wrong; fails if anything is.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    let database = Database::open_with_key(&args.db, None, false, args.key.key()?)?;
    let report = tokio::task::block_in_place(|| database.grizzly().verify())?;
    println!(
        "checked {} tables, {} segments, {} chunks, {} index entries, {} log records",
        report.tables, report.segments, report.chunks, report.index_entries, report.log_records
    );
    for torn in &report.torn {
        println!("note: {torn}; what a crash leaves looks like this");
    }
    // To close it would store what is only in the log, for which there may be no room.
    drop(database);
    Ok(output::verdict(&report.problems))
}
