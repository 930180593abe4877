//! The log as its users see it, on healthy and on failing storage.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run beside what they test")]

mod ambiguous;
mod backup;
mod crash_matrix;
mod damage;
mod fencing;
mod full;
mod golden;
mod group_commit;
mod kill;
mod known;
mod poison;
mod requests;
mod rotation;
mod storages;
mod tail;
mod told_store;
mod torn_tail;

use std::sync::Arc;

use grizzly_wal::{AppendFile, Lsn, NewRecord, Record, Replay, Result, Storage, Wal, WalOptions, open};

/// The folder of the log in all tests.
const DIR: &str = "wal";

/// The payload that belongs to a record number: different for each, from empty to a few sectors.
fn payload(lsn: u64) -> Vec<u8> {
    let len = [0, 1, 40, 200, 1500, 5000][lsn as usize % 6];
    (0..len).map(|index| (lsn.wrapping_mul(31) as usize + index * index / 7) as u8).collect()
}

fn record(lsn: u64) -> NewRecord {
    NewRecord { txn: lsn * 3, commit_ts: lsn * 5, kind: lsn as u8, payload: payload(lsn).into() }
}

/// Appends the record that belongs to the next number.
fn append(wal: &Wal) -> Result<Lsn> {
    let expected = wal.next_lsn();
    let lsn = wal.append(record(expected.0))?;
    assert_eq!(lsn, expected);
    Ok(lsn)
}

fn commit(wal: &Wal) -> Result<Lsn> {
    let lsn = append(wal)?;
    wal.wait_durable(lsn)?;
    Ok(lsn)
}

/// Consumes the replay; checks that the records are the right ones in the right order, and returns the last number.
fn replay(replay: &mut Replay, from: Lsn) -> Result<Lsn> {
    let mut next = from.0;
    for found in replay {
        check(&found?, next);
        next += 1;
    }
    Ok(Lsn(next - 1))
}

fn check(found: &Record, lsn: u64) {
    let NewRecord { txn, commit_ts, kind, payload } = record(lsn);
    assert_eq!(found.header.lsn, Lsn(lsn));
    assert_eq!((found.header.txn, found.header.commit_ts, found.header.kind), (txn, commit_ts, kind));
    assert_eq!(found.payload, payload, "payload of record {lsn}");
}

/// Opens the log, checks what is in it, and returns the last record's number and the writer.
fn reopen(storage: &Arc<dyn Storage>, from: Lsn) -> Result<(Lsn, Arc<Wal>)> {
    reopen_with(storage, from, WalOptions::default())
}

fn reopen_with(storage: &Arc<dyn Storage>, from: Lsn, options: WalOptions) -> Result<(Lsn, Arc<Wal>)> {
    let mut records = open(Arc::clone(storage), DIR, from, options)?;
    let last = replay(&mut records, from)?;
    Ok((last, Arc::new(records.into_writer()?)))
}

/// Puts bytes as a whole append file, as if a log had written them.
fn plant(storage: &dyn Storage, path: &str, bytes: &[u8]) -> Result<()> {
    let mut file: Box<dyn AppendFile> = storage.create_append(path, 0)?;
    file.append(bytes)?;
    file.sync()
}
