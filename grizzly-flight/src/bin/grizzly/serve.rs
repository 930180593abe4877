//! `grizzly serve`: a database over Arrow Flight SQL.

use std::{io::Write, process::ExitCode, time::Duration};

use datafusion::error::DataFusionError;
use grizzly_flight::{Cluster, FlightSqlServer, Limits};
use grizzly_provider::{Error, ErrorKind};

use crate::{
    keys::KeyArgs,
    session::{Attachment, Database, parse_bytes, parse_bytes_or_none},
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
    /// Be a node: share queries with all servers of the same database that were started this way.
    #[arg(long)]
    cluster: bool,
    /// Where other nodes reach this one, like grpc://10.0.0.1:4711, if not at the address it listens on.
    #[arg(long, value_name = "URL", requires = "cluster")]
    advertise: Option<String>,
    /// Bearer token (or password) that every call must carry; mandatory beyond this machine.
    #[arg(long, env = "GRIZZLY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Memory for the database and its queries.
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub(crate) memory: Option<usize>,
    /// Memory for results of queries, kept for when a query comes again and its tables have not changed; 0 for none.
    #[arg(long, value_parser = parse_bytes_or_none, value_name = "BYTES", default_value = "64MB")]
    result_cache: usize,
    #[command(flatten)]
    key: KeyArgs,
    /// Cancel statements that run longer than this many seconds.
    #[arg(long, value_name = "SECONDS")]
    statement_timeout: Option<u64>,
    /// Show another database's tables as the catalog NAME; may be given several times.
    #[arg(long, value_name = "NAME=URL")]
    attach: Vec<Attachment>,
}

/// Serves until the process is told to stop.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    // Taken first: a node says where it is as soon as it has the database open.
    let listener = std::net::TcpListener::bind(&args.listen).map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("cannot listen on {}", args.listen)).with_source(error)
    })?;
    let key = args.key.key()?;
    let database = tokio::task::block_in_place(|| {
        Database::open_served(&args.db, args.memory, key, args.cluster, args.result_cache)
    })?;
    let mut database = database.attach(&args.attach).await?;
    let mut node = None;
    if args.cluster {
        let (member, cluster) = database.into_node(args.token.clone())?;
        (database, node) = (member, Some(cluster));
    }
    let limits = Limits { statement_timeout: args.statement_timeout.map(Duration::from_secs), ..Limits::default() };
    let mut server = FlightSqlServer::builder(database.factory()).token(args.token).limits(limits);
    if let Some(node) = &node {
        server = server.cluster(node);
    }
    let server = server.listen_on(listener)?;
    if let Some(node) = &node {
        let url = args.advertise.unwrap_or_else(|| server.url());
        tokio::task::block_in_place(|| database.grizzly().advertise(&url))?;
        node.join(&url).await?;
    }
    let mut stdout = std::io::stdout();
    // Whoever started this process reads the port from here.
    writeln!(stdout, "listening on {}", server.url())?;
    stdout.flush()?;
    server.serve_with_shutdown(told_to_stop_and_left(node)).await?;
    tracing::info!("stopped; closing the database");
    database.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Resolves once the process is told to stop; by then other nodes are told, too.
async fn told_to_stop_and_left(node: Option<Cluster>) {
    told_to_stop().await;
    let Some(node) = node else { return };
    if let Err(error) = node.leave().await {
        tracing::warn!(%error, "the other nodes could not be told; they will notice");
    }
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
