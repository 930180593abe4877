//! What a follower costs, how far it is behind, which files it may still read, and what becomes of a transaction whose
//! process followed for a while.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use grizzly_provider::{ClusterSettings, ErrorKind, Result, Snapshot, access::IndexDefinition};
use grizzly_wal::{PutMode, Storage};

use crate::{
    cluster::{Node, PATIENCE, Shared, all, bucket, folder, memory, put, quick, until},
    gate::Gate,
    tables::{definition, key, pairs, rows},
};

/// What is used unless set, but for a lease that no busy machine loses.
fn usual() -> ClusterSettings {
    ClusterSettings { lease: 2 * PATIENCE, ..ClusterSettings::default() }
}

fn follower(shared: &Shared) -> Result<Node> {
    shared.node_with("follower", ClusterSettings { candidate: false, ..usual() })
}

#[test]
fn a_follower_is_by_default_some_20_ms_behind() -> Result<()> {
    assert_eq!(ClusterSettings::default().poll, Duration::from_millis(20));
    for shared in [folder(), memory(), bucket("test://followers-behind")] {
        let writer = shared.node_with("writer", usual())?;
        writer.db.create_table(definition("t", 1), false)?;
        let follower = follower(&shared)?;
        let mut behind = Vec::new();
        for id in 0..15 {
            let csn = put(&writer.db, id, id)?;
            let begun = Instant::now();
            // Nobody asks it to look.
            until("the follower shows the commit", || follower.db.snapshot().csn() >= csn);
            behind.push(begun.elapsed());
        }
        behind.sort_unstable();
        assert!(behind[7] < Duration::from_millis(300), "{behind:?}");
        assert_eq!(all(&follower.db)?.len(), 15);
    }
    Ok(())
}

#[test]
fn a_follower_at_rest_asks_a_bucket_for_two_things_every_20_ms() -> Result<()> {
    let shared = bucket("test://followers-rest");
    let writer = shared.node_with("writer", usual())?;
    writer.db.create_table(definition("t", 1), false)?;
    let follower = follower(&shared)?;
    for id in 0..50 {
        follower.db.wait_for_commit(put(&writer.db, id, id)?, PATIENCE)?;
    }
    let (begun, before) = (Instant::now(), follower.gate.reads());
    thread::sleep(Duration::from_secs(1));
    let reads = follower.gate.reads() - before;
    let looks = begun.elapsed().as_millis() as u64 / 20 + 1;
    // Besides, now and then, for a checkpoint, for files that are missing in the row, and who has the lease.
    assert!((8..=2 * looks + looks / 2).contains(&reads), "{reads} requests in {looks} looks at most");
    Ok(())
}

/// What is stored below `folder`, or anywhere.
fn stored(node: &Node, folder: &str) -> Result<BTreeSet<String>> {
    Ok(node.gate.list(folder)?.into_iter().map(|object| object.path).collect())
}

#[test]
fn a_commit_is_one_object_in_a_bucket() -> Result<()> {
    let shared = bucket("test://followers-object");
    let writer = shared.node_with("writer", usual())?;
    for (table, shards) in [("t", 4), ("u", 3)] {
        writer.db.create_table(definition(table, shards), false)?;
        let index = IndexDefinition { name: "by_group".into(), columns: vec![("grp".into(), false)], unique: false };
        writer.db.create_index(table, index, false)?;
    }
    let mut before = stored(&writer, "")?;
    for round in 0..20_i64 {
        let mut transaction = writer.db.begin()?;
        for table in ["t", "u"] {
            transaction.put(table, rows((round..round + 100).map(|id| (id, round))))?;
        }
        if let Some((row, _)) = transaction.find("u", &key(round))? {
            transaction.delete("u", &[row])?;
        }
        transaction.commit()?.into_result()?;
        let after = stored(&writer, "")?;
        let new: Vec<_> = after.difference(&before).collect();
        assert!(matches!(new[..], [path] if path.starts_with("log/")), "round {round}: {new:?}");
        assert!(before.is_subset(&after), "round {round}");
        before = after;
    }
    Ok(())
}

const ROWS: i64 = 200;

/// A follower with a snapshot that it has not read yet, and a writer that has replaced all rows of it since, and merged
/// the files they are in.
struct Replaced {
    writer: Node,
    follower: Node,
    snapshot: Snapshot,
    files: BTreeSet<String>,
}

impl Replaced {
    /// The writer keeps files that it does not need for so long.
    fn after(shared: &Shared, grace: Duration) -> Result<Self> {
        let writer = shared.node_with("writer", ClusterSettings { grace, ..usual() })?;
        writer.db.create_table(definition("t", 2), false)?;
        writer.db.put("t", rows((0..ROWS).map(|id| (id, 0))))?;
        writer.db.flush()?;
        let files = stored(&writer, "data")?;
        assert!(!files.is_empty());
        // It begins with the manifest, so it has none of the rows in memory.
        let follower = follower(shared)?;
        let snapshot = follower.db.snapshot();
        let newest = writer.db.put("t", rows((0..ROWS).map(|id| (id, 1))))?;
        writer.db.compact("t")?;
        follower.db.wait_for_commit(newest, PATIENCE)?;
        Ok(Self { writer, follower, snapshot, files })
    }

    /// One more commit and a checkpoint, which removes files whose time has come; whether none of the old ones is left.
    fn are_gone(&self) -> Result<bool> {
        put(&self.writer.db, ROWS, 1)?;
        self.writer.db.flush()?;
        Ok(stored(&self.writer, "data")?.is_disjoint(&self.files))
    }
}

#[test]
fn files_that_the_writer_no_longer_needs_stay_for_queries_on_followers() -> Result<()> {
    assert_eq!(ClusterSettings::default().grace, Duration::from_secs(60));
    for shared in [folder(), memory(), bucket("test://followers-stay")] {
        let replaced = Replaced::after(&shared, ClusterSettings::default().grace)?;
        assert!(!replaced.are_gone()?);
        let left = stored(&replaced.writer, "data")?;
        assert!(replaced.files.is_subset(&left), "{:?}", replaced.files.difference(&left));
        let expected: Vec<_> = (0..ROWS).map(|id| (id, 0)).collect();
        assert_eq!(pairs(&replaced.snapshot, "t", None)?, expected);
        let transaction = replaced.follower.db.begin_at(replaced.snapshot.clone())?;
        assert!(transaction.get("t", &key(5))?.is_some());
        assert!(transaction.get("t", &key(ROWS))?.is_none());
    }
    Ok(())
}

#[test]
fn a_query_whose_files_are_gone_is_an_error_and_never_wrong_rows() -> Result<()> {
    for shared in [folder(), memory(), bucket("test://followers-gone")] {
        let replaced = Replaced::after(&shared, Duration::from_millis(50))?;
        until("the files are gone", || replaced.are_gone().expect("the writer goes on"));
        let db = &replaced.follower.db;
        for _ in 0..2 {
            let failed = pairs(&replaced.snapshot, "t", None).expect_err("its files are gone");
            assert_eq!((failed.kind(), failed.sqlstate()), (ErrorKind::Unavailable, "08006"), "{failed}");
            assert!(failed.is_retryable(), "{failed}");
            // By the index, whose files are gone too: that there is no such row would be wrong.
            let transaction = db.begin_at(replaced.snapshot.clone())?;
            let failed = transaction.get("t", &key(5)).map(drop).expect_err("its files are gone");
            assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
        }
        // Run again, as the error says, it works.
        db.catch_up(PATIENCE)?;
        let expected: Vec<_> = (0..=ROWS).map(|id| (id, 1)).collect();
        assert_eq!(all(db)?, expected);
        assert!(db.begin()?.get("t", &key(5))?.is_some());
    }
    Ok(())
}

#[test]
fn a_transaction_does_not_outlive_the_term_of_its_process() -> Result<()> {
    // Short, since the other one waits for it to run out; yet not lost by a busy machine before that.
    let settings = || ClusterSettings { lease: Duration::from_secs(2), ..quick() };
    for shared in [folder(), memory()] {
        let (one, two) = (shared.node_with("one", settings())?, shared.node_with("two", settings())?);
        one.db.create_table(definition("t", 1), false)?;
        put(&one.db, 1, 1)?;
        let begin = || -> Result<_> {
            let mut transaction = one.db.begin()?;
            transaction.put("t", rows([(1, 7), (9, 7)]))?;
            Ok(transaction)
        };
        let (first, second, snapshot) = (begin()?, begin()?, one.db.snapshot());
        one.gate.freeze();
        until("the other one writes", || put(&two.db, 2, 2).is_ok());
        let csn = put(&two.db, 3, 3)?;
        one.gate.thaw();
        one.db.wait_for_commit(csn, PATIENCE)?;
        let refused = first.commit().map(drop).expect_err("its process follows");
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        assert!(refused.is_retryable(), "{refused}");
        // Nor when the process writes again, in another term.
        two.db.close()?;
        until("it writes again", || put(&one.db, 4, 4).is_ok());
        let mut third = one.db.begin_at(snapshot)?;
        third.put("t", rows([(9, 8)]))?;
        for transaction in [second, third] {
            let refused = transaction.commit().map(drop).expect_err("it is of an earlier term");
            assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
            assert!(refused.message().contains("may be retried"), "{refused}");
        }
        assert_eq!(all(&one.db)?, [(1, 1), (2, 2), (3, 3), (4, 4)]);
        begin()?.commit()?.into_result()?;
        assert_eq!(all(&one.db)?, [(1, 7), (2, 2), (3, 3), (4, 4), (9, 7)]);
    }
    Ok(())
}

#[test]
fn whoever_takes_over_right_after_a_checkpoint_goes_on_from_it() -> Result<()> {
    for shared in [folder(), bucket("test://cluster-checkpoint")] {
        let mut expected = Vec::new();
        for round in 0..3 {
            let one = shared.node("one")?;
            until("one writes", || one.db.is_writer());
            one.db.create_table(definition("t", 1), true)?;
            let two = shared.node("two")?;
            put(&one.db, 2 * round, 1)?;
            two.db.catch_up(PATIENCE)?;
            // The other one has the row in memory, and looks for checkpoints every quarter of a second.
            one.db.flush()?;
            drop(one);
            until("the other one writes", || two.db.is_writer());
            put(&two.db, 2 * round + 1, 2)?;
            drop(two);
            expected.extend([(2 * round, 1), (2 * round + 1, 2)]);
            assert_eq!(all(&shared.alone()?)?, expected, "round {round}");
        }
    }
    Ok(())
}

#[test]
fn a_takeover_that_cannot_tidy_up_is_one_all_the_same() -> Result<()> {
    const STRAY: &str = "data/000000ff.e1.seg";
    for shared in [folder(), bucket("test://cluster-untidy")] {
        let one = shared.node("one")?;
        until("one writes", || one.db.is_writer());
        one.db.create_table(definition("t", 1), false)?;
        put(&one.db, 1, 1)?;
        let two = shared.node_with("two", ClusterSettings { grace: Duration::ZERO, ..quick() })?;
        two.gate.put(STRAY, &["of a load that was not committed".into()], PutMode::Create)?;
        // The first listing tells which names were given, and the second what may go.
        two.gate.fail_listing("data", 1);
        let newest_log = || -> Result<u64> {
            let digits = |path: &String| path.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok();
            Ok(two.gate.list_append("log")?.iter().filter_map(digits).max().unwrap_or(0))
        };
        let before = newest_log()?;
        drop(one);
        until("the other one writes", || two.db.is_writer());
        put(&two.db, 2, 2)?;
        // It would begin again, with another log, while commits go to this one.
        thread::sleep(Duration::from_millis(50));
        put(&two.db, 3, 3)?;
        assert_eq!(newest_log()?, before + 1);
        assert!(stored(&two, "data")?.contains(STRAY));
        two.db.flush()?;
        assert!(!stored(&two, "data")?.contains(STRAY), "it goes with a checkpoint");
        drop(two);
        assert_eq!(all(&shared.alone()?)?, [(1, 1), (2, 2), (3, 3)]);
    }
    Ok(())
}

#[test]
fn a_lease_that_was_taken_is_kept_whatever_else_fails() -> Result<()> {
    let opened_after = |others: usize| -> Result<()> {
        let shared = memory();
        drop(shared.node("one")?);
        let gate = Gate::new(shared.storage());
        gate.fail_listing("lease", others);
        let begun = Instant::now();
        let two = shared.node_behind(gate, "two", usual())?;
        until("it writes", || two.db.is_writer());
        assert!(begun.elapsed() < PATIENCE, "{others}: no lease that nobody holds is waited for");
        Ok(())
    };
    // The listings of an opening; which of them is which is not the point. Who could not look looks again after a share of the
    // lease, which is long here, so they wait beside each other.
    thread::scope(|scope| {
        let openings: Vec<_> = (0..8).map(|others| scope.spawn(move || opened_after(others))).collect();
        openings.into_iter().try_for_each(|opening| opening.join().expect("it does not panic"))
    })
}
