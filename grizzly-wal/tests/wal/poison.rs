//! A write that failed ends the log, for good and for everybody.

use std::sync::Arc;
use std::thread;

use grizzly_wal::storage::faulty::{FaultPlan, FaultyStorage};
use grizzly_wal::{ErrorKind, Lsn, Result, Storage, WalOptions};

use super::{append, commit, reopen, reopen_with};

/// Fails call after call, once each, in a run of single commits and a rotation.
#[test]
fn every_failed_call_poisons_and_loses_nothing_confirmed() -> Result<()> {
    let mut poisoned = 0;
    for call in 0.. {
        let plan = FaultPlan { fail_call: Some(call), ..FaultPlan::default() };
        let disk = FaultyStorage::new(plan);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let Ok((_, wal)) = reopen(&storage, Lsn::FIRST) else {
            assert!(call < 4, "opening makes few calls");
            continue;
        };
        let mut confirmed = Lsn(0);
        let outcome = (0..6).try_for_each(|number| {
            confirmed = commit(&wal)?;
            if number == 3 { wal.rotate().map(drop) } else { Ok(()) }
        });
        if disk.calls() <= call {
            assert!(outcome.is_ok());
            break;
        }
        let Err(error) = outcome else { continue };
        poisoned += 1;
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        assert!(error.message().contains("injected fault"), "the first cause is named: {error}");
        assert!(wal.poisoned().is_some_and(|cause| cause.contains("injected fault")));
        // The disk is healthy again; the log stays closed all the same.
        assert_eq!(append(&wal).expect_err("poisoned").kind(), ErrorKind::Poisoned);
        assert_eq!(wal.rotate().expect_err("poisoned").kind(), ErrorKind::Poisoned);
        assert_eq!(wal.truncate_before(Lsn(1)).expect_err("poisoned").kind(), ErrorKind::Poisoned);
        wal.wait_durable(confirmed)?;
        assert_eq!(wal.close().expect_err("poisoned").kind(), ErrorKind::Poisoned);
        let (found, wal) = reopen(&storage, Lsn::FIRST)?;
        assert!(found >= confirmed, "{confirmed} was confirmed, {found} found");
        commit(&wal)?;
    }
    assert!(poisoned >= 12, "{poisoned}");
    Ok(())
}

#[test]
fn a_full_disk_is_an_error_that_says_so() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan { capacity: Some(20_000), ..FaultPlan::default() });
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    let mut confirmed = Lsn(0);
    let error = loop {
        match commit(&wal) {
            Ok(lsn) => confirmed = lsn,
            Err(error) => break error,
        }
    };
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<grizzly_wal::Error>());
    assert_eq!(cause.map(grizzly_wal::Error::kind), Some(ErrorKind::Full));
    drop(wal);
    disk.arm(FaultPlan::default());
    assert_eq!(reopen(&storage, Lsn::FIRST)?.0, confirmed);
    Ok(())
}

#[test]
fn everybody_who_waits_hears_of_it() -> Result<()> {
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let on_durable = {
        let gate = Arc::clone(&gate);
        Box::new(move |_| drop(gate.lock()))
    };
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = WalOptions { on_durable: Some(on_durable), ..WalOptions::default() };
    let (_, wal) = reopen_with(&storage, Lsn::FIRST, options)?;
    let closed = gate.lock();
    let first = append(&wal)?;
    let waits: Vec<_> = (0..8).map(|_| append(&wal)).collect::<Result<_>>()?;
    // The first group may be on its way; the next call to the disk that belongs to a later one fails.
    while disk.sync_points() < 3 {
        thread::yield_now();
    }
    disk.arm(FaultPlan { fail_call: Some(disk.calls()), ..FaultPlan::default() });
    let later = append(&wal)?;
    thread::scope(|scope| {
        let clients: Vec<_> = waits.iter().map(|lsn| scope.spawn(|| wal.wait_durable(*lsn))).collect();
        let task = scope.spawn(|| futures::executor::block_on(wal.durable(later)));
        drop(closed);
        assert!(wal.wait_durable(first).is_ok());
        let outcomes = clients.into_iter().map(|client| client.join().expect("no client panics"));
        for error in outcomes.filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::Poisoned);
        }
        let error = task.join().expect("no task panics").expect_err("its sync failed");
        assert_eq!(error.kind(), ErrorKind::Poisoned);
    });
    Ok(())
}

#[test]
fn a_callback_that_panics_ends_the_log_without_hanging_anybody() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(FaultyStorage::new(FaultPlan::default()));
    let on_durable = Box::new(|lsn: Lsn| assert!(lsn < Lsn(2), "no more"));
    let options = WalOptions { on_durable: Some(on_durable), ..WalOptions::default() };
    let (_, wal) = reopen_with(&storage, Lsn::FIRST, options)?;
    commit(&wal)?;
    assert_eq!(commit(&wal).expect_err("the log thread is gone").kind(), ErrorKind::Poisoned);
    assert_eq!(wal.close().expect_err("the log thread is gone").kind(), ErrorKind::Poisoned);
    Ok(())
}

#[test]
fn whoever_waits_for_a_log_that_is_given_up_hears_of_it_while_its_storage_is_silent() -> Result<()> {
    let (told, given_up) = std::sync::mpsc::channel();
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    // The sync is done and its writer does not come back from it.
    let fence = move || {
        told.send(()).ok();
        held.lock().ok().and_then(|held| held.recv().ok());
        Ok(())
    };
    let storage: Arc<dyn Storage> = Arc::new(grizzly_wal::MemoryStorage::new());
    let options = WalOptions { fence: Some(Box::new(fence)), ..WalOptions::default() };
    let (_, wal) = reopen_with(&storage, Lsn::FIRST, options)?;
    let lsn = append(&wal)?;
    let waiting = Arc::clone(&wal);
    let waiter = thread::spawn(move || waiting.wait_durable(lsn));
    given_up.recv().expect("the record is being written");
    wal.give_up(grizzly_wal::Error::new(ErrorKind::AlreadyExists, "another writer has begun"));
    let refused = waiter.join().expect("no panic").expect_err("nobody knows");
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    assert!(refused.message().contains("another writer has begun"), "{refused}");
    assert_eq!(append(&wal).expect_err("it has ended").kind(), ErrorKind::Poisoned);
    let durable = wal.durable_lsn();
    assert_eq!(Arc::clone(&wal).close().expect_err("it does not wait").kind(), ErrorKind::Poisoned);
    drop(let_go);
    thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(wal.durable_lsn(), durable, "what was given up is not confirmed late");
    assert_eq!(wal.close().expect_err("it has ended").kind(), ErrorKind::Poisoned);
    Ok(())
}
