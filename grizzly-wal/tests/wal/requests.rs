//! What a log in a bucket costs: stores are slow, and paid by request.

use std::sync::Arc;

use grizzly_wal::{LogTail, Lsn, ObjectStorage, Result, Storage};
use object_store::path::Path;

use super::{DIR, check, commit, reopen, told_store::ToldStore};

fn storage(store: &ToldStore) -> Result<Arc<dyn Storage>> {
    Ok(Arc::new(ObjectStorage::new(Arc::new(store.clone()), Path::from("db"), "test://requests")?))
}

#[test]
fn a_commit_is_one_request_and_a_look_for_it_two() -> Result<()> {
    let writing = ToldStore::default();
    let reading = writing.other();
    let (_, wal) = reopen(&storage(&writing)?, Lsn::FIRST)?;
    let mut tail = LogTail::new(storage(&reading)?, DIR, Lsn::FIRST);
    commit(&wal)?;
    assert_eq!(tail.poll()?.len(), 1, "it knows its place");
    // However long the log has become.
    for _ in 0..200 {
        let (none, looked) = reading.during(|| tail.poll())?;
        assert_eq!((none.len(), looked), (0, 2), "is there a next file, or more in this one");
        let (lsn, stored) = writing.during(|| commit(&wal))?;
        assert_eq!(stored, 1, "record {lsn}");
        let (found, looked) = reading.during(|| tail.poll())?;
        assert_eq!((found.len(), looked), (1, 3), "what was found is read");
        check(&found[0], lsn.0);
    }
    // Where nothing comes for long, a file may be missing in the row, and the folder is listed now and then.
    let (found, looked) = reading.during(|| (0..160).map(|_| Ok(tail.poll()?.len())).sum::<Result<usize>>())?;
    assert_eq!(found, 0);
    assert!((320..=330).contains(&looked), "{looked} requests in 160 looks");
    wal.close()
}
