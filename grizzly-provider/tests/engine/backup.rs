//! Backups: every moment of a history comes back, and what is damaged is refused before anything is written.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use grizzly_provider::{
    BackupKind, Backups, ClusterSettings, EncryptionKey, ErrorKind, Grizzly, RestoreTo, Result, Settings, Storage,
    access::{Csn, IndexDefinition},
    open_place,
    storage::PutMode,
};

use crate::{
    cluster::{memory, put},
    gate::Gate,
    tables::{database, definition, gated, manual, pairs, rows},
};

/// What table `t` held after each commit.
type History = Vec<(Csn, Vec<(i64, i64)>)>;

fn place() -> Arc<dyn Storage> {
    open_place("memory://", None).expect("memory is always there")
}

fn quiet() -> impl FnMut(u64, u64) {
    |_, _| {}
}

fn reopen(storage: &Arc<dyn Storage>) -> Result<Grizzly> {
    let settings = Settings { create: false, ..manual() };
    Grizzly::builder("memory://").storage(Arc::clone(storage)).settings(settings).open()
}

fn back_up(db: &Grizzly, to: &Arc<dyn Storage>, kind: BackupKind) -> Result<()> {
    db.backup_into(to, kind, &mut quiet()).map(|_| ())
}

/// The next number of a fixed sequence that looks random.
fn dice(state: &mut u64, sides: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % sides
}

/// One commit: some rows put, some deleted, a bulk load now and then.
fn change(db: &Grizzly, state: &mut u64) -> Result<Csn> {
    let mut transaction = db.begin()?;
    let (id, value) = (dice(state, 40) as i64, dice(state, 1_000) as i64);
    transaction.put("t", rows([(id, value), (id + 100, value)]))?;
    if dice(state, 3) == 0
        && let Some((row, _)) = transaction.find("t", &crate::tables::key(dice(state, 140) as i64))?
    {
        transaction.delete("t", &[row])?;
    }
    transaction.commit()?.into_result()
}

/// A thousand commits with checkpoints and compaction in between, one full and three incremental backups.
fn history(db: &Grizzly, to: &Arc<dyn Storage>) -> Result<History> {
    let (mut history, mut state) = (Vec::new(), 7);
    for commit in 0..1_000 {
        let csn = change(db, &mut state)?;
        history.push((csn, pairs(&db.snapshot(), "t", None)?));
        match commit {
            100 => back_up(db, to, BackupKind::Full)?,
            400 | 700 | 999 => back_up(db, to, BackupKind::Incremental)?,
            200 | 650 | 690 => db.flush()?,
            60 | 300 | 410 | 850 => db.compact("t")?,
            500 => assert!(db.create_index("t", index("by_grp"), false)?),
            550 => assert!(db.drop_index(None, "by_grp", false)?),
            600 => assert!(db.create_index("t", index("by_group"), false)?),
            DROPPED => assert!(db.drop_table("loaded", false)?),
            _ => {}
        }
        if commit == LOADED {
            // So many rows that they become a file by themselves, which the log then names.
            let mut transaction = db.begin()?;
            transaction.insert("loaded", rows((0..70_000).map(|id| (id, commit))))?;
            transaction.commit()?.into_result()?;
        }
    }
    Ok(history)
}

/// Table `loaded` gets its rows and is dropped between the same two backups.
const LOADED: i64 = 560;
const DROPPED: i64 = 645;

/// Rows of table `loaded` after the commit with this number.
fn loaded(commit: usize) -> Option<u64> {
    let commit = commit as i64;
    if commit <= LOADED {
        return Some(0);
    }
    (commit <= DROPPED).then_some(70_000)
}

fn index(name: &str) -> IndexDefinition {
    IndexDefinition { name: name.into(), columns: vec![("grp".into(), false)], unique: false }
}

#[test]
fn every_moment_of_a_history_comes_back() -> Result<()> {
    let db = database(2)?;
    db.create_table(definition("loaded", 1), false)?;
    let to = place();
    let history = history(&db, &to)?;
    let backups = Backups::new(Arc::clone(&to));
    let check = backups.verify(&mut quiet())?;
    assert_eq!((check.backups, check.problems), (4, vec![]));
    let listed = backups.list()?;
    assert_eq!(listed.iter().filter(|backup| backup.parent.is_none()).count(), 1);
    let first = history.iter().position(|(csn, _)| *csn >= listed[0].csn).expect("it was taken within the history");
    let mut state = 3;
    for round in 0..40 {
        let chosen = match round {
            0 | 1 => DROPPED as usize - 5,
            _ => first + dice(&mut state, (history.len() - first) as u64) as usize,
        };
        let (csn, expected) = &history[chosen];
        let moment = match history.get(chosen + 1) {
            Some((next, _)) => csn.0 + dice(&mut state, next.0 - csn.0),
            None => csn.0,
        };
        let to = match round % 2 {
            0 => RestoreTo::Csn(*csn),
            _ => RestoreTo::Time(UNIX_EPOCH + Duration::from_micros(moment)),
        };
        let into = place();
        let report = backups.restore_into(&into, to, &mut quiet())?;
        match to {
            RestoreTo::Csn(_) => assert_eq!(report.csn, *csn, "round {round}"),
            // Loads and changes of the catalog are commits too.
            _ => assert!((csn.0..=moment).contains(&report.csn.0), "round {round}: {report:?}"),
        }
        let restored = reopen(&into)?;
        assert_eq!(&pairs(&restored.snapshot(), "t", None)?, expected, "round {round}: {to:?}");
        if round % 8 == 0 {
            assert_eq!(restored.verify()?.problems, Vec::<String>::new(), "round {round}: {to:?}");
        }
        assert_ne!(restored.identity(), db.identity());
        if report.csn == *csn {
            let found = restored.snapshot().table("loaded").ok().map(|table| table.row_count());
            assert_eq!(found, loaded(chosen), "round {round}: {to:?}");
        }
    }
    let into = place();
    assert_eq!(backups.restore_into(&into, RestoreTo::Latest, &mut quiet())?.csn, history[history.len() - 1].0);
    Ok(())
}

#[test]
fn what_no_backup_covers_is_refused_by_name() -> Result<()> {
    let db = database(1)?;
    let to = place();
    let backups = Backups::new(Arc::clone(&to));
    let refused = |to: RestoreTo| {
        let error = backups.restore_into(&place(), to, &mut quiet()).expect_err("it must be refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.to_string()
    };
    assert!(refused(RestoreTo::Latest).contains("there is no backup"));
    let nothing = db.backup_into(&to, BackupKind::Incremental, &mut quiet()).expect_err("there is no chain");
    assert_eq!(nothing.kind(), ErrorKind::Invalid);
    let csn = db.put("t", rows([(1, 1)]))?;
    db.backup_into(&to, BackupKind::Full, &mut quiet())?;
    let later = db.put("t", rows([(1, 2)]))?;
    assert!(refused(RestoreTo::Csn(later)).contains(&later.to_string()));
    assert!(refused(RestoreTo::Time(SystemTime::now() + Duration::from_secs(9))).contains("no backup covers"));
    assert!(refused(RestoreTo::Csn(Csn(5))).contains("no backup covers"));
    let full = place();
    full.put("letter.txt", &["dear reader".into()], PutMode::Create)?;
    let error = backups.restore_into(&full, RestoreTo::Csn(csn), &mut quiet()).expect_err("it is not empty");
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("letter.txt"), "{error}");
    let other = database(1)?;
    let error = other.backup_into(&to, BackupKind::Incremental, &mut quiet()).expect_err("it is another database's");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let error = other.backup_into(&full, BackupKind::Full, &mut quiet()).expect_err("a letter is no backup");
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("letter.txt"), "{error}");
    Ok(())
}

#[test]
fn every_damaged_or_missing_piece_is_named_before_anything_is_written() -> Result<()> {
    let db = database(2)?;
    let to = place();
    db.put("t", rows((0..300).map(|id| (id, id))))?;
    db.flush()?;
    db.put("t", rows([(3, 1)]))?;
    db.backup_into(&to, BackupKind::Full, &mut quiet())?;
    for round in 0..3 {
        db.put("t", rows((round..round + 20).map(|id| (id * 7, round))))?;
        if round == 1 {
            db.flush()?;
        }
        db.backup_into(&to, BackupKind::Incremental, &mut quiet())?;
    }
    let last = db.snapshot().csn();
    let backups = Backups::new(Arc::clone(&to));
    let mut refused = 0;
    for object in to.list("")? {
        let whole = to.get(&object.path)?;
        let flipped = (0..whole.len()).step_by(whole.len() / 7 + 1).map(|at| {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x20;
            Some(bytes)
        });
        for damage in flipped.chain([None]) {
            match &damage {
                Some(bytes) => to.put(&object.path, &[bytes.clone().into()], PutMode::Overwrite)?,
                None => to.remove(&object.path)?,
            }
            let check = backups.verify(&mut quiet())?;
            assert!(check.problems.iter().any(|problem| problem.contains(&object.path)), "{object:?}: {check:?}");
            let into = place();
            for moment in [RestoreTo::Latest, RestoreTo::Csn(last)] {
                // Restoring needs the newest state only; what it does not need cannot hurt it.
                match backups.restore_into(&into, moment, &mut quiet()) {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                        assert!(error.to_string().contains(&object.path), "{error}");
                        assert!(into.list("")?.is_empty(), "nothing was written");
                        refused += 1;
                    }
                    Ok(_) => {
                        let restored = reopen(&into)?;
                        assert_eq!(pairs(&restored.snapshot(), "t", None)?, pairs(&db.snapshot(), "t", None)?);
                        break;
                    }
                }
            }
        }
        to.put(&object.path, &[whole], PutMode::Overwrite)?;
    }
    assert!(refused > 20, "only {refused} were refused");
    assert_eq!(backups.verify(&mut quiet())?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn an_incremental_backup_costs_what_has_changed() -> Result<()> {
    let db = database(1)?;
    let mut transaction = db.begin()?;
    transaction.insert("t", rows((0..150_000).map(|id| (id, id * 7919 % 100_003))))?;
    transaction.commit()?.into_result()?;
    db.flush()?;
    let to = place();
    let full = db.backup_into(&to, BackupKind::Full, &mut quiet())?;
    db.put("t", rows((0..100).map(|id| (id * 1_000, -1))))?;
    let small = db.backup_into(&to, BackupKind::Incremental, &mut quiet())?;
    assert!(small.bytes * 50 < full.bytes, "{} bytes after {}", small.bytes, full.bytes);
    db.flush()?;
    let flushed = db.backup_into(&to, BackupKind::Incremental, &mut quiet())?;
    assert!(flushed.bytes * 20 < full.bytes, "{} bytes after {}", flushed.bytes, full.bytes);
    assert_eq!(db.backup_into(&to, BackupKind::Incremental, &mut quiet())?.files, 0);
    Ok(())
}

#[test]
fn backups_run_beside_writers_and_a_restored_database_lives_beside_the_original() -> Result<()> {
    let db = database(2)?;
    let to = place();
    db.put("t", rows((0..10).map(|id| (id, 0))))?;
    db.backup_into(&to, BackupKind::Full, &mut quiet())?;
    let running = std::sync::atomic::AtomicBool::new(true);
    let acknowledged = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            for value in 1..20_000 {
                if !running.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                // Both rows change together, so a backup in between would show.
                let csn = db.put("t", rows([(1, value), (2, value)]))?;
                acknowledged.store(csn.0, std::sync::atomic::Ordering::SeqCst);
                if value % 40 == 0 {
                    db.compact("t")?;
                }
            }
            Ok(())
        });
        let outcome = (0..5).try_for_each(|_| -> Result<()> {
            std::thread::sleep(Duration::from_millis(30));
            let before = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
            let report = db.backup_into(&to, BackupKind::Incremental, &mut quiet())?;
            assert!(report.csn.0 >= before, "what was acknowledged before is in it");
            let into = place();
            let restored = Backups::new(Arc::clone(&to)).restore_into(&into, RestoreTo::Latest, &mut quiet())?;
            assert_eq!(restored.csn, report.csn);
            let copy = reopen(&into)?;
            let found = pairs(&copy.snapshot(), "t", None)?;
            assert_eq!((found.len(), found[1].1), (10, found[2].1));
            copy.put("t", rows([(1, -1)]))?;
            copy.compact("t")?;
            Ok(())
        });
        running.store(false, std::sync::atomic::Ordering::Relaxed);
        writer.join().expect("the writer does not panic")?;
        outcome
    })?;
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), 10);
    Ok(())
}

#[test]
fn a_chain_goes_on_after_a_restart_and_not_after_its_log_was_released() -> Result<()> {
    let (storage, to) = (place(), place());
    let open = || Grizzly::builder("memory://").storage(Arc::clone(&storage)).settings(manual()).open();
    let db = open()?;
    db.create_table(definition("t", 1), false)?;
    db.put("t", rows([(1, 1)]))?;
    db.backup_into(&to, BackupKind::Full, &mut quiet())?;
    let between = db.put("t", rows([(1, 2)]))?;
    db.compact("t")?;
    db.close()?;
    drop(db);
    let db = open()?;
    db.put("t", rows([(1, 3)]))?;
    db.flush()?;
    db.flush()?;
    db.backup_into(&to, BackupKind::Incremental, &mut quiet())?;
    let into = place();
    Backups::new(Arc::clone(&to)).restore_into(&into, RestoreTo::Csn(between), &mut quiet())?;
    assert_eq!(pairs(&reopen(&into)?.snapshot(), "t", None)?, [(1, 2)]);
    assert_eq!(db.release_backups(None)?, 1);
    db.put("t", rows([(1, 4)]))?;
    db.flush()?;
    let error = db.backup_into(&to, BackupKind::Incremental, &mut quiet()).expect_err("the log was cut");
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("full backup"), "{error}");
    db.backup_into(&to, BackupKind::Full, &mut quiet())?;
    db.put("t", rows([(1, 5)]))?;
    db.backup_into(&to, BackupKind::Incremental, &mut quiet())?;
    assert_eq!(Backups::new(Arc::clone(&to)).verify(&mut quiet())?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn an_encrypted_database_shows_nothing_and_opens_with_its_key_only() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (key, other) = (EncryptionKey::generate()?, EncryptionKey::generate()?);
    let open = |name: &str, key: Option<&EncryptionKey>| {
        let builder = Grizzly::builder(&path(name)).settings(manual());
        match key {
            Some(key) => builder.key(key.clone()).open(),
            None => builder.open(),
        }
    };
    let db = open("db", Some(&key))?;
    db.create_table(definition("very_secret_table", 1), false)?;
    db.put("very_secret_table", rows((0..50).map(|id| (id, id))))?;
    db.flush()?;
    db.put("very_secret_table", rows((20..90).map(|id| (id, 1))))?;
    let expected = pairs(&db.snapshot(), "very_secret_table", None)?;
    db.backup(&path("backups"), BackupKind::Full)?;
    db.put("very_secret_table", rows([(500, 5)]))?;
    db.backup(&path("backups"), BackupKind::Incremental)?;
    drop(db);
    let backups = Backups::open(&path("backups"), Some(key.clone()))?;
    let csn = backups.list()?[0].csn;
    backups.restore(&path("copy"), Some(other.clone()), RestoreTo::Csn(csn), &mut quiet())?;
    assert_eq!(backups.verify(&mut quiet())?.problems, Vec::<String>::new());
    for name in ["db", "backups", "copy"] {
        let files = files_below(&folder.path().join(name));
        assert!(files.len() >= 4, "{files:?}");
        for file in files {
            let bytes = std::fs::read(&file).expect("it can be read");
            for known in ["very_secret", "and-some-more-text", "public", "\"catalog\"", "row_version", "replay_from"] {
                let shown = bytes.windows(known.len()).any(|window| window == known.as_bytes());
                assert!(!shown, "{} shows {known}", file.display());
            }
        }
    }
    let before = files_below(folder.path());
    for (name, key) in [("db", None), ("db", Some(&other)), ("copy", Some(&key))] {
        assert_eq!(open(name, key).map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::Permission), "{name}");
    }
    for key in [None, Some(other.clone())] {
        let listed = Backups::open(&path("backups"), key)?.list().map_err(|error| error.kind());
        assert!(matches!(listed, Err(ErrorKind::Permission | ErrorKind::Corrupt)), "{listed:?}");
    }
    assert_eq!(files_below(folder.path()), before, "nothing was written");
    let copy = open("copy", Some(&other))?;
    assert_eq!(pairs(&copy.snapshot(), "very_secret_table", None)?, expected);
    assert_eq!(copy.verify()?.problems, Vec::<String>::new());
    let db = open("db", Some(&key))?;
    assert_eq!(pairs(&db.snapshot(), "very_secret_table", None)?.len(), expected.len() + 1);
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    drop(open("plain", None)?);
    assert_eq!(open("plain", Some(&key)).map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::Invalid));
    open("plain", None).map(|_| ())
}

#[test]
fn a_flipped_bit_in_any_file_of_a_database_is_found_and_named() -> Result<()> {
    for key in [None, Some(EncryptionKey::generate()?)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = folder.path().join("db");
        let open = || {
            let builder = Grizzly::builder(&home.to_string_lossy()).settings(manual());
            match &key {
                Some(key) => builder.key(key.clone()).open(),
                None => builder.open(),
            }
        };
        let db = open()?;
        db.create_table(definition("t", 1), false)?;
        db.put("t", rows((0..300).map(|id| (id, id % 3))))?;
        db.flush()?;
        db.backup(&folder.path().join("backups").to_string_lossy(), BackupKind::Full)?;
        db.put("t", rows((0..100).map(|id| (id, id % 5))))?;
        db.flush()?;
        db.put("t", rows([(7, 7)]))?;
        db.close()?;
        drop(db);
        let pristine: Vec<_> = files_below(&home)
            .into_iter()
            .map(|file| (file.clone(), std::fs::read(&file).expect("it can be read")))
            .collect();
        let mut kinds = BTreeSet::new();
        for (file, whole) in &pristine {
            let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
            kinds.insert(name.rsplit_once('.').map_or(name.clone(), |(_, kind)| kind.to_owned()));
            let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for at in (0..used).step_by(used / 9 + 1).chain([used / 2, used - 1, whole.len() - 1]) {
                restore_files(&home, &pristine);
                let mut damaged = whole.clone();
                damaged[at] ^= 0x10;
                std::fs::write(file, &damaged).expect("it can be written");
                let found = match open() {
                    Err(error) => vec![error.to_string()],
                    Ok(db) => {
                        let report = db.verify()?;
                        [report.problems, report.torn].concat()
                    }
                };
                assert!(found.iter().any(|problem| problem.contains(&name)), "{name} byte {at}: {found:?}");
            }
        }
        assert!(["log", "seg", "idx", "del", "json"].iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
        restore_files(&home, &pristine);
        let report = open()?.verify()?;
        assert!(report.problems.is_empty() && report.torn.is_empty(), "{report:?}");
    }
    Ok(())
}

/// All files below a folder but locks and temporary ones, sorted.
fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder can be listed").flatten() {
        let name = entry.file_name();
        if entry.path().is_dir() && name != ".tmp" {
            files.extend(files_below(&entry.path()));
        } else if entry.path().is_file() && name != "LOCK" {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

/// Makes a folder hold exactly these files again.
fn restore_files(home: &std::path::Path, files: &[(std::path::PathBuf, Vec<u8>)]) {
    for file in files_below(home) {
        std::fs::remove_file(file).expect("it can be removed");
    }
    for (file, bytes) in files {
        std::fs::write(file, bytes).expect("it can be written");
    }
}

#[test]
fn an_incremental_backup_that_comes_too_late_is_refused() -> Result<()> {
    let settings = Settings { backup_window: Duration::from_millis(1), ..manual() };
    let db = Grizzly::builder("memory://").settings(settings).open()?;
    db.create_table(definition("t", 1), false)?;
    let to = place();
    back_up(&db, &to, BackupKind::Full)?;
    std::thread::sleep(Duration::from_millis(20));
    for round in 0..3 {
        db.put("t", rows((0..200).map(|id| (id, round))))?;
        db.flush()?;
    }
    let refused = back_up(&db, &to, BackupKind::Incremental).expect_err("the log is gone");
    assert!(refused.message().contains("full"), "it says what to do: {refused}");
    back_up(&db, &to, BackupKind::Full)?;
    Ok(())
}

/// What a restore as of so many microseconds behind a commit comes to.
fn restored_at(to: &Arc<dyn Storage>, csn: Csn, behind: u64) -> std::result::Result<Csn, ErrorKind> {
    let moment = RestoreTo::Time(UNIX_EPOCH + Duration::from_micros(csn.0 + behind));
    let restored = Backups::new(Arc::clone(to)).restore_into(&place(), moment, &mut quiet());
    restored.map(|report| report.csn).map_err(|error| error.kind())
}

#[test]
fn in_a_cluster_a_backup_covers_up_to_its_last_commit() -> Result<()> {
    let (shared, alone) = (memory(), database(1)?);
    let writer = shared.node_with("one", ClusterSettings::default())?;
    writer.db.create_table(definition("t", 1), false)?;
    // The clock of the next writer may be behind; one alone has one clock.
    let later = |csn, in_cluster| if in_cluster { Err(ErrorKind::Invalid) } else { Ok(csn) };
    for (db, in_cluster) in [(&writer.db, true), (&alone, false)] {
        let to = place();
        let first = put(db, 1, 1)?;
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(db.backup_into(&to, BackupKind::Full, &mut quiet())?.csn, first);
        assert_eq!(restored_at(&to, first, 0), Ok(first));
        assert_eq!(restored_at(&to, first, 1), later(first, in_cluster));
        std::thread::sleep(Duration::from_millis(5));
        let second = put(db, 1, 2)?;
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(db.backup_into(&to, BackupKind::Incremental, &mut quiet())?.csn, second);
        // What was between two commits of the chain is known to all.
        assert_eq!(restored_at(&to, first, 1), Ok(first));
        assert_eq!(restored_at(&to, second, 0), Ok(second));
        assert_eq!(restored_at(&to, second, 1), later(second, in_cluster));
    }
    Ok(())
}

#[test]
fn a_backup_beside_a_checkpoint_that_failed_has_what_its_log_names() -> Result<()> {
    let (db, gate, _) = gated()?;
    // So many that they go to a file at once, which the log names.
    db.put("t", rows((0..70_000).map(|id| (id, id))))?;
    gate.fill("manifest");
    assert!(db.flush().is_err());
    gate.thaw();
    let to = place();
    db.backup_into(&to, BackupKind::Full, &mut quiet())?;
    let into = place();
    Backups::new(to).restore_into(&into, RestoreTo::Latest, &mut quiet())?;
    assert_eq!(pairs(&reopen(&into)?.snapshot(), "t", None)?, pairs(&db.snapshot(), "t", None)?);
    Ok(())
}

#[test]
fn a_backup_that_may_be_there_is_not_removed() -> Result<()> {
    let db = database(1)?;
    db.put("t", rows((0..100).map(|id| (id, id))))?;
    let there = place();
    let gate = Gate::new(Arc::clone(&there));
    let to: Arc<dyn Storage> = Arc::new(gate.clone());
    let back_up = || db.backup_into(&to, BackupKind::Full, &mut quiet());
    gate.lie_about("000001/backup.json", 1);
    assert!(back_up().is_err(), "it is not known whether it is there");
    gate.fail_removals("000002/begun");
    back_up()?;
    let backups = Backups::new(there);
    assert_eq!(backups.list()?.len(), 2);
    assert!(backups.verify(&mut quiet())?.problems.is_empty());
    let into = place();
    backups.restore_into(&into, RestoreTo::Latest, &mut quiet())?;
    assert_eq!(pairs(&reopen(&into)?.snapshot(), "t", None)?.len(), 100);
    Ok(())
}

#[test]
fn a_backup_takes_no_damage_with_it() -> Result<()> {
    let (db, _, storage) = gated()?;
    db.put("t", rows((0..100).map(|id| (id, id))))?;
    db.flush()?;
    db.put("t", rows((0..10).map(|id| (id, 7))))?;
    db.flush()?;
    let files = storage.list("data").expect("memory is always there");
    let kinds: BTreeSet<_> = files.iter().filter_map(|file| file.path.rsplit('.').next()).collect();
    assert_eq!(kinds.len(), 3, "rows, runs and ended rows: {files:?}");
    for file in files {
        let whole = storage.get(&file.path).expect("it is there");
        // Bits of padding among them: what `verify` would find, a backup does not take with it.
        let flipped = (0..whole.len()).step_by(whole.len() / 60 + 1).map(|at| {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 4;
            damaged.into()
        });
        let cut = [whole.slice(..whole.len() / 2), whole.slice(..whole.len() - 1), vec![0; whole.len()].into()];
        for damaged in flipped.chain(cut) {
            storage.put(&file.path, &[damaged], PutMode::Overwrite).expect("memory has room");
            let to = place();
            let refused = db.backup_into(&to, BackupKind::Full, &mut quiet()).map(drop).expect_err("it is damaged");
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
            assert!(refused.to_string().contains(&file.path), "{refused}");
            assert!(Backups::new(to).list()?.is_empty());
        }
        storage.put(&file.path, &[whole], PutMode::Overwrite).expect("memory has room");
    }
    Ok(())
}
