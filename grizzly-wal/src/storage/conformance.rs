//! What any [`Storage`] must do, as checks to run against yours.
//!
//! ```
//! use std::sync::Arc;
//! use grizzly_wal::{MemoryStorage, storage::conformance};
//!
//! conformance::run(&|| Arc::new(MemoryStorage::new())).expect("memory is a storage");
//! ```

use std::fmt::Debug;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;

use super::{PutMode, Storage};
use crate::error::{ErrorKind, Result};

type Check = fn(&dyn Storage) -> Result<(), String>;

const CHECKS: [(&str, Check); 9] = [
    ("objects come back whole", objects_come_back),
    ("create is exclusive", create_is_exclusive),
    ("of many creators one wins", one_creator_wins),
    ("ranges are exact", ranges_are_exact),
    ("lists are complete, sorted and by folder", lists_are_complete),
    ("append files grow by synced bytes", append_files_grow),
    ("append files are listed and removed", append_files_are_listed),
    ("sealed files keep what they have", sealed_files_keep),
    ("bad paths are refused", bad_paths_are_refused),
];

/// Runs every check on an empty storage from `make`; the error names the check and what was wrong.
pub fn run(make: &dyn Fn() -> Arc<dyn Storage>) -> Result<(), String> {
    for (name, check) in CHECKS {
        let storage = make();
        check(storage.as_ref()).map_err(|wrong| format!("{}: {name}: {wrong}", storage.url()))?;
    }
    one_writer_at_a_time(make().as_ref())
}

fn objects_come_back(storage: &dyn Storage) -> Result<(), String> {
    let parts = ["one ".into(), Bytes::new(), "two".into()];
    works(storage.put("deep/in/a/folder", &parts, PutMode::Overwrite))?;
    same(works(storage.get("deep/in/a/folder"))?, "one two".into())?;
    works(storage.put("deep/in/a/folder", &["new".into()], PutMode::Overwrite))?;
    same(works(storage.get("deep/in/a/folder"))?, "new".into())?;
    works(storage.put("empty", &[], PutMode::Create))?;
    same(works(storage.get("empty"))?, Bytes::new())?;
    fails(storage.get("absent"), ErrorKind::NotFound)?;
    works(storage.remove("deep/in/a/folder"))?;
    fails(storage.get("deep/in/a/folder"), ErrorKind::NotFound)?;
    works(storage.remove("deep/in/a/folder"))
}

fn create_is_exclusive(storage: &dyn Storage) -> Result<(), String> {
    works(storage.put("f/a", &["1".into()], PutMode::Create))?;
    fails(storage.put("f/a", &["2".into()], PutMode::Create), ErrorKind::AlreadyExists)?;
    same(works(storage.get("f/a"))?, "1".into())
}

fn one_creator_wins(storage: &dyn Storage) -> Result<(), String> {
    let attempt = |number: u8| storage.put("f/one", &[vec![number; 1000].into()], PutMode::Create).is_ok();
    let winners: Vec<u8> = thread::scope(|scope| {
        let tries: Vec<_> = (0..8).map(|number| (number, scope.spawn(move || attempt(number)))).collect();
        let won = tries.into_iter().filter_map(|(number, run)| run.join().is_ok_and(|won| won).then_some(number));
        won.collect()
    });
    same(winners.len(), 1)?;
    same(works(storage.get("f/one"))?, vec![winners[0]; 1000].into())
}

fn ranges_are_exact(storage: &dyn Storage) -> Result<(), String> {
    works(storage.put("a", &["0123456789".into()], PutMode::Create))?;
    for (from, to, expected) in [(0, 10, "0123456789"), (3, 5, "34"), (9, 10, "9"), (4, 4, ""), (10, 10, "")] {
        same(works(storage.get_range("a", from..to))?, expected.into())?;
    }
    let reversed = std::ops::Range { start: 7, end: 3 };
    for range in [5..11, 11..12, 11..11, reversed] {
        if let Ok(bytes) = storage.get_range("a", range.clone()) {
            return Err(format!("{range:?} of 10 bytes gave {bytes:?}"));
        }
    }
    fails(storage.get_range("absent", 0..1), ErrorKind::NotFound)
}

fn lists_are_complete(storage: &dyn Storage) -> Result<(), String> {
    same(works(storage.list(""))?.len(), 0)?;
    same(works(storage.list("nowhere/at/all"))?.len(), 0)?;
    for path in ["b/2", "a", "b/10", "bb/1", "b/x/1"] {
        works(storage.put(path, &[path.to_owned().into()], PutMode::Create))?;
    }
    let paths = |prefix| storage.list(prefix).map(|found| found.into_iter().map(|meta| meta.path).collect::<Vec<_>>());
    same(works(paths(""))?, ["a", "b/10", "b/2", "b/x/1", "bb/1"].map(String::from).to_vec())?;
    same(works(paths("b"))?, ["b/10", "b/2", "b/x/1"].map(String::from).to_vec())?;
    same(works(paths("b/"))?, works(paths("b"))?)?;
    same(works(storage.list("bb"))?.first().map(|meta| meta.size), Some(4))
}

fn append_files_grow(storage: &dyn Storage) -> Result<(), String> {
    let mut file = works(storage.create_append("log/1", 4096))?;
    works(file.append(b"head"))?;
    works(file.sync())?;
    starts(&works(storage.read_append("log/1"))?, b"head")?;
    fails(storage.create_append("log/1", 0).map(drop), ErrorKind::AlreadyExists)?;
    works(file.append(b"er"))?;
    works(file.append(&vec![7; 10_000]))?;
    works(file.sync())?;
    works(file.sync())?;
    let mut expected = b"header".to_vec();
    expected.resize(10_006, 7);
    starts(&works(storage.read_append("log/1"))?, &expected)?;
    same(works(storage.peek_append("log/1", 6))?, "header".into())?;
    same(works(storage.size_append("log/1"))? >= 10_006, true)?;
    starts(&works(storage.read_append_from("log/1", 4))?, &expected[4..])?;
    starts(&works(storage.read_append_from("log/1", 10_006))?, b"")?;
    starts(&works(storage.read_append_from("log/1", 1 << 20))?, b"")?;
    // Who follows it sees it grow, and may go back.
    works(file.append(&[9; 40]))?;
    works(file.sync())?;
    expected.extend([9; 40]);
    for offset in [10_006, 10_020, 4, 10_020, 0] {
        starts(&works(storage.read_append_from("log/1", offset as u64))?, &expected[offset..])?;
    }
    same([works(storage.has_begun("log/1"))?, works(storage.has_begun("log/2"))?], [true, false])?;
    fails(storage.read_append_from("log/2", 0), ErrorKind::NotFound)?;
    fails(storage.read_append("log/2"), ErrorKind::NotFound)
}

fn append_files_are_listed(storage: &dyn Storage) -> Result<(), String> {
    same(works(storage.list_append("log"))?.len(), 0)?;
    for path in ["log/2", "log/1", "log/deep/3", "other/4"] {
        let mut file = works(storage.create_append(path, 0))?;
        works(file.append(path.as_bytes()))?;
        works(file.sync())?;
    }
    same(works(storage.list_append("log"))?, vec!["log/1".to_owned(), "log/2".to_owned()])?;
    works(storage.read_append_from("log/1", 2)).map(drop)?;
    works(storage.remove_append("log/1"))?;
    works(storage.remove_append("log/1"))?;
    fails(storage.read_append_from("log/1", 2), ErrorKind::NotFound)?;
    same(works(storage.list_append("log"))?, vec!["log/2".to_owned()])?;
    starts(&works(storage.read_append("log/2"))?, b"log/2")
}

fn sealed_files_keep(storage: &dyn Storage) -> Result<(), String> {
    let mut file = works(storage.create_append("log/1", 4096))?;
    works(file.append(b"kept"))?;
    works(file.sync())?;
    for _ in 0..2 {
        starts(&works(storage.seal_append("log/1"))?, b"kept")?;
    }
    starts(&works(storage.read_append("log/1"))?, b"kept")?;
    fails(storage.seal_append("log/9"), ErrorKind::NotFound)
}

fn bad_paths_are_refused(storage: &dyn Storage) -> Result<(), String> {
    for path in ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "LOCK"] {
        fails(storage.put(path, &["x".into()], PutMode::Overwrite), ErrorKind::Invalid)?;
        fails(storage.get(path), ErrorKind::Invalid)?;
        fails(storage.remove(path), ErrorKind::Invalid)?;
        fails(storage.create_append(path, 0).map(drop), ErrorKind::Invalid)?;
        fails(storage.read_append(path), ErrorKind::Invalid)?;
    }
    fails(storage.list("../"), ErrorKind::Invalid)
}

fn one_writer_at_a_time(storage: &dyn Storage) -> Result<(), String> {
    let guard = works(storage.lock())?;
    fails(storage.lock().map(drop), ErrorKind::Locked)?;
    fails(storage.lock_shared().map(drop), ErrorKind::Locked)?;
    drop(guard);
    works(storage.lock()).map(drop)?;
    let guards = [works(storage.lock_shared())?, works(storage.lock_shared())?];
    fails(storage.lock().map(drop), ErrorKind::Locked)?;
    drop(guards);
    works(storage.lock()).map(drop)?;
    // The lock must not look like an object.
    same(works(storage.list(""))?.len(), 0)
}

fn works<T>(outcome: Result<T>) -> Result<T, String> {
    outcome.map_err(|error| format!("unexpected error {error:?}"))
}

fn fails<T: Debug>(outcome: Result<T>, kind: ErrorKind) -> Result<(), String> {
    match outcome {
        Err(error) if error.kind() == kind => Ok(()),
        other => Err(format!("expected {kind:?}, got {other:?}")),
    }
}

fn same<T: PartialEq + Debug>(found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("expected {expected:?}, got {found:?}")) }
}

/// Append files may be followed by zeros.
fn starts(found: &[u8], expected: &[u8]) -> Result<(), String> {
    let zeros = found.strip_prefix(expected).map(|rest| rest.iter().all(|byte| *byte == 0));
    if zeros == Some(true) { Ok(()) } else { Err(format!("expected {} bytes, got others", expected.len())) }
}
