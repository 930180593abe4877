//! Changes of many rows at once: checked before the commit lock is taken, and against all that came meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use grizzly_provider::{
    CommitOutcome, Consent, Error, ErrorKind, Grizzly, Result, Settings, Storage, Transaction,
    access::{AsOf, IndexDefinition, RowId},
};

use super::tables::{database, definition, key, manual, pairs, rows, versions};

const MANY: i64 = 150_000;

/// Rows 0 to [`MANY`], half in a file and half in memory, and where they are.
fn filled(db: &Grizzly) -> Result<Vec<RowId>> {
    for first in (0..MANY).step_by(25_000) {
        let mut transaction = db.begin()?;
        transaction.insert("t", rows((first..first + 25_000).map(|id| (id, id))))?;
        transaction.commit()?.into_result()?;
        if first == MANY / 2 {
            db.flush()?;
        }
    }
    Ok(versions(&db.snapshot(), "t")?.into_iter().map(|(_, _, row)| row).collect())
}

fn delete_all(db: &Grizzly, all: &[RowId]) -> Result<Transaction> {
    let mut transaction = db.begin()?;
    all.chunks(8_192).try_for_each(|rows| transaction.delete("t", rows).map(drop))?;
    Ok(transaction)
}

fn conflict(outcome: CommitOutcome) -> Option<String> {
    match outcome {
        CommitOutcome::Committed { .. } => None,
        CommitOutcome::Conflict(conflict) => Some(conflict.key),
    }
}

#[test]
fn a_large_delete_conflicts_with_a_small_one_and_else_is_whole() -> Result<()> {
    let storage: Arc<dyn Storage> = grizzly_wal::open_storage("memory://").expect("memory is always there");
    let open = || Grizzly::builder("memory://").settings(manual()).storage(Arc::clone(&storage)).open();
    let db = open()?;
    db.create_table(definition("t", 1), false)?;
    filled(&db)?;
    let places = || Ok::<Vec<_>, Error>(versions(&db.snapshot(), "t")?.iter().map(|row| row.2).collect());
    for id in [5, MANY - 1] {
        let all = places()?;
        let transaction = delete_all(&db, &all)?;
        let mut other = db.begin()?;
        other.update("t", &[all[id as usize]], rows([(id, -id)]))?;
        other.commit()?.into_result()?;
        assert!(conflict(transaction.commit()?).is_some_and(|key| key.contains(&id.to_string())));
    }
    let all = places()?;
    let before = db.snapshot().csn();
    // Another table's rows, and rows that are moved meanwhile, are no matter.
    let transaction = delete_all(&db, &all[..all.len() - 10])?;
    db.compact("t")?;
    db.put("t", rows([(MANY + 1, 1)]))?;
    transaction.commit()?.into_result()?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 11);
    assert_eq!(pairs(&db.snapshot_at(AsOf::Csn(before))?, "t", None)?.len(), MANY as usize);
    assert_eq!(db.snapshot().table("t")?.statistics().rows, 11);
    drop(db);
    // From the log, from a list of ended rows, and when their segments are merged.
    for _ in 0..3 {
        let db = open()?;
        assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 11);
        assert_eq!(pairs(&db.snapshot_at(AsOf::Csn(before))?, "t", None)?.len(), MANY as usize);
        assert!(db.verify()?.problems.is_empty());
        db.compact("t")?;
        db.close()?;
    }
    Ok(())
}

#[test]
fn ended_rows_that_a_merge_takes_along_are_in_its_record() -> Result<()> {
    let storage: Arc<dyn Storage> = grizzly_wal::open_storage("memory://").expect("memory is always there");
    let db = Grizzly::builder("memory://").settings(manual()).storage(Arc::clone(&storage)).open()?;
    db.create_table(definition("t", 1), false)?;
    let all = filled(&db)?;
    db.flush()?;
    let before = db.snapshot().csn();
    let odd: Vec<RowId> = all.iter().copied().skip(1).step_by(2).collect();
    delete_all(&db, &odd)?.commit()?.into_result()?;
    db.compact("t")?;
    // What the process knew is gone; the log tells it again.
    drop(db);
    let db = Grizzly::builder("memory://").settings(manual()).storage(storage).open()?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), MANY as usize / 2);
    assert_eq!(pairs(&db.snapshot_at(AsOf::Csn(before))?, "t", None)?.len(), MANY as usize);
    Ok(())
}

#[test]
fn many_new_keys_are_compared_with_all_that_come_meanwhile() -> Result<()> {
    for (count, flush) in [(60_000, false), (60_000, true), (100_000, false), (100_000, true)] {
        let db = database(2)?;
        filled(&db)?;
        let new = |from: i64| {
            let mut transaction = db.begin()?;
            transaction.insert("t", rows((from..from + count).map(|id| (id, id))))?;
            Ok::<_, Error>(transaction)
        };
        // One that is there.
        let refused = new(MANY - 1)?.commit().expect_err("the first key is taken");
        assert_eq!(refused.kind(), ErrorKind::UniqueViolation, "{refused}");
        // One that comes.
        let transaction = new(MANY)?;
        db.put("t", rows([(MANY + 7, 0)]))?;
        if flush {
            db.flush()?;
        }
        assert!(conflict(transaction.commit()?).is_some_and(|key| key.contains(&(MANY + 7).to_string())));
        // One that goes makes room, and so does one that the transaction ends itself.
        let mut transaction = new(MANY + 8)?;
        let (row, _) = transaction.find("t", &key(3))?.expect("row 3 is there");
        transaction.delete("t", &[row])?;
        transaction.insert("t", rows([(3, -3)]))?;
        db.compact("t")?;
        transaction.commit()?.into_result()?;
        assert!(db.verify()?.problems.is_empty());
    }
    Ok(())
}

#[test]
fn rows_on_their_way_into_files_take_their_share_of_memory() -> Result<()> {
    let storage: Arc<dyn Storage> = grizzly_wal::open_storage("memory://").expect("memory is always there");
    let settings = Settings { memory_bytes: 8 << 20, ..manual() };
    let db = Grizzly::builder("memory://").settings(settings).storage(Arc::clone(&storage)).open()?;
    db.create_table(definition("t", 4), false)?;
    let mut transaction = db.begin()?;
    for first in (0..400_000).step_by(8_000) {
        transaction.insert("t", rows((first..first + 8_000).map(|id| (id, id * 7_919 % 400_000))))?;
    }
    let files = storage.list("data").expect("memory is always there").len();
    assert!(files > 0, "the first rows are in files");
    transaction.commit()?.into_result()?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 400_000);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_unique_index_over_many_rows_is_made_beside_writers() -> Result<()> {
    let db = database(2)?;
    filled(&db)?;
    let one = || IndexDefinition { name: "one".into(), columns: vec![("grp".into(), false)], unique: true };
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writing = std::thread::spawn({
        let (db, stop) = (db.clone(), Arc::clone(&stop));
        move || {
            let mut next = MANY;
            while !stop.load(Ordering::Acquire) {
                db.put("t", rows((next..next + 100).map(|id| (id, id))))?;
                next += 100;
            }
            Ok::<_, Error>(next)
        }
    });
    db.create_index("t", one(), false)?;
    stop.store(true, Ordering::Release);
    let next = writing.join().expect("no panic")?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), next as usize);
    assert_eq!(db.put("t", rows([(-1, 70_000)])).expect_err("it is taken").kind(), ErrorKind::UniqueViolation);
    db.flush()?;
    assert!(db.verify()?.problems.is_empty());
    db.drop_index(Some("t"), "one", false)?;
    db.put("t", rows([(-1, 70_000)]))?;
    assert_eq!(db.create_index("t", one(), false).expect_err("twice").kind(), ErrorKind::UniqueViolation);
    Ok(())
}

/// Refuses to commit, and says how often it was asked.
#[derive(Default)]
struct Withdrawn {
    asked: AtomicUsize,
    goes_on: bool,
}

impl Consent for Withdrawn {
    fn go_on(&self) -> Result<()> {
        if self.goes_on { Ok(()) } else { Err(Error::new(ErrorKind::Cancelled, "not wanted any more")) }
    }

    fn commit(&self) -> Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(Error::new(ErrorKind::Cancelled, "not wanted any more"))
    }
}

#[test]
fn what_is_stopped_at_the_last_moment_leaves_nothing() -> Result<()> {
    let db = database(2)?;
    db.put("t", rows([(1, 10)]))?;
    let withdrawn = Withdrawn { goes_on: true, ..Withdrawn::default() };
    for many in [1, MANY] {
        let mut transaction = db.begin()?;
        let whole = rows((2..2 + many).map(|id| (id, id)));
        transaction.insert("t", whole)?;
        let refused = transaction.commit_with(&withdrawn).expect_err("it was stopped");
        assert_eq!(refused.kind(), ErrorKind::Cancelled);
    }
    assert_eq!(withdrawn.asked.load(Ordering::Relaxed), 2, "once for each commit");
    // What can be no commit does not ask.
    let mut late = db.begin()?;
    late.put("t", rows([(1, 11)]))?;
    db.put("t", rows([(1, 12)]))?;
    assert!(matches!(late.commit_with(&withdrawn)?, CommitOutcome::Conflict(_)));
    db.begin()?.commit_with(&withdrawn)?.into_result()?;
    assert_eq!(withdrawn.asked.load(Ordering::Relaxed), 2);
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 12)]);
    // The keys of what was stopped are free, and its files are nobody's.
    db.put("t", rows([(2, 20)]))?;
    db.flush()?;
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn an_index_that_is_stopped_is_not_there() -> Result<()> {
    let db = database(1)?;
    filled(&db)?;
    for (unique, goes_on) in [(false, false), (false, true), (true, false), (true, true)] {
        let index = IndexDefinition { name: "by_grp".into(), columns: vec![("grp".into(), false)], unique };
        let withdrawn = Withdrawn { goes_on, ..Withdrawn::default() };
        let refused = db.create_index_with("t", index, false, &withdrawn).expect_err("it was stopped");
        assert_eq!(refused.kind(), ErrorKind::Cancelled);
        assert_eq!(withdrawn.asked.load(Ordering::Relaxed), usize::from(goes_on));
    }
    // It stands in the way of no row, and of no index of its name.
    db.put("t", rows([(MANY, 7), (MANY + 1, 7)]))?;
    let index = IndexDefinition { name: "by_grp".into(), columns: vec![("grp".into(), false)], unique: false };
    assert!(db.create_index("t", index, false)?);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}
