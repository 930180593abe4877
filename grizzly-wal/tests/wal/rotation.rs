//! New files, old files, and the rule that replay comes first.

use std::sync::Arc;

use grizzly_wal::{ErrorKind, FsStorage, Lsn, MemoryStorage, Result, Storage, WalOptions, open, read};

use super::{DIR, append, check, commit, reopen, reopen_with, replay};

fn small_files() -> WalOptions {
    WalOptions { segment_bytes: 3000, compress_above: usize::MAX, ..WalOptions::default() }
}

#[test]
fn files_that_are_kept_for_others_survive_every_open() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    for _ in 0..5 {
        commit(&wal)?;
        wal.rotate()?;
    }
    drop(wal);
    for _ in 0..3 {
        // Whoever opens it needs nothing of what is there.
        let (last, wal) = reopen(&storage, Lsn(6))?;
        assert_eq!((last, wal.next_lsn()), (Lsn(5), Lsn(6)));
    }
    let records = read(Arc::clone(&storage), DIR, Lsn(1))?.collect::<Result<Vec<_>>>()?;
    assert_eq!(records.len(), 5);
    Ok(())
}

#[test]
fn files_are_followed_by_new_ones_and_truncated_whole() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen_with(&storage, Lsn::FIRST, small_files())?;
    for _ in 0..60 {
        commit(&wal)?;
    }
    let files = storage.list_append(DIR)?;
    assert!(files.len() > 10, "{files:?}");

    assert_eq!(wal.truncate_before(Lsn(1))?, 0);
    let before: u64 = files.iter().map(|path| storage.size_append(path)).sum::<Result<u64>>()?;
    let freed = wal.truncate_before(Lsn(40))?;
    let left = storage.list_append(DIR)?;
    let after: u64 = left.iter().map(|path| storage.size_append(path)).sum::<Result<u64>>()?;
    assert!(freed > 0 && left.len() < files.len() && before - after == freed);
    let records = read(Arc::clone(&storage), DIR, Lsn(40))?.collect::<Result<Vec<_>>>()?;
    records.iter().zip(40..).for_each(|(record, lsn)| check(record, lsn));
    assert_eq!(records.len(), 21);

    let error = read(Arc::clone(&storage), DIR, Lsn(1)).expect_err("record 1 was truncated away");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    drop(wal);
    // A checkpoint in the middle of a file.
    let (found, wal) = reopen(&storage, Lsn(45))?;
    assert_eq!(found, Lsn(60));
    // Files that the replay did not look into are truncated as well.
    wal.truncate_before(Lsn(61))?;
    assert_eq!(storage.list_append(DIR)?.len(), 1);
    assert_eq!(commit(&wal)?, Lsn(61));
    Ok(())
}

#[test]
fn rotation_tells_the_first_record_of_the_new_file() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    assert_eq!(wal.rotate()?, Lsn(1), "an empty file is new already");
    for _ in 0..5 {
        append(&wal)?;
    }
    assert_eq!(wal.rotate()?, Lsn(6));
    assert_eq!(wal.durable_lsn(), Lsn(5));
    assert_eq!(wal.rotate()?, Lsn(6));
    commit(&wal)?;
    assert!(wal.truncate_before(Lsn(6))? > 0);
    assert_eq!(storage.list_append(DIR)?.len(), 1);
    drop(wal);
    assert_eq!(reopen(&storage, Lsn(6))?.0, Lsn(6));
    Ok(())
}

#[test]
fn rotations_and_writers_do_not_disturb_each_other() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen_with(&storage, Lsn::FIRST, small_files())?;
    std::thread::scope(|scope| {
        let rotations: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    (0..50).try_for_each(|_| {
                        let first = wal.rotate()?;
                        assert!(wal.durable_lsn().next() >= first);
                        wal.truncate_before(Lsn(first.0.saturating_sub(20))).map(drop)
                    })
                })
            })
            .collect();
        let writer = scope.spawn(|| {
            (0..300).try_for_each(
                |number| {
                    if number % 7 == 0 { commit(&wal).map(drop) } else { append(&wal).map(drop) }
                },
            )
        });
        rotations.into_iter().chain([writer]).try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    wal.close()?;
    let first = read(Arc::clone(&storage), DIR, Lsn(290))?.collect::<Result<Vec<_>>>()?;
    assert_eq!(first.last().map(|record| record.header.lsn), Some(Lsn(300)));
    Ok(())
}

#[test]
fn nobody_writes_before_the_replay() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    for _ in 0..3 {
        commit(&wal)?;
    }
    drop(wal);
    let options = WalOptions::default;
    let untouched = open(Arc::clone(&storage), DIR, Lsn::FIRST, options())?;
    assert_eq!(untouched.into_writer().expect_err("not replayed").kind(), ErrorKind::Invalid);
    let mut partly = open(Arc::clone(&storage), DIR, Lsn::FIRST, options())?;
    partly.next().expect("there are records")?;
    assert_eq!(partly.into_writer().expect_err("replayed in part").kind(), ErrorKind::Invalid);
    let mut whole = open(Arc::clone(&storage), DIR, Lsn::FIRST, options())?;
    assert_eq!(replay(&mut whole, Lsn::FIRST)?, Lsn(3));
    assert_eq!(whole.into_writer()?.next_lsn(), Lsn(4));
    let zero = WalOptions { segment_bytes: 0, ..options() };
    assert_eq!(open(storage, DIR, Lsn::FIRST, zero).expect_err("no space at all").kind(), ErrorKind::Invalid);
    Ok(())
}

#[test]
fn opening_often_leaves_no_empty_files() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(folder.path())?);
    for _ in 0..5 {
        reopen(&storage, Lsn::FIRST)?.1.close()?;
    }
    assert_eq!(storage.list_append(DIR)?.len(), 1);
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    commit(&wal)?;
    drop(wal);
    for _ in 0..5 {
        drop(reopen(&storage, Lsn::FIRST)?);
    }
    assert_eq!(storage.list_append(DIR)?.len(), 2);
    Ok(())
}
