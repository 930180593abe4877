//! Servers that the tour starts: `grizzly serve`, each in a process of its own that ends with the tour.

use std::{
    io::{self, BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio},
};

use datafusion::error::DataFusionError;
use tokio::sync::oneshot;

use super::check::failed;
use crate::serve;

/// A running server. It is killed when this value goes.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// Starts it with the arguments of `grizzly serve`, and returns when it listens.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, DataFusionError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("tour-server").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A token or a key of the user's is for other databases.
        command.env_remove("GRIZZLY_TOKEN").env_remove("GRIZZLY_KEY");
        if std::env::var_os("RUST_LOG").is_none() {
            // That other nodes are gone is what the tour is about.
            command.env("RUST_LOG", "error");
        }
        let mut server = Self { process: command.spawn()?, url: String::new() };
        let output = server.process.stdout.take().ok_or_else(|| failed("a server has no output"))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let url = line.trim_end().strip_prefix("listening on ");
        server.url = url.ok_or_else(|| failed("a server ended before it listened"))?.to_owned();
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Ends it as `kill -9` does, and returns when it is gone.
    pub(crate) fn kill(mut self) -> Result<(), DataFusionError> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's process: serves until it is told to stop, or the tour is gone, however that ended.
pub(crate) async fn serve_while_watched(args: serve::Args) -> Result<ExitCode, DataFusionError> {
    tokio::select! {
        served = serve::run(args) => served,
        () = input_ended() => Ok(ExitCode::SUCCESS),
    }
}

/// Resolves when whoever holds the other end of standard input is gone.
async fn input_ended() {
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        // An input that cannot be read has ended, too.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = end.send(());
    });
    let _ = ended.await;
}
