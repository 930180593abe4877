//! `grizzly`: the database from the command line.

mod allocator;
mod backup;
#[cfg(feature = "tour")]
mod bench;
#[cfg(feature = "tour")]
mod generated;
mod import;
mod keys;
mod output;
mod script;
mod serve;
mod session;
mod sql;
#[cfg(feature = "tour")]
mod tour;
mod verify;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

/// How long a thread stays that has nothing to do. Statements that compute for long take turns on all threads that there
/// are, and each keeps some of the memory that it has freed: two dozen of them kept 300 MB, of which 30 were in use.
const IDLE_THREAD: Duration = Duration::from_millis(10);

/// A transactional, indexed, sharded database for Apache Arrow.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run SQL on a database or a server: statements, a file, or what you type.
    Sql(sql::Args),
    /// Serve a database over Arrow Flight SQL.
    Serve(serve::Args),
    /// Load Parquet, CSV or JSON-lines files into a table.
    Import(import::Args),
    /// Check every checksum, chunk and index of a database.
    Verify(verify::Args),
    /// Take, list and check backups.
    Backup(backup::Args),
    /// Rebuild a database from backups, as of any commit they cover.
    Restore(backup::RestoreArgs),
    #[cfg(feature = "tour")]
    #[command(flatten)]
    Generated(generated::Command),
}

impl Command {
    /// Bytes that the process may take for the database and its queries, if that was said.
    fn memory(&self) -> Option<usize> {
        match self {
            Self::Sql(args) => args.memory,
            Self::Serve(args) => args.memory,
            Self::Import(args) => args.memory,
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    allocator::prepare(cli.command.memory());
    log_to_stderr(matches!(cli.command, Command::Serve(_)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Plans nest: each level of a deep expression is several stack frames.
        .thread_stack_size(8 << 20)
        .thread_keep_alive(IDLE_THREAD)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads to run on: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async move {
        match cli.command {
            Command::Sql(args) => sql::run(args).await,
            Command::Serve(args) => serve::run(args).await,
            Command::Import(args) => import::run(args).await,
            Command::Verify(args) => verify::run(args).await,
            Command::Backup(args) => backup::run(args).await,
            Command::Restore(args) => backup::restore(args).await,
            #[cfg(feature = "tour")]
            Command::Generated(command) => generated::run(command).await,
        }
    });
    // Threads end with the process. Ending their tasks one by one instead could let half a result that another node
    // is reading look whole.
    std::mem::forget(runtime);
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", output::error_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Logs go to stderr; `RUST_LOG` chooses what. A server tells what it does, other commands only what is wrong.
fn log_to_stderr(serving: bool) {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let default = if serving { "warn,grizzly=info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
