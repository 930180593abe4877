//! What backups cost: a full one, and an incremental one after some rows have changed.

use std::time::{Duration, Instant};

use datafusion::error::DataFusionError;
use grizzly_provider::{BackupKind, BackupReport};

use super::shown;
use crate::session::Database;

/// Rows that change between the two.
const ROWS: f64 = 100.0;

/// Takes both in a place of their own in the temporary folder.
pub(super) async fn run(database: &Database, scale: f64) -> Result<(), DataFusionError> {
    let folder = std::env::temp_dir().join(format!("grizzly-backups-{}", std::process::id()));
    let measured = measure(database, scale, &folder.to_string_lossy()).await;
    // The folder is ours alone; what cannot be removed is the operating system's matter.
    let _ = std::fs::remove_dir_all(&folder);
    measured
}

async fn measure(database: &Database, scale: f64, to: &str) -> Result<(), DataFusionError> {
    let (full, full_time) = timed(database, to, BackupKind::Full)?;
    // The first eight of every 32 order keys exist, up to six million at scale 1.
    let step = ((6e6 * scale / ROWS / 32.0) as u64).max(1) * 32;
    let rows = format!("l_linenumber = 1 AND l_orderkey % {step} = 1");
    let session = database.session()?;
    session.execute(&format!("UPDATE lineitem SET l_comment = 'changed' WHERE {rows}")).await?;
    let changed = session.sql(&format!("SELECT * FROM lineitem WHERE {rows}")).await?.count().await?;
    let (small, small_time) = timed(database, to, BackupKind::Incremental)?;
    println!(
        "backup: full {:.1} MB in {}; after {changed} updated rows incremental {:.1} kB in {}, {:.4} % of it",
        full.bytes as f64 / 1e6,
        shown(full_time),
        small.bytes as f64 / 1e3,
        shown(small_time),
        100.0 * small.bytes as f64 / full.bytes as f64
    );
    Ok(())
}

fn timed(database: &Database, to: &str, kind: BackupKind) -> Result<(BackupReport, Duration), DataFusionError> {
    let started = Instant::now();
    let taken = tokio::task::block_in_place(|| database.grizzly().backup(to, kind))?;
    Ok((taken, started.elapsed()))
}
