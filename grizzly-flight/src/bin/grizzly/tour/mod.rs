//! `grizzly tour`: everything at work, on generated TPC-H data, each step checked.
//!
//! The folder and the generated rows are the only inputs. Queries are checked against plain DataFusion on the same
//! rows, transactions against what isolation promises, durability against a process that is really killed.

mod check;
mod compare;
mod crash;
pub(crate) mod data;
mod index;
pub(crate) mod load;
mod peer;
pub(crate) mod queries;
mod reference;
mod remote;
mod report;
mod transactions;

use std::{path::PathBuf, process::ExitCode};

use datafusion::error::DataFusionError;

pub(crate) use crash::{WriterArgs, write_until_killed};
pub(crate) use peer::{PeerArgs, answer};

use self::{data::Table, peer::Peer, report::Report};
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
    if !(0.001..=100.0).contains(&args.scale) {
        return Err(invalid("the scale must be between 0.001 and 100"));
    }
    let folder = Folder::new(args.db.clone())?;
    let url = folder.path.to_string_lossy().into_owned();
    println!("TPC-H at scale {} in {url}, memory {} MB", args.scale, args.memory / 1_000_000);
    let mut report = Report::default();
    let database = Database::open(&url, Some(args.memory), true)?;
    let database = steps(&args, &url, database, &mut report).await?;
    database.close()?;
    drop(folder);
    Ok(report.finish())
}

/// All steps in order. Those that need the tables are left out if the tables could not be loaded.
async fn steps(args: &Args, url: &str, database: Database, report: &mut Report) -> Result<Database, DataFusionError> {
    let mut peer = Peer::start(args.scale, args.memory)?;
    for table in Table::ALL {
        let load = async { load::table(&database, table, peer.rows(table)?).await };
        report.step(&format!("load {}", table.name()), load).await;
        if report.failures() > 0 {
            return Ok(database);
        }
    }
    index::steps(&database, report).await;
    for (index, query) in queries::ALL.iter().enumerate() {
        report.step(&query.title(), queries::check(&database, &mut peer, index)).await;
    }
    drop(peer);
    transactions::steps(&database, report).await;
    remote::steps(&database, report).await;
    let database = crash::steps(url, args.memory, database, report).await?;
    report.step("verify checksums, chunks and indexes", check::verify(&database)).await;
    Ok(database)
}

/// The database's folder, removed in the end if it was made here.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn new(given: Option<PathBuf>) -> Result<Self, DataFusionError> {
        let Some(path) = given else {
            let path = std::env::temp_dir().join(format!("grizzly-tour-{}", uuid::Uuid::new_v4().simple()));
            std::fs::create_dir_all(&path)?;
            return Ok(Self { path, temporary: true });
        };
        let taken = path.exists() && std::fs::read_dir(&path)?.next().is_some();
        if taken {
            return Err(invalid(format!("{} is not empty; the tour wants a folder of its own", path.display())));
        }
        Ok(Self { path, temporary: false })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the temporary folder could not be removed");
        }
    }
}
