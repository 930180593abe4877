//! The windows between two steps that both must happen: what is seen, and what is left, if another comes between.

use std::{sync::Arc, thread, time::Duration};

use grizzly_provider::{
    BackupKind, Backups, CommitOutcome, ErrorKind, Grizzly, RestoreTo, Result, Settings, Storage,
    access::{AsOf, IfExists, IndexDefinition, RowId},
};

use super::{
    gate::{Gate, Point},
    tables::{database, definition, gated, key, manual, pairs, rows, versions},
};

fn index(name: &str, column: &str, unique: bool) -> IndexDefinition {
    IndexDefinition { name: name.into(), columns: vec![(column.into(), false)], unique }
}

fn open(storage: &Arc<dyn Storage>) -> Result<Grizzly> {
    Grizzly::builder("memory://").settings(manual()).storage(Arc::clone(storage)).open()
}

/// Two segments of 100 rows each that a merge has something to do with.
pub(crate) fn two_segments(db: &Grizzly) -> Result<()> {
    for first in [0, 100] {
        db.put("t", rows((first..first + 100).map(|id| (id, id))))?;
        db.flush()?;
    }
    Ok(())
}

/// Runs a merge up to where its record is in the log and not synced, calls `meanwhile` there, and lets it end.
fn beside_a_merge<R>(db: &Grizzly, gate: &Gate, meanwhile: impl FnOnce() -> R) -> Result<R> {
    gate.stop_at(Point::Put("data/"));
    let merging = thread::spawn({
        let db = db.clone();
        move || db.compact("t")
    });
    gate.wait();
    gate.go_on_to(Point::Sync);
    gate.wait();
    let found = meanwhile();
    gate.thaw();
    merging.join().expect("a merge does not panic")?;
    Ok(found)
}

#[test]
fn a_delete_beside_a_merge_is_not_lost() -> Result<()> {
    let (db, gate, storage) = gated()?;
    two_segments(&db)?;
    let deleting = beside_a_merge(&db, &gate, || {
        let mut transaction = db.begin()?;
        let (row, _) = transaction.find("t", &key(7))?.expect("row 7 is there");
        transaction.delete("t", &[row])?;
        // It waits for the log, which stands still.
        Ok::<_, grizzly_provider::Error>(thread::spawn(move || transaction.commit()))
    })??;
    let outcome = deleting.join().expect("a commit does not panic")?;
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    assert!(db.get("t", &key(7))?.is_none(), "an acknowledged delete");
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 199);
    drop(db);
    let again = open(&storage)?;
    assert_eq!(pairs(&again.snapshot(), "t", None)?.len(), 199, "replayed");
    Ok(())
}

#[test]
fn an_update_beside_a_merge_leaves_one_row() -> Result<()> {
    let (db, gate, _) = gated()?;
    two_segments(&db)?;
    let updating = beside_a_merge(&db, &gate, || {
        let mut transaction = db.begin()?;
        let (row, _) = transaction.find("t", &key(7))?.expect("row 7 is there");
        transaction.update("t", &[row], rows([(7, -7)]))?;
        Ok::<_, grizzly_provider::Error>(thread::spawn(move || transaction.commit()))
    })??;
    let outcome = updating.join().expect("a commit does not panic")?;
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    let sevens: Vec<_> = pairs(&db.snapshot(), "t", None)?.into_iter().filter(|(id, _)| *id == 7).collect();
    assert_eq!(sevens, [(7, -7)]);
    Ok(())
}

#[test]
fn a_row_that_is_not_there_cannot_be_ended() -> Result<()> {
    let db = database(1)?;
    two_segments(&db)?;
    let mut transaction = db.begin()?;
    assert!(transaction.delete("t", &[RowId::new(77_777, 0)]).is_err(), "no such segment");
    let (row, _) = transaction.find("t", &key(7))?.expect("row 7 is there");
    let beyond = transaction.delete("t", &[RowId::new(row.segment(), 1_000)]);
    assert!(beyond.is_err(), "no such row");
    Ok(())
}

#[test]
fn an_index_that_was_created_meanwhile_is_unique_for_open_transactions_too() -> Result<()> {
    // Few rows, which go through the log, and many, which become files.
    for count in [2, 70_000] {
        let db = database(4)?;
        let mut transaction = db.begin()?;
        transaction.insert("t", rows((0..count).map(|id| (id, 7))))?;
        db.create_index("t", index("one", "grp", true), false)?;
        let refused = transaction.commit().expect_err("all rows have the same key");
        assert_eq!(refused.kind(), ErrorKind::UniqueViolation, "{refused}");
        assert!(pairs(&db.snapshot(), "t", None)?.is_empty());
    }
    Ok(())
}

#[test]
fn rows_loaded_while_an_index_was_created_are_in_it() -> Result<()> {
    let (db, _, storage) = gated()?;
    let mut transaction = db.begin()?;
    transaction.insert("t", rows((0..70_000).map(|id| (id, id % 100))))?;
    assert!(!transaction.is_empty());
    db.create_index("t", index("groups", "grp", false), false)?;
    transaction.commit()?.into_result()?;
    let files = storage.list("data").expect("memory is always there");
    let count = |ending: &str| files.iter().filter(|file| file.path.ends_with(ending)).count();
    assert!(count(".seg") > 0);
    assert_eq!(count(".idx"), 2 * count(".seg"), "{files:?}");
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn many_new_rows_may_change_again_in_their_transaction() -> Result<()> {
    let db = database(4)?;
    let mut transaction = db.begin()?;
    transaction.insert("t", rows((0..100_000).map(|id| (id, 0))))?;
    let (row, _) = transaction.find("t", &key(5))?.expect("row 5 is there");
    transaction.update("t", &[row], rows([(5, 55)]))?;
    let (row, _) = transaction.find("t", &key(99_999))?.expect("row 99,999 is there");
    transaction.delete("t", &[row])?;
    transaction.insert("t", rows([(99_999, 9)]))?;
    let (row, _) = transaction.find("t", &key(6))?.expect("row 6 is there");
    transaction.delete("t", &[row])?;
    transaction.commit()?.into_result()?;
    let found = pairs(&db.snapshot(), "t", None)?;
    assert_eq!(found.len(), 99_999);
    assert_eq!(found.iter().filter(|(_, grp)| *grp != 0).copied().collect::<Vec<_>>(), [(5, 55), (99_999, 9)]);
    // A key of a row that came and went in the transaction is free for others.
    db.put("t", rows([(6, 66)]))?;
    let mut again = db.begin()?;
    again.insert("t", rows([(5, 1)]))?;
    assert_eq!(again.commit().expect_err("key 5 is taken").kind(), ErrorKind::UniqueViolation);
    Ok(())
}

#[test]
fn puts_of_many_rows_with_repeated_keys_keep_the_last() -> Result<()> {
    let db = database(4)?;
    let mut transaction = db.begin()?;
    for round in 0..3 {
        for first in (0..80_000).step_by(8_000) {
            transaction.put("t", rows((first..first + 8_000).map(|id| (id, round))))?;
        }
    }
    transaction.commit()?.into_result()?;
    let found = pairs(&db.snapshot(), "t", None)?;
    assert_eq!(found.len(), 80_000);
    assert!(found.iter().all(|(_, round)| *round == 2));
    Ok(())
}

#[test]
fn many_rows_that_are_updated_at_once_become_files_and_keep_their_versions() -> Result<()> {
    let (db, _, storage) = gated()?;
    db.put("t", rows((0..200_000).map(|id| (id, 0))))?;
    let all: Vec<RowId> = versions(&db.snapshot(), "t")?.into_iter().map(|(_, _, row)| row).collect();
    let mut transaction = db.begin()?;
    for (first, chunk) in (0_i64..).step_by(10_000).zip(all.chunks(10_000)) {
        transaction.update("t", chunk, rows((first..first + chunk.len() as i64).map(|id| (id, 1))))?;
    }
    transaction.commit()?.into_result()?;
    for again in [false, true] {
        let db = if again { open(&storage)? } else { db.clone() };
        let found = versions(&db.snapshot(), "t")?;
        assert_eq!(found.len(), 200_000);
        assert!(found.iter().all(|(_, version, _)| *version == 2));
        assert!(db.verify()?.problems.is_empty());
        db.close()?;
    }
    Ok(())
}

#[test]
fn many_small_statements_of_a_transaction_do_not_become_a_file_each() -> Result<()> {
    let (db, _, storage) = gated()?;
    let mut transaction = db.begin()?;
    transaction.insert("t", rows((0..65_536).map(|id| (id, 0))))?;
    for id in 65_536..67_536 {
        let mark = transaction.savepoint()?;
        transaction.insert("t", rows([(id, 1)]))?;
        transaction.release_savepoint(mark)?;
    }
    transaction.commit()?.into_result()?;
    let files = storage.list("data").expect("memory is always there").len();
    assert!(files < 10, "{files} files");
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 67_536);
    Ok(())
}

#[test]
fn a_savepoint_brings_back_rows_from_before_they_became_files() -> Result<()> {
    let db = database(2)?;
    let mut transaction = db.begin()?;
    transaction.insert("t", rows((0..40_000).map(|id| (id, 0))))?;
    let before = transaction.savepoint()?;
    let (row, _) = transaction.find("t", &key(3))?.expect("row 3 is there");
    transaction.delete("t", &[row])?;
    transaction.insert("t", rows((40_000..80_000).map(|id| (id, 0))))?;
    let after = transaction.savepoint()?;
    assert!(after > before);
    transaction.rollback_to(before)?;
    assert!(transaction.find("t", &key(3))?.is_some());
    assert!(transaction.find("t", &key(50_000))?.is_none());
    transaction.commit()?.into_result()?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 40_000);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_table_is_replaced_in_one_moment() -> Result<()> {
    let (db, _, storage) = gated()?;
    db.put("t", rows([(1, 1)]))?;
    let old = db.snapshot();
    let mut transaction = db.begin()?;
    let mut new = definition("t", 3);
    new.indexes.push(index("one", "grp", true));
    assert!(transaction.create_table(new, IfExists::Replace)?);
    transaction.insert("t", rows((0..100_000).map(|id| (id, id + 5))))?;
    assert_eq!(pairs(&transaction.snapshot()?, "t", None)?.len(), 100_000, "its own view");
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 1)], "everybody else's until it commits");
    transaction.commit()?.into_result()?;
    assert_eq!(pairs(&old, "t", None)?, [(1, 1)]);
    db.flush()?;
    drop(old);
    for again in [false, true] {
        let db = if again { open(&storage)? } else { db.clone() };
        assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 100_000);
        assert_eq!(db.put("t", rows([(-1, 5)])).expect_err("it is unique").kind(), ErrorKind::UniqueViolation);
        assert!(db.verify()?.problems.is_empty());
        db.close()?;
    }
    Ok(())
}

#[test]
fn what_exists_already_is_as_durable_as_what_was_made() -> Result<()> {
    let (db, gate, _) = gated()?;
    gate.stop_at(Point::Sync);
    let create = || {
        let db = db.clone();
        thread::spawn(move || db.create_table(definition("u", 1), true))
    };
    let first = create();
    gate.wait();
    let second = create();
    thread::sleep(Duration::from_millis(100));
    assert!(!second.is_finished(), "the record of what it found may still be lost");
    gate.thaw();
    assert!(first.join().expect("no panic")?);
    assert!(!second.join().expect("no panic")?);
    db.put("u", rows([(1, 1)]))?;
    Ok(())
}

#[test]
fn a_table_that_changed_meanwhile_is_not_replaced() -> Result<()> {
    let db = database(1)?;
    db.put("t", rows([(1, 1)]))?;
    let mut transaction = db.begin()?;
    transaction.create_table(definition("t", 1), IfExists::Replace)?;
    db.put("t", rows([(2, 2)]))?;
    assert_eq!(transaction.commit().expect_err("first committer wins").kind(), ErrorKind::Conflict);
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 1), (2, 2)]);
    Ok(())
}

#[test]
fn nulls_hide_no_duplicates() -> Result<()> {
    let nullable = |ids: std::ops::Range<i64>, group: fn(i64) -> Option<i64>| {
        let batch = rows(ids.clone().map(|id| (id, 0)));
        let groups: arrow::array::Int64Array = ids.map(group).collect();
        let columns = vec![Arc::clone(batch.column(0)), Arc::new(groups) as _, Arc::clone(batch.column(2))];
        arrow::array::RecordBatch::try_new(batch.schema(), columns).expect("the columns fit")
    };
    // Half of the groups are NULL, and one of the others comes twice.
    let groups = |id: i64| if id % 2 == 0 { None } else { Some(id.min(1_997)) };
    let one = || index("one", "grp", true);
    for count in [2_000, 70_000] {
        // Rows that are there, in memory and in files.
        for flush in [false, true] {
            let db = database(1)?;
            db.put("t", nullable(0..count, groups))?;
            if flush {
                db.flush()?;
            }
            let refused = db.create_index("t", one(), false).expect_err("a group comes twice");
            assert_eq!(refused.kind(), ErrorKind::UniqueViolation);
        }
        // Rows that come.
        let db = database(1)?;
        db.create_index("t", one(), false)?;
        assert_eq!(db.put("t", nullable(0..count, groups)).expect_err("twice").kind(), ErrorKind::UniqueViolation);
        db.put("t", nullable(0..count, |id| (id % 2 == 1).then_some(id)))?;
        assert!(db.verify()?.problems.is_empty());
    }
    // Many NULLs meet many: that is not their product.
    let db = database(1)?;
    db.create_index("t", one(), false)?;
    db.put("t", nullable(0..300_000, |_| None))?;
    db.put("t", nullable(300_000..600_000, |_| None))?;
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_transaction_of_which_a_part_was_lost_cannot_commit() -> Result<()> {
    let (db, gate, _) = gated()?;
    let mut transaction = db.begin()?;
    transaction.insert("t", rows((0..40_000).map(|id| (id, 0))))?;
    gate.lie_about("data", 1);
    assert!(transaction.savepoint().is_err(), "its file cannot be stored");
    assert_eq!(transaction.commit().expect_err("rows are gone").kind(), ErrorKind::TransactionAborted);
    // A duplicate among rows that become a file is found late, and not forgotten.
    let mut transaction = db.begin()?;
    transaction.insert("t", rows((0..70_000).map(|id| (id.min(69_998), 0))))?;
    assert!(transaction.find("t", &key(1)).is_err());
    assert_eq!(transaction.commit().expect_err("rows are gone").kind(), ErrorKind::TransactionAborted);
    // What fails as a whole leaves the transaction as it was.
    let mut transaction = db.begin()?;
    transaction.insert("t", rows([(1, 1), (2, 2)]))?;
    assert!(transaction.insert("t", rows([(3, 3), (1, 1)])).is_err());
    let (row, _) = transaction.find("t", &key(2))?.expect("row 2 is there");
    assert!(transaction.delete("t", &[row, row]).is_err());
    transaction.commit()?.into_result()?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 1), (2, 2)]);
    Ok(())
}

#[test]
fn a_table_whose_replacement_fails_stays() -> Result<()> {
    let db = database(1)?;
    db.put("t", rows([(1, 1)]))?;
    // Dropped without a commit, and refused by the commit.
    let mut transaction = db.begin()?;
    transaction.create_table(definition("t", 1), IfExists::Replace)?;
    transaction.insert("t", rows([(5, 5)]))?;
    drop(transaction);
    let mut transaction = db.begin()?;
    transaction.create_table(definition("t", 1), IfExists::Replace)?;
    let twice = transaction.insert("t", rows([(5, 5), (5, 6)])).expect_err("twice the same key");
    assert_eq!(twice.kind(), ErrorKind::UniqueViolation);
    drop(transaction);
    let too_many = db.begin()?.create_table(definition("t", 5_000), IfExists::Replace).expect_err("too many shards");
    assert_eq!(too_many.kind(), ErrorKind::Invalid);
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 1)]);
    Ok(())
}

#[test]
fn definitions_of_two_transactions_meet() -> Result<()> {
    let db = database(1)?;
    let (mut first, mut second) = (db.begin()?, db.begin()?);
    first.create_table(definition("u", 1), IfExists::Fail)?;
    second.create_table(definition("u", 1), IfExists::Fail)?;
    first.insert("u", rows([(1, 1)]))?;
    second.insert("u", rows([(2, 2)]))?;
    first.commit()?.into_result()?;
    assert_eq!(second.commit().expect_err("the name is taken").kind(), ErrorKind::AlreadyExists);
    let (mut first, mut second) = (db.begin()?, db.begin()?);
    first.create_table(definition("u", 1), IfExists::Replace)?;
    second.create_table(definition("u", 1), IfExists::Replace)?;
    first.commit()?.into_result()?;
    assert_eq!(second.commit().expect_err("another was faster").kind(), ErrorKind::Conflict);
    assert!(!db.begin()?.create_table(definition("u", 1), IfExists::Keep)?);
    assert!(pairs(&db.snapshot(), "u", None)?.is_empty());
    Ok(())
}

#[test]
fn a_table_may_be_created_filled_and_replaced_in_one_transaction() -> Result<()> {
    let (db, _, storage) = gated()?;
    let mut transaction = db.begin()?;
    transaction.create_table(definition("u", 1), IfExists::Fail)?;
    transaction.insert("u", rows((0..70_000).map(|id| (id, 0))))?;
    let mark = transaction.savepoint()?;
    transaction.create_table(definition("u", 1), IfExists::Replace)?;
    transaction.rollback_to(mark)?;
    assert_eq!(pairs(&transaction.snapshot()?, "u", None)?.len(), 70_000, "the first one is back");
    transaction.create_table(definition("u", 2), IfExists::Replace)?;
    transaction.insert("u", rows([(1, 1)]))?;
    transaction.commit()?.into_result()?;
    assert_eq!(pairs(&db.snapshot(), "u", None)?, [(1, 1)]);
    drop(db);
    let db = open(&storage)?;
    assert_eq!(pairs(&db.snapshot(), "u", None)?, [(1, 1)]);
    let files = storage.list("data").expect("memory is always there");
    assert!(files.is_empty(), "nobody needs them: {files:?}");
    Ok(())
}

#[test]
fn a_checkpoint_that_was_stored_though_the_call_failed_is_one() -> Result<()> {
    let (db, gate, storage) = gated()?;
    for round in 0..3 {
        db.put("t", rows((0..100).map(|id| (id, round))))?;
        gate.lie_about("manifest", 1);
        db.flush()?;
    }
    // A list of ended rows that fails, and then the checkpoint: the next one has a number of its own.
    db.put("t", rows((0..50).map(|id| (id, 7))))?;
    gate.lie_about("data", 1);
    assert!(db.flush().is_err());
    db.flush()?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.iter().filter(|(_, grp)| *grp == 7).count(), 50);
    db.close()?;
    let again = open(&storage)?;
    assert_eq!(pairs(&again.snapshot(), "t", None)?.iter().filter(|(_, grp)| *grp == 7).count(), 50);
    assert!(again.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_checkpoint_is_one_though_what_it_replaces_cannot_be_removed() -> Result<()> {
    for folder in ["log", "manifest", "data"] {
        let (db, gate, storage) = gated()?;
        for round in 0..3 {
            db.put("t", rows((0..100).map(|id| (id, round))))?;
            gate.fail_removals(folder);
            db.flush()?;
        }
        gate.thaw();
        db.put("t", rows([(1, 7)]))?;
        db.flush()?;
        assert_eq!(storage.list_append("log").expect("memory is always there").len(), 1, "{folder}");
        assert!(db.verify()?.problems.is_empty());
    }
    Ok(())
}

#[test]
fn who_waits_for_room_hears_why_there_is_none() -> Result<()> {
    let gate = Gate::new(grizzly_wal::open_storage("memory://").expect("memory is always there"));
    let settings = Settings { flush_rows: 100, ..Settings::default() };
    let db = Grizzly::builder("memory://").settings(settings).storage(Arc::new(gate.clone())).open()?;
    db.create_table(definition("t", 1), false)?;
    gate.lie_about("data", usize::MAX);
    let refused = (0..100_i64).find_map(|round| db.put("t", rows((0..100).map(|id| (100 * round + id, 0)))).err());
    let refused = refused.expect("memory is full at some time");
    assert_eq!(refused.kind(), ErrorKind::Resource, "{refused}");
    assert!(refused.message().contains("the connection was reset"), "{refused}");
    let before = pairs(&db.snapshot(), "t", None)?.len();
    gate.lie_about("data", 0);
    while db.put("t", rows([(-1, 0)])).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), before + 1, "what was refused was never there");
    gate.fill("data");
    let refused = (0..100_i64).find_map(|round| db.put("t", rows((0..100).map(|id| (id - 100 * round, 1)))).err());
    let refused = refused.expect("memory is full at some time");
    assert_eq!(refused.kind(), ErrorKind::DiskFull, "{refused}");
    gate.thaw();
    while db.put("t", rows([(-1, 2)])).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_moment_that_was_asked_about_stays_as_it_was() -> Result<()> {
    let (db, gate, _) = gated()?;
    db.put("t", rows([(1, 1)]))?;
    gate.stop_at(Point::Sync);
    let writing = thread::spawn({
        let db = db.clone();
        move || db.put("t", rows([(2, 2)]))
    });
    gate.wait();
    // The commit has its number, and is not visible yet.
    let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later").as_micros();
    let at = AsOf::TimestampMicros(moment as i64);
    let asking = thread::spawn({
        let db = db.clone();
        move || pairs(&db.snapshot_at(at)?, "t", None)
    });
    thread::sleep(Duration::from_millis(100));
    gate.thaw();
    let first = asking.join().expect("no panic")?;
    writing.join().expect("no panic")?;
    db.put("t", rows([(3, 3)]))?;
    assert_eq!(pairs(&db.snapshot_at(at)?, "t", None)?, first);
    assert_eq!(first, [(1, 1), (2, 2)]);
    Ok(())
}

#[test]
fn a_restore_that_was_interrupted_is_no_database() -> Result<()> {
    let db = database(1)?;
    db.put("t", rows((0..100).map(|id| (id, id))))?;
    let to = grizzly_wal::open_storage("memory://").expect("memory is always there");
    db.backup_into(&to, BackupKind::Full, &mut |_, _| {})?;
    let backups = Backups::new(to);
    let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
    let gate = Gate::new(Arc::clone(&storage));
    // Everything is there but the end of it.
    gate.stop_at(Point::Stored("manifest"));
    let into: Arc<dyn Storage> = Arc::new(gate.clone());
    let restoring = thread::spawn(move || backups.restore_into(&into, RestoreTo::Latest, &mut |_, _| {}));
    gate.wait();
    let refused = open(&storage).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("was not finished"), "{refused}");
    gate.thaw();
    restoring.join().expect("no panic")?;
    assert_eq!(pairs(&open(&storage)?.snapshot(), "t", None)?.len(), 100);
    Ok(())
}

#[test]
fn every_opening_names_its_files_anew() -> Result<()> {
    let (db, _, storage) = gated()?;
    let mut names = std::collections::HashSet::new();
    let mut db = Some(db);
    for round in 0..4 {
        let open_db = match db.take() {
            Some(db) => db,
            None => open(&storage)?,
        };
        open_db.put("t", rows((0..10).map(|id| (100 * round + id, id))))?;
        open_db.flush()?;
        open_db.close()?;
        let files = storage.list("data").expect("memory is always there");
        let epochs: Vec<_> = files.iter().filter_map(|file| file.path.split(".e").nth(1).map(str::to_owned)).collect();
        assert_eq!(epochs.len(), files.len(), "{files:?}");
        names.extend(epochs.iter().filter_map(|rest| rest.split(['.', '-']).next().map(str::to_owned)));
    }
    assert_eq!(names.len(), 4, "{names:?}");
    Ok(())
}
