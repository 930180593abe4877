//! Backups: a full one, changes, an incremental one, and two databases made from them: as it was, and as it is.

use std::time::{Duration, Instant};

use datafusion::error::DataFusionError;
use grizzly_provider::{BackupKind, BackupReport, Backups, Grizzly, RestoreTo, access::Csn};
use parking_lot::Mutex;

use super::{
    check::{failed, number},
    contents::Contents,
    folder::Folder,
    report::{Found, Report},
};
use crate::session::Database;

/// Where the backups are, and the databases made from them, in the tour's scratch folder.
const BACKUPS: &str = "backups";
const BEFORE: &str = "before";
const NEWEST: &str = "newest";

/// What is changed between the two backups: a few rows of two tables, a row of a third, and a table.
const CREATE: &str = "CREATE TABLE bears (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))";
const CHANGES: [&str; 4] = [
    "UPDATE orders SET o_totalprice = o_totalprice + 1 WHERE o_orderkey <= 200",
    "DELETE FROM supplier WHERE s_suppkey <= 5",
    "INSERT INTO region VALUES (5, 'ARCTIC', 'ice and bears')",
    "INSERT INTO bears VALUES (1, 'Otis'), (2, 'Holly'), (3, 'Grazer')",
];

/// A backup, and what the database held when it was taken.
struct Taken {
    backup: BackupReport,
    csn: Csn,
    contents: Contents,
}

/// Returns where a database is that has the rows from before the changes, if it could be made.
pub(crate) async fn steps(database: &Database, scratch: &Folder, memory: usize, report: &mut Report) -> Option<String> {
    let (full, incremental) = (Mutex::new(None), Mutex::new(None));
    report.step("full backup", take_full(database, scratch, &full)).await;
    let full = full.into_inner()?;
    report.step("change rows, back up incrementally", take_incremental(database, scratch, &full, &incremental)).await;
    let incremental = incremental.into_inner()?;
    report.step("verify the chain of backups", verify(scratch)).await;
    let (before, failures) = (RestoreTo::Csn(full.csn), report.failures());
    report.step("restore to before the change", restore(scratch, BEFORE, before, memory, &full.contents)).await;
    let made = report.failures() == failures;
    let newest = restore(scratch, NEWEST, RestoreTo::Latest, memory, &incremental.contents);
    report.step("restore the newest state", newest).await;
    made.then(|| scratch.place(BEFORE))
}

async fn take_full(
    database: &Database,
    scratch: &Folder,
    full: &Mutex<Option<Taken>>,
) -> Result<Found, DataFusionError> {
    let (taken, took) = take(database, scratch, BackupKind::Full).await?;
    let verdict = format!("{} files, {}", taken.backup.files, kilobytes(taken.backup.bytes));
    let found = Found::new(taken.contents.rows(), verdict).in_time(took);
    *full.lock() = Some(taken);
    Ok(found)
}

async fn take_incremental(
    database: &Database,
    scratch: &Folder,
    full: &Taken,
    incremental: &Mutex<Option<Taken>>,
) -> Result<Found, DataFusionError> {
    let changed = change(database).await?;
    let (taken, took) = take(database, scratch, BackupKind::Incremental).await?;
    let (bytes, of) = (taken.backup.bytes, full.backup.bytes);
    *incremental.lock() = Some(taken);
    if bytes >= of {
        return Err(failed(format!("{bytes} bytes, and the full one has {of}")));
    }
    // For people to read: what rounding takes away does not matter.
    let share = 100.0 * bytes as f64 / of as f64;
    Ok(Found::new(changed, format!("{}, {share:.2} % of the full one", kilobytes(bytes))).in_time(took))
}

/// Takes a backup, and says how long that took.
async fn take(database: &Database, scratch: &Folder, kind: BackupKind) -> Result<(Taken, Duration), DataFusionError> {
    let started = Instant::now();
    let backup = tokio::task::block_in_place(|| database.grizzly().backup(&scratch.place(BACKUPS), kind))?;
    let took = started.elapsed();
    let csn = database.grizzly().snapshot().csn();
    Ok((Taken { backup, csn, contents: Contents::of(database).await? }, took))
}

/// Changes rows in one transaction, and returns how many.
async fn change(database: &Database) -> Result<u64, DataFusionError> {
    let session = database.session()?;
    session.execute(CREATE).await?;
    session.execute("BEGIN").await?;
    let mut changed = 0;
    for statement in CHANGES {
        changed += number(&session.execute(statement).await?)?.unsigned_abs();
    }
    session.execute("COMMIT").await?;
    Ok(changed)
}

async fn verify(scratch: &Folder) -> Result<Found, DataFusionError> {
    let backups = Backups::open(&scratch.place(BACKUPS), None)?;
    let check = tokio::task::block_in_place(|| backups.verify(&mut |_, _| {}))?;
    if let Some(problem) = check.problems.first() {
        return Err(failed(format!("{} problems, the first: {problem}", check.problems.len())));
    }
    let verdict = format!("{} backups, {} pieces, {}, no problem", check.backups, check.pieces, kilobytes(check.bytes));
    Ok(Found::new(check.records, verdict))
}

/// Makes a database from the backups and compares it with the one it was.
async fn restore(
    scratch: &Folder,
    name: &str,
    to: RestoreTo,
    memory: usize,
    expected: &Contents,
) -> Result<Found, DataFusionError> {
    let into = scratch.place(name);
    let started = Instant::now();
    let restored = tokio::task::block_in_place(|| Grizzly::restore(&scratch.place(BACKUPS), &into, to))?;
    let took = started.elapsed();
    // The original is open beside it, with its own share of the memory.
    let database = Database::open(&into, Some(memory / 4), false)?;
    let contents = Contents::of(&database).await?;
    database.close()?;
    contents.expect(expected)?;
    let verdict = format!("commit {}, every row as it was then", restored.csn);
    Ok(Found::new(contents.rows(), verdict).in_time(took))
}

/// A number of bytes as people read it.
fn kilobytes(bytes: u64) -> String {
    format!("{:.1} kB", bytes as f64 / 1e3)
}
