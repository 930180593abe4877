//! `grizzly sql`: statements from an argument, a file, a pipe or a person, on a database or a server.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Instant};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use grizzly_flight::{FlightSqlConnection, client::ConnectOptions};
use grizzly_provider::adapter::GrizzlySession;
use rustyline::{DefaultEditor, error::ReadlineError};

use crate::{
    keys::KeyArgs,
    output, script,
    session::{Attachment, Database, invalid, parse_bytes},
};

/// Options of `grizzly sql`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The database: a folder, file:///path, memory://, or an object-store URL.
    #[arg(long, value_name = "URL", conflicts_with = "connect")]
    db: Option<String>,
    /// A server: grpc://host:port.
    #[arg(long, value_name = "URL")]
    connect: Option<String>,
    /// The server's token.
    #[arg(long, env = "GRIZZLY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Run these statements, separated by semicolons.
    #[arg(short = 'c', long, value_name = "SQL", conflicts_with = "file")]
    command: Option<String>,
    /// Run the statements in this file.
    file: Option<PathBuf>,
    /// Memory for the database and its queries.
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", conflicts_with = "connect")]
    pub(crate) memory: Option<usize>,
    #[command(flatten)]
    key: KeyArgs,
    /// Show another database's tables as the catalog NAME; may be given several times.
    #[arg(long, value_name = "NAME=URL", conflicts_with = "connect")]
    attach: Vec<Attachment>,
    /// Print results only, no row counts or times.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs what the arguments say; without statements reads them from standard input.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    let backend = Backend::open(&args).await?;
    let text = match (&args.command, &args.file) {
        (Some(text), _) => Some(text.clone()),
        (_, Some(file)) => Some(
            std::fs::read_to_string(file)
                .map_err(|error| invalid(format!("cannot read {}: {error}", file.display())))?,
        ),
        _ if !std::io::stdin().is_terminal() => Some(std::io::read_to_string(std::io::stdin())?),
        _ => None,
    };
    match text {
        Some(text) => {
            for statement in script::all(&text) {
                backend.print(statement, args.quiet).await?;
            }
        }
        None => interactive(&backend, args.quiet).await?,
    }
    backend.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Where statements run.
enum Backend {
    Local(Box<Database>, Box<GrizzlySession>),
    Remote(FlightSqlConnection),
}

impl Backend {
    async fn open(args: &Args) -> Result<Self, DataFusionError> {
        let Some(url) = &args.connect else {
            let url = args.db.as_deref().unwrap_or("memory://");
            let database =
                Database::open_with_key(url, args.memory, true, args.key.key()?)?.attach(&args.attach).await?;
            let session = database.session()?;
            return Ok(Self::Local(Box::new(database), Box::new(session)));
        };
        let options = ConnectOptions {
            token: args.token.clone(),
            // A reconnect must not lose an open transaction unnoticed.
            session: Some(uuid::Uuid::new_v4().to_string()),
            timeout: None,
            ..ConnectOptions::default()
        };
        Ok(Self::Remote(FlightSqlConnection::connect_with(url, options).await?))
    }

    /// Starts a statement; writes are done once its rows are read.
    async fn start(&self, statement: &str) -> Result<(SchemaRef, Batches<'_>), DataFusionError> {
        match self {
            Self::Local(_, session) => {
                let frame = session.sql(statement).await?;
                let stream = frame.execute_stream().await.inspect_err(|_| session.handle().abort())?;
                Ok((stream.schema(), stream.inspect_err(|_| session.handle().abort()).boxed()))
            }
            Self::Remote(connection) => {
                let rows = connection.query(statement).await?;
                Ok((rows.schema, rows.batches.map_err(DataFusionError::from).boxed()))
            }
        }
    }

    async fn print(&self, statement: &str, quiet: bool) -> Result<(), DataFusionError> {
        let started = Instant::now();
        let (schema, batches) = self.start(statement).await?;
        let rows = output::print_rows(&schema, batches).await?;
        if !quiet {
            eprintln!("{}", output::summary(rows, schema.fields().len(), started.elapsed()));
        }
        Ok(())
    }

    fn close(self) -> Result<(), DataFusionError> {
        match self {
            Self::Local(database, session) => {
                drop(session);
                database.close()
            }
            Self::Remote(_) => Ok(()),
        }
    }
}

type Batches<'a> = BoxStream<'a, Result<RecordBatch, DataFusionError>>;

const HELP: &str = "\
Statements end with a semicolon; Ctrl-C cancels one, Ctrl-D leaves.
  \\d          list the tables
  \\d TABLE    describe a table
  \\?          this help
  \\q          leave";

/// Reads statements from a terminal. Errors are printed and the next line is read.
async fn interactive(backend: &Backend, quiet: bool) -> Result<(), DataFusionError> {
    let broken = |error: ReadlineError| invalid(format!("the terminal cannot be read: {error}"));
    let mut editor = DefaultEditor::new().map_err(broken)?;
    let history = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".grizzly_history"));
    if let Some(history) = &history {
        // There is none before the first session.
        let _ = editor.load_history(history);
    }
    println!("Grizzly {}. \\? for help.", env!("CARGO_PKG_VERSION"));
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() { "grizzly> " } else { "    ...> " };
        let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                text.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(broken(error)),
        };
        if text.is_empty() && line.trim_start().starts_with('\\') {
            let _ = editor.add_history_entry(line.as_str());
            match shortcut(line.trim()) {
                Shortcut::Leave => break,
                Shortcut::Help => println!("{HELP}"),
                Shortcut::Run(statement) => run_or_cancel(backend, &statement, quiet).await,
            }
            continue;
        }
        text.push_str(&line);
        text.push('\n');
        let (statements, rest) = script::split(&text);
        if statements.is_empty() {
            if script::is_blank(rest) {
                text.clear();
            }
            continue;
        }
        let _ = editor.add_history_entry(text.trim());
        for statement in statements {
            run_or_cancel(backend, statement, quiet).await;
        }
        text = if script::is_blank(rest) { String::new() } else { rest.to_owned() };
    }
    if let Some(history) = &history
        && let Err(error) = editor.save_history(history)
    {
        tracing::warn!(%error, "the history could not be saved");
    }
    Ok(())
}

enum Shortcut {
    Leave,
    Help,
    Run(String),
}

fn shortcut(line: &str) -> Shortcut {
    match line.split_once(char::is_whitespace).unwrap_or((line, "")) {
        ("\\q", _) => Shortcut::Leave,
        ("\\d", "") => Shortcut::Run("SHOW TABLES".to_owned()),
        ("\\d", table) => Shortcut::Run(format!("DESCRIBE {}", table.trim().trim_end_matches(';'))),
        _ => Shortcut::Help,
    }
}

async fn run_or_cancel(backend: &Backend, statement: &str, quiet: bool) {
    tokio::select! {
        result = backend.print(statement, quiet) => {
            if let Err(error) = result {
                eprintln!("{}", output::error_line(&error));
            }
        }
        _ = tokio::signal::ctrl_c() => eprintln!("cancelled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortcuts_are_statements() {
        assert!(matches!(shortcut("\\q"), Shortcut::Leave));
        assert!(matches!(shortcut("\\d"), Shortcut::Run(sql) if sql == "SHOW TABLES"));
        assert!(matches!(shortcut("\\d t;"), Shortcut::Run(sql) if sql == "DESCRIBE t"));
        assert!(matches!(shortcut("\\x"), Shortcut::Help));
    }
}
