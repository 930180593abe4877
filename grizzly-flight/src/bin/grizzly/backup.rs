//! `grizzly backup` and `grizzly restore`: copies of a database that can be checked and turned back into one.

use std::{
    num::NonZeroUsize,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::kernels::cast_utils::string_to_timestamp_nanos,
    datatypes::UInt64Type,
};
use clap::Subcommand;
use datafusion::error::DataFusionError;
use grizzly_flight::{FlightSqlConnection, client::ConnectOptions};
use grizzly_provider::{BackupInfo, BackupKind, BackupReport, Backups, RestoreTo, access::Csn, open_place};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    keys::KeyArgs,
    output,
    session::{Database, invalid},
};

/// Options of `grizzly backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take a backup: of a database that no other process has open, or by the server that has it open.
    Create(Create),
    /// List the backups in a place.
    List(Place),
    /// Read every backup in a place and compare it with its checksums.
    Verify(Place),
    /// Remove old backups: whole chains, never what a backup that stays needs.
    Prune(Prune),
    /// Let a database cut the log that it keeps for the next incremental backup.
    Release(Release),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The database.
    #[arg(long, value_name = "URL", required_unless_present = "connect")]
    db: Option<String>,
    /// The server that has it open, grpc://host:port, which takes the backup while others read and write.
    #[arg(long, value_name = "URL", conflicts_with = "db")]
    connect: Option<String>,
    /// The server's token.
    #[arg(long, env = "GRIZZLY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Where the backups of this database are to be; for a server a place as it sees it.
    #[arg(long, value_name = "URL")]
    to: String,
    /// Copy only what the newest backup there does not have.
    #[arg(long)]
    incremental: bool,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Debug, clap::Args)]
struct Prune {
    /// Where the backups are.
    #[arg(long, value_name = "URL")]
    from: String,
    /// How many of the newest full backups stay, with all that continue them.
    #[arg(long, value_name = "N")]
    keep: NonZeroUsize,
    /// Only list what would be removed.
    #[arg(long)]
    dry_run: bool,
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
    match args.action {
        Action::Create(args) => create(&args).await,
        Action::List(args) => tokio::task::block_in_place(|| list(&args)),
        Action::Verify(args) => tokio::task::block_in_place(|| verify(&args)),
        Action::Prune(args) => tokio::task::block_in_place(|| prune(&args)),
        Action::Release(args) => tokio::task::block_in_place(|| release(&args)),
    }
}

async fn create(args: &Create) -> Result<ExitCode, DataFusionError> {
    let started = Instant::now();
    let taken = match (&args.connect, &args.db) {
        (Some(server), _) => ask_server(server, args).await?,
        (None, Some(db)) => tokio::task::block_in_place(|| take(db, args))?,
        (None, None) => return Err(invalid("expected --db or --connect")),
    };
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

/// Takes a backup of a database that nobody else has open.
fn take(db: &str, args: &Create) -> Result<BackupReport, DataFusionError> {
    let key = args.key.key()?;
    let to = open_place(&args.to, key.clone())?;
    let database = Database::open_with_key(db, None, false, key)?;
    let kind = if args.incremental { BackupKind::Incremental } else { BackupKind::Full };
    let taken = with_progress("files", |progress| database.grizzly().backup_into(&to, kind, progress));
    database.close()?;
    taken
}

/// Lets the server take the backup.
async fn ask_server(server: &str, args: &Create) -> Result<BackupReport, DataFusionError> {
    if !args.to.starts_with('/') && !args.to.contains("://") {
        let message = format!("--to {} is relative to the server's folder: give a whole path or a URL", args.to);
        return Err(invalid(message));
    }
    let options = ConnectOptions { token: args.token.clone(), timeout: None, ..ConnectOptions::default() };
    let connection = FlightSqlConnection::connect_with(server, options).await?;
    let kind = if args.incremental { "incremental" } else { "full" };
    let call = format!("CALL grizzly.backup('{}', '{kind}')", args.to.replace('\'', "''"));
    let rows = connection.execute(&call).await?;
    reported(&rows).ok_or_else(|| invalid(format!("{server}: a backup was taken, but it is not said which")))
}

/// The row that `CALL grizzly.backup` returns.
fn reported(rows: &[RecordBatch]) -> Option<BackupReport> {
    let row = rows.iter().find(|rows| rows.num_rows() == 1)?;
    let number = |name: &str| Some(row.column_by_name(name)?.as_primitive_opt::<UInt64Type>()?.value(0));
    Some(BackupReport {
        id: row.column_by_name("backup")?.as_string_opt::<i32>()?.value(0).to_owned(),
        csn: Csn(number("csn")?),
        files: usize::try_from(number("files")?).ok()?,
        log_records: number("log_records")?,
        bytes: number("bytes")?,
    })
}

fn list(args: &Place) -> Result<ExitCode, DataFusionError> {
    print_backups(&Backups::open(&args.from, args.key.key()?)?.list()?);
    Ok(ExitCode::SUCCESS)
}

fn prune(args: &Prune) -> Result<ExitCode, DataFusionError> {
    let backups = Backups::open(&args.from, args.key.key()?)?;
    let removed = if args.dry_run { backups.prunable(args.keep)? } else { backups.prune(args.keep)? };
    print_backups(&removed);
    let bytes: u64 = removed.iter().map(|backup| backup.bytes).sum();
    let what = if args.dry_run { "would be removed" } else { "removed" };
    println!("{} backups {what}, {bytes} bytes", removed.len());
    Ok(ExitCode::SUCCESS)
}

fn print_backups(backups: &[BackupInfo]) {
    println!("backup  continues  commit            restores from     files  bytes");
    for BackupInfo { id, parent, from, csn, files, bytes, .. } in backups {
        let parent = parent.as_deref().unwrap_or("-");
        println!("{id:7} {parent:10} {csn:<17} {from:<17} {files:<6} {bytes}");
    }
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
