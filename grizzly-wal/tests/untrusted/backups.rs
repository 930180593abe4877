//! Places of backups: descriptions, pieces, and the names of both.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use grizzly_wal::backup::{Backup, BackupSource, Backups, LoggedFile, Piece, create};
use grizzly_wal::{Lsn, MemoryStorage, NewRecord, PutMode, Record, Result, Storage, WalOptions, open, read};

use crate::harness::{Choices, damage, holds};

const DIR: &str = "log";
const RECORDS: u64 = 24;
/// Moments that are restored.
const MOMENTS: [Option<u64>; 5] = [None, Some(5 * 3), Some(5 * 12), Some(0), Some(u64::MAX)];

type Objects = BTreeMap<String, Bytes>;

/// A place, and what restoring gives.
struct Place {
    objects: Objects,
    /// Bytes of the content of all pieces.
    content: usize,
    restored: Vec<Option<Restored>>,
}

/// State, files and records.
type Restored = (Bytes, Objects, Vec<Record>);

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

fn record(lsn: u64) -> NewRecord {
    let payload = vec![lsn as u8; 100 + lsn as usize];
    NewRecord { txn: lsn, commit_ts: 5 * lsn, kind: 1, payload: payload.into() }
}

/// A full backup and two that continue it, each of which has the third part of the records and a file.
fn build(name: &str) -> Result<Place> {
    let (storage, place) = (memory(), memory());
    let wal = open(Arc::clone(&storage), DIR, Lsn::FIRST, WalOptions::default())?.into_writer()?;
    let backups = Backups::new(Arc::clone(&place));
    let mut parent: Option<Backup> = None;
    for number in 0..3 {
        let (path, content) = (format!("data/{number}"), name.repeat(40 * (number as usize + 1)));
        storage.put(&path, &[content.into()], PutMode::Create)?;
        for lsn in 1..=RECORDS / 3 {
            wal.append(record(number * RECORDS / 3 + lsn))?;
        }
        let end = Lsn((number + 1) * RECORDS / 3);
        wal.wait_durable(end)?;
        let source = BackupSource {
            storage: Arc::clone(&storage),
            log_dir: DIR.into(),
            database: name.into(),
            chain: format!("chain of {name}"),
            created: number,
            state: Bytes::from(format!("state of {name}").repeat(20)),
            state_csn: 5,
            state_lsn: Lsn(2),
            state_files: vec!["data/0".into()],
            log_files: vec![LoggedFile { path, lsn: end.0 }],
            end,
            end_csn: 5 * end.0,
            covers: 5 * end.0 + 2,
        };
        parent = Some(create(&backups, &source, &|_, _| Ok(()), parent.as_ref(), &mut |_, _| {})?);
    }
    let content = backups.list()?.iter().flat_map(Backup::pieces).map(|piece| piece.raw as usize).sum();
    let restored = MOMENTS.iter().map(|to| restore(&backups, *to).ok()).collect();
    Ok(Place { objects: objects(&place)?, content, restored })
}

fn objects(storage: &Arc<dyn Storage>) -> Result<Objects> {
    let files = storage.list("")?.into_iter();
    files.map(|file| Ok((file.path.clone(), storage.get(&file.path)?))).collect()
}

fn restore(backups: &Backups, to: Option<u64>) -> Result<Restored> {
    let target = memory();
    let plan = backups.plan(to)?;
    let state = backups.check(&plan, &mut |_, _| {})?;
    backups.write(&plan, &target, (DIR, None), &mut |_, _| {})?;
    let from = Lsn(plan.base().state.first_lsn);
    let records = read(Arc::clone(&target), DIR, from)?.collect::<Result<Vec<Record>>>()?;
    Ok((state, objects(&target)?, records))
}

fn checksummed(json: &[u8]) -> Bytes {
    [json, format!("\n{:08x}", crc32c::crc32c(json)).as_bytes()].concat().into()
}

/// The description among the objects beside `path`, without its checksum.
fn description(objects: &Objects, path: &str) -> Option<(String, Bytes)> {
    let name = format!("{}/backup.json", path.split('/').next()?);
    let text = objects.get(&name)?;
    Some((name, text.slice(..text.len().checked_sub(9)?)))
}

fn piece_of<'b>(backup: &'b mut Backup, path: &str) -> Option<&'b mut Piece> {
    let files = backup.files.iter_mut().map(|file| &mut file.piece);
    let log = backup.log.iter_mut().map(|log| &mut log.piece);
    files.chain(log).chain([&mut backup.state.piece]).find(|piece| piece.name == path)
}

/// Damages the content of the piece at `path`, and has its backup describe what it is now.
fn forge_piece(objects: &mut Objects, path: &str, other: &[u8], choices: &mut Choices<'_>) -> Option<()> {
    let (name, json) = description(objects, path)?;
    let mut backup: Backup = serde_json::from_slice(&json).ok()?;
    let piece = piece_of(&mut backup, path)?;
    let mut stored = objects.get(path)?.to_vec();
    let inside = choices.bit();
    if piece.zstd && inside {
        stored = zstd::bulk::decompress(&stored, piece.raw as usize).ok()?;
    }
    damage(&mut stored, other, choices);
    if piece.zstd && inside {
        (piece.raw, piece.raw_crc) = (stored.len() as u64, crc32c::crc32c(&stored));
        stored = zstd::bulk::compress(&stored, 3).ok()?;
    } else if !piece.zstd {
        (piece.raw, piece.raw_crc) = (stored.len() as u64, crc32c::crc32c(&stored));
    }
    if choices.byte() < 40 {
        piece.raw = choices.odd_number(stored.len());
    }
    (piece.stored, piece.stored_crc) = (stored.len() as u64, crc32c::crc32c(&stored));
    objects.insert(path.to_owned(), stored.into());
    objects.insert(name, checksummed(&serde_json::to_vec(&backup).ok()?));
    Some(())
}

/// Damages a place. Whether its checksums fit all the same.
fn forge(objects: &mut Objects, other: &Objects, choices: &mut Choices<'_>) -> bool {
    let forged = choices.bit();
    let at = choices.below(objects.len());
    let Some(path) = objects.keys().nth(at).cloned() else { return forged };
    let path = if choices.byte() < 100 { format!("00000{}/backup.json", choices.byte() % 3 + 1) } else { path };
    let part = other.values().nth(at).cloned().unwrap_or_default();
    let Some(bytes) = objects.get(&path).cloned() else { return forged };
    match (forged, description(objects, &path)) {
        (true, Some((name, json))) if name == path => {
            let mut json = json.to_vec();
            damage(&mut json, &part, choices);
            objects.insert(path, checksummed(&json));
        }
        (true, _) => {
            forge_piece(objects, &path, &part, choices).unwrap_or_default();
        }
        (false, _) => {
            let mut bytes = bytes.to_vec();
            match choices.byte() % 8 {
                0 => bytes = choices.rest().to_vec(),
                _ => damage(&mut bytes, &part, choices),
            }
            objects.insert(path, bytes.into());
        }
    }
    forged
}

/// Gives an object another name, or takes it away.
fn rename(objects: &mut Objects, choices: &mut Choices<'_>) {
    let at = choices.below(objects.len());
    let how = choices.byte();
    if how >= 24 {
        return;
    }
    let Some(path) = objects.keys().nth(at).cloned() else { return };
    let bytes = objects.remove(&path).unwrap_or_default();
    match how {
        0..8 => {}
        8..16 => drop(objects.insert(format!("{:06}/{}", choices.odd_number(3), &path[7..]), bytes)),
        _ => drop(objects.insert("something/else".to_owned(), bytes)),
    }
}

pub(crate) fn damaged(case: &[u8]) {
    static PLACES: OnceLock<(Place, Place)> = OnceLock::new();
    let built = || (build("one").expect("memory takes it"), build("another").expect("memory takes it"));
    let (place, other) = PLACES.get_or_init(built);
    let mut choices = Choices::new(case);
    let mut objects = place.objects.clone();
    let forged = forge(&mut objects, &other.objects, &mut choices);
    rename(&mut objects, &mut choices);
    read_everything(place, &objects, forged);
}

/// Reads a place in every way there is. Unless it was `forged`, nothing else than what was backed up may come of it.
fn read_everything(place: &Place, objects: &Objects, forged: bool) {
    let storage = memory();
    for (path, bytes) in objects {
        storage.put(path, std::slice::from_ref(bytes), PutMode::Create).expect("memory takes it");
    }
    let input = objects.values().map(Bytes::len).sum::<usize>() + place.content;
    holds(input, || {
        let backups = Backups::new(Arc::clone(&storage));
        let verified = backups.verify(&mut |_, _| {});
        for (to, expected) in MOMENTS.into_iter().zip(&place.restored) {
            let restored = restore(&backups, to);
            if forged {
                continue;
            }
            let sound = verified.as_ref().is_ok_and(|check| check.problems.is_empty());
            match (restored, expected) {
                (Ok(restored), Some(expected)) => assert!(&restored == expected, "something else was restored"),
                (Ok(_), None) => assert!(!sound, "more was restored than was backed up"),
                (Err(error), Some(_)) => {
                    // What is gone at the end of a chain leaves a shorter one.
                    assert!(!sound || objects.len() < place.objects.len(), "{error}, and nothing is wrong");
                }
                (Err(_), None) => {}
            }
        }
        drop(backups.list().map(|list| list.iter().map(Backup::stored_bytes).fold(0, u64::wrapping_add)));
        drop(backups.newest());
        let source = backups.newest().ok().flatten();
        assert!(source.is_none_or(|newest| newest.continues_from() <= Lsn(u64::MAX)));
        drop(backups.prune(NonZeroUsize::MIN));
    });
}

/// Numbers at the ends of their ranges, in descriptions whose checksums fit.
pub(crate) fn odd_numbers() {
    let place = build("one").expect("memory takes it");
    let path = "000003/backup.json";
    let (_, json) = description(&place.objects, path).expect("it is there");
    let fields = [
        "/end/lsn",
        "/end/covers",
        "/state/first_lsn",
        "/state/csn",
        "/state/piece/raw",
        "/state/piece/stored",
        "/log/0/first",
        "/log/0/last",
        "/log/0/raw",
        "/files/0/raw",
        "/log_files/0/lsn",
        "/number",
        "/parent",
    ];
    for field in fields {
        for number in [0, 1 << 62, u64::MAX - 1, u64::MAX] {
            let mut description: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
            *description.pointer_mut(field).expect("it is there") = number.into();
            let mut objects = place.objects.clone();
            objects.insert(path.to_owned(), checksummed(description.to_string().as_bytes()));
            read_everything(&place, &objects, true);
        }
    }
    for name in ["18446744073709551615/begun", "18446744073709551615/backup.json", "+00004/backup.json"] {
        let mut objects = place.objects.clone();
        objects.insert(name.to_owned(), Bytes::new());
        read_everything(&place, &objects, true);
    }
    // Paths that lead out of the database, and onto files that are not a backup's.
    for text in ["../x", "/x", "LOCK", "log/0000000001.log", ""] {
        let mut description: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
        description["files"][0]["path"] = text.into();
        description["log_files"][0]["path"] = text.into();
        let mut objects = place.objects.clone();
        objects.insert(path.to_owned(), checksummed(description.to_string().as_bytes()));
        read_everything(&place, &objects, true);
    }
}
