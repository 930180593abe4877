//! What the tour prints: a line per step as it is done, a summary in the end.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use datafusion::error::DataFusionError;

use crate::output::{duration, error_line};

/// What a step found: rows it handled, and what was checked.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) rows: u64,
    pub(crate) verdict: String,
    /// The time to report, if it is not that of the whole step.
    pub(crate) took: Option<Duration>,
}

impl Found {
    pub(crate) fn new(rows: u64, verdict: impl Into<String>) -> Self {
        Self { rows, verdict: verdict.into(), took: None }
    }

    /// With the time of its essential part.
    pub(crate) fn in_time(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }
}

/// All steps so far.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    steps: u32,
    failures: u32,
}

impl Default for Report {
    fn default() -> Self {
        println!("{:<44} {:>10} {:>9}  verdict", "step", "rows", "time");
        Self { started: Instant::now(), steps: 0, failures: 0 }
    }
}

impl Report {
    /// Does a step and prints how it went.
    pub(crate) async fn step(&mut self, name: &str, work: impl Future<Output = Result<Found, DataFusionError>>) {
        let started = Instant::now();
        let result = work.await;
        self.steps += 1;
        match result {
            Ok(found) => {
                let took = duration(found.took.unwrap_or_else(|| started.elapsed()));
                println!("{name:<44} {:>10} {took:>9}  ok: {}", found.rows, found.verdict);
            }
            Err(error) => {
                self.failures += 1;
                let took = duration(started.elapsed());
                println!("{name:<44} {:>10} {took:>9}  FAILED: {}", "", error_line(&error));
            }
        }
    }

    /// Steps that failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Prints the summary.
    pub(crate) fn finish(self) -> ExitCode {
        let took = duration(self.started.elapsed());
        let memory = peak_memory().map_or_else(String::new, |bytes| format!(", peak memory {} MB", bytes / 1_000_000));
        println!("{} steps, {} failed, {took}{memory}", self.steps, self.failures);
        if self.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The most memory this process ever had resident, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
