//! A crash at every sync point, with every effect: what was confirmed is there, in order, and nothing half.

use std::sync::Arc;

use grizzly_wal::storage::faulty::{CrashEffect, FaultPlan, FaultyStorage};
use grizzly_wal::{Lsn, Result, Storage, WalOptions};
use parking_lot::Mutex;

use super::{append, commit, reopen, reopen_with};

/// What the writer knew when the machine stopped.
#[derive(Debug, Default)]
struct Known {
    /// The last record confirmed as durable.
    confirmed: u64,
    /// The last record handed to the log.
    appended: u64,
    /// Where the next replay may begin: everything before is durable elsewhere.
    checkpoint: u64,
}

/// Options under which the log thread waits at `gate` after each sync: what is appended while the gate is closed
/// becomes one group.
fn gated(gate: &Arc<Mutex<()>>) -> WalOptions {
    let gate = Arc::clone(gate);
    let on_durable = Box::new(move |_| drop(gate.lock()));
    WalOptions { segment_bytes: 9000, compress_above: 1000, on_durable: Some(on_durable), ..WalOptions::default() }
}

/// Single commits, groups, rotations by size and by request, truncation, a clean close and a second run.
fn work(storage: &Arc<dyn Storage>, known: &mut Known) -> Result<()> {
    let gate = Arc::new(Mutex::new(()));
    for _ in 0..2 {
        let (_, wal) = reopen_with(storage, Lsn(known.checkpoint.max(1)), gated(&gate))?;
        for step in 0..3 {
            known.appended += 1;
            known.confirmed = commit(&wal)?.0;
            let closed = gate.lock();
            let mut last = Lsn(0);
            for _ in 0..5 {
                known.appended += 1;
                last = append(&wal)?;
            }
            drop(closed);
            if step == 1 {
                let checkpoint = wal.rotate()?;
                known.confirmed = checkpoint.0 - 1;
                known.checkpoint = checkpoint.0;
                wal.truncate_before(checkpoint)?;
            }
            wal.wait_durable(last)?;
            known.confirmed = last.0;
        }
        wal.close()?;
    }
    Ok(())
}

/// Runs the work into the crash, opens what is left of the disk, and goes on working there.
fn crash_and_recover(plan: FaultPlan) -> Result<bool> {
    let disk = FaultyStorage::new(plan);
    let mut known = Known::default();
    let outcome = work(&(Arc::new(disk.clone()) as Arc<dyn Storage>), &mut known);
    assert_eq!(outcome.is_err(), disk.crashed(), "{plan:?}: {outcome:?}");

    let image = disk.crash_image();
    let from = Lsn(known.checkpoint.max(1));
    let (found, wal) = reopen(&image, from)?;
    assert!(found.0 >= known.confirmed, "{plan:?}: {known:?}, but only {found} is there");
    assert!(found.0 <= known.appended, "{plan:?}: {known:?}, but {found} was found");
    let last = commit(&wal)?;
    assert_eq!(last, found.next());
    // Twice more: once without a close, once after it.
    drop(wal);
    let (found, wal) = reopen(&image, from)?;
    assert_eq!(found, last);
    wal.close()?;
    assert_eq!(reopen(&image, from)?.0, last);
    Ok(disk.crashed())
}

#[test]
fn every_sync_point_with_every_effect() -> Result<()> {
    let mut crashes = 0;
    for (effect, seeds) in
        [(CrashEffect::Lost, 1), (CrashEffect::Done, 1), (CrashEffect::Prefix, 12), (CrashEffect::Torn, 24)]
    {
        for seed in 0..seeds {
            for point in 0.. {
                let plan = FaultPlan { crash: Some((point, effect)), seed, ..FaultPlan::default() };
                if !crash_and_recover(plan).map_err(|error| error.with_source(Plan(plan)))? {
                    break;
                }
                crashes += 1;
            }
        }
    }
    assert!(crashes > 38 * 20, "only {crashes} crashes were tried");
    Ok(())
}

/// Names the plan in the report of a failed run.
#[derive(Debug)]
struct Plan(FaultPlan);

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Plan {}

#[test]
fn a_crash_during_recovery_is_recovered_from() -> Result<()> {
    for effect in [CrashEffect::Lost, CrashEffect::Done, CrashEffect::Torn] {
        for point in 0..6 {
            let disk = FaultyStorage::new(FaultPlan::default());
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let (_, wal) = reopen(&storage, Lsn::FIRST)?;
            let last = commit(&wal)?;
            std::mem::forget(wal);
            disk.arm(FaultPlan { crash: Some((disk.sync_points() + point, effect)), ..FaultPlan::default() });
            // Fails or not, depending on the point; what counts is what is found afterwards.
            let second = reopen(&storage, Lsn::FIRST).map(|(found, _)| found);
            assert!(second.is_err() == disk.crashed() || second.is_ok_and(|found| found == last));
            assert_eq!(reopen(&disk.crash_image(), Lsn::FIRST)?.0, last, "{effect:?} at {point}");
        }
    }
    Ok(())
}
