//! A process that commits and is killed; then the database is opened again and must hold exactly what was
//! acknowledged.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, ExitCode, Stdio},
};

use datafusion::error::DataFusionError;
use parking_lot::Mutex;

use super::{
    check::{ask, expect, failed},
    report::{Found, Report},
};
use crate::session::{Database, parse_bytes};

/// Commits to wait for before the kill.
const COMMITS: usize = 200;

/// Options of the process that is killed.
#[derive(Debug, clap::Args)]
pub(crate) struct WriterArgs {
    #[arg(long)]
    db: String,
    #[arg(long, value_parser = parse_bytes)]
    memory: usize,
}

/// Commits pairs of rows whose sum is zero, and says so after each commit, until killed.
pub(crate) async fn write_until_killed(args: WriterArgs) -> Result<ExitCode, DataFusionError> {
    let database = Database::open(&args.db, Some(args.memory), false)?;
    let session = database.session()?;
    let mut stdout = std::io::stdout();
    for pair in 0_i64.. {
        let (debit, credit) = (2 * pair, 2 * pair + 1);
        let sql = format!(
            "BEGIN; INSERT INTO ledger VALUES ({debit}, -{pair}); INSERT INTO ledger VALUES ({credit}, {pair}); COMMIT"
        );
        session.execute(&sql).await?;
        writeln!(stdout, "{pair}")?;
        stdout.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Closes the database, lets another process write and kills it, and opens the database again.
pub(crate) async fn steps(
    url: &str,
    memory: usize,
    database: Database,
    report: &mut Report,
) -> Result<Database, DataFusionError> {
    let acknowledged = Mutex::new(0);
    report.step("kill -9 a process while it commits", kill_writer(url, memory, database, &acknowledged)).await;
    let database = Database::open(url, Some(memory), false)?;
    let acknowledged = acknowledged.into_inner();
    report.step("open again: every commit, no half one", recovered(&database, acknowledged)).await;
    Ok(database)
}

async fn kill_writer(
    url: &str,
    memory: usize,
    database: Database,
    acknowledged: &Mutex<i64>,
) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    session.execute("CREATE TABLE ledger (id BIGINT NOT NULL, amount BIGINT NOT NULL, PRIMARY KEY (id))").await?;
    drop(session);
    database.close()?;
    let pairs = tokio::task::block_in_place(|| run_and_kill(url, memory))?;
    *acknowledged.lock() = pairs;
    Ok(Found::new(pairs.unsigned_abs(), "commits acknowledged before the kill"))
}

/// Returns how many commits the process acknowledged.
fn run_and_kill(url: &str, memory: usize) -> Result<i64, DataFusionError> {
    let memory = memory.to_string();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["tour-writer", "--db", url, "--memory", &memory])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| failed("the writer has no output"))?;
    let mut pairs = 0;
    let mut lines = BufReader::new(stdout).lines();
    for line in lines.by_ref().take(COMMITS) {
        expect("the writer's acknowledgements", line?, pairs.to_string())?;
        pairs += 1;
    }
    child.kill()?;
    // What it said before it died counts.
    for line in lines {
        expect("the writer's acknowledgements", line?, pairs.to_string())?;
        pairs += 1;
    }
    child.wait()?;
    if pairs < COMMITS as i64 {
        return Err(failed(format!("the writer ended after {pairs} commits")));
    }
    Ok(pairs)
}

async fn recovered(database: &Database, acknowledged: i64) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    let rows = ask(&session, "SELECT count(*) FROM ledger").await?;
    // The last commit may have become durable without its acknowledgement.
    if rows % 2 != 0 || !(2 * acknowledged..=2 * acknowledged + 2).contains(&rows) {
        return Err(failed(format!("{rows} rows of {acknowledged} acknowledged pairs")));
    }
    expect("the highest id", ask(&session, "SELECT max(id) FROM ledger").await?, rows - 1)?;
    expect("the sum", ask(&session, "SELECT sum(amount) FROM ledger").await?, 0)?;
    let by_index = ask(&session, &format!("SELECT count(*) FROM ledger WHERE id = {}", 2 * acknowledged - 1)).await?;
    expect("the last acknowledged row by its key", by_index, 1)?;
    let remote = ask(&session, "SELECT count(*) FROM remote").await?;
    expect("rows written over Flight SQL", remote, 50_000)?;
    Ok(Found::new(rows.unsigned_abs(), "nothing lost, nothing half done"))
}
