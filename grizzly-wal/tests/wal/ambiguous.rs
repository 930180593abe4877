//! An object store that carries a request out and says that it failed, as S3 does with a 500 or a reset connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use grizzly_wal::{ErrorKind, Lsn, NewRecord, ObjectStorage, PutMode, Result, Storage, WalOptions};
use object_store::path::Path;

use super::told_store::ToldStore;

fn storage() -> Result<(Arc<dyn Storage>, ToldStore)> {
    let store = ToldStore::default();
    Ok((Arc::new(ObjectStorage::new(Arc::new(store.clone()), Path::default(), "ambiguous://")?), store))
}

#[test]
fn a_log_goes_on_if_its_parts_are_stored_though_the_store_says_they_are_not() -> Result<()> {
    let (storage, store) = storage()?;
    let wal = grizzly_wal::open(Arc::clone(&storage), "log", Lsn::FIRST, WalOptions::default())?.into_writer()?;
    for (number, lies) in [false, true, true, false, true].into_iter().enumerate() {
        store.lies.store(lies, Ordering::Release);
        let payload = Bytes::from(format!("record {number}"));
        let lsn = wal.append(NewRecord { txn: 0, commit_ts: number as u64 + 1, kind: 1, payload })?;
        wal.wait_durable(lsn)?;
    }
    store.lies.store(false, Ordering::Release);
    assert!(wal.poisoned().is_none());
    Arc::new(wal).close()?;
    let records: Vec<_> = grizzly_wal::read(storage, "log", Lsn::FIRST)?.collect::<Result<_>>()?;
    assert_eq!(records.len(), 5);
    Ok(())
}

#[test]
fn what_is_there_counts_as_created_only_if_it_is_the_same() -> Result<()> {
    let (storage, store) = storage()?;
    store.lies.store(true, Ordering::Release);
    storage.put("a", &[Bytes::from_static(b"one, "), Bytes::from_static(b"two")], PutMode::Create)?;
    let other = storage.put("a", &[Bytes::from_static(b"one, three")], PutMode::Create).expect_err("another is there");
    assert_eq!(other.kind(), ErrorKind::AlreadyExists);
    let longer =
        storage.put("a", &[Bytes::from_static(b"one, two, three")], PutMode::Create).expect_err("it is longer");
    assert_eq!(longer.kind(), ErrorKind::AlreadyExists);
    // Nobody knows what an overwritten object holds if the store does not say.
    assert!(storage.put("b", &[Bytes::from_static(b"x")], PutMode::Overwrite).is_err());
    Ok(())
}

#[test]
fn a_store_that_is_silent_is_not_waited_for_by_what_can_be_asked_again() -> Result<()> {
    let (silence, store) = (std::time::Duration::from_millis(50), ToldStore::default());
    let storage = ObjectStorage::with_silence(Arc::new(store.clone()), Path::default(), "silent://", Some(silence))?;
    let bytes = [Bytes::from_static(b"one, "), Bytes::from_static(b"two")];
    storage.put("a", &bytes, PutMode::Create)?;
    assert_eq!((storage.get("a")?, storage.get_range("a", 2..6)?), ("one, two".into(), "e, t".into()));
    store.is_silent.store(true, Ordering::Release);
    let refused = |error: grizzly_wal::Error| (error.kind(), error.message().contains("no answer within 50ms"));
    assert_eq!(storage.get("a").map_err(refused), Err((ErrorKind::Io, true)));
    assert_eq!(storage.get_range("a", 0..1).map_err(refused), Err((ErrorKind::Io, true)));
    assert_eq!(storage.get_range("a", 0..0).map_err(refused), Err((ErrorKind::Io, true)));
    assert_eq!(storage.list("").map_err(refused), Err((ErrorKind::Io, true)));
    assert_eq!(storage.has_begun("log/1").map_err(refused), Err((ErrorKind::Io, true)));
    assert_eq!(storage.put("a", &bytes, PutMode::Overwrite).map_err(refused), Err((ErrorKind::Io, true)));
    store.is_silent.store(false, Ordering::Release);
    assert_eq!(storage.get("a")?, "one, two");
    Ok(())
}
