//! Snapshot isolation: who sees what, who wins, and what maintenance may not disturb.

use grizzly_provider::{CommitOutcome, ErrorKind, Result, access::IndexDefinition};

use crate::tables::{database, definition, key, pairs, rows, versions};

#[test]
fn the_first_of_two_writers_wins_and_the_other_learns_why() -> Result<()> {
    let db = database(2)?;
    db.put("t", rows([(1, 10), (2, 20)]))?;
    let (mut first, mut second) = (db.begin()?, db.begin()?);
    first.put("t", rows([(1, 11)]))?;
    second.put("t", rows([(1, 12)]))?;
    let committed = first.commit()?.into_result()?;
    let CommitOutcome::Conflict(conflict) = second.commit()? else {
        unreachable!("both changed row 1");
    };
    assert_eq!((conflict.table.as_str(), conflict.key.as_str(), conflict.committed), ("t", "(1)", committed));
    let error = grizzly_provider::Error::from(conflict);
    assert_eq!((error.kind(), error.sqlstate(), error.is_retryable()), (ErrorKind::Conflict, "40001", true));
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 11), (2, 20)]);
    Ok(())
}

#[test]
fn two_inserts_of_one_key_conflict_and_a_known_key_is_refused() -> Result<()> {
    let db = database(2)?;
    let (mut first, mut second) = (db.begin()?, db.begin()?);
    first.insert("t", rows([(7, 1)]))?;
    second.insert("t", rows([(7, 2)]))?;
    first.commit()?.into_result()?;
    assert!(matches!(second.commit()?, CommitOutcome::Conflict(conflict) if conflict.key == "(7)"));
    let mut third = db.begin()?;
    third.insert("t", rows([(7, 3)]))?;
    let refused = third.commit().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::UniqueViolation));
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(7, 1)]);
    Ok(())
}

#[test]
fn of_two_that_insert_one_key_of_a_unique_index_the_second_conflicts() -> Result<()> {
    let db = database(2)?;
    let by_group = IndexDefinition { name: "by_group".into(), columns: vec![("grp".into(), false)], unique: true };
    db.create_index("t", by_group, false)?;
    let (mut first, mut second) = (db.begin()?, db.begin()?);
    first.insert("t", rows([(1, 7)]))?;
    second.insert("t", rows([(2, 7), (3, 8)]))?;
    let committed = first.commit()?.into_result()?;
    let CommitOutcome::Conflict(conflict) = second.commit()? else {
        unreachable!("both inserted group 7");
    };
    assert_eq!((conflict.table.as_str(), conflict.key.as_str(), conflict.committed), ("t", "(7)", committed));
    assert_eq!(grizzly_provider::Error::from(conflict).sqlstate(), "40001");
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 7)]);
    Ok(())
}

#[test]
fn a_commit_of_two_tables_is_seen_in_both_at_once() -> Result<()> {
    let db = database(2)?;
    db.create_table(definition("u", 1), false)?;
    db.put("t", rows([(1, 0)]))?;
    db.put("u", rows([(1, 0)]))?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            for round in 1..=300 {
                let mut transaction = db.begin()?;
                transaction.put("t", rows([(1, round)]))?;
                transaction.put("u", rows([(1, -round)]))?;
                transaction.commit()?.into_result()?;
                if round % 50 == 0 {
                    db.flush()?;
                }
            }
            Ok(())
        });
        let (mut seen, mut looks) = (0, 0);
        while seen < 300 {
            let snapshot = db.snapshot();
            let (t, u) = (pairs(&snapshot, "t", None)?, pairs(&snapshot, "u", None)?);
            assert_eq!((t.len(), u.len(), t[0].1), (1, 1, -u[0].1), "{t:?} {u:?}");
            assert!(t[0].1 >= seen, "{t:?} after {seen}");
            (seen, looks) = (t[0].1, looks + 1);
        }
        assert!(looks > 1);
        writer.join().expect("it does not panic")
    })
}

#[test]
fn one_transaction_cannot_insert_a_key_twice_but_may_replace_what_it_deleted() -> Result<()> {
    let db = database(1)?;
    db.put("t", rows([(1, 10)]))?;
    let mut transaction = db.begin()?;
    let (row, _) = transaction.find("t", &key(1))?.expect("row 1 is there");
    transaction.delete("t", &[row])?;
    transaction.insert("t", rows([(1, 11)]))?;
    assert_eq!(transaction.insert("t", rows([(1, 12)])).map_err(|error| error.kind()), Err(ErrorKind::UniqueViolation));
    transaction.commit()?.into_result()?;
    assert_eq!(
        versions(&db.snapshot(), "t")?.iter().map(|(id, version, _)| (*id, *version)).collect::<Vec<_>>(),
        [(1, 1)]
    );
    Ok(())
}

#[test]
fn a_snapshot_stays_as_it_was_while_others_write_flush_and_merge() -> Result<()> {
    let db = database(2)?;
    db.put("t", rows((0..100).map(|id| (id, 0))))?;
    let before = db.snapshot();
    let expected = pairs(&before, "t", None)?;
    for round in 1..20 {
        db.put("t", rows((0..100).map(|id| (id, round))))?;
        if round % 5 == 0 {
            db.flush()?;
            db.compact("t")?;
        }
        assert_eq!(pairs(&before, "t", None)?, expected);
    }
    assert_eq!(pairs(&db.snapshot(), "t", None)?, (0..100).map(|id| (id, 19)).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn flush_and_merge_never_make_a_transaction_fail() -> Result<()> {
    let db = database(2)?;
    db.put("t", rows((0..50).map(|id| (id, 0))))?;
    db.flush()?;
    db.put("t", rows((50..100).map(|id| (id, 0))))?;
    let mut open = db.begin()?;
    open.put("t", rows([(3, 1), (60, 1)]))?;
    db.flush()?;
    db.compact("t")?;
    db.put("t", rows([(4, 2)]))?;
    db.compact("t")?;
    open.put("t", rows([(5, 1)]))?;
    open.commit()?.into_result()?;
    let changed: Vec<_> = pairs(&db.snapshot(), "t", None)?.into_iter().filter(|(_, group)| *group > 0).collect();
    assert_eq!(changed, [(3, 1), (4, 2), (5, 1), (60, 1)]);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_row_moved_by_a_merge_still_conflicts() -> Result<()> {
    let db = database(1)?;
    db.put("t", rows([(1, 0), (2, 0)]))?;
    db.flush()?;
    db.put("t", rows([(3, 0)]))?;
    db.flush()?;
    let mut open = db.begin()?;
    open.put("t", rows([(1, 1)]))?;
    db.compact("t")?;
    db.put("t", rows([(1, 2)]))?;
    assert!(matches!(open.commit()?, CommitOutcome::Conflict(conflict) if conflict.key == "(1)"));
    Ok(())
}

#[test]
fn a_savepoint_brings_back_what_was_there() -> Result<()> {
    let db = database(2)?;
    db.put("t", rows([(1, 1)]))?;
    let mut transaction = db.begin()?;
    transaction.insert("t", rows([(2, 2)]))?;
    let mark = transaction.savepoint()?;
    transaction.put("t", rows([(1, 9), (2, 9), (3, 9)]))?;
    assert_eq!(pairs(&transaction.snapshot()?, "t", None)?, [(1, 9), (2, 9), (3, 9)]);
    transaction.rollback_to(mark)?;
    assert_eq!(pairs(&transaction.snapshot()?, "t", None)?, [(1, 1), (2, 2)]);
    transaction.put("t", rows([(3, 3)]))?;
    transaction.commit()?.into_result()?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 1), (2, 2), (3, 3)]);
    Ok(())
}

#[test]
fn eight_threads_of_increments_lose_none() -> Result<()> {
    let db = database(2)?;
    db.put("t", rows([(1, 0)]))?;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    loop {
                        let mut transaction = db.begin().expect("the database is open");
                        let now =
                            pairs(&transaction.snapshot().expect("it can be read"), "t", None).expect("it can be read");
                        transaction.put("t", rows([(1, now[0].1 + 1)])).expect("it can be written");
                        if matches!(transaction.commit(), Ok(CommitOutcome::Committed { .. })) {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 200)]);
    assert_eq!(versions(&db.snapshot(), "t")?[0].1, 201);
    Ok(())
}
