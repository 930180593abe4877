//! Bits that changed and files that vanished: found and named, never skipped.

use std::sync::Arc;

use grizzly_wal::storage::faulty::{FaultPlan, FaultyStorage};
use grizzly_wal::{Error, ErrorKind, Lsn, MemoryStorage, Result, Storage, read};

use super::{DIR, check, commit, plant, reopen};

const RECORDS: u64 = 12;

/// A log of three files, closed, as (path, bytes).
fn closed_log() -> Result<Vec<(String, Vec<u8>)>> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    for lsn in 1..=RECORDS {
        assert_eq!(commit(&wal)?.0, lsn);
        if lsn % 4 == 0 && lsn < RECORDS {
            wal.rotate()?;
        }
    }
    wal.close()?;
    let paths = storage.list_append(DIR)?;
    paths.into_iter().map(|path| Ok((path.clone(), storage.read_append(&path)?.to_vec()))).collect()
}

fn plant_all(files: &[(String, Vec<u8>)]) -> Result<Arc<dyn Storage>> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    for (path, bytes) in files {
        plant(storage.as_ref(), path, bytes)?;
    }
    Ok(storage)
}

/// Reads to the first error. Every record before it is right; returns how many there were.
fn read_until_error(storage: Arc<dyn Storage>) -> (u64, Option<Error>) {
    let mut count = 0;
    let records = match read(storage, DIR, Lsn::FIRST) {
        Ok(records) => records,
        Err(error) => return (0, Some(error)),
    };
    for record in records {
        match record {
            Ok(record) => check(&record, count + 1),
            Err(error) => return (count, Some(error)),
        }
        count += 1;
    }
    (count, None)
}

#[test]
fn a_flipped_bit_anywhere_is_found() -> Result<()> {
    let files = closed_log()?;
    assert_eq!(files.len(), 3);
    let last = files.len() - 1;
    for file in 0..files.len() {
        for byte in 0..files[file].1.len() {
            let mut damaged = files.clone();
            damaged[file].1[byte] ^= 1 << (byte % 8);
            let (count, error) = read_until_error(plant_all(&damaged)?);
            // Only the end mark itself may be lost, since nothing depends on it: no record is.
            let end_mark = file == last && byte >= files[last].1.len() - 48;
            let in_end_mark = byte >= files[file].1.len() - 48;
            match error {
                Some(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    assert!(error.message().contains(&damaged[file].0), "byte {byte}: {error}");
                }
                None => {
                    assert!(end_mark || in_end_mark, "byte {byte} of file {file} changed and nobody noticed");
                    assert_eq!(count, RECORDS);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_zeroed_page_in_the_middle_is_found() -> Result<()> {
    let mut files = closed_log()?;
    let (path, bytes) = &mut files[1];
    let middle = bytes.len() / 2;
    bytes[100..middle].fill(0);
    let path = path.clone();
    let (_, error) = read_until_error(plant_all(&files)?);
    let error = error.expect("records are gone");
    assert!(error.kind() == ErrorKind::Corrupt && error.message().contains(&path), "{error}");
    Ok(())
}

#[test]
fn a_missing_file_is_found() -> Result<()> {
    for gone in 0..2 {
        let mut files = closed_log()?;
        files.remove(gone);
        let storage = plant_all(&files)?;
        let error = read_until_error(Arc::clone(&storage)).1.expect("a file is missing");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(reopen(&storage, Lsn::FIRST).is_err(), "who opens for writing must notice too");
    }
    Ok(())
}

#[test]
fn a_file_under_another_name_is_found() -> Result<()> {
    let mut files = closed_log()?;
    let (first, second) = (files[0].1.clone(), files[1].1.clone());
    (files[0].1, files[1].1) = (second, first);
    let error = read_until_error(plant_all(&files)?).1.expect("names are swapped");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    Ok(())
}

#[test]
fn other_files_in_the_folder_are_left_alone() -> Result<()> {
    let mut files = closed_log()?;
    files.push((format!("{DIR}/notes.txt"), b"not a log".to_vec()));
    let storage = plant_all(&files)?;
    assert_eq!(reopen(&storage, Lsn::FIRST)?.0, Lsn(RECORDS));
    assert_eq!(storage.read_append(&format!("{DIR}/notes.txt"))?, "not a log");
    Ok(())
}

#[test]
fn a_newer_format_is_named() -> Result<()> {
    let mut files = closed_log()?;
    let header = &mut files[2].1[..64];
    header[8] = 3;
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    let error = read_until_error(plant_all(&files)?).1.expect("format 3 is not known");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains(&files[2].0) && error.message().contains("format 3"), "{error}");
    Ok(())
}

#[test]
fn a_reader_looks_again_before_it_calls_a_live_log_damaged() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan::default());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    for _ in 0..9 {
        commit(&wal)?;
    }
    let path = storage.list_append(DIR)?.remove(0);
    let (hole, mut kept) = (700..2500, Vec::new());
    disk.damage(&path, |bytes| {
        kept = bytes[hole.clone()].to_vec();
        bytes[hole.clone()].fill(0);
    })?;
    let mut records = read(Arc::clone(&storage), DIR, Lsn::FIRST)?;
    check(&records.next().expect("it stands before the hole")?, 1);
    // As if the writer had come to the hole only after the reader had passed it.
    disk.damage(&path, |bytes| bytes[hole].copy_from_slice(&kept))?;
    for lsn in 2..=9 {
        check(&records.next().expect("the hole is filled")?, lsn);
    }
    assert!(records.next().is_none());
    Ok(())
}
