//! A log read while it is written, and what becomes of records that a replaced writer adds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grizzly_wal::{
    EncryptedStorage, EncryptionKey, ErrorKind, FsStorage, LogTail, Lsn, MemoryStorage, Result, Storage, Wal,
    WalOptions, read,
};

use super::storages::object_storage;
use super::{DIR, check, commit, reopen, reopen_with};

fn folder() -> (tempfile::TempDir, Arc<dyn Storage>) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let storage = FsStorage::new(folder.path().join("db")).expect("an absolute path");
    (folder, Arc::new(storage))
}

fn in_epoch(epoch: u64) -> WalOptions {
    WalOptions { epoch, segment_bytes: 20_000, ..WalOptions::default() }
}

/// Takes what is new, checks it, and returns the last record's number.
fn look(tail: &mut LogTail) -> Result<Lsn> {
    let mut next = tail.next_lsn();
    for record in tail.poll()? {
        check(&record, next.0);
        next = next.next();
    }
    assert_eq!(next, tail.next_lsn());
    Ok(Lsn(next.0 - 1))
}

fn follow(storage: &Arc<dyn Storage>) -> Result<()> {
    let mut tail = LogTail::new(Arc::clone(storage), DIR, Lsn::FIRST);
    assert_eq!(look(&mut tail)?, Lsn(0), "there is no log yet");
    let (_, wal) = reopen_with(storage, Lsn::FIRST, in_epoch(1))?;
    for round in 1..=40_u64 {
        for _ in 0..round % 4 {
            commit(&wal)?;
        }
        assert_eq!(look(&mut tail)?, wal.durable_lsn());
    }
    assert_eq!(tail.epoch(), 1);
    // A clone reads on from where it was made, even if its file is gone, as long as the next one has what it needs.
    let mut late = tail.clone();
    wal.rotate()?;
    commit(&wal)?;
    wal.truncate_before(wal.next_lsn())?;
    let last = wal.durable_lsn();
    assert_eq!(look(&mut late)?, last, "{}", storage.url());
    Arc::clone(&wal).close()?;
    assert_eq!(look(&mut tail)?, last);
    let (_, wal) = reopen_with(storage, last, in_epoch(2))?;
    commit(&wal)?;
    assert_eq!(look(&mut tail)?, Lsn(last.0 + 1));
    assert_eq!(tail.epoch(), 2);
    // One that lags behind what was removed is told so.
    let mut lost = LogTail::new(Arc::clone(storage), DIR, Lsn::FIRST);
    assert_eq!(lost.poll().expect_err("the beginning was removed").kind(), ErrorKind::Corrupt);
    Ok(())
}

#[test]
fn a_tail_sees_every_record_once() -> Result<()> {
    let (_folder, local) = folder();
    follow(&local)?;
    follow(&(Arc::new(MemoryStorage::new()) as Arc<dyn Storage>))?;
    follow(&object_storage("db", "test://tail")?)
}

#[test]
fn a_tail_decrypts_and_needs_the_key() -> Result<()> {
    let (_folder, plain) = folder();
    for inner in [plain, Arc::new(MemoryStorage::new()), object_storage("db", "test://tail-encrypted")?] {
        let encrypted = |key| Arc::new(EncryptedStorage::new(Arc::clone(&inner), key)) as Arc<dyn Storage>;
        let storage = encrypted(EncryptionKey::generate()?);
        follow(&storage)?;
        assert_eq!(storage.seal_shuts_out(), inner.seal_shuts_out());
        for wrong in [Arc::clone(&inner), encrypted(EncryptionKey::generate()?)] {
            let mut tail = LogTail::new(wrong, DIR, Lsn(1 << 40));
            assert_eq!(tail.poll().expect_err("that is not its key").kind(), ErrorKind::Permission);
        }
    }
    Ok(())
}

/// A writer that a test can replace, and that then learns of it only after its syncs.
fn fenced(storage: &Arc<dyn Storage>, epoch: u64) -> Result<(Arc<Wal>, Arc<AtomicBool>)> {
    let replaced = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&replaced);
    let fence = move || match seen.load(Ordering::SeqCst) {
        true => Err(grizzly_wal::Error::new(ErrorKind::AlreadyExists, "replaced")),
        false => Ok(()),
    };
    let (_, wal) = reopen_with(storage, Lsn::FIRST, WalOptions { fence: Some(Box::new(fence)), ..in_epoch(epoch) })?;
    Ok((wal, replaced))
}

#[test]
fn what_a_replaced_writer_adds_is_not_confirmed_and_not_replayed() -> Result<()> {
    let (_folder, storage) = folder();
    let (old, replaced) = fenced(&storage, 1)?;
    commit(&old)?;
    commit(&old)?;
    let mut tail = LogTail::new(Arc::clone(&storage), DIR, Lsn::FIRST);
    assert_eq!(look(&mut tail)?, Lsn(2));
    let mut rash = tail.clone();
    let (found, new) = reopen_with(&storage, Lsn::FIRST, in_epoch(2))?;
    assert_eq!(found, Lsn(2));
    replaced.store(true, Ordering::SeqCst);
    let late = old.append(grizzly_wal::NewRecord { txn: 99, ..Default::default() })?;
    assert_eq!(old.wait_durable(late).expect_err("it was replaced").kind(), ErrorKind::Poisoned);
    assert_eq!(old.durable_lsn(), Lsn(2));
    assert_eq!(commit(&new)?, Lsn(3));
    assert_eq!(look(&mut tail)?, Lsn(3), "the new writer's record, not the old one's");
    assert_eq!(look(&mut rash)?, Lsn(3));
    assert_eq!(read(Arc::clone(&storage), DIR, Lsn::FIRST)?.count(), 3);
    new.close()?;
    assert_eq!(reopen(&storage, Lsn::FIRST)?.0, Lsn(3));
    Ok(())
}

#[test]
fn a_tail_that_took_too_much_is_told_so() -> Result<()> {
    let (_folder, storage) = folder();
    let (old, _) = fenced(&storage, 1)?;
    commit(&old)?;
    let mut replay = grizzly_wal::open(Arc::clone(&storage), DIR, Lsn::FIRST, in_epoch(2))?;
    assert_eq!(super::replay(&mut replay, Lsn::FIRST)?, Lsn(1));
    commit(&old)?;
    let mut tail = LogTail::new(Arc::clone(&storage), DIR, Lsn::FIRST);
    assert_eq!(look(&mut tail)?, Lsn(2), "nobody has begun a file behind it yet");

    commit(&Arc::new(replay.into_writer()?))?;
    assert_eq!(tail.poll().expect_err("record 2 does not count").kind(), ErrorKind::Corrupt);

    Ok(())
}

#[test]
fn a_tail_that_slept_through_two_writers_does_not_wait_for_them() -> Result<()> {
    let (_folder, local) = folder();
    // In a bucket an empty part is left of each file that was taken over and removed.
    for storage in [local, object_storage("db", "test://slept")?] {
        let (_, first) = reopen_with(&storage, Lsn::FIRST, in_epoch(1))?;
        commit(&first)?;
        let mut tail = LogTail::new(Arc::clone(&storage), DIR, Lsn::FIRST);
        assert_eq!(look(&mut tail)?, Lsn(1));
        let (_, second) = reopen_with(&storage, Lsn::FIRST, in_epoch(2))?;
        commit(&second)?;
        let (_, third) = reopen_with(&storage, Lsn::FIRST, in_epoch(3))?;
        let last = commit(&third)?;
        third.truncate_before(last)?;
        let told = (0..100).find_map(|_| tail.poll().err()).expect("what comes next was removed");
        assert_eq!(told.kind(), ErrorKind::Corrupt, "{told}");
    }
    Ok(())
}

#[test]
fn a_file_whose_writer_died_before_its_header_stops_nobody() -> Result<()> {
    let (_folder, storage) = folder();
    let (_, first) = reopen_with(&storage, Lsn::FIRST, in_epoch(1))?;
    commit(&first)?;
    let mut tail = LogTail::new(Arc::clone(&storage), DIR, Lsn::FIRST);
    assert_eq!(look(&mut tail)?, Lsn(1));
    // Space was reserved for it, and that is all; whoever comes next may fail to remove it.
    let mut dead = storage.create_append(&format!("{DIR}/0000000002.log"), 4096)?;
    dead.append(&[0; 4096])?;
    dead.sync()?;
    let (_, third) = reopen_with(&storage, Lsn::FIRST, in_epoch(3))?;
    let mut dead = storage.create_append(&format!("{DIR}/0000000002.log"), 4096)?;
    dead.append(&[0; 4096])?;
    dead.sync()?;
    commit(&third)?;
    tail.search();
    assert_eq!(look(&mut tail)?, Lsn(2));
    assert_eq!(tail.epoch(), 3);
    Ok(())
}
