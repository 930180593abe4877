//! The thread that flushes and compacts while others work.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Weak, atomic::Ordering},
};

use grizzly_wal::world;

use super::{
    super::{alone::begin::begin_to_write, core::Inner, ddl},
    collect, compact, flush, room,
    signals::Signals,
};
use crate::error::{Error, ErrorKind, Result};

/// Rounds without a flush after which segments are looked at for compaction all the same.
const COMPACT_EVERY: u32 = 20;

/// Starts the thread, if the settings want one.
pub(crate) fn start(db: &Arc<Inner>) -> Result<()> {
    if !db.settings.background {
        return Ok(());
    }
    let (weak, signals) = (Arc::downgrade(db), Arc::clone(&db.signals));
    let failed = |error| Error::new(ErrorKind::Resource, "the maintenance thread cannot be started").with_source(error);
    world::spawn("grizzly-maintenance", move || run(&weak, &signals)).map(drop).map_err(failed)
}

/// Runs until the database is closed or dropped.
fn run(db: &Weak<Inner>, signals: &Arc<Signals>) {
    for round in 1_u32.. {
        if !signals.wait() {
            return;
        }
        let Some(db) = db.upgrade() else { return };
        let compact = round.is_multiple_of(COMPACT_EVERY);
        // Whoever waits for a flush must not wait for a thread that is gone.
        let looked = panic::catch_unwind(AssertUnwindSafe(|| look_around(&db, compact))).unwrap_or_else(|_| {
            let error = Error::internal("background work panicked");
            signals.failed(&error);
            Err(error)
        });
        if let Err(error) = looked {
            if db.check_open().is_err() {
                return;
            }
            tracing::error!(%error, "background work failed; it will be tried again");
        }
    }
}

fn look_around(db: &Inner, compact: bool) -> Result<()> {
    collect::sweep(db);
    if let Some(work) = db.now_and_then.get() {
        work();
    }
    db.files.cache.charge_ended_rows(db.publisher.current().ended_bytes());
    begin_to_write(db);
    if db.check_writable().is_err() {
        return Ok(());
    }
    db.commit.lock().forget_moves(&db.snapshots, &db.publisher);
    // First: writers wait for it.
    let flushed = flush_if_needed(db)?;
    if !flushed && collect::is_overdue(db) {
        flush::checkpoint(db)?;
    }
    if db.runs_differ.swap(false, Ordering::AcqRel)
        && let Err(error) = ddl::mend_runs(db)
    {
        db.runs_differ.store(true, Ordering::Release);
        return Err(error);
    }
    if flushed || compact {
        // Writers wait for room, not for merges.
        while compact::step(db)? && !db.signals.is_stopped() {
            flush_if_needed(db)?;
        }
    }
    Ok(())
}

fn flush_if_needed(db: &Inner) -> Result<bool> {
    let needed = room::needs_flush(db);
    if needed {
        flush::checkpoint(db).inspect_err(|error| db.signals.failed(error))?;
    }
    Ok(needed)
}
