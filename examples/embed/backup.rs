//! Backups from within a program: a full one, a mistake, an incremental one, and the database as it was before the
//! mistake, beside the one that goes on.
//!
//! `cargo run --release --example backup`

use std::error::Error;

use arrow::{array::AsArray, datatypes::Int64Type};
use grizzly_provider::{BackupKind, Backups, Grizzly, RestoreTo, adapter::GrizzlySession};

/// The one number that a query returns.
async fn number(db: &Grizzly, sql: &str) -> Result<i64, Box<dyn Error>> {
    let batches = GrizzlySession::new(db).execute(sql).await?;
    let first = batches.iter().find(|batch| batch.num_rows() > 0).ok_or("no row")?;
    Ok(first.column(0).as_primitive::<Int64Type>().value(0))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("grizzly-backup-{}", std::process::id()));
    let place = |name: &str| folder.join(name).to_string_lossy().into_owned();
    // Backups and databases may be in object stores as well.
    let (database, backups, yesterday) = (place("database"), place("backups"), place("yesterday"));

    let db = Grizzly::open(&database)?;
    let session = GrizzlySession::new(&db);
    session
        .execute(
            "CREATE TABLE salmon (id BIGINT NOT NULL, kg DOUBLE, PRIMARY KEY (id)) PARTITION BY HASH(id) SHARDS 4;
             INSERT INTO salmon SELECT value, 2.5 FROM generate_series(1, 50000)",
        )
        .await?;

    // Others may read and write meanwhile.
    let full = db.backup(&backups, BackupKind::Full)?;
    println!("full backup: {} bytes, up to commit {}", full.bytes, full.csn);

    session.execute("UPDATE salmon SET kg = kg + 1 WHERE id <= 100").await?;
    let before = db.snapshot().csn();
    session.execute("DELETE FROM salmon WHERE id > 49000").await?;
    assert_eq!(number(&db, "SELECT count(*) FROM salmon").await?, 49_000);

    // Only what has changed.
    let incremental = db.backup(&backups, BackupKind::Incremental)?;
    println!("incremental backup: {} bytes, up to commit {}", incremental.bytes, incremental.csn);
    assert!(incremental.bytes < full.bytes);

    // Everything is read and compared with its checksums, without restoring it.
    let check = Backups::open(&backups, None)?.verify(&mut |_, _| {})?;
    assert!(check.problems.is_empty(), "{:?}", check.problems);

    // Any commit that the chain covers can be had; this one is the end of neither backup.
    let restored = Grizzly::restore(&backups, &yesterday, RestoreTo::Csn(before))?;
    assert_eq!(restored.csn, before);
    let old = Grizzly::open(&yesterday)?;
    assert_eq!(number(&old, "SELECT count(*) FROM salmon").await?, 50_000);
    assert_eq!(number(&old, "SELECT count(*) FROM salmon WHERE kg > 3").await?, 100);

    // It is a database of its own: the two live side by side.
    GrizzlySession::new(&old).execute("INSERT INTO salmon VALUES (50001, 3.0)").await?;
    assert_eq!(number(&old, "SELECT count(*) FROM salmon").await?, 50_001);
    assert_eq!(number(&db, "SELECT count(*) FROM salmon").await?, 49_000);
    println!("restored as of commit {}: the deleted rows are there", restored.csn);

    old.close()?;
    db.close()?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
