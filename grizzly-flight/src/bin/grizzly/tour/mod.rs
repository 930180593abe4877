//! `grizzly tour`: everything at work, on generated TPC-H data, each step checked.
//!
//! The folder and the generated rows are the only inputs. Queries are checked against plain DataFusion on the same
//! rows, transactions against what isolation promises, backups against the rows of their moment, durability and
//! failover with processes that are really killed.

mod backup;
mod check;
mod cluster;
mod compare;
mod contents;
mod crash;
pub(crate) mod data;
mod failover;
mod federation;
mod folder;
mod index;
pub(crate) mod load;
mod peer;
pub(crate) mod queries;
mod reference;
mod remote;
mod report;
mod server;
mod transactions;

use std::{path::PathBuf, process::ExitCode};

use datafusion::error::DataFusionError;
use grizzly_provider::{Error, ErrorKind};

pub(crate) use crash::{WriterArgs, write_until_killed};
pub(crate) use peer::{PeerArgs, answer};
pub(crate) use server::serve_while_watched;

use self::{data::Table, folder::Folder, peer::Peer, queries::Answers, report::Report};
use crate::session::{Database, invalid, parse_bytes};

/// Options of `grizzly tour`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// TPC-H scale factor: 1 is about 1 GB of text, 8.7 million rows.
    #[arg(long, default_value_t = 0.1)]
    scale: f64,
    /// Memory for the database and its queries.
    #[arg(long, value_parser = parse_bytes, default_value = "1GB", value_name = "BYTES")]
    memory: usize,
    /// An empty or new folder for the database; by default a temporary one that is removed afterwards.
    #[arg(long, value_name = "FOLDER")]
    db: Option<PathBuf>,
}

/// Takes the tour; fails if a step does.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    // With fewer suppliers TPC-H's formula gives some parts one supplier twice.
    if !(0.01..=100.0).contains(&args.scale) {
        return Err(invalid("the scale must be between 0.01 and 100"));
    }
    let folder = Folder::new(args.db.clone())?;
    let scratch = Folder::temporary()?;
    let url = folder.url();
    println!("TPC-H at scale {} in {url}, memory {} MB", args.scale, args.memory / 1_000_000);
    let mut report = Report::default();
    // Whoever interrupts it leaves no processes and no folders behind.
    tokio::select! {
        taken = steps(&args, &url, &scratch, &mut report) => taken?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Error::new(ErrorKind::Cancelled, "interrupted").into());
        }
    }
    drop((folder, scratch));
    Ok(report.finish())
}

/// All steps in order. Those that need the tables are left out if the tables could not be loaded.
async fn steps(args: &Args, url: &str, scratch: &Folder, report: &mut Report) -> Result<(), DataFusionError> {
    let database = Database::open(url, Some(args.memory), true)?;
    let Some(answers) = analyse(args, &database, report).await? else { return database.close() };
    transactions::steps(&database, report).await;
    remote::steps(&database, report).await;
    federation::steps(&database, scratch, args.memory, report).await;
    let copy = backup::steps(&database, scratch, args.memory, report).await;
    let database = crash::steps(url, args.memory, database, report).await?;
    report.step("verify checksums, chunks and indexes", check::verify(&database)).await;
    database.close()?;
    drop(database);
    if let Some(copy) = copy {
        cluster::steps(&copy, args.memory, &answers, report).await;
    }
    Ok(())
}

/// Loads the tables and asks all queries, of which it returns plain DataFusion's answers; `None` if a table could not
/// be loaded.
async fn analyse(args: &Args, database: &Database, report: &mut Report) -> Result<Option<Answers>, DataFusionError> {
    let mut peer = Peer::start(args.scale, args.memory)?;
    for table in Table::ALL {
        let load = async { load::table(database, table, peer.rows(table)?).await };
        report.step(&format!("load {}", table.name()), load).await;
        if report.failures() > 0 {
            return Ok(None);
        }
    }
    index::steps(database, report).await;
    let mut answers = Answers::new();
    for (index, query) in queries::ALL.iter().enumerate() {
        report.step(&query.title(), queries::check(database, &mut peer, index, &mut answers)).await;
    }
    Ok(Some(answers))
}
