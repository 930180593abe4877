//! The commands that work on generated TPC-H data.

use std::process::ExitCode;

use clap::Subcommand;
use datafusion::error::DataFusionError;

use crate::{bench, serve, tour};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure the database beside plain DataFusion in memory.
    Bench(bench::Args),
    /// See everything at work on generated TPC-H data, checked against plain DataFusion.
    Tour(tour::Args),
    /// The process that the tour kills.
    #[command(hide = true)]
    TourWriter(tour::WriterArgs),
    /// The process that the tour compares with.
    #[command(hide = true)]
    TourPeer(tour::PeerArgs),
    /// The servers that the tour starts: `serve`, until its input ends.
    #[command(hide = true)]
    TourServer(serve::Args),
}

pub(crate) async fn run(command: Command) -> Result<ExitCode, DataFusionError> {
    match command {
        Command::Bench(args) => bench::run(args).await,
        Command::Tour(args) => tour::run(args).await,
        Command::TourWriter(args) => tour::write_until_killed(args).await,
        Command::TourPeer(args) => tour::answer(args).await,
        Command::TourServer(args) => tour::serve_while_watched(args).await,
    }
}
