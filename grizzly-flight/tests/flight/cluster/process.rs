//! `grizzly serve --cluster` in processes of their own, which a test can kill and freeze.

use std::{
    error::Error,
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use grizzly_flight::{FlightSqlConnection, client::ConnectOptions};
use tempfile::TempDir;

use crate::support::ask;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What a query may take whatever happens to the nodes.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a database is: a folder, or below the URL `GRIZZLY_CLUSTER_URL` if that is set (`s3://bucket/prefix`).
pub(crate) struct Place {
    pub(crate) url: String,
    /// Logs, and the database if it is a folder.
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let url = match std::env::var("GRIZZLY_CLUSTER_URL") {
            Ok(url) => {
                let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
                format!("{}/{}-{nanos}", url.trim_end_matches('/'), std::process::id())
            }
            Err(_) => folder.path().join("db").to_string_lossy().into_owned(),
        };
        Ok(Self { url, folder })
    }

    /// Passes the outcome of a test on. If it failed, shows what the nodes had to say.
    pub(crate) fn explain(&self, outcome: Outcome) -> Outcome {
        if outcome.is_err() {
            for entry in std::fs::read_dir(self.folder.path())?.flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    eprintln!("--- {}\n{}", entry.path().display(), std::fs::read_to_string(entry.path())?);
                }
            }
        }
        outcome
    }
}

/// A node.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    /// Starts a node and waits until it serves.
    pub(crate) fn start(place: &Place) -> Outcome<Self> {
        Self::start_with(place, &["--listen", "127.0.0.1:0"])
    }

    /// The same with these options.
    pub(crate) fn start_with(place: &Place, options: &[&str]) -> Outcome<Self> {
        let count = std::fs::read_dir(place.folder.path())?.count();
        let log: PathBuf = place.folder.path().join(format!("{count:03}.log"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_grizzly"))
            .args(["serve", "--cluster", "--db", &place.url])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let output = child.stdout.take().ok_or("a node has no output")?;
        let mut process = Self { child, url: String::new() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ");
        process.url = url.ok_or_else(|| format!("a node ended at once, see {}", log.display()))?.to_owned();
        Ok(process)
    }

    pub(crate) fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn freeze(&self) -> Outcome {
        signal(&self.child.id().to_string(), "STOP")
    }

    pub(crate) fn thaw(&self) -> Outcome {
        signal(&self.child.id().to_string(), "CONT")
    }

    /// A client that gives a silent node up, and for which every query that looks at a few rows is worth all nodes.
    pub(crate) async fn connect(&self) -> Result<FlightSqlConnection, grizzly_provider::Error> {
        let options = ConnectOptions {
            connect_timeout: Duration::from_secs(2),
            gone_after: Duration::from_secs(4),
            ..ConnectOptions::default()
        };
        let connection = FlightSqlConnection::connect_with(&self.url, options).await?;
        connection.update("SET grizzly.distribute_rows = 100").await?;
        Ok(connection)
    }

    /// Waits until this node sees so many nodes live.
    pub(crate) async fn sees(&self, live: i64) -> Outcome {
        let begun = Instant::now();
        let connection = self.connect().await?;
        loop {
            let seen = ask(&connection, "SELECT count(*) FROM grizzly.nodes WHERE state = 'live'").await?;
            if seen == live {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} sees {seen} live nodes, not {live}", self.url).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: &str, name: &str) -> Outcome {
    let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, pid]).status()?;
    if sent.success() { Ok(()) } else { Err(format!("{name} could not be sent to process {pid}").into()) }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already dead in the good case, and a frozen process dies as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three nodes that know each other; the first one writes.
pub(crate) async fn three(place: &Place) -> Outcome<Vec<Process>> {
    let nodes = (0..3).map(|_| Process::start(place)).collect::<Outcome<Vec<_>>>()?;
    all_see(&nodes).await?;
    Ok(nodes)
}

/// Waits until every node sees all others.
pub(crate) async fn all_see(nodes: &[Process]) -> Outcome {
    let count = i64::try_from(nodes.len())?;
    for node in nodes {
        node.sees(count).await?;
    }
    Ok(())
}
