//! Commits that wait for no sync: what a crash, or a write that fails, takes of them is the newest, each whole.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use grizzly_provider::{ErrorKind, Grizzly, Result, Settings};
use grizzly_wal::{
    Storage,
    storage::faulty::{CrashEffect, FaultPlan, FaultyStorage},
};

use crate::{
    cluster::PATIENCE,
    tables::{definition, key, manual, pairs, rows},
};

/// A row that every transaction changes.
const COMMON: i64 = -1;

fn open(storage: &Arc<dyn Storage>) -> Result<Grizzly> {
    let settings = Settings { sync_commits: false, ..manual() };
    Grizzly::builder("faulty://").settings(settings).storage(Arc::clone(storage)).open()
}

/// A database with tables `t`, in two shards, and `u`.
fn database(disk: &FaultyStorage) -> Result<Grizzly> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let db = open(&storage)?;
    db.create_table(definition("t", 2), false)?;
    db.create_table(definition("u", 1), false)?;
    Ok(db)
}

/// Transaction `number`: a row of its own in each table, and the common one.
fn write(db: &Grizzly, number: i64) -> Result<()> {
    let mut transaction = db.begin()?;
    transaction.put("t", rows([(number, number), (COMMON, number)]))?;
    transaction.put("u", rows([(number, number)]))?;
    transaction.commit()?.into_result().map(drop)
}

/// How many transactions are there, which must be the first ones, each whole.
fn survivors(db: &Grizzly) -> Result<i64> {
    let snapshot = db.snapshot();
    let (t, u) = (pairs(&snapshot, "t", None)?, pairs(&snapshot, "u", None)?);
    let count = u.len() as i64;
    let own: Vec<_> = (0..count).map(|number| (number, number)).collect();
    let common = (count > 0).then_some((COMMON, count - 1));
    let whole: Vec<_> = common.into_iter().chain(own.iter().copied()).collect();
    assert!(u == own && t == whole, "{count} transactions would be {whole:?}: t {t:?}, u {u:?}");
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(count)
}

/// Writes until the crash; how many acknowledged transactions it has cost.
fn crash(point: u64, effect: CrashEffect) -> Result<i64> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let db = database(&disk)?;
    let crash = Some((disk.sync_points() + point, effect));
    disk.arm(FaultPlan { crash, seed: 23 + point, ..FaultPlan::default() });
    let (mut told, mut flushed) = (0, 0);
    while write(&db, told).is_ok() {
        told += 1;
        if told % 16 == 0 && db.flush().is_ok() {
            flushed = told;
        }
    }
    drop(db);
    let db = open(&disk.crash_image())?;
    let kept = survivors(&db)?;
    assert!((flushed..=told).contains(&kept), "{kept} of {told} are there, {flushed} were in files");
    write(&db, kept)?;
    assert_eq!(survivors(&db)?, kept + 1, "it goes on");
    Ok(told - kept)
}

#[test]
fn without_syncs_a_crash_takes_whole_transactions_and_the_newest() {
    for effect in [CrashEffect::Lost, CrashEffect::Done, CrashEffect::Prefix, CrashEffect::Torn] {
        let lost = |point| crash(point, effect).unwrap_or_else(|error| unreachable!("{effect:?} at {point}: {error}"));
        let lost: Vec<_> = (0..48).map(lost).collect();
        // The first sync is that of a commit that was acknowledged before.
        assert!(effect != CrashEffect::Lost || lost[0] > 0, "nothing was at stake: {lost:?}");
    }
}

#[test]
fn without_syncs_a_write_that_fails_takes_whole_transactions_and_the_newest() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let db = database(&disk)?;
    let mut told = 0;
    while told < 40 {
        write(&db, told)?;
        told += 1;
    }
    disk.arm(FaultPlan { capacity: Some(0), ..FaultPlan::default() });
    let refused = loop {
        match write(&db, told) {
            Ok(()) => told += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::DiskFull, "{refused}");
    disk.arm(FaultPlan::default());
    let begun = Instant::now();
    while let Err(error) = db.flush() {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        thread::sleep(Duration::from_millis(10));
    }
    let kept = survivors(&db)?;
    assert!(kept < told, "all {told} are there, though the log had no room for one of them");
    for number in kept..kept + 5 {
        write(&db, number)?;
    }
    assert_eq!(survivors(&db)?, kept + 5);
    // A close is no crash.
    db.close()?;
    assert_eq!(survivors(&open(&disk.crash_image())?)?, kept + 5);
    Ok(())
}

#[test]
fn a_transaction_that_saw_what_was_taken_back_changes_nothing_that_came_since() -> Result<()> {
    for is_kept in [false, true] {
        let disk = FaultyStorage::new(FaultPlan::default());
        let db = database(&disk)?;
        write(&db, 0)?;
        // Until the log's thread has written it.
        thread::sleep(Duration::from_millis(200));
        disk.arm(FaultPlan { capacity: Some(0), ..FaultPlan::default() });
        // Acknowledged until the log's thread has found that there is no room.
        let mut told = 1;
        while db.put("u", rows([(told, told)])).is_ok() {
            told += 1;
        }
        assert!(told > 1, "nothing was acknowledged");
        disk.arm(FaultPlan::default());
        let before = db.snapshot();
        assert!(pairs(&before, "u", None)?.contains(&(1, 1)));
        thread::sleep(Duration::from_millis(200));
        let mut transaction = if is_kept { db.begin_at(before)? } else { db.begin()? };
        // It gets the place of the first row that was taken back.
        db.put("u", rows([(500, 5)]))?;
        if let Some((row, _)) = transaction.find("u", &key(1))? {
            transaction.delete("u", &[row])?;
        }
        let refused = transaction.commit().and_then(|outcome| outcome.into_result());
        assert_eq!(refused.err().map(|error| error.kind()), is_kept.then_some(ErrorKind::Unavailable));
        assert_eq!(pairs(&db.snapshot(), "u", None)?, [(0, 0), (500, 5)]);
    }
    Ok(())
}
