//! Rows go in, change, and come out, in memory and from files alike.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringViewArray},
    datatypes::Int64Type,
};
use grizzly_provider::{CommitOutcome, Grizzly, Result};

use crate::tables::{database, definition, key, manual, pairs, rows, versions};

#[test]
fn rows_are_the_same_before_and_after_a_flush_and_a_merge() -> Result<()> {
    let db = database(4)?;
    let expected: Vec<(i64, i64)> = (0..1_000).map(|id| (id, id % 7)).collect();
    for part in expected.chunks(100) {
        db.put("t", rows(part.iter().copied()))?;
    }
    assert_eq!(pairs(&db.snapshot(), "t", None)?, expected);
    db.flush()?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?, expected);
    db.put("t", rows([(1_000, 6)]))?;
    db.flush()?;
    db.compact("t")?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 1_001);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn an_update_counts_the_version_up_and_a_get_sees_it() -> Result<()> {
    let db = database(2)?;
    db.put("t", rows([(1, 10), (2, 20)]))?;
    db.flush()?;
    db.put("t", rows([(1, 11)]))?;
    let of = |db: &Grizzly| -> Result<Vec<(i64, u64)>> {
        Ok(versions(&db.snapshot(), "t")?.into_iter().map(|(id, version, _)| (id, version)).collect())
    };
    assert_eq!(of(&db)?, [(1, 2), (2, 1)]);
    let row = db.get("t", &key(1))?.expect("the row is there");
    assert_eq!(row.column(1).as_primitive::<Int64Type>().value(0), 11);
    assert!(db.get("t", &key(3))?.is_none());
    db.flush()?;
    assert_eq!(of(&db)?, [(1, 2), (2, 1)]);
    Ok(())
}

#[test]
fn compare_and_set_writes_only_over_the_version_it_was_told() -> Result<()> {
    let db = database(1)?;
    db.put("t", rows([(1, 10)]))?;
    assert!(matches!(db.compare_and_set("t", rows([(1, 11)]), 1)?, CommitOutcome::Committed { .. }));
    let CommitOutcome::Conflict(conflict) = db.compare_and_set("t", rows([(1, 12)]), 1)? else {
        unreachable!("the row has version 2 by now");
    };
    assert_eq!((conflict.table.as_str(), conflict.key.as_str()), ("t", "(1)"));
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 11)]);
    Ok(())
}

#[test]
fn many_rows_in_one_transaction_become_files_at_once() -> Result<()> {
    let db = database(3)?;
    let mut transaction = db.begin()?;
    for from in (0..200_000).step_by(20_000) {
        transaction.insert("t", rows((from..from + 20_000).map(|id| (id, id % 100))))?;
    }
    assert_eq!(transaction.snapshot()?.table("t")?.row_count(), 200_000, "it sees its own rows");
    assert_eq!(db.snapshot().table("t")?.row_count(), 0, "others do not");
    let victim = transaction.find("t", &key(150_000))?.expect("its own row").0;
    transaction.delete("t", &[victim])?;
    transaction.commit()?.into_result()?;
    assert_eq!(db.snapshot().table("t")?.row_count(), 199_999);
    assert!(db.get("t", &key(150_000))?.is_none());
    assert!(db.get("t", &key(149_999))?.is_some());
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_rolled_back_load_leaves_no_file_behind() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = folder.path().to_string_lossy().into_owned();
    let db = Grizzly::builder(&url).settings(manual()).open()?;
    db.create_table(definition("t", 1), false)?;
    let mut transaction = db.begin()?;
    for from in [0, 70_000] {
        transaction.insert("t", rows((from..from + 70_000).map(|id| (id, 0))))?;
    }
    assert_eq!(transaction.snapshot()?.table("t")?.row_count(), 140_000);
    transaction.rollback();
    db.flush()?;
    let left = std::fs::read_dir(folder.path().join("data")).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 0);
    Ok(())
}

#[test]
fn bounds_are_exact_column_by_column() -> Result<()> {
    let db = database(2)?;
    let batch = rows([(3, 30), (9, 10), (5, 20)]);
    let long = "x".repeat(1_000);
    let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some(long.as_str()), None, Some("short")]));
    let columns = vec![Arc::clone(batch.column(0)), Arc::clone(batch.column(1)), names];
    db.put("t", RecordBatch::try_new(batch.schema(), columns)?)?;
    for flushed in [false, true] {
        if flushed {
            db.flush()?;
        }
        let table = db.snapshot().table("t")?;
        let (least, greatest, values) = table.exact_bounds(0).expect("no row was deleted");
        let value = |bound: Option<ArrayRef>| bound.map(|bound| bound.as_primitive::<Int64Type>().value(0));
        assert_eq!((value(least), value(greatest), values), (Some(3), Some(9), 3));
        // No bound is kept of a value as long as that; how many there are is known all the same.
        let (least, greatest, values) = table.exact_bounds(2).expect("no row was deleted");
        assert_eq!((least.is_none(), greatest.is_none(), values), (true, true, 2));
    }
    db.put("t", rows([(9, 11)]))?;
    assert!(db.snapshot().table("t")?.exact_bounds(0).is_none());
    Ok(())
}
