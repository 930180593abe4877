//! An index finds what a scan finds.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use grizzly_provider::{
    ErrorKind, Grizzly, Result, Settings,
    access::{AccessPath, AsOf, ColumnTest, CompareOp, IndexDefinition, KeyRange, Predicate, ScanRequest},
};

use crate::tables::{copy_folder, database, definition, manual, pairs, rows, scan};

fn by_group(unique: bool) -> IndexDefinition {
    IndexDefinition { name: "by_group".into(), columns: vec![("grp".into(), false)], unique }
}

fn group_is(group: i64) -> Predicate {
    let value: ArrayRef = Arc::new(Int64Array::from(vec![group]));
    Predicate::Test { column: 1, test: ColumnTest::Compare { op: CompareOp::Eq, value } }
}

/// Rows of a group through the index, and how many the index touched.
fn looked_up(db: &Grizzly, group: i64) -> Result<usize> {
    let snapshot = db.snapshot();
    let value: ArrayRef = Arc::new(Int64Array::from(vec![group]));
    let key = snapshot.table("t")?.index_key("by_group", &[value])?;
    let access = AccessPath::Index { index: "by_group".into(), ranges: [KeyRange::prefix(&key)].into() };
    let request =
        ScanRequest { projection: vec![0, 2], predicate: Some(group_is(group)), access, ..ScanRequest::default() };
    Ok(scan(&snapshot, "t", &request)?.num_rows())
}

#[test]
fn an_index_made_before_or_after_the_rows_answers_like_a_scan() -> Result<()> {
    let db = database(3)?;
    db.put("t", rows((0..500).map(|id| (id, id % 10))))?;
    db.flush()?;
    db.put("t", rows((500..600).map(|id| (id, id % 10))))?;
    assert!(db.create_index("t", by_group(false), false)?);
    db.put("t", rows((590..700).map(|id| (id, id % 10))))?;
    for group in 0..11 {
        assert_eq!(looked_up(&db, group)?, pairs(&db.snapshot(), "t", Some(group_is(group)))?.len(), "group {group}");
    }
    db.put("t", rows([(5, 999)]))?;
    assert_eq!((looked_up(&db, 999)?, looked_up(&db, 5)?), (1, 69));
    db.compact("t")?;
    assert_eq!((looked_up(&db, 999)?, looked_up(&db, 5)?), (1, 69));
    assert!(db.verify()?.problems.is_empty());
    assert!(db.drop_index(None, "by_group", false)?);
    assert!(looked_up(&db, 1).is_err());
    Ok(())
}

#[test]
fn a_request_outlives_its_index() -> Result<()> {
    let db = database(3)?;
    db.put("t", rows((0..100).map(|id| (id, id % 10))))?;
    db.flush()?;
    db.put("t", rows((100..200).map(|id| (id, id % 10))))?;
    db.create_index("t", by_group(false), false)?;
    let table = db.snapshot().table("t")?;
    let value: ArrayRef = Arc::new(Int64Array::from(vec![3]));
    let ranges = [KeyRange::prefix(&table.index_key("by_group", &[value])?)].into();
    let request = ScanRequest {
        projection: vec![0],
        predicate: Some(group_is(3)),
        access: AccessPath::Index { index: "by_group".into(), ranges },
        index_id: table.index_id("by_group"),
        ..ScanRequest::default()
    };
    let found = || scan(&db.snapshot(), "t", &request).map(|rows| rows.num_rows());
    assert_eq!(found()?, 20);
    db.drop_index(None, "by_group", false)?;
    assert_eq!(found()?, 20);
    // Another index of that name orders other keys.
    let other = IndexDefinition { name: "by_group".into(), columns: vec![("id".into(), false)], unique: false };
    db.create_index("t", other, false)?;
    assert_eq!(found()?, 20);
    Ok(())
}

#[test]
fn a_unique_index_refuses_what_is_there_and_what_comes() -> Result<()> {
    let db = database(3)?;
    db.put("t", rows([(1, 1), (2, 2)]))?;
    assert!(db.create_index("t", by_group(true), false)?);
    let refused = db.put("t", rows([(3, 2)])).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::UniqueViolation));
    db.put("t", rows([(2, 3), (3, 2)]))?;
    db.drop_index(Some("t"), "by_group", false)?;
    db.put("t", rows([(4, 2)]))?;
    let refused = db.create_index("t", by_group(true), false).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::UniqueViolation));
    Ok(())
}

/// With `sync_commits` off a power failure takes the record of an index and leaves its runs. The next index does not take
/// them for its own.
#[test]
fn runs_that_a_lost_index_has_left_are_nobodys() -> Result<()> {
    let folders = tempfile::tempdir().expect("there is room");
    let (whole, lost) = (folders.path().join("whole"), folders.path().join("lost"));
    let open = |folder: &std::path::Path| Grizzly::builder(&folder.to_string_lossy()).settings(manual()).open();
    let db = open(&whole)?;
    db.create_table(definition("t", 1), false)?;
    db.put("t", rows((0..500).map(|id| (id, id % 10))))?;
    db.flush()?;
    copy_folder(&whole, &lost);
    let by_id = IndexDefinition { name: "by_id".into(), columns: vec![("id".into(), true)], unique: false };
    db.create_index("t", by_id, false)?;
    db.close()?;
    let runs = std::fs::read_dir(whole.join("data")).expect("it is there").flatten();
    for run in runs.filter(|file| file.file_name().to_string_lossy().ends_with(".idx")) {
        std::fs::copy(run.path(), lost.join("data").join(run.file_name())).expect("there is room");
    }
    let db = open(&lost)?;
    db.create_index("t", by_group(false), false)?;
    assert_eq!(looked_up(&db, 3)?, 50);
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}

/// Readers ask for the runs of an index until the moment it is gone, and backups run all the time.
#[test]
fn a_dropped_index_leaves_no_files() -> Result<()> {
    let folders = tempfile::tempdir().expect("there is room");
    let folder = folders.path().join("db");
    let db = Grizzly::builder(&folder.to_string_lossy()).settings(manual()).open()?;
    db.create_table(definition("t", 2), false)?;
    db.put("t", rows((0..500).map(|id| (id, id % 10))))?;
    db.flush()?;
    let files = || std::fs::read_dir(folder.join("data")).expect("it is there").count();
    let before = files();
    for _ in 0..5 {
        db.create_index("t", by_group(false), false)?;
        assert_eq!(looked_up(&db, 3)?, 50);
        let old = db.snapshot();
        assert!(db.drop_index(None, "by_group", false)?);
        // Whoever still knows the index finds the same rows without it.
        let key = old.table("t")?.index_key("by_group", &[Arc::new(Int64Array::from(vec![3])) as ArrayRef])?;
        let access = AccessPath::Index { index: "by_group".into(), ranges: [KeyRange::prefix(&key)].into() };
        let request =
            ScanRequest { projection: vec![0], predicate: Some(group_is(3)), access, ..ScanRequest::default() };
        assert_eq!(scan(&old, "t", &request)?.num_rows(), 50);
    }
    db.put("t", rows([(1_000, 1)]))?;
    db.flush()?;
    let new = files() - before;
    assert!(new <= 2, "one file of a row and one run for its key came, not {new}");
    Ok(())
}

#[test]
fn runs_of_indexes_take_their_share_of_memory_and_come_back_when_asked_for() -> Result<()> {
    let settings = Settings { memory_bytes: 256 << 10, ..manual() };
    let db = Grizzly::builder("memory://").settings(settings).open()?;
    db.create_table(definition("t", 4), false)?;
    db.create_index("t", by_group(false), false)?;
    let groups = 1_000;
    for part in 0..8 {
        let first = part * 20_000;
        // Groups in no order, so that runs do not shrink to nothing.
        db.put("t", rows((first..first + 20_000).map(|id| (id, id * 7_919 % groups))))?;
        db.flush()?;
    }
    let share = 256 << 10;
    for round in 0..3 {
        for group in (round..groups).step_by(211) {
            assert_eq!(looked_up(&db, group)?, 160, "group {group}");
            let held = db.activity().index_bytes;
            assert!(held > 0 && held < share / 2 + share / 8, "{held}");
        }
    }
    let before = db.snapshot().csn();
    // Segments whose rows have all ended need no runs, but are still there for the past.
    db.put("t", rows((0..160_000).map(|id| (id, 1_001))))?;
    assert_eq!((looked_up(&db, 7)?, looked_up(&db, 1_001)?), (0, 160_000));
    let past = db.snapshot_at(AsOf::Csn(before))?;
    assert_eq!(pairs(&past, "t", Some(group_is(7)))?.len(), 160);
    let value: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let key = past.table("t")?.index_key("by_group", &[value])?;
    let access = AccessPath::Index { index: "by_group".into(), ranges: [KeyRange::prefix(&key)].into() };
    let request = ScanRequest { projection: vec![0], predicate: Some(group_is(7)), access, ..ScanRequest::default() };
    assert_eq!(scan(&past, "t", &request)?.num_rows(), 160);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}
