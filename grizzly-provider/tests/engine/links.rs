//! Processes that are cut off from what they share, or stand still: what they answer meanwhile, how soon, and what they
//! show when they are back.

use std::{sync::mpsc, thread, time::Duration};

use grizzly_provider::{ClusterSettings, ErrorKind, Grizzly, Result};

use crate::{
    cluster::{Node, PATIENCE, Shared, all, bucket, folder, memory, put, quick, until},
    gate::Point,
    tables::definition,
};

/// What a process may take to notice that its storage is silent: a lease and some more, on a busy machine.
const SOON: Duration = Duration::from_secs(6);

/// What `work` returns, if it does within `limit`; the thread that does it is left to itself otherwise.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).ok()
}

fn reader(shared: &Shared) -> Result<Node> {
    shared.node_with("reader", ClusterSettings { candidate: false, ..quick() })
}

fn catch_up(db: &Grizzly) -> Result<(), ErrorKind> {
    let db = db.clone();
    let caught_up = within(2 * SOON, move || db.catch_up(SOON / 2)).expect("it answers in the time it was given");
    caught_up.map_err(|error| error.kind())
}

/// One node has taken the lease and stands still, or died, before its log file is there.
fn taken_without_log(shared: &Shared) -> Result<(Node, Node)> {
    let (first, second) = (shared.node("first")?, shared.node("second")?);
    first.db.create_table(definition("t", 2), false)?;
    put(&first.db, 1, 1)?;
    second.db.catch_up(PATIENCE)?;
    second.gate.stop_at(Point::Create);
    Ok((first, second))
}

#[test]
fn a_follower_does_not_wait_for_the_log_of_a_writer_that_died_before_it_had_one() -> Result<()> {
    for shared in [folder(), memory(), bucket("test://links-died")] {
        let (first, second) = taken_without_log(&shared)?;
        let reader = reader(&shared)?;
        reader.db.catch_up(PATIENCE)?;
        first.gate.freeze();
        until("the second one has the lease", || second.gate.is_frozen());
        assert_eq!(catch_up(&reader.db), Ok(()), "nothing can have been acknowledged that is not here");
        assert_eq!(all(&reader.db)?, [(1, 1)]);
    }
    Ok(())
}

#[test]
fn what_may_not_count_is_held_back_until_a_writer_says_so() -> Result<()> {
    for shared in [folder(), memory(), bucket("test://links-held")] {
        let (first, second) = taken_without_log(&shared)?;
        let reader = reader(&shared)?;
        reader.db.catch_up(PATIENCE)?;
        reader.gate.freeze();
        put(&first.db, 2, 2)?;
        first.gate.freeze();
        until("the second one has the lease", || second.gate.is_frozen());
        reader.gate.thaw();
        assert_eq!(catch_up(&reader.db), Err(ErrorKind::Unavailable));
        assert_eq!(all(&reader.db)?, [(1, 1)], "nobody knows yet whether the next writer has found it");
        second.gate.thaw();
        until("there is a writer", || second.db.is_writer());
        reader.db.catch_up(PATIENCE)?;
        assert_eq!(all(&reader.db)?, [(1, 1), (2, 2)]);
    }
    Ok(())
}

#[test]
fn who_waits_for_what_others_wrote_is_answered_in_time_while_storage_is_silent() -> Result<()> {
    let shared = memory();
    let writer = shared.node("writer")?;
    writer.db.create_table(definition("t", 1), false)?;
    put(&writer.db, 1, 1)?;
    let lease = Duration::from_secs(3);
    let reader = shared.node_with("reader", ClusterSettings { candidate: false, lease, ..quick() })?;
    reader.gate.freeze();
    assert_eq!(catch_up(&reader.db), Err(ErrorKind::Unavailable));
    // Reads go on with what is in memory, and wait for nothing more than once.
    let db = reader.db.clone();
    thread::sleep(lease);
    assert!(db.is_stale());
    within(SOON, move || db.refresh(SOON / 4)).expect("it answers in the time it was given")?;
    assert!(!reader.db.is_stale(), "the next one does not wait");
    assert_eq!(all(&reader.db)?, [(1, 1)]);
    put(&writer.db, 2, 2)?;
    reader.gate.thaw();
    reader.db.catch_up(PATIENCE)?;
    assert_eq!(all(&reader.db)?, [(1, 1), (2, 2)]);
    Ok(())
}

#[test]
fn who_writes_is_known_while_the_lease_cannot_be_read() -> Result<()> {
    let shared = memory();
    let writer = shared.node("writer")?;
    writer.db.create_table(definition("t", 1), false)?;
    let reader = reader(&shared)?;
    until("it knows who writes", || reader.db.writer().is_some());
    reader.gate.stop_at(Point::List("lease"));
    reader.gate.wait();
    // Servers ask on the threads on which they serve everybody.
    let db = reader.db.clone();
    let known = within(SOON, move || (db.writer(), put(&db, 1, 1))).expect("it does not wait for storage");
    assert_eq!(known.0.map(|writer| writer.url).as_deref(), Some("grpc://writer"));
    assert_eq!(known.1.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    Ok(())
}

#[test]
fn many_who_wait_share_a_look() -> Result<()> {
    let shared = memory();
    let writer = shared.node("writer")?;
    writer.db.create_table(definition("t", 1), false)?;
    let reader = reader(&shared)?;
    for round in 0..5 {
        put(&writer.db, round, round)?;
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..50).map(|_| scope.spawn(|| reader.db.catch_up(PATIENCE))).collect();
            waiting.into_iter().try_for_each(|waiting| waiting.join().expect("no panic"))
        })?;
        assert_eq!(all(&reader.db)?.len() as i64, round + 1);
    }
    Ok(())
}

#[test]
fn a_commit_of_a_writer_that_is_cut_off_is_answered_when_its_lease_has_run_out() -> Result<()> {
    for point in [Point::Append, Point::Sync, Point::Synced] {
        let shared = bucket("test://links-commit");
        let (old, new) = (shared.node("old")?, shared.node("new")?);
        old.db.create_table(definition("t", 1), false)?;
        put(&old.db, 1, 1)?;
        // From here on nothing that the old writer sends arrives, and no answer does.
        old.gate.stop_at(point);
        let db = old.db.clone();
        let committed = within(SOON, move || put(&db, 2, 2)).expect("whoever waits is told in time");
        assert_eq!(committed.map_err(|error| error.kind()), Err(ErrorKind::OutcomeUnknown), "{point:?}");
        let db = old.db.clone();
        let refused = within(SOON, move || put(&db, 3, 3)).expect("it is refused in time");
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Unavailable), "{point:?}");
        until("another one writes", || put(&new.db, 4, 4).is_ok());
        old.gate.thaw();
        old.db.catch_up(PATIENCE)?;
        assert_eq!(all(&old.db)?, all(&new.db)?, "{point:?}");
        assert!(new.db.verify()?.problems.is_empty());
    }
    Ok(())
}

#[test]
fn one_that_stood_still_shows_what_others_have_written_meanwhile() -> Result<()> {
    for shared in [folder(), memory(), bucket("test://links-still")] {
        let (old, new) = (shared.node("old")?, shared.node("new")?);
        old.db.create_table(definition("t", 1), false)?;
        let reader = reader(&shared)?;
        for round in 0..3 {
            let (stopped, writes) = if old.db.is_writer() { (&old, &new) } else { (&new, &old) };
            for node in [stopped, &reader] {
                node.gate.freeze();
            }
            // A busy machine may cost it the lease in between.
            until("another one writes", || put(&writes.db, round, round).is_ok());
            // They may have looked for the last time just before.
            thread::sleep(quick().lease);
            for node in [stopped, &reader] {
                node.gate.thaw();
                node.db.refresh(PATIENCE)?;
                assert_eq!(all(&node.db)?, all(&writes.db)?, "round {round}");
            }
        }
    }
    Ok(())
}
