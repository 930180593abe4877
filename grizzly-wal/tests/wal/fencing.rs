//! Two writers on one object store: at most one gets anything confirmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use grizzly_wal::{ErrorKind, Lsn, Result, WalOptions, open};

use super::storages::object_storage;
use super::{DIR, append, commit, reopen, replay};

#[test]
fn a_deposed_writer_confirms_nothing() -> Result<()> {
    let storage = object_storage("db", "test://deposed")?;
    let (_, old) = reopen(&storage, Lsn::FIRST)?;
    commit(&old)?;
    let (found, new) = reopen(&storage, Lsn::FIRST)?;
    assert_eq!(found, Lsn(1));
    let lost = append(&old)?;
    assert_eq!(old.wait_durable(lost).expect_err("deposed").kind(), ErrorKind::Poisoned);
    assert!(old.poisoned().is_some_and(|cause| cause.contains("another writer")));
    assert_eq!(commit(&new)?, Lsn(2));
    new.close()?;
    assert_eq!(reopen(&storage, Lsn::FIRST)?.0, Lsn(2));
    Ok(())
}

#[test]
fn it_stays_locked_out_after_its_file_was_removed() -> Result<()> {
    let storage = object_storage("db", "test://removed")?;
    let (_, old) = reopen(&storage, Lsn::FIRST)?;
    commit(&old)?;
    let (_, new) = reopen(&storage, Lsn::FIRST)?;
    commit(&new)?;
    assert!(new.truncate_before(Lsn(2))? > 0);
    let lost = append(&old)?;
    assert!(old.wait_durable(lost).is_err());
    drop(new);
    assert_eq!(reopen(&storage, Lsn(2))?.0, Lsn(2));
    Ok(())
}

#[test]
fn of_two_that_open_at_once_one_writes() -> Result<()> {
    let storage = object_storage("db", "test://at-once")?;
    let mut first = open(Arc::clone(&storage), DIR, Lsn::FIRST, WalOptions::default())?;
    let mut second = open(Arc::clone(&storage), DIR, Lsn::FIRST, WalOptions::default())?;
    replay(&mut first, Lsn::FIRST)?;
    replay(&mut second, Lsn::FIRST)?;
    let writer = first.into_writer()?;
    assert_eq!(second.into_writer().expect_err("the other one was first").kind(), ErrorKind::AlreadyExists);
    commit(&writer).map(drop)
}

#[test]
fn take_overs_under_load_lose_nothing_confirmed() -> Result<()> {
    let storage = object_storage("db", "test://under-load")?;
    let confirmed = AtomicU64::new(0);
    for round in 0..10 {
        let (found, wal) = reopen(&storage, Lsn::FIRST)?;
        assert!(found.0 >= confirmed.load(Ordering::SeqCst), "round {round}");
        thread::scope(|scope| {
            scope.spawn(|| {
                while let Ok(lsn) = commit(&wal) {
                    confirmed.fetch_max(lsn.0, Ordering::SeqCst);
                    if lsn.0 % 50 == 0 && wal.rotate().is_err() {
                        break;
                    }
                }
            });
            thread::sleep(Duration::from_millis(20));
            // A successor may lose the race for the next file to a rotation; then it tries again.
            while open(Arc::clone(&storage), DIR, Lsn::FIRST, WalOptions::default())
                .and_then(|mut records| {
                    replay(&mut records, Lsn::FIRST)?;
                    records.into_writer()
                })
                .is_err()
            {}
        });
    }
    assert!(confirmed.into_inner() > 0);
    Ok(())
}

#[test]
fn a_name_that_became_free_again_is_not_taken() -> Result<()> {
    let storage = object_storage("db", "test://free-again")?;
    let (_, first) = reopen(&storage, Lsn::FIRST)?;
    commit(&first)?;
    first.close()?;
    // One opener falls asleep just before it begins its file …
    let mut sleeper = open(Arc::clone(&storage), DIR, Lsn::FIRST, WalOptions::default())?;
    replay(&mut sleeper, Lsn::FIRST)?;
    // … and meanwhile another one begins a file of that name, closes it, and a third one removes it as empty.
    reopen(&storage, Lsn::FIRST)?.1.close()?;
    let (_, third) = reopen(&storage, Lsn::FIRST)?;
    assert_eq!(sleeper.into_writer().expect_err("the third one writes").kind(), ErrorKind::AlreadyExists);
    assert_eq!(commit(&third)?, Lsn(2));
    third.close()?;
    assert_eq!(reopen(&storage, Lsn::FIRST)?.0, Lsn(2));
    Ok(())
}
