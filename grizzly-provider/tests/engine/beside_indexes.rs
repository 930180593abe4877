//! An index that comes into force beside other work: what others wait for, and what the index knows of their rows.

use std::{sync::Arc, thread, time::Duration};

use grizzly_provider::{CommitOutcome, Error, ErrorKind, Grizzly, Result, Settings, Storage, access::IndexDefinition};

use super::{
    gate::Point,
    tables::{definition, gated, key, manual, rows},
    windows::two_segments,
};

fn by_group(unique: bool) -> IndexDefinition {
    IndexDefinition { name: "by_group".into(), columns: vec![("grp".into(), false)], unique }
}

/// How many files of segments there are, and how many of index runs.
fn files(storage: &Arc<dyn Storage>) -> (usize, usize) {
    let files = storage.list("data").expect("memory is always there");
    let count = |ending: &str| files.iter().filter(|file| file.path.ends_with(ending)).count();
    (count(".seg"), count(".idx"))
}

#[test]
fn commits_do_not_queue_behind_a_new_log_file() -> Result<()> {
    let (db, gate, _) = gated()?;
    db.put("t", rows([(1, 1)]))?;
    let mut late = db.begin()?;
    let (row, _) = late.find("t", &key(1))?.expect("row 1 is there");
    late.delete("t", &[row])?;
    db.put("t", rows([(1, 2)]))?;
    gate.stop_at(Point::Create);
    let flushing = thread::spawn({
        let db = db.clone();
        move || db.flush()
    });
    gate.wait();
    // To find that another was first takes the commit lock, and no log.
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(late.commit()));
    let outcome = receiver.recv_timeout(Duration::from_secs(20)).expect("it does not wait for the file")?;
    assert!(matches!(outcome, CommitOutcome::Conflict(_)), "{outcome:?}");
    gate.thaw();
    flushing.join().expect("a flush does not panic")
}

#[test]
fn an_index_has_all_runs_before_it_is_in_force() -> Result<()> {
    let (db, gate, storage) = gated()?;
    two_segments(&db)?;
    assert_eq!(files(&storage), (2, 2));
    gate.stop_at(Point::Append);
    let creating = thread::spawn({
        let db = db.clone();
        move || db.create_index("t", by_group(true), false)
    });
    gate.wait();
    assert_eq!(files(&storage), (2, 4));
    gate.thaw();
    assert!(creating.join().expect("CREATE INDEX does not panic")?);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn an_index_that_is_refused_leaves_no_runs() -> Result<()> {
    let (db, _, storage) = gated()?;
    db.put("t", rows((0..100).map(|id| (id, id / 2))))?;
    db.flush()?;
    let refused = db.create_index("t", by_group(true), false).expect_err("each group comes twice");
    assert_eq!(refused.kind(), ErrorKind::UniqueViolation, "{refused}");
    assert_eq!(files(&storage), (1, 1));
    db.create_index("t", by_group(false), false)?;
    assert!(!db.create_index("t", by_group(false), true)?, "it is there already");
    assert_eq!(db.create_index("t", by_group(false), false).expect_err("twice").kind(), ErrorKind::AlreadyExists);
    assert_eq!(files(&storage), (1, 2));
    Ok(())
}

#[test]
fn rows_that_are_in_no_file_yet_keep_their_keys_to_themselves() -> Result<()> {
    let (db, gate, _) = gated()?;
    db.put("t", rows((0..100).map(|id| (id, id))))?;
    // The index is in force, and the rows that came before it become a file.
    gate.stop_at(Point::Put("data/"));
    let creating = thread::spawn({
        let db = db.clone();
        move || db.create_index("t", by_group(true), false)
    });
    gate.wait();
    // New rows and old rows that are changed, alone and among others.
    let insert = |groups: std::ops::Range<i64>| {
        let mut transaction = db.begin()?;
        transaction.insert("t", rows(groups.map(|group| (1_000 + group, group))))?;
        Ok::<_, Error>(transaction)
    };
    for groups in [50..51, 99..200, 0..1] {
        let refused = insert(groups)?.commit().expect_err("a row has the group");
        assert_eq!(refused.kind(), ErrorKind::UniqueViolation, "{refused}");
    }
    let allowed = insert(100..300)?;
    let committing = thread::spawn(move || allowed.commit());
    gate.thaw();
    assert!(creating.join().expect("CREATE INDEX does not panic")?);
    assert!(matches!(committing.join().expect("a commit does not panic")?, CommitOutcome::Committed { .. }));
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_segment_that_is_merged_beside_a_new_index_has_its_run() -> Result<()> {
    let (db, gate, storage) = gated()?;
    two_segments(&db)?;
    gate.stop_at(Point::Stored("data/"));
    let merging = thread::spawn({
        let db = db.clone();
        move || db.compact("t")
    });
    gate.wait();
    // Nothing is in memory, so that CREATE INDEX does not wait for the merge.
    let creating = thread::spawn({
        let db = db.clone();
        move || db.create_index("t", by_group(true), false)
    });
    gate.go_on_to(Point::Sync);
    gate.wait();
    gate.thaw();
    merging.join().expect("a merge does not panic")?;
    assert!(creating.join().expect("CREATE INDEX does not panic")?);
    db.flush()?;
    let (segments, runs) = files(&storage);
    assert_eq!(runs, 2 * segments, "{:?}", storage.list("data"));
    assert!(db.drop_index(None, "by_group", false)?);
    Ok(())
}

#[test]
fn runs_that_a_failure_has_left_out_are_made_at_the_next_start() -> Result<()> {
    let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
    let open = |settings| Grizzly::builder("memory://").settings(settings).storage(Arc::clone(&storage)).open();
    let db = open(manual())?;
    db.create_table(definition("t", 1), false)?;
    db.put("t", rows((0..100).map(|id| (id, id))))?;
    db.flush()?;
    db.create_index("t", by_group(true), false)?;
    db.close()?;
    drop(db);
    let all = |ending: &str| -> Vec<String> {
        let files = storage.list("data").expect("memory is always there");
        files.into_iter().map(|file| file.path).filter(|path| path.ends_with(ending)).collect()
    };
    let runs = all(".idx");
    let newest = runs.iter().max_by_key(|path| path.len()).expect("there are two");
    // One is missing, and one is there of an index that was never defined.
    let bytes = storage.get(newest).expect("it is there");
    storage.remove(newest).expect("memory takes it away");
    let (segment, _) = newest.rsplit_once('-').expect("a run has the number of its index");
    let strange = format!("{segment}-77.idx");
    storage.put(&strange, &[bytes], grizzly_wal::PutMode::Overwrite).expect("memory takes it");
    let db = open(Settings::default())?;
    for _ in 0..500 {
        if all(".idx") == runs {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(all(".idx"), runs);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}
