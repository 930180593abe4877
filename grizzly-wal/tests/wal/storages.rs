//! One suite, four storages.

use std::sync::Arc;

use grizzly_wal::storage::conformance;
use grizzly_wal::storage::faulty::{FaultPlan, FaultyStorage};
use grizzly_wal::{ErrorKind, FsStorage, Lsn, MemoryStorage, ObjectStorage, PutMode, Result, Storage, open_storage};
use object_store::memory::InMemory;

use super::{commit, reopen};

pub(crate) fn object_storage(prefix: &str, url: &str) -> Result<Arc<dyn Storage>> {
    let prefix = object_store::path::Path::from(prefix);
    Ok(Arc::new(ObjectStorage::new(Arc::new(InMemory::new()), prefix, url)?))
}

#[test]
fn memory_conforms() {
    assert_eq!(conformance::run(&|| Arc::new(MemoryStorage::new())), Ok(()));
}

#[test]
fn folders_conform() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let count = std::cell::Cell::new(0);
    let make = || -> Arc<dyn Storage> {
        count.set(count.get() + 1);
        let path = folder.path().join(format!("not/there yet/{}", count.get()));
        Arc::new(FsStorage::new(path).expect("an absolute path"))
    };
    assert_eq!(conformance::run(&make), Ok(()));
}

#[test]
fn object_stores_conform() {
    for prefix in ["", "some/prefix"] {
        let make = || object_storage(prefix, &format!("test://conformance/{prefix}")).expect("threads start");
        assert_eq!(conformance::run(&make), Ok(()));
    }
}

#[test]
fn a_removal_of_a_sealed_file_that_stops_halfway_leaves_its_beginning() -> Result<()> {
    let storage = object_storage("", "test://halfway")?;
    let mut file = storage.create_append("log/1", 0)?;
    for part in ["a", "b", "c"] {
        file.append(part.as_bytes())?;
        file.sync()?;
    }
    assert_eq!(storage.seal_append("log/1")?, "abc");
    storage.remove("log/1/00000002")?;
    assert_eq!(storage.read_append("log/1")?, "ab");
    assert_eq!(storage.peek_append("log/1", 2)?, "ab");
    assert_eq!(storage.seal_append("log/1")?, "ab");
    // What no removal leaves.
    storage.remove("log/1/00000000")?;
    let error = storage.read_append("log/1").expect_err("its beginning is missing");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    file.append(b"d")?;
    file.sync().expect_err("its old writer stays locked out");
    storage.remove_append("log/1")?;
    assert_eq!(storage.read_append("log/1")?, "");
    Ok(())
}

#[test]
fn the_faulty_one_conforms_without_faults() {
    assert_eq!(conformance::run(&|| Arc::new(FaultyStorage::new(FaultPlan::default()))), Ok(()));
}

#[test]
fn a_folder_opens_by_path_and_by_url() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("with space");
    let by_path = open_storage(path.to_str().expect("a UTF-8 path"))?;
    by_path.put("a/b", &["x".into()], PutMode::Create)?;
    assert!(by_path.url().starts_with("file:///") && by_path.url().ends_with("with%20space"));
    let by_url = open_storage(&by_path.url())?;
    assert_eq!(by_url.get("a/b")?, "x");

    let guard = by_path.lock()?;
    let error = by_url.lock().map(drop).expect_err("it is locked");
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.message().contains(&format!("process {}", std::process::id())), "{error}");
    drop(guard);
    by_url.lock().map(drop)
}

#[test]
fn the_next_writer_removes_what_a_killed_one_left() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let storage = FsStorage::new(folder.path())?;
    storage.put("a", &["x".into()], PutMode::Create)?;
    let left = folder.path().join(".tmp/1-1");
    std::fs::write(&left, "half").expect("the folder is writable");
    assert_eq!(storage.list("")?.len(), 1);
    drop(storage.lock()?);
    assert!(!left.exists());
    assert_eq!(storage.get("a")?, "x");
    Ok(())
}

#[test]
fn object_stores_work_inside_a_runtime() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime for the test");
    runtime.block_on(async {
        let storage = object_storage("db", "test://in-a-runtime")?;
        let (_, wal) = reopen(&storage, Lsn::FIRST)?;
        let last = commit(&wal)?;
        wal.durable(last).await?;
        wal.close()?;
        assert_eq!(reopen(&storage, Lsn::FIRST)?.0, last);
        Ok(())
    })
}
