//! `grizzly serve`: a database over Arrow Flight SQL.

use std::{io::Write, process::ExitCode, time::Duration};

use datafusion::error::DataFusionError;
use grizzly_flight::{FlightSqlServer, Limits};

use crate::{
    keys::KeyArgs,
    session::{Database, parse_bytes},
};

/// Options of `grizzly serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The database: a folder, file:///path, memory://, or an object-store URL.
    #[arg(long, value_name = "URL")]
    db: String,
    /// Where to listen; port 0 takes any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    /// Bearer token (or password) that every call must carry; mandatory beyond this machine.
    #[arg(long, env = "GRIZZLY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Memory for the database and its queries.
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    memory: Option<usize>,
    #[command(flatten)]
    key: KeyArgs,
    /// Cancel statements that run longer than this many seconds.
    #[arg(long, value_name = "SECONDS")]
    statement_timeout: Option<u64>,
}

/// Serves until the process is told to stop.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    let database = Database::open_with_key(&args.db, args.memory, true, args.key.key()?)?;
    let limits = Limits { statement_timeout: args.statement_timeout.map(Duration::from_secs), ..Limits::default() };
    let server = FlightSqlServer::builder(database.factory()).token(args.token).limits(limits);
    let server = server.listen(args.listen).await?;
    let mut stdout = std::io::stdout();
    // Whoever started this process reads the port from here.
    writeln!(stdout, "listening on {}", server.url())?;
    stdout.flush()?;
    server.serve_with_shutdown(told_to_stop()).await?;
    tracing::info!("stopped; closing the database");
    database.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Resolves on SIGINT or SIGTERM.
async fn told_to_stop() {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be caught");
            std::future::pending().await
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
