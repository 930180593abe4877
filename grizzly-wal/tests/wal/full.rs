//! Appends that fail where nobody else reads the log: what they left is taken back, and the log goes on.

use std::sync::Arc;

use grizzly_wal::storage::faulty::{CrashEffect, FaultPlan, FaultyStorage};
use grizzly_wal::{ErrorKind, FsStorage, Lsn, Result, Storage, WalOptions};

use super::{DIR, append, commit, reopen, reopen_with};

fn sole() -> WalOptions {
    WalOptions { sole: true, segment_bytes: 64 << 10, ..WalOptions::default() }
}

#[test]
fn what_is_said_not_to_be_written_never_is() -> Result<()> {
    let (mut taken_back, mut unknown) = (0, 0);
    for call in 0.. {
        let disk = FaultyStorage::new(FaultPlan { fail_call: Some(call), ..FaultPlan::default() });
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let Ok((_, wal)) = reopen_with(&storage, Lsn::FIRST, sole()) else { continue };
        let mut confirmed = Lsn(0);
        let outcome = (0..8).try_for_each(|number| {
            // Two records in a group, as a rule.
            append(&wal)?;
            confirmed = commit(&wal)?;
            if number == 3 { wal.rotate().map(drop) } else { Ok(()) }
        });
        if disk.calls() <= call {
            assert!(outcome.is_ok());
            break;
        }
        let Err(error) = outcome else { continue };
        let durable = wal.durable_lsn();
        match error.kind() {
            ErrorKind::Io => {
                assert!(wal.can_go_on() && error.message().contains("nothing was written"), "{error}");
                taken_back += 1;
                // Whatever a power failure makes of what was not synced.
                for effect in [CrashEffect::Lost, CrashEffect::Done, CrashEffect::Prefix, CrashEffect::Torn] {
                    disk.arm(FaultPlan { crash: Some((u64::MAX, effect)), seed: call, ..FaultPlan::default() });
                    assert_eq!(reopen(&disk.crash_image(), Lsn::FIRST)?.0, durable, "call {call}, {effect:?}");
                }
                disk.arm(FaultPlan::default());
                assert_eq!(append(&wal).expect_err("it takes no more").kind(), ErrorKind::Io);
                if durable.next() < wal.next_lsn() {
                    assert_eq!(wal.wait_durable(durable.next()).expect_err("it was refused").kind(), ErrorKind::Io);
                }
                let (found, next) = reopen_with(&storage, Lsn::FIRST, sole())?;
                assert_eq!(found, durable);
                let last = commit(&next)?;
                drop((wal, next));
                assert_eq!(reopen(&storage, Lsn::FIRST)?.0, last);
            }
            kind => {
                assert_eq!(kind, ErrorKind::Poisoned, "{error}");
                assert!(!wal.can_go_on());
                unknown += 1;
            }
        }
        assert!(durable >= confirmed);
    }
    assert!(taken_back >= 8 && unknown >= 8, "{taken_back} taken back, {unknown} unknown");
    Ok(())
}

#[test]
fn a_log_on_a_full_disk_goes_on_when_there_is_room() -> Result<()> {
    let disk = FaultyStorage::new(FaultPlan { capacity: Some(20_000), ..FaultPlan::default() });
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (_, wal) = reopen_with(&storage, Lsn::FIRST, sole())?;
    let error = loop {
        if let Err(error) = commit(&wal) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full);
    let durable = wal.durable_lsn();
    // Still full: the next file finds no room for its first bytes, and nothing is lost by the attempt.
    disk.arm(FaultPlan { capacity: Some(10), ..FaultPlan::default() });
    let refused = reopen_with(&storage, Lsn::FIRST, sole()).map(drop).expect_err("there is no room");
    assert_eq!(refused.kind(), ErrorKind::Full);
    disk.arm(FaultPlan::default());
    let (found, wal) = reopen_with(&storage, Lsn::FIRST, sole())?;
    assert_eq!(found, durable);
    commit(&wal)?;
    wal.close()
}

#[test]
fn a_file_on_disk_is_cut_where_the_last_sync_ended() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = FsStorage::new(folder.path()).expect("a folder can be used");
    let path = format!("{DIR}/0000000001.log");
    let mut file = storage.create_append(&path, 1 << 20)?;
    file.append(b"synced")?;
    file.sync()?;
    file.append(b"not synced")?;
    file.withdraw()?;
    assert_eq!(storage.read_append(&path)?, "synced");
    Ok(())
}
