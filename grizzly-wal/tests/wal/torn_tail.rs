//! The last file cut at every byte: what is whole is replayed, what is not was never confirmed, and writing goes on
//! in a new file.

use std::sync::Arc;

use grizzly_wal::storage::faulty::{FaultPlan, FaultyStorage};
use grizzly_wal::{ErrorKind, Lsn, MemoryStorage, Result, Storage};

use super::{DIR, commit, plant, reopen};

/// The bytes of a log file with `records` groups of one record that was not closed, and where each group ends.
fn unclosed(records: u64) -> Result<(String, Vec<u8>, Vec<usize>)> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    let path = storage.list_append(DIR)?.remove(0);
    let mut ends = vec![storage.read_append(&path)?.len()];
    for _ in 0..records {
        commit(&wal)?;
        ends.push(storage.read_append(&path)?.len());
    }
    let bytes = disk.crash_image().read_append(&path)?[..ends[ends.len() - 1]].to_vec();
    Ok((path, bytes, ends))
}

#[test]
fn cut_at_every_byte() -> Result<()> {
    let (path, whole, ends) = unclosed(7)?;
    for cut in 0..=whole.len() {
        for zeros in [0, 1, 700] {
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(cut + zeros, 0);
            let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
            plant(storage.as_ref(), &path, &bytes)?;
            let complete = ends.iter().skip(1).filter(|end| **end <= cut).count() as u64;
            let (found, wal) = reopen(&storage, Lsn::FIRST)?;
            // A cut may fall into zeros at the end of a record, which the reserved space then replaces.
            let by_zeros =
                zeros > 0 && found.0 == complete + 1 && whole[cut..ends[found.0 as usize]].iter().all(|b| *b == 0);
            assert!(found.0 == complete || by_zeros, "cut at {cut} of {}: found {found}, not {complete}", whole.len());
            let next = commit(&wal)?;
            drop(wal);
            assert_eq!(reopen(&storage, Lsn::FIRST)?.0, next, "the torn end must stay a clean one");
        }
    }
    Ok(())
}

#[test]
fn a_log_that_ends_before_the_checkpoint_is_damaged() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    commit(&wal)?;
    drop(wal);
    assert_eq!(reopen(&storage, Lsn(2))?.0, Lsn(1));
    let error = reopen(&storage, Lsn(9)).expect_err("records 2 to 8 are gone");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    Ok(())
}

#[test]
fn a_new_log_begins_where_it_is_told() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (found, wal) = reopen(&storage, Lsn(500))?;
    assert_eq!((found, wal.next_lsn(), wal.durable_lsn()), (Lsn(499), Lsn(500), Lsn(499)));
    assert_eq!(commit(&wal)?, Lsn(500));
    drop(wal);
    assert_eq!(reopen(&storage, Lsn(500))?.0, Lsn(500));
    Ok(())
}
