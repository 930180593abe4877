//! Several processes on one database: one writes, the others follow, and when it is gone another one goes on.

use std::{
    collections::HashSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use grizzly_provider::{
    BackupKind, Backups, ClusterSettings, EncryptionKey, ErrorKind, Grizzly, GrizzlyBuilder, RestoreTo, Result,
    Settings,
    access::{Csn, IndexDefinition},
    open_place,
};
use grizzly_wal::{
    FsStorage, MemoryStorage, ObjectStorage, Storage,
    storage::faulty::{CrashEffect, FaultPlan, FaultyStorage},
};

use crate::{
    gate::{Gate, Point},
    tables::{definition, key, manual, pairs, rows, versions},
};

/// Far more than anything here takes, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A storage that any number of processes can open.
pub(crate) struct Shared {
    open: Box<dyn Fn() -> Arc<dyn Storage> + Send + Sync>,
    key: Option<EncryptionKey>,
    _folder: Option<tempfile::TempDir>,
}

/// On a disk nothing shuts a replaced writer out of the file it has open; elsewhere its next write fails.
pub(crate) fn folder() -> Shared {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("db");
    let open = move || -> Arc<dyn Storage> { Arc::new(FsStorage::new(&path).expect("an absolute path")) };
    Shared { open: Box::new(open), key: None, _folder: Some(folder) }
}

pub(crate) fn memory() -> Shared {
    let storage = MemoryStorage::new();
    Shared { open: Box::new(move || Arc::new(storage.clone())), key: None, _folder: None }
}

pub(crate) fn bucket(url: &'static str) -> Shared {
    let store = Arc::new(object_store::memory::InMemory::new());
    let open = move || -> Arc<dyn Storage> {
        let store: Arc<dyn object_store::ObjectStore> = store.clone();
        Arc::new(ObjectStorage::new(store, "db".into(), url).expect("threads start"))
    };
    Shared { open: Box::new(open), key: None, _folder: None }
}

/// One process.
pub(crate) struct Node {
    pub(crate) db: Grizzly,
    pub(crate) gate: Gate,
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that fails must not wait for one that stands still.
        self.gate.thaw();
    }
}

impl Shared {
    /// The same with everything encrypted.
    fn encrypted(self) -> Result<Self> {
        Ok(Self { key: Some(EncryptionKey::generate()?), ..self })
    }

    fn builder(&self) -> GrizzlyBuilder {
        let builder = Grizzly::builder("test://cluster");
        match &self.key {
            Some(key) => builder.key(key.clone()),
            None => builder,
        }
    }

    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        (self.open)()
    }

    pub(crate) fn node_with(&self, name: &str, cluster: ClusterSettings) -> Result<Node> {
        self.node_behind(Gate::new(self.storage()), name, cluster)
    }

    pub(crate) fn node_behind(&self, gate: Gate, name: &str, cluster: ClusterSettings) -> Result<Node> {
        let cluster = ClusterSettings { node: name.into(), advertise: format!("grpc://{name}"), ..cluster };
        let settings = Settings { cluster: Some(cluster), ..manual() };
        let db = self.builder().settings(settings).storage(Arc::new(gate.clone())).open()?;
        Ok(Node { db, gate })
    }

    pub(crate) fn node(&self, name: &str) -> Result<Node> {
        self.node_with(name, quick())
    }

    pub(crate) fn alone(&self) -> Result<Grizzly> {
        self.builder().settings(manual()).storage((self.open)()).open()
    }
}

/// A short lease, but not so short that a busy machine loses it.
pub(crate) fn quick() -> ClusterSettings {
    ClusterSettings { lease: Duration::from_millis(600), poll: Duration::from_millis(5), ..ClusterSettings::default() }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn all(db: &Grizzly) -> Result<Vec<(i64, i64)>> {
    pairs(&db.snapshot(), "t", None)
}

pub(crate) fn put(db: &Grizzly, id: i64, group: i64) -> Result<Csn> {
    db.put("t", rows([(id, group)]))
}

#[test]
fn a_follower_reads_what_the_writer_commits_and_refuses_writes_by_name() -> Result<()> {
    for shared in [folder(), memory(), bucket("test://cluster-follower")] {
        let writer = shared.node("one")?;
        assert!(writer.db.is_writer());
        writer.db.create_table(definition("t", 2), false)?;
        let follower = shared.node("two")?;
        assert!(!follower.db.is_writer());
        let csn = put(&writer.db, 1, 10)?;
        follower.db.catch_up(PATIENCE)?;
        assert!(follower.db.snapshot().csn() >= csn);
        assert_eq!(all(&follower.db)?, [(1, 10)]);
        assert!(follower.db.get("t", &key(1))?.is_some());
        assert_eq!(follower.db.writer().map(|writer| writer.url).as_deref(), Some("grpc://one"));
        let refused = put(&follower.db, 2, 20).expect_err("it does not write");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.is_retryable() && refused.message().contains("grpc://one"), "{refused}");
        assert!(follower.db.drop_table("t", false).is_err());
        assert!(follower.db.flush().is_err());
        let alone = shared.alone().expect_err("others have it open");
        assert_eq!(alone.kind(), ErrorKind::Unavailable);
        // A writer that leaves is replaced at once.
        writer.db.close()?;
        until("the other one writes", || follower.db.is_writer());
        put(&follower.db, 2, 20)?;
        follower.db.close()?;
        let alone = shared.alone()?;
        assert_eq!(all(&alone)?, [(1, 10), (2, 20)]);
        assert!(alone.verify()?.problems.is_empty());
        // And the other way round.
        alone.close()?;
        drop(alone);
        let again = shared.node("three")?;
        until("it writes", || put(&again.db, 3, 30).is_ok());
    }
    Ok(())
}

#[test]
fn of_several_that_open_at_once_one_writes() -> Result<()> {
    for shared in [folder(), memory()] {
        let shared = &shared;
        let nodes: Vec<Node> = thread::scope(|scope| {
            let nodes: Vec<_> = (0..4).map(|n| scope.spawn(move || shared.node(&format!("n{n}")))).collect();
            nodes.into_iter().map(|node| node.join().expect("no panic")).collect::<Result<_>>()
        })?;
        until("one writes", || nodes.iter().any(|node| node.db.is_writer()));
        assert_eq!(nodes.iter().filter(|node| node.db.is_writer()).count(), 1);
    }
    Ok(())
}

#[test]
fn a_follower_alone_waits_for_a_database_and_never_writes() -> Result<()> {
    let shared = memory();
    let reader = || shared.node_with("reader", ClusterSettings { candidate: false, ..quick() });
    assert_eq!(reader().map(drop).expect_err("there is none").kind(), ErrorKind::NotFound);
    let alone = shared.alone()?;
    alone.create_table(definition("t", 1), false)?;
    drop(alone);
    let reader = reader()?;
    thread::sleep(quick().lease * 2);
    let refused = put(&reader.db, 1, 1).expect_err("it never writes");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let unsafe_commits = Settings { sync_commits: false, cluster: Some(quick()), ..manual() };
    let refused = Grizzly::builder("test://x").settings(unsafe_commits).storage((shared.open)()).open();
    assert_eq!(refused.expect_err("not in a cluster").kind(), ErrorKind::Invalid);
    Ok(())
}

/// A random number below `below`.
fn roll(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

#[test]
fn a_follower_equals_its_writer_through_flushes_merges_and_indexes() -> Result<()> {
    for (shared, mut seed) in [(folder(), 7), (bucket("test://cluster-equal"), 8)] {
        let writer = shared.node("one")?;
        writer.db.create_table(definition("t", 3), false)?;
        let reading = ClusterSettings { candidate: false, ..quick() };
        let follower = shared.node_with("two", reading.clone())?;
        let mut csn = Csn(0);
        for step in 0..300_i64 {
            match roll(&mut seed, 40) {
                0 | 1 => writer.db.flush()?,
                2 => writer.db.compact("t")?,
                3 => {
                    let name = format!("by_group_{step}");
                    let index = IndexDefinition { name, columns: vec![("grp".into(), false)], unique: false };
                    writer.db.create_index("t", index, true)?;
                }
                4..=12 => {
                    let mut transaction = writer.db.begin()?;
                    if let Some((row, _)) = transaction.find("t", &key(roll(&mut seed, 60) as i64))? {
                        transaction.delete("t", &[row])?;
                        csn = transaction.commit()?.into_result()?;
                    }
                }
                _ => csn = put(&writer.db, roll(&mut seed, 60) as i64, step)?,
            }
            if step % 25 == 0 {
                follower.db.catch_up(PATIENCE)?;
                assert_eq!(all(&follower.db)?, all(&writer.db)?, "step {step}");
                let without_place = |db: &Grizzly| -> Result<Vec<(i64, u64)>> {
                    Ok(versions(&db.snapshot(), "t")?.into_iter().map(|(id, version, _)| (id, version)).collect())
                };
                assert_eq!(without_place(&follower.db)?, without_place(&writer.db)?);
            }
        }
        // One that comes late, or that was away for long, finds the same.
        let late = shared.node_with("three", reading)?;
        late.db.wait_for_commit(csn, PATIENCE)?;
        assert_eq!(all(&late.db)?, all(&writer.db)?);
        until("the follower has let go of the rows in memory", || {
            let report = follower.db.verify().expect("it can be checked");
            assert!(report.problems.is_empty(), "{:?}", report.problems);
            report.segments > 0
        });
    }
    Ok(())
}

#[test]
fn a_follower_that_was_away_begins_anew_from_the_newest_manifest() -> Result<()> {
    // With a log behind that manifest, and without.
    for last in [Some(100), None] {
        let shared = folder();
        let writer = shared.node("one")?;
        writer.db.create_table(definition("t", 1), false)?;
        let follower = shared.node_with("two", ClusterSettings { candidate: false, ..quick() })?;
        follower.db.wait_for_commit(put(&writer.db, 0, 0)?, PATIENCE)?;
        follower.gate.freeze();
        for round in 1..6 {
            put(&writer.db, round, round)?;
            writer.db.flush()?;
        }
        if let Some(last) = last {
            put(&writer.db, last, last)?;
        }
        follower.gate.thaw();
        follower.db.catch_up(PATIENCE)?;
        assert_eq!(all(&follower.db)?, all(&writer.db)?);
    }
    Ok(())
}

#[test]
fn one_that_opens_around_a_takeover_misses_nothing() -> Result<()> {
    for shared in [folder(), bucket("test://cluster-opens")] {
        let (first, second) = (shared.node("first")?, shared.node("second")?);
        first.db.create_table(definition("t", 2), false)?;
        put(&first.db, 1, 1)?;
        // It has the lease then, and stands still before anybody can know where it begins.
        second.gate.stop_at(Point::Create);
        first.gate.freeze();
        until("the second one takes over", || second.gate.is_frozen());
        let third = shared.node("third")?;
        assert_eq!(all(&third.db)?, [(1, 1)]);
        // It wrote nothing, so its log file goes when the next one takes over, and a number is missing.
        third.gate.freeze();
        let fourth = shared.node("fourth")?;
        until("the fourth one writes", || fourth.db.is_writer());
        assert_eq!(all(&shared.node("fifth")?.db)?, [(1, 1)]);
    }
    Ok(())
}

/// Stops the writer at `point` of a commit or checkpoint, lets another one take over and go on, and wakes it.
fn take_over_at(shared: &Shared, point: Point) -> Result<()> {
    // Files go at once, which is the hardest for whoever still needs them.
    // The lease is long enough for a machine that is busy with all of these at once.
    let hasty = || ClusterSettings { grace: Duration::ZERO, lease: Duration::from_secs(3), ..quick() };
    let old = shared.node_with("old", hasty())?;
    old.db.create_table(definition("t", 2), false)?;
    put(&old.db, 1, 1)?;
    old.db.flush()?;
    put(&old.db, 1, 2)?;
    put(&old.db, 2, 2)?;
    let new = shared.node_with("new", hasty())?;
    old.gate.stop_at(point);
    let db = old.db.clone();
    let client = thread::spawn(move || {
        let committed = put(&db, 3, 3);
        let flushed = db.flush().and_then(|()| db.compact("t"));
        (committed, flushed)
    });
    until("it stops there", || old.gate.is_frozen());
    until("the other one writes", || new.db.is_writer());
    put(&new.db, 4, 4)?;
    put(&new.db, 1, 5)?;
    new.db.flush()?;
    put(&new.db, 5, 5)?;
    new.db.compact("t")?;
    let last = put(&new.db, 6, 6)?;
    let seen = all(&new.db)?;
    old.gate.thaw();
    let (committed, _) = client.join().expect("no panic");
    if committed.is_ok() {
        assert!(seen.contains(&(3, 3)), "an acknowledged commit is lost: {seen:?}");
    }
    // The one that was replaced follows.
    old.db.wait_for_commit(last, PATIENCE)?;
    assert_eq!(all(&old.db)?, seen);
    let refused = put(&old.db, 7, 7).expect_err("it does not write any more");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    until("it knows who does", || put(&old.db, 7, 7).is_err_and(|refused| refused.message().contains("grpc://new")));
    new.db.flush()?;
    put(&new.db, 8, 8)?;
    let expected = all(&new.db)?;
    for node in [&old, &new] {
        node.db.close()?;
    }
    let alone = shared.alone()?;
    assert_eq!(all(&alone)?, expected);
    let report = alone.verify()?;
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    Ok(())
}

#[test]
fn a_writer_that_sleeps_through_its_lease_acknowledges_nothing_and_harms_nothing() {
    let points = [
        Point::Append,
        Point::Sync,
        Point::Synced,
        Point::Create,
        Point::Put("data"),
        Point::Stored("data"),
        Point::Put("manifest"),
        Point::Stored("manifest"),
        Point::Truncate,
        Point::Remove("manifest"),
        Point::Remove("data"),
    ];
    // They mostly wait, so all at once.
    thread::scope(|scope| {
        for point in points {
            scope.spawn(move || {
                take_over_at(&folder(), point).unwrap_or_else(|error| unreachable!("{point:?}: {error}"))
            });
            scope.spawn(move || {
                take_over_at(&memory(), point).unwrap_or_else(|error| unreachable!("{point:?}: {error}"))
            });
        }
    });
}

#[test]
fn writers_replace_each_other_again_and_again_and_lose_nothing() -> Result<()> {
    let shared = folder();
    let nodes = [shared.node("n0")?, shared.node("n1")?, shared.node("n2")?];
    nodes[0].db.create_table(definition("t", 2), false)?;
    let mut acknowledged = Vec::new();
    for round in 0..4_i64 {
        let writes = |node: &&Node| node.db.is_writer() && !node.gate.is_frozen();
        until("somebody writes", || nodes.iter().any(|node| writes(&node)));
        let Some(writer) = nodes.iter().find(writes) else { continue };
        for id in 0..20 {
            if put(&writer.db, 100 * round + id, id).is_ok() {
                acknowledged.push((100 * round + id, id));
            }
        }
        if round % 2 == 0 {
            drop(writer.db.flush());
        }
        let transaction = writer.db.begin()?;
        writer.gate.freeze();
        until("another one writes", || nodes.iter().any(|node| writes(&node)));
        writer.gate.thaw();
        until("it knows", || !writer.db.is_writer());
        drop(transaction);
    }
    until("somebody writes", || nodes.iter().any(|node| node.db.is_writer()));
    let writer = nodes.iter().find(|node| node.db.is_writer()).expect("somebody writes");
    let found = all(&writer.db)?;
    assert!(acknowledged.iter().all(|row| found.contains(row)), "{acknowledged:?} {found:?}");
    assert!(acknowledged.len() >= 60, "{}", acknowledged.len());
    Ok(())
}

#[test]
fn a_transaction_does_not_outlive_its_writer() -> Result<()> {
    let shared = memory();
    let (one, two) = (shared.node("one")?, shared.node("two")?);
    one.db.create_table(definition("t", 1), false)?;
    let csn = put(&one.db, 1, 1)?;
    two.db.wait_for_commit(csn, PATIENCE)?;
    let mut early = two.db.begin()?;
    one.gate.freeze();
    until("the other one writes", || two.db.is_writer());
    early.put("t", rows([(1, 2)]))?;
    let refused = early.commit().expect_err("it began before");
    assert!(refused.is_retryable(), "{refused:?}");
    put(&two.db, 1, 3)?;
    one.gate.thaw();
    Ok(())
}

/// Opens a member that can wait for no long lease.
#[test]
fn a_follower_follows_an_encrypted_database_and_needs_its_key() -> Result<()> {
    for shared in [folder(), memory(), bucket("test://cluster-encrypted")] {
        let mut shared = shared.encrypted()?;
        let writer = shared.node("one")?;
        writer.db.create_table(definition("t", 2), false)?;
        let reading = ClusterSettings { candidate: false, ..quick() };
        let follower = shared.node_with("two", reading.clone())?;
        let mut csn = Csn(0);
        for round in 0..60 {
            csn = put(&writer.db, round % 20, round)?;
            if round % 15 == 7 {
                writer.db.flush()?;
            }
        }
        follower.db.wait_for_commit(csn, PATIENCE)?;
        assert_eq!(all(&follower.db)?, all(&writer.db)?);
        assert!(follower.db.verify()?.problems.is_empty());
        let late = shared.node_with("three", reading.clone())?;
        late.db.catch_up(PATIENCE)?;
        assert_eq!(all(&late.db)?, all(&writer.db)?);
        for key in [None, Some(EncryptionKey::generate()?)] {
            shared.key = key;
            let refused = shared.node_with("four", reading.clone()).map(drop).expect_err("that is not its key");
            assert_eq!(refused.kind(), ErrorKind::Permission, "{refused}");
        }
        for node in [late, follower, writer] {
            node.db.close()?;
        }
        assert_eq!(shared.alone().map(drop).map_err(|error| error.kind()), Err(ErrorKind::Permission));
        shared.key = None;
        assert_eq!(shared.alone().map(drop).map_err(|error| error.kind()), Err(ErrorKind::Permission));
    }
    Ok(())
}

#[test]
fn an_encrypted_database_survives_a_takeover() {
    let take_over = |shared: Shared, point| -> Result<()> {
        let shared = shared.encrypted()?;
        take_over_at(&shared, point)?;
        // Record numbers are given again by the next writer, so no two files may have the same key.
        let storage = (shared.open)();
        let (logs, mut salts) = (storage.list_append("log")?, HashSet::new());
        for log in &logs {
            let header = storage.peek_append(log, 64)?;
            assert_eq!(header[10], 3, "encrypted, and of an epoch");
            salts.insert([&header[32..40], &header[48..56]].concat());
        }
        assert!(!logs.is_empty() && salts.len() == logs.len());
        Ok(())
    };
    thread::scope(|scope| {
        for point in [Point::Append, Point::Sync, Point::Synced, Point::Put("manifest"), Point::Truncate] {
            scope.spawn(move || take_over(folder(), point).unwrap_or_else(|error| unreachable!("{point:?}: {error}")));
            scope.spawn(move || take_over(memory(), point).unwrap_or_else(|error| unreachable!("{point:?}: {error}")));
        }
    });
}

#[test]
fn a_chain_of_backups_goes_on_after_a_takeover() -> Result<()> {
    for shared in [folder(), memory(), bucket("test://cluster-backup").encrypted()?] {
        let to = open_place("memory://", shared.key.clone())?;
        let backup = |node: &Node, kind| node.db.backup_into(&to, kind, &mut |_, _| {});
        // Files go at once unless a backup needs them.
        let hasty = || ClusterSettings { grace: Duration::ZERO, ..quick() };
        let old = shared.node_with("old", hasty())?;
        old.db.create_table(definition("t", 2), false)?;
        put(&old.db, 1, 1)?;
        old.db.flush()?;
        // It does not know of the backup, which is taken later.
        let new = shared.node_with("new", hasty())?;
        backup(&old, BackupKind::Full)?;
        let between = put(&old.db, 1, 2)?;
        old.db.compact("t")?;
        old.db.flush()?;
        let refused = backup(&new, BackupKind::Incremental).expect_err("it does not write");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        old.gate.freeze();
        until("the other one writes", || new.db.is_writer());
        put(&new.db, 1, 3)?;
        for id in 2..5 {
            put(&new.db, id, 4)?;
            new.db.compact("t")?;
            new.db.flush()?;
        }
        let report = backup(&new, BackupKind::Incremental)?;
        old.gate.thaw();
        assert!(report.csn >= new.db.snapshot().csn());
        for (moment, expected) in [(RestoreTo::Csn(between), vec![(1, 2)]), (RestoreTo::Latest, all(&new.db)?)] {
            let into = open_place("memory://", None)?;
            Backups::new(Arc::clone(&to)).restore_into(&into, moment, &mut |_, _| {})?;
            let leases = into.list("lease")?;
            assert_eq!(leases.len(), 1, "the restore's own: {leases:?}");
            let copy = Grizzly::builder("memory://").settings(manual()).storage(into).open()?;
            assert_ne!(copy.identity(), new.db.identity());
            assert_eq!(all(&copy)?, expected);
            put(&copy, 9, 9)?;
            copy.flush()?;
            assert!(copy.verify()?.problems.is_empty());
        }
        until("it knows", || !old.db.is_writer());
        assert!(backup(&old, BackupKind::Incremental).is_err());
        assert!(Backups::new(Arc::clone(&to)).verify(&mut |_, _| {})?.problems.is_empty());
    }
    Ok(())
}

fn member(storage: Arc<dyn Storage>, lease: Duration) -> Result<Grizzly> {
    let cluster = ClusterSettings { lease, ..quick() };
    let settings = Settings { cluster: Some(cluster), ..manual() };
    Grizzly::builder("faulty://").settings(settings).storage(storage).open()
}

/// Takes over and goes on until the crash; returns what was acknowledged, and how far it came.
fn go_on_until_crash(storage: &FaultyStorage, rows: &mut Vec<(i64, i64)>) -> Result<()> {
    // Short, since the next one waits for it to run out.
    let db = member(Arc::new(storage.clone()), Duration::from_millis(200))?;
    for round in 10..14 {
        put(&db, round, round)?;
        rows.push((round, round));
        if round == 11 {
            db.flush()?;
        }
    }
    db.close()
}

fn crash_while_taking_over(point: u64, effect: CrashEffect) -> Result<bool> {
    let faulty = FaultyStorage::new(FaultPlan::default());
    let first = Grizzly::builder("faulty://").settings(manual()).storage(Arc::new(faulty.clone())).open()?;
    first.create_table(definition("t", 2), false)?;
    let mut acknowledged = vec![(1, 1), (2, 2), (3, 3)];
    put(&first, 1, 1)?;
    first.flush()?;
    put(&first, 2, 2)?;
    put(&first, 3, 3)?;
    drop(first);
    let crash = Some((faulty.sync_points() + point, effect));
    faulty.arm(FaultPlan { crash, seed: 31 + point, ..FaultPlan::default() });
    let ended = go_on_until_crash(&faulty, &mut acknowledged);
    let next = member(faulty.crash_image(), Duration::from_secs(3))?;
    until("the next one writes", || next.is_writer());
    let found = all(&next)?;
    let lost: Vec<_> = acknowledged.iter().filter(|row| !found.contains(row)).collect();
    assert!(lost.is_empty(), "crash {effect:?} at {point}: lost {lost:?} of {acknowledged:?}, found {found:?}");
    assert!(found.len() <= acknowledged.len() + 1, "crash {effect:?} at {point}: {found:?}");
    put(&next, 100, 100)?;
    next.flush()?;
    let report = next.verify()?;
    assert!(report.problems.is_empty(), "crash {effect:?} at {point}: {:?}", report.problems);
    Ok(ended.is_err())
}

#[test]
fn a_crash_anywhere_while_one_takes_over_leaves_a_database_for_the_next() {
    let effects = [CrashEffect::Lost, CrashEffect::Done, CrashEffect::Prefix, CrashEffect::Torn];
    thread::scope(|scope| {
        for effect in effects {
            scope.spawn(move || {
                let crash = |point| crash_while_taking_over(point, effect);
                let outcomes =
                    (0..24).map(|point| crash(point).unwrap_or_else(|error| unreachable!("{point}: {error}")));
                let crashed = outcomes.filter(|crashed| *crashed).count();
                assert!(crashed > 12, "{effect:?}: only {crashed} points were crossed");
            });
        }
    });
}
