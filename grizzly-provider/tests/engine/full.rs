//! A disk without room, and one that cannot be written: reads go on, writes are refused and say so, and go on as soon
//! as they can.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use grizzly_provider::{ErrorKind, Grizzly, Result, Settings, access::IndexDefinition};
use grizzly_wal::{
    FsStorage, Storage,
    storage::faulty::{CrashEffect, FaultPlan, FaultyStorage},
};
use parking_lot::Mutex;

use crate::tables::{definition, key, manual, pairs, rows};

fn full_at(capacity: u64) -> FaultPlan {
    FaultPlan { capacity: Some(capacity), ..FaultPlan::default() }
}

fn open(storage: &Arc<dyn Storage>) -> Result<Grizzly> {
    Grizzly::builder("faulty://").settings(manual()).storage(Arc::clone(storage)).open()
}

fn ids(db: &Grizzly) -> Result<BTreeSet<i64>> {
    Ok(pairs(&db.snapshot(), "t", None)?.into_iter().map(|(id, _)| id).collect())
}

/// Writes a row, again and again while that is refused, as soon as it may.
fn put_when_possible(db: &Grizzly, id: i64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let put = db.put("t", rows([(id, 1)])).map(drop);
        let not_yet =
            put.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::DiskFull | ErrorKind::Permission));
        if !not_yet || begun.elapsed() > Duration::from_secs(10) {
            return put;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Puts rows with numbers from `first` on until the disk is full; those that were acknowledged.
fn fill(db: &Grizzly, first: i64) -> Result<BTreeSet<i64>> {
    let mut told = BTreeSet::new();
    for id in first.. {
        match db.put("t", rows([(id, 0)])) {
            Ok(_) => drop(told.insert(id)),
            Err(error) => {
                assert_eq!((error.kind(), error.kind().sqlstate()), (ErrorKind::DiskFull, "53100"), "{error}");
                assert!(error.to_string().contains("did not take place"), "{error}");
                break;
            }
        }
    }
    Ok(told)
}

#[test]
fn writes_go_on_when_there_is_room_and_what_was_refused_never_happened() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let db = open(&storage)?;
    db.create_table(definition("t", 2), false)?;
    disk.arm(full_at(40_000));
    let mut told = fill(&db, 0)?;
    let refused = told.len() as i64;
    assert!(refused > 10);
    for _ in 0..3 {
        // Read, checked and refused as long as it is full.
        assert_eq!(ids(&db)?, told);
        assert!(db.get("t", &key(refused))?.is_none());
        assert_eq!(db.verify()?.problems, Vec::<String>::new());
        let error = db.put("t", rows([(refused, 7)])).expect_err("there is no room");
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
        assert!(db.create_table(definition("u", 1), false).is_err());
        assert!(db.flush().is_err());
        thread::sleep(Duration::from_millis(60));
    }
    for effect in [CrashEffect::Lost, CrashEffect::Done, CrashEffect::Prefix, CrashEffect::Torn] {
        disk.arm(FaultPlan { crash: Some((u64::MAX, effect)), seed: 5, ..full_at(40_000) });
        let db = open(&disk.crash_image())?;
        assert_eq!(ids(&db)?, told, "{effect:?}");
        assert_eq!(db.verify()?.problems, Vec::<String>::new());
    }
    disk.arm(FaultPlan::default());
    // The same key and others: nothing of the refused rows is left in an index.
    put_when_possible(&db, refused)?;
    put_when_possible(&db, refused + 5)?;
    told.extend([refused, refused + 5]);
    assert_eq!(ids(&db)?, told);
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), told.len());
    for id in 0..refused + 10 {
        assert_eq!(db.get("t", &key(id))?.is_some(), told.contains(&id), "{id}");
    }
    db.flush()?;
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    let db = open(&disk.crash_image())?;
    assert_eq!(ids(&db)?, told);
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_database_opens_for_reading_where_nothing_can_be_written() -> Result<()> {
    let plans = [
        (full_at(0), ErrorKind::DiskFull),
        (FaultPlan { read_only: true, ..FaultPlan::default() }, ErrorKind::Permission),
    ];
    for closed in [false, true] {
        for (plan, kind) in plans {
            let disk = FaultyStorage::new(FaultPlan::default());
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let db = open(&storage)?;
            db.create_table(definition("t", 1), false)?;
            db.put("t", rows((0..100).map(|id| (id, 0))))?;
            db.flush()?;
            db.put("t", rows((50..150).map(|id| (id, 1))))?;
            if closed {
                db.close()?;
            }
            drop(db);
            disk.arm(plan);
            let db = open(&storage)?;
            assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 150);
            assert_eq!(db.get("t", &key(149))?.map(|row| row.num_rows()), Some(1));
            assert_eq!(db.verify()?.problems, Vec::<String>::new());
            let refused = db.put("t", rows([(1_000, 1)])).expect_err("nothing can be written");
            assert_eq!(refused.kind(), kind, "{refused}");
            disk.arm(FaultPlan::default());
            thread::sleep(Duration::from_millis(100));
            put_when_possible(&db, 1_000)?;
            db.close()?;
            drop(db);
            let db = open(&storage)?;
            assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 151);
            assert_eq!(db.verify()?.problems, Vec::<String>::new());
        }
    }
    Ok(())
}

#[test]
fn an_append_that_fails_for_another_reason_is_taken_back_too() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let db = open(&storage)?;
    db.create_table(definition("t", 1), false)?;
    let (mut told, mut refused) = (BTreeSet::new(), 0);
    for id in 0..60 {
        if id % 3 == 2 {
            // The append, or its sync: after that nobody knows.
            disk.arm(FaultPlan { fail_call: Some(disk.calls()), ..FaultPlan::default() });
        }
        match db.put("t", rows([(id, 0)])) {
            Ok(_) => drop(told.insert(id)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                refused += 1;
                thread::sleep(Duration::from_millis(60));
            }
        }
    }
    assert!(refused >= 20, "{refused}");
    assert_eq!(ids(&db)?, told);
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_failed_sync_is_said_to_be_unknown_and_writes_stay_refused() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let db = open(&storage)?;
    db.create_table(definition("t", 1), false)?;
    disk.arm(FaultPlan { fail_call: Some(disk.calls() + 1), ..FaultPlan::default() });
    let error = db.put("t", rows([(1, 1)])).expect_err("its sync fails");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    thread::sleep(Duration::from_millis(60));
    let error = db.put("t", rows([(2, 1)])).expect_err("the log failed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    // It can be read all the same, without what nobody knows of.
    assert!(ids(&db)?.is_empty());
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}

/// Four writers while the room comes and goes: what they were told is what is there.
fn come_and_go(db: &Grizzly, rounds: u32, set_full: impl Fn(bool)) -> Result<()> {
    let (done, told, refused) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    thread::scope(|scope| {
        for writer in 0..4_i64 {
            let (done, told, refused) = (&done, &told, &refused);
            scope.spawn(move || {
                for id in (writer * 1_000_000).. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    match db.put("t", rows([(id, 0)])) {
                        Ok(_) => drop(told.lock().insert(id)),
                        Err(error) => {
                            let kind = error.kind();
                            assert!(matches!(kind, ErrorKind::DiskFull | ErrorKind::Unavailable), "{error}");
                            refused.lock().insert(id);
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                }
            });
        }
        for _ in 0..rounds {
            set_full(true);
            thread::sleep(Duration::from_millis(120));
            set_full(false);
            thread::sleep(Duration::from_millis(120));
        }
        done.store(true, Ordering::Relaxed);
    });
    let (told, refused) = (told.into_inner(), refused.into_inner());
    assert!(!told.is_empty() && !refused.is_empty(), "{} told, {} refused", told.len(), refused.len());
    let found = ids(db)?;
    assert!(found == told, "{} told, {} refused, {} found", told.len(), refused.len(), found.len());
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn many_writers_are_told_the_truth_while_room_comes_and_goes() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let settings = Settings { flush_rows: 500, ..Settings::default() };
    let db = Grizzly::builder("faulty://").settings(settings).storage(storage).open()?;
    db.create_table(definition("t", 2), false)?;
    come_and_go(&db, 8, |full| disk.arm(if full { full_at(0) } else { FaultPlan::default() }))?;
    let found = ids(&db)?;
    drop(db);
    assert_eq!(ids(&open(&disk.crash_image())?)?, found);
    Ok(())
}

/// On a real file system that is small and empty, named by the environment: `mount -t tmpfs -o size=8m`.
#[test]
fn a_small_file_system_fills_and_is_emptied() -> Result<()> {
    let Ok(place) = std::env::var("GRIZZLY_SMALL_DISK") else { return Ok(()) };
    let place = std::path::PathBuf::from(place);
    let (folder, ballast) = (place.join("db"), place.join("ballast"));
    let set_full = |full: bool| match full {
        true => {
            let mut file = std::fs::File::create(&ballast).expect("it can be created");
            while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        }
        false => std::fs::remove_file(&ballast).expect("it is there"),
    };
    let open = || {
        let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(&folder).expect("a folder can be used"));
        open(&storage)
    };
    let db = open()?;
    db.create_table(definition("t", 1), false)?;
    come_and_go(&db, 6, set_full)?;
    set_full(true);
    let found = ids(&db)?;
    // With the last bytes gone it is closed, opened, read and checked.
    drop(db.close());
    drop(db);
    let db = open()?;
    assert_eq!(ids(&db)?, found);
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    assert!(db.create_table(definition("big", 1), false).is_err() || fill(&db, 5_000_000).is_ok());
    let found = ids(&db)?;
    set_full(false);
    thread::sleep(Duration::from_millis(100));
    put_when_possible(&db, 4_500_000)?;
    assert_eq!(ids(&db)?.len(), found.len() + 1);
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    db.close()
}

#[test]
fn snapshots_and_open_loads_outlive_a_full_disk() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let db = open(&storage)?;
    db.create_table(definition("t", 1), false)?;
    for first in (0..400).step_by(100) {
        db.put("t", rows((first..first + 100).map(|id| (id, 0))))?;
        db.flush()?;
    }
    let before = db.snapshot();
    db.compact("t")?;
    // Full now, for whatever is written next.
    disk.arm(full_at(0));
    let mut told = 0;
    while db.put("t", rows([(1_000 + told, 0)])).is_ok() {
        told += 1;
    }
    disk.arm(FaultPlan::default());
    thread::sleep(Duration::from_millis(100));
    put_when_possible(&db, 2_000)?;
    // A merge replaced its files, and nobody but the snapshot names them.
    assert_eq!(pairs(&before, "t", None)?.len(), 400);
    drop(before);
    // What is loaded under the new log is nobody's leftover either.
    let mut load = db.begin()?;
    load.insert("t", rows((10_000..80_000).map(|id| (id, 1))))?;
    load.commit()?.into_result()?;
    let rows_in_all = 400 + told as usize + 1 + 70_000;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), rows_in_all);
    let db = open(&disk.crash_image())?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), rows_in_all);
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn transactions_open_when_the_log_is_replaced_are_refused_and_may_be_retried() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let db = open(&storage)?;
    db.create_table(definition("t", 2), false)?;
    db.put("t", rows((0..10).map(|id| (id, 0))))?;
    let before = pairs(&db.snapshot(), "t", None)?;
    let changing = |id: i64| -> Result<_> {
        let mut transaction = db.begin()?;
        transaction.put("t", rows([(id, 1), (100 + id, 1)]))?;
        Ok(transaction)
    };
    // So many rows that they are files already.
    let mut loading = db.begin()?;
    loading.insert("t", rows((10_000..80_000).map(|id| (id, 1))))?;
    let (first, second, reading) = (changing(1)?, changing(2)?, db.begin()?);
    disk.arm(full_at(0));
    let error = db.put("t", rows([(50, 1)])).expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    disk.arm(FaultPlan::default());
    // The first of them begins the new log, the others find it.
    for transaction in [first, second, loading] {
        let refused = transaction.commit().map(drop).expect_err("it began under the log that failed");
        assert_eq!((refused.kind(), refused.sqlstate()), (ErrorKind::Unavailable, "08006"), "{refused}");
        assert!(refused.is_retryable(), "{refused}");
        assert_eq!(pairs(&db.snapshot(), "t", None)?, before);
    }
    // One that only reads goes on.
    assert_eq!(pairs(&reading.snapshot()?, "t", None)?, before);
    reading.commit()?.into_result()?;
    for id in [1, 2] {
        changing(id)?.commit()?.into_result()?;
    }
    let mut expected: Vec<_> = before.into_iter().map(|(id, _)| (id, i64::from(id == 1 || id == 2))).collect();
    expected.extend([(101, 1), (102, 1)]);
    for db in [db.clone(), open(&disk.crash_image())?] {
        assert_eq!(pairs(&db.snapshot(), "t", None)?, expected);
        assert_eq!(db.verify()?.problems, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn files_of_snapshots_and_numbers_of_indexes_outlive_a_log_that_is_replaced() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    // Files that nobody needs go at once, and so do rows that have ended.
    let settings = Settings { retention: Duration::ZERO, memory_bytes: 1 << 20, ..manual() };
    let db = Grizzly::builder("faulty://").settings(settings).storage(storage).open()?;
    db.create_table(definition("t", 1), false)?;
    let index = || IndexDefinition { name: "by_group".into(), columns: vec![("grp".into(), false)], unique: false };
    db.create_index("t", index(), false)?;
    for first in (0..400).step_by(100) {
        db.put("t", rows((first..first + 100).map(|id| (id, 0))))?;
        db.flush()?;
    }
    let before = db.snapshot();
    disk.arm(full_at(0));
    while db.put("t", rows([(1_000, 0)])).is_ok() {}
    disk.arm(FaultPlan::default());
    thread::sleep(Duration::from_millis(100));
    put_when_possible(&db, 2_000)?;
    db.compact("t")?;
    db.compact("t")?;
    assert_eq!(pairs(&before, "t", None)?.len(), 400, "its files are still there");
    for _ in 0..3 {
        assert!(db.drop_index(Some("t"), "by_group", false)?);
        assert!(db.create_index("t", index(), false)?);
    }
    drop(before);
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}
