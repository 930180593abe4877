//! Backups as bytes: chains, what they refuse, and what they give back.

use std::num::NonZeroUsize;
use std::sync::Arc;

use grizzly_wal::backup::{Backup, BackupSource, Backups, LoggedFile, Pruned, create};
use grizzly_wal::storage::faulty::{CrashEffect, FaultPlan, FaultyStorage};
use grizzly_wal::{
    EncryptedStorage, EncryptionKey, ErrorKind, Lsn, MemoryStorage, PutMode, Result, Storage, Wal, WalOptions,
};

use super::{DIR, commit, open, reopen};

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

fn quiet() -> impl FnMut(u64, u64) {
    |_, _| {}
}

/// A log with files beside it, backed up to `to`. Record n commits at 5 n.
struct Database {
    storage: Arc<dyn Storage>,
    wal: Arc<Wal>,
    to: Backups,
}

impl Database {
    fn new(storage: Arc<dyn Storage>, to: Arc<dyn Storage>) -> Result<Self> {
        let (_, wal) = reopen(&storage, Lsn(1))?;
        Ok(Self { storage, wal, to: Backups::new(to) })
    }

    fn commit(&self, records: u64) -> Result<()> {
        (0..records).try_for_each(|_| commit(&self.wal).map(drop))
    }

    fn file(&self, path: &str) -> Result<()> {
        self.storage.put(path, &[path.repeat(50).into_bytes().into()], PutMode::Create)
    }

    /// A backup whose state contains the records before `state`, and these files.
    fn back_up(&self, state: u64, files: &[&str], logged: &[(&str, u64)], parent: Option<&Backup>) -> Result<Backup> {
        let end = self.wal.durable_lsn();
        let source = BackupSource {
            storage: Arc::clone(&self.storage),
            log_dir: DIR.into(),
            database: "this one".into(),
            chain: format!("chain of {}", end.0),
            created: 5 * end.0,
            state: format!("state before {state}").into(),
            state_csn: 5 * (state - 1),
            state_lsn: Lsn(state),
            state_files: files.iter().map(|path| (*path).to_owned()).collect(),
            log_files: logged.iter().map(|(path, lsn)| LoggedFile { path: (*path).to_owned(), lsn: *lsn }).collect(),
            end,
            end_csn: 5 * end.0,
            covers: 5 * end.0 + 2,
        };
        create(&self.to, &source, &|_, _| Ok(()), parent, &mut quiet())
    }
}

/// Restores, and returns the state, the paths of the files and the last record.
fn restore(backups: &Backups, to: Option<u64>) -> Result<(String, Vec<String>, u64)> {
    let target = memory();
    let plan = backups.plan(to)?;
    let state = backups.check(&plan, &mut quiet())?;
    let restored = backups.write(&plan, &target, (DIR, None), &mut quiet())?;
    let (last, wal) = reopen(&target, Lsn(plan.base().state.first_lsn))?;
    wal.close()?;
    assert!(last.0 == 0 || restored.records == 0 || restored.csn == 5 * last.0);
    let files = target.list("")?.into_iter().map(|file| file.path);
    Ok((String::from_utf8_lossy(&state).into_owned(), files.collect(), last.0))
}

fn chain(storage: Arc<dyn Storage>, to: Arc<dyn Storage>) -> Result<Database> {
    let db = Database::new(storage, to)?;
    db.file("data/a")?;
    db.commit(10)?;
    let full = db.back_up(6, &["data/a"], &[], None)?;
    db.file("data/b")?;
    db.commit(10)?;
    let second = db.back_up(6, &["data/a"], &[("data/b", 15)], Some(&full))?;
    db.file("data/c")?;
    db.storage.remove("data/a")?;
    db.commit(10)?;
    db.back_up(26, &["data/c"], &[("data/b", 15)], Some(&second))?;
    Ok(db)
}

#[test]
fn a_chain_gives_back_every_record() -> Result<()> {
    let db = chain(memory(), memory())?;
    let check = db.to.verify(&mut quiet())?;
    assert_eq!((check.backups, check.records, check.problems), (3, 25, vec![]));
    let old = |last| ("state before 6".to_owned(), vec!["data/a".to_owned()], last);
    assert_eq!(restore(&db.to, Some(25))?, old(5));
    for lsn in 6..=10 {
        assert_eq!(restore(&db.to, Some(5 * lsn))?, old(lsn));
        assert_eq!(restore(&db.to, Some(5 * lsn - 1))?, old(lsn - 1), "the moment before a commit");
    }
    let both = vec!["data/a".to_owned(), "data/b".to_owned()];
    for lsn in 11..25 {
        assert_eq!(restore(&db.to, Some(5 * lsn))?, ("state before 6".to_owned(), both.clone(), lsn));
    }
    let new = |last| ("state before 26".to_owned(), vec!["data/c".to_owned()], last);
    assert_eq!(restore(&db.to, Some(130))?, new(26));
    assert_eq!(restore(&db.to, None)?, new(30));
    assert_eq!(restore(&db.to, Some(152))?, new(30));
    for outside in [24, 153] {
        let error = restore(&db.to, Some(outside)).expect_err("no backup covers it");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("25 to 152"), "{error}");
    }
    Ok(())
}

#[test]
fn only_what_the_chain_lacks_is_copied() -> Result<()> {
    let db = chain(memory(), memory())?;
    let copied: Vec<Vec<String>> =
        db.to.list()?.into_iter().map(|backup| backup.files.into_iter().map(|file| file.path).collect()).collect();
    assert_eq!(copied, [["data/a"], ["data/b"], ["data/c"]]);
    assert_eq!(db.to.list()?.iter().map(Backup::id).collect::<Vec<_>>(), ["000001", "000002", "000003"]);
    Ok(())
}

#[test]
fn a_log_that_was_cut_or_went_another_way_is_not_continued() -> Result<()> {
    let db = chain(memory(), memory())?;
    let parent = db.to.newest()?.expect("there are three");
    let refused = |backup: Result<Backup>, why: &str| {
        let error = backup.expect_err("it must be refused");
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains(why), "{error}");
    };
    let other = Database::new(memory(), Arc::clone(db.to.storage()))?;
    other.commit(20)?;
    refused(other.back_up(1, &[], &[], Some(&parent)), "record 30 is another one");
    for _ in 0..15 {
        other.wal.append(grizzly_wal::NewRecord { commit_ts: 1, ..Default::default() })?;
    }
    other.wal.wait_durable(Lsn(35))?;
    refused(other.back_up(1, &[], &[], Some(&parent)), "record 30 is another one");
    db.wal.rotate()?;
    db.commit(1)?;
    db.wal.truncate_before(Lsn(31))?;
    refused(db.back_up(31, &["data/c"], &[], Some(&parent)), "no longer reaches back to backup 000003");
    assert_eq!(db.to.verify(&mut quiet())?.problems, Vec::<String>::new(), "what failed is not a backup");
    db.back_up(31, &["data/c"], &[], None)?;
    assert_eq!(db.to.list()?.len(), 4);
    Ok(())
}

#[test]
fn a_place_of_something_else_and_newer_backups_are_left_alone() -> Result<()> {
    let db = chain(memory(), memory())?;
    let letter = memory();
    letter.put("letter.txt", &["dear reader".into()], PutMode::Create)?;
    let error = Backups::new(letter).list().expect_err("it is a letter");
    assert!(error.kind() == ErrorKind::Invalid && error.message().contains("letter.txt"), "{error}");
    let path = "000002/backup.json";
    let text = db.to.storage().get(path)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').expect("a checksum follows");
    let json = String::from_utf8_lossy(&text[..end]).replace("\"format\":1", "\"format\":2");
    let newer = format!("{json}\n{:08x}", crc32c::crc32c(json.as_bytes()));
    db.to.storage().put(path, &[newer.into()], PutMode::Overwrite)?;
    let error = restore(&db.to, None).expect_err("it is newer than this build");
    assert!(error.kind() == ErrorKind::Unsupported && error.message().contains(path), "{error}");
    Ok(())
}

/// Backups 1 to 3, a chain of 4 and 5, and 6 alone.
fn three_chains(to: Arc<dyn Storage>) -> Result<Database> {
    let db = chain(memory(), to)?;
    let full = db.back_up(26, &["data/c"], &[], None)?;
    db.commit(10)?;
    db.back_up(26, &["data/c"], &[], Some(&full))?;
    db.commit(5)?;
    db.back_up(26, &["data/c"], &[], None)?;
    Ok(db)
}

fn keep(chains: usize) -> NonZeroUsize {
    NonZeroUsize::new(chains).expect("at least one")
}

fn numbers(backups: &[Backup]) -> Vec<u64> {
    backups.iter().map(|backup| backup.number).collect()
}

#[test]
fn old_chains_are_removed_whole() -> Result<()> {
    let db = three_chains(memory())?;
    let storage = db.to.storage();
    assert_eq!(db.to.prunable(keep(3))?, Pruned::default());
    assert_eq!(numbers(&db.to.prunable(keep(1))?.backups), [1, 2, 3, 4, 5]);
    assert_eq!(db.to.list()?.len(), 6, "nothing has happened yet");
    // One that was never finished, among those that go.
    for piece in ["000002/backup.json", "000003/backup.json"] {
        storage.remove(piece)?;
    }
    for piece in ["000002/begun", "000003/begun", "000007/begun"] {
        storage.put(piece, &["somebody".into()], PutMode::Create)?;
    }
    let pruned = db.to.prune(keep(2))?;
    assert_eq!((numbers(&pruned.backups), pruned.unfinished), (vec![1], vec!["000002".into(), "000003".into()]));
    assert_eq!(numbers(&db.to.list()?), [4, 5, 6]);
    let folders = storage.list("")?.into_iter().map(|object| object.path[..6].to_owned());
    let folders: std::collections::BTreeSet<String> = folders.collect();
    assert!(folders.into_iter().eq(["000004", "000005", "000006", "000007"]), "a newer one may be being written");
    assert_eq!(restore(&db.to, None)?.2, 45);
    assert_eq!(restore(&db.to, Some(5 * 33))?.2, 33);
    assert_eq!(restore(&db.to, Some(100)).map_err(|error| error.kind()), Err(ErrorKind::Invalid));
    db.commit(1)?;
    let newest = db.to.newest()?;
    assert_eq!(db.back_up(26, &["data/c"], &[], newest.as_ref())?.number, 8);
    Ok(())
}

#[test]
fn nothing_is_removed_while_what_stays_is_damaged() -> Result<()> {
    let db = three_chains(memory())?;
    let storage = db.to.storage();
    let path = "000004/backup.json";
    let whole = storage.get(path)?;
    storage.put(path, &["no description".into()], PutMode::Overwrite)?;
    let refused = |why: &str| {
        let error = db.to.prune(keep(1)).expect_err("a chain is broken");
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains(why), "{error}");
    };
    refused(path);
    storage.put(path, &[whole], PutMode::Overwrite)?;
    let before = storage.list("")?;
    for object in storage.list("000005")? {
        storage.put(&object.path.replace("000005", "000008"), &[storage.get(&object.path)?], PutMode::Create)?;
    }
    refused("000008");
    assert!(before.iter().all(|object| storage.get(&object.path).is_ok()), "nothing was removed");
    Ok(())
}

#[test]
fn a_removal_that_is_cut_short_leaves_whole_chains() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let db = three_chains(Arc::new(disk.clone()))?;
    let before = disk.sync_points();
    db.to.prune(keep(1))?;
    let points = disk.sync_points() - before;
    assert!(points > 15, "{points} steps");
    for (point, effect) in (0..points).flat_map(|point| [(point, CrashEffect::Lost), (point, CrashEffect::Done)]) {
        let disk = FaultyStorage::new(FaultPlan::default());
        let db = three_chains(Arc::new(disk.clone()))?;
        disk.arm(FaultPlan { crash: Some((disk.sync_points() + point, effect)), ..FaultPlan::default() });
        assert!(db.to.prune(keep(1)).is_err(), "step {point}");
        let left = Backups::new(disk.crash_image());
        assert_eq!(left.verify(&mut quiet())?.problems, Vec::<String>::new(), "step {point}");
        for backup in left.list()? {
            assert_eq!(restore(&left, Some(backup.end.csn))?.2, backup.end.lsn, "step {point}");
        }
        left.prune(keep(1))?;
        assert!(left.storage().list("")?.iter().all(|object| object.path.starts_with("000006/")), "step {point}");
    }
    Ok(())
}

#[test]
fn encrypted_logs_and_backups_show_nothing() -> Result<()> {
    let (storage, to, key) = (memory(), memory(), EncryptionKey::generate()?);
    let through = |inner: &Arc<dyn Storage>| -> Arc<dyn Storage> {
        Arc::new(EncryptedStorage::new(Arc::clone(inner), key.clone()))
    };
    let db = chain(through(&storage), through(&to))?;
    assert_eq!(restore(&db.to, None)?.2, 30);
    db.wal.append(grizzly_wal::NewRecord { payload: "a known string".repeat(500).into(), ..Default::default() })?;
    db.wal.close()?;
    let log = storage.list_append(DIR)?.into_iter().map(|path| storage.read_append(&path));
    let objects = [&storage, &to].map(|place| {
        place.list("").map(|all| all.into_iter().map(|object| place.get(&object.path)).collect::<Result<Vec<_>>>())
    });
    let mut files = log.collect::<Result<Vec<_>>>()?;
    for objects in objects {
        files.extend(objects??);
    }
    for known in ["a known", "known string", "data/", "state before", "this one", "chain of"] {
        assert!(!files.iter().any(|file| file.windows(known.len()).any(|at| at == known.as_bytes())), "{known}");
    }
    let kinds = [Arc::clone(&storage), Arc::new(EncryptedStorage::new(storage, EncryptionKey::generate()?))]
        .map(|storage| grizzly_wal::read(storage, DIR, Lsn(1)).map(|mut log| log.next()));
    for first in kinds {
        let first = first?.expect("there are records");
        assert_eq!(first.map_err(|error| error.kind()), Err(ErrorKind::Permission));
    }
    Ok(())
}

#[test]
fn an_encrypted_log_is_reopened_and_rotated_like_any_other() -> Result<()> {
    let key = EncryptionKey::generate()?;
    let storage: Arc<dyn Storage> = Arc::new(EncryptedStorage::new(memory(), key));
    for round in 0..5 {
        let mut replay =
            open(Arc::clone(&storage), DIR, Lsn(1), WalOptions { segment_bytes: 4096, ..Default::default() })?;
        assert_eq!(super::replay(&mut replay, Lsn(1))?, Lsn(10 * round));
        let wal = Arc::new(replay.into_writer()?);
        (0..10).try_for_each(|_| commit(&wal).map(drop))?;
    }
    let check = grizzly_wal::check_log(&storage, DIR, Lsn(1), Lsn(1), grizzly_wal::Known::default())?;
    assert_eq!((check.records, check.problem), (50, None));
    Ok(())
}
