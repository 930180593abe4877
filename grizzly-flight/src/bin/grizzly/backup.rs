//! `grizzly backup` and `grizzly restore`: copies of a database that can be checked and turned back into one.

use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use clap::Subcommand;
use datafusion::error::DataFusionError;
use grizzly_provider::{BackupInfo, BackupKind, Backups, RestoreTo, access::Csn, open_place};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{keys::KeyArgs, output, session::Database};

/// Options of `grizzly backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take a backup of a database that no other process has open.
    Create(Create),
    /// List the backups in a place.
    List(Place),
    /// Read every backup in a place and compare it with its checksums.
    Verify(Place),
    /// Let a database cut the log that it keeps for the next incremental backup.
    Release(Release),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The database.
    #[arg(long, value_name = "URL")]
    db: String,
    /// Where the backups of this database are to be.
    #[arg(long, value_name = "URL")]
    to: String,
    /// Copy only what the newest backup there does not have.
    #[arg(long)]
    incremental: bool,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Where the backups are.
    #[arg(long, value_name = "URL")]
    from: String,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Debug, clap::Args)]
struct Release {
    /// The database.
    #[arg(long, value_name = "URL")]
    db: String,
    /// Only for the backups in this place; for all without it.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
}

/// Options of `grizzly restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// Where the backups are.
    #[arg(long, value_name = "URL")]
    from: String,
    /// Where the database is to be; nothing may be there.
    #[arg(long, value_name = "URL")]
    into: String,
    /// As of this commit; by default everything that the newest backup holds.
    #[arg(long, value_name = "CSN", conflicts_with = "to_time")]
    to_csn: Option<u64>,
    /// As of this moment, like 2026-01-31T09:30:00Z; UTC unless it says otherwise.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to_time: Option<SystemTime>,
    #[command(flatten)]
    key: KeyArgs,
}

/// Does what the arguments say.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    tokio::task::block_in_place(|| match args.action {
        Action::Create(args) => create(&args),
        Action::List(args) => list(&args),
        Action::Verify(args) => verify(&args),
        Action::Release(args) => release(&args),
    })
}

fn create(args: &Create) -> Result<ExitCode, DataFusionError> {
    let key = args.key.key()?;
    let to = open_place(&args.to, key.clone())?;
    let database = Database::open_with_key(&args.db, None, false, key)?;
    let kind = if args.incremental { BackupKind::Incremental } else { BackupKind::Full };
    let started = Instant::now();
    let taken = with_progress("files", |progress| database.grizzly().backup_into(&to, kind, progress));
    database.close()?;
    let taken = taken?;
    println!(
        "backup {}: {} files and {} log records, {} bytes, up to commit {}, in {}",
        taken.id,
        taken.files,
        taken.log_records,
        taken.bytes,
        taken.csn,
        output::duration(started.elapsed())
    );
    Ok(ExitCode::SUCCESS)
}

fn list(args: &Place) -> Result<ExitCode, DataFusionError> {
    let backups = Backups::open(&args.from, args.key.key()?)?.list()?;
    println!("backup  continues  commit            restores from     files  bytes");
    for BackupInfo { id, parent, from, csn, files, bytes, .. } in &backups {
        let parent = parent.as_deref().unwrap_or("-");
        println!("{id:7} {parent:10} {csn:<17} {from:<17} {files:<6} {bytes}");
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &Place) -> Result<ExitCode, DataFusionError> {
    let backups = Backups::open(&args.from, args.key.key()?)?;
    let check = with_progress("pieces", |progress| backups.verify(progress))?;
    println!(
        "checked {} backups, {} pieces, {} bytes, {} log records",
        check.backups, check.pieces, check.bytes, check.records
    );
    Ok(output::verdict(&check.problems))
}

fn release(args: &Release) -> Result<ExitCode, DataFusionError> {
    let database = Database::open_with_key(&args.db, None, false, args.key.key()?)?;
    let chains = database.grizzly().release_backups(args.to.as_deref())?;
    database.grizzly().flush()?;
    database.close()?;
    println!("the log is no longer kept for {chains} chains of backups");
    Ok(ExitCode::SUCCESS)
}

/// Rebuilds a database from its backups.
pub(crate) async fn restore(args: RestoreArgs) -> Result<ExitCode, DataFusionError> {
    let to = match (args.to_csn, args.to_time) {
        (Some(csn), _) => RestoreTo::Csn(Csn(csn)),
        (None, Some(time)) => RestoreTo::Time(time),
        (None, None) => RestoreTo::Latest,
    };
    let key = args.key.key()?;
    let backups = Backups::open(&args.from, key.clone())?;
    let started = Instant::now();
    let restored = tokio::task::block_in_place(|| {
        with_progress("pieces", |progress| backups.restore(&args.into, key, to, progress))
    })?;
    println!(
        "restored backup {} and {} log records, {} files, {} bytes, up to commit {}, in {}",
        restored.base,
        restored.records,
        restored.files,
        restored.bytes,
        restored.csn,
        output::duration(started.elapsed())
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs `work` with a bar that shows how far it is.
fn with_progress<T>(
    what: &str,
    work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> grizzly_provider::Result<T>,
) -> Result<T, DataFusionError> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}} of {{len}} {what}, {{elapsed}}")) {
        bar.set_style(style);
    }
    let done = work(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(done?)
}

/// A moment as people write it.
fn parse_time(text: &str) -> Result<SystemTime, String> {
    let nanos = string_to_timestamp_nanos(text).map_err(|error| error.to_string())?;
    let nanos = u64::try_from(nanos).map_err(|_| format!("{text} lies before 1970"))?;
    Ok(UNIX_EPOCH + Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        let expected = Ok(UNIX_EPOCH + Duration::from_micros(1_767_225_600_250_000));
        for text in ["2026-01-01T00:00:00.25Z", "2026-01-01 00:00:00.25", "2026-01-01T02:00:00.25+02:00"] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
        assert!(parse_time("soon").is_err());
        assert!(parse_time("1960-01-01T00:00:00Z").is_err());
    }
}
