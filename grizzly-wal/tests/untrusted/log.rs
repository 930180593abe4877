//! Files of a log.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use grizzly_wal::{
    EncryptedStorage, EncryptionKey, ErrorKind, Known, LogTail, Lsn, MemoryStorage, NewRecord, Record, Result, Storage,
    WalOptions, check_log, open, read,
};

use crate::harness::{Choices, damage, holds};

const DIR: &str = "log";
const OWNER: u128 = 77;
const RECORDS: u64 = 12;
const KEY: [u8; 32] = [9; 32];

/// The bytes of a log that was closed.
#[derive(Clone)]
struct Log {
    files: Vec<(String, Vec<u8>)>,
    /// The key of its storage.
    key: Option<EncryptionKey>,
    /// Bytes of all payloads.
    content: usize,
    known: Known,
    /// What its records are.
    record: fn(u64) -> NewRecord,
}

/// Records of all sizes; from 300 bytes on they are compressed.
fn record(lsn: u64) -> NewRecord {
    let len = [0, 1, 40, 290, 1500, 9000][lsn as usize % 6];
    let payload: Vec<u8> = (0..len).map(|index| (lsn as usize + index / 50) as u8).collect();
    NewRecord { txn: 3 * lsn, commit_ts: 5 * lsn, kind: lsn as u8, payload: payload.into() }
}

fn other_record(lsn: u64) -> NewRecord {
    NewRecord { payload: Bytes::from(vec![7; 200]), ..record(lsn) }
}

fn storage(key: Option<&EncryptionKey>) -> (Arc<dyn Storage>, Arc<dyn Storage>) {
    let plain: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let outer = key.map(|key| -> Arc<dyn Storage> { Arc::new(EncryptedStorage::new(Arc::clone(&plain), key.clone())) });
    (Arc::clone(&plain), outer.unwrap_or(plain))
}

fn options(owner: Option<u128>) -> WalOptions {
    WalOptions { owner, segment_bytes: 1 << 20, compress_above: 300, epoch: 4, ..WalOptions::default() }
}

impl Log {
    /// Three files.
    fn write(owner: u128, key: Option<EncryptionKey>, record: fn(u64) -> NewRecord) -> Result<Self> {
        let (plain, outer) = storage(key.as_ref());
        let wal = Arc::new(open(outer, DIR, Lsn::FIRST, options(Some(owner)))?.into_writer()?);
        let mut content = 0;
        for lsn in 1..=RECORDS {
            content += record(lsn).payload.len();
            let lsn = wal.append(record(lsn))?;
            if lsn.0 % 2 == 0 {
                wal.wait_durable(lsn)?;
            }
            if lsn.0 % 4 == 0 && lsn.0 < RECORDS {
                wal.rotate()?;
            }
        }
        wal.close()?;
        let paths = plain.list_append(DIR)?.into_iter();
        let files = paths.map(|path| Ok((path.clone(), plain.read_append(&path)?.to_vec()))).collect::<Result<_>>()?;
        let known = Known { owner: Some(owner), file: 3, last: Lsn(RECORDS) };
        Ok(Self { files, key, content, known, record })
    }

    fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn is_right(&self, found: &Record) {
        let lsn = found.header.lsn;
        let NewRecord { txn, commit_ts, kind, payload } = (self.record)(lsn.0);
        let header = (found.header.txn, found.header.commit_ts, found.header.kind);
        let same = found.payload == payload;
        assert!(header == (txn, commit_ts, kind) && same, "record {lsn} is not what was written: {header:?}, {same}");
    }

    /// The same log with some bytes changed, and perhaps with another set of files.
    fn damaged(&self, other: &Self, choices: &mut Choices<'_>) -> (Self, bool) {
        let mut log = self.clone();
        let fixed = choices.bit();
        let at = choices.below(log.files.len());
        let how = choices.byte() % 8;
        let bytes = &mut log.files[at].1;
        match how {
            0 => *bytes = choices.rest().to_vec(),
            1 => {
                bytes.truncate(128);
                bytes.extend_from_slice(choices.rest());
            }
            _ => damage(bytes, &other.files[at % other.files.len()].1, choices),
        }
        if fixed {
            fix(bytes);
        }
        match choices.byte() {
            0..8 => drop(log.files.remove(at)),
            8..16 => {
                let last = log.files.len() - 1;
                let bytes = log.files[at].1.clone();
                log.files[at].1 = std::mem::replace(&mut log.files[last].1, bytes);
            }
            16..24 => log.files[at].0 = format!("{DIR}/{}.log", choices.odd_number(3)),
            _ => {}
        }
        (log, fixed)
    }

    fn plant(&self) -> Arc<dyn Storage> {
        let (plain, outer) = storage(self.key.as_ref());
        for (path, bytes) in &self.files {
            // Two names may have become one.
            let planted = plain.create_append(path, 0).and_then(|mut file| {
                file.append(bytes)?;
                file.sync()
            });
            assert!(planted.is_ok_and(|()| true) || self.files.len() > 1);
        }
        outer
    }
}

/// Gives all frames and the header of a log file the checksums that fit what they are now.
fn fix(bytes: &mut [u8]) {
    let long = u16_at(bytes, 8) > 1;
    for (end, is_there) in [(60, true), (124, long)] {
        if let Some(covered) = bytes.get(..end).filter(|_| is_there && bytes.len() >= end + 4) {
            let crc = crc32c::crc32c(covered);
            bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let Some(salt) = bytes.get(32..40).map(<[u8]>::to_vec) else { return };
    let mut at = if long { 128 } else { 64 };
    while bytes.len() >= at + 48 && bytes[at..].iter().any(|byte| *byte != 0) {
        let frame = &mut bytes[at..];
        let stored = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
        if let Some(payload) = frame.get(48..48 + stored) {
            let crc = crc32c::crc32c(payload);
            frame[40..44].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&salt), &frame[4..48]);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        at += (48 + stored).next_multiple_of(8);
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Reads a log in every way there is. `trusted` is the log as it was, if nothing else may be read in its place.
fn read_everything(log: &Log, trusted: Option<&Log>) {
    let storage = log.plant();
    holds(log.bytes() + log.content, || {
        let whole = read_once(&storage, log.known, trusted);
        assert!(!whole || trusted.is_none_or(|log| log.known.last >= Lsn(RECORDS)), "a record is missing");
        let check = check_log(&storage, DIR, Lsn::FIRST, Lsn::FIRST, log.known).map(|check| check.problem);
        let sound = matches!(check, Ok(None));
        assert_eq!(sound, whole, "{check:?}");
        follow(&storage, trusted);
        // From a record in the middle, and from one that no log reaches.
        for from in [RECORDS / 2, u64::MAX - 1, u64::MAX] {
            if let Ok(records) = read(Arc::clone(&storage), DIR, Lsn(from)) {
                records.knowing(log.known).filter_map(Result::ok).for_each(|record| check_one(trusted, &record));
            }
        }
        write_on(&storage, log.known, trusted);
    });
}

fn check_one(trusted: Option<&Log>, record: &Record) {
    if let Some(log) = trusted {
        log.is_right(record);
    }
}

/// Whether the whole log was read.
fn read_once(storage: &Arc<dyn Storage>, known: Known, trusted: Option<&Log>) -> bool {
    let Ok(records) = read(Arc::clone(storage), DIR, Lsn::FIRST) else { return false };
    let mut next = 1;
    for record in records.knowing(known) {
        let Ok(record) = record else { return false };
        assert_eq!(record.header.lsn, Lsn(next), "records out of order");
        check_one(trusted, &record);
        next += 1;
    }
    assert!(next > known.last.0, "the log ended before record {next}, and nobody noticed");
    true
}

fn follow(storage: &Arc<dyn Storage>, trusted: Option<&Log>) {
    let mut tail = LogTail::new(Arc::clone(storage), DIR, Lsn::FIRST).of(OWNER);
    for _ in 0..3 {
        tail.search();
        let Ok(records) = tail.poll() else { return };
        records.iter().for_each(|record| check_one(trusted, record));
    }
}

/// Opens the log to write, adds a record, and reads it again.
fn write_on(storage: &Arc<dyn Storage>, known: Known, trusted: Option<&Log>) {
    let Ok(replay) = open(Arc::clone(storage), DIR, Lsn::FIRST, options(known.owner)) else { return };
    let mut replay = replay.knowing(known);
    let mut read = 0;
    for record in &mut replay {
        let Ok(record) = record else { return };
        check_one(trusted, &record);
        read = record.header.lsn.0;
    }
    let wal = match replay.into_writer() {
        Ok(wal) => Arc::new(wal),
        Err(error) => return assert_ne!(error.kind(), ErrorKind::Invalid, "{error}"),
    };
    let added = wal.append(record(read + 1)).and_then(|lsn| {
        wal.wait_durable(lsn)?;
        wal.close()?;
        Ok(lsn)
    });
    let Ok(added) = added else { return };
    assert_eq!(added, Lsn(read + 1));
    let again = grizzly_wal::read(Arc::clone(storage), DIR, Lsn::FIRST).map(Iterator::last);
    assert!(again.is_ok_and(|last| last.is_some_and(|last| last.is_ok_and(|last| last.header.lsn == added))));
}

fn logs(key: Option<EncryptionKey>) -> (Log, Log) {
    let log = Log::write(OWNER, key.clone(), record).expect("memory takes a log");
    let other = Log::write(OWNER + 1, key, other_record).expect("memory takes a log");
    (log, other)
}

/// A log without a key.
pub(crate) fn plain(case: &[u8]) {
    static LOGS: OnceLock<(Log, Log)> = OnceLock::new();
    let (log, other) = LOGS.get_or_init(|| logs(None));
    let (damaged, fixed) = log.damaged(other, &mut Choices::new(case));
    read_everything(&damaged, Some(log).filter(|_| !fixed));
}

/// A log whose payloads are encrypted: right checksums do not make a forgery true.
pub(crate) fn encrypted(case: &[u8]) {
    static LOGS: OnceLock<(Log, Log)> = OnceLock::new();
    let (log, other) = LOGS.get_or_init(|| logs(Some(EncryptionKey::new(KEY))));
    let (damaged, _) = log.damaged(other, &mut Choices::new(case));
    read_everything(&damaged, Some(log));
}

/// A file of version 1, which does not say whose it is.
pub(crate) fn earlier(case: &[u8]) {
    let bytes = include_bytes!("../golden/format-1.log").to_vec();
    let files = vec![(format!("{DIR}/0000000001.log"), bytes)];
    let log = Log { files, key: None, content: 1 << 16, known: Known::default(), record };
    let (damaged, _) = log.damaged(&log, &mut Choices::new(case));
    read_everything(&damaged, None);
}

/// Numbers at the ends of their ranges, in files whose checksums fit.
pub(crate) fn odd_numbers() {
    let (log, _) = logs(None);
    let last = log.files.len() - 1;
    for number in [0, 1 << 62, u64::MAX - 1, u64::MAX] {
        // The first record of a file, and of its first frame.
        let mut forged = log.clone();
        for at in [24, 128 + 8] {
            forged.files[last].1[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        fix(&mut forged.files[last].1);
        read_everything(&forged, None);
        forged.files.drain(..last);
        read_everything(&forged, None);
        // The number of a file, in its name and in its header.
        let mut forged = log.clone();
        forged.files[last].0 = format!("{DIR}/{number:010}.log");
        forged.files[last].1[16..24].copy_from_slice(&number.to_le_bytes());
        fix(&mut forged.files[last].1);
        read_everything(&forged, None);
    }
    // What a payload has when it is unpacked.
    for raw in [0, 1, 1 << 30, (1 << 30) + 1, u32::MAX] {
        let mut forged = log.clone();
        let bytes = &mut forged.files[last].1;
        let mut at = 128;
        while at + 48 <= bytes.len() && bytes[at + 45] & 1 == 0 {
            let stored = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize;
            at += (48 + stored).next_multiple_of(8);
        }
        bytes[at + 36..at + 40].copy_from_slice(&raw.to_le_bytes());
        fix(bytes);
        read_everything(&forged, None);
        assert!(read(forged.plant(), DIR, Lsn::FIRST).expect("it can be begun").any(|record| record.is_err()));
    }
}
