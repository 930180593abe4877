//! The thread that flushes and compacts while others work.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use grizzly_wal::world::{self, Condvar, Mutex};

use super::{
    super::{database::Inner, ddl},
    collect, compact, flush,
};
use crate::error::{Error, ErrorKind, Result};

/// How often the thread looks around without being asked.
const PERIOD: Duration = Duration::from_millis(500);

/// Rounds without a flush after which segments are looked at for compaction all the same.
const COMPACT_EVERY: u32 = 20;

/// How the rest of the database talks to the thread.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: bool,
    stopped: bool,
    flushes: u64,
    /// How often the work has failed, and why the last time.
    failures: u64,
    failure: Option<(ErrorKind, String)>,
}

impl Signals {
    /// Asks for a look around.
    pub(crate) fn wake(&self) {
        self.state.lock().wanted = true;
        self.changed.notify_all();
    }

    /// Ends the thread after what it is doing.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// A flush is done.
    pub(crate) fn flushed(&self) {
        self.state.lock().flushes += 1;
        self.changed.notify_all();
    }

    /// Waits until a flush is done, or for a moment. Returns why it failed, if it did.
    pub(crate) fn wait_for_flush(&self, at_most: Duration) -> Option<(ErrorKind, String)> {
        let mut state = self.state.lock();
        let (flushes, failures) = (state.flushes, state.failures);
        state.wanted = true;
        self.changed.notify_all();
        let waits = |state: &mut State| state.flushes == flushes && state.failures == failures && !state.stopped;
        self.changed.wait_while_for(&mut state, waits, at_most);
        state.failure.clone().filter(|_| state.flushes == flushes && state.failures > failures)
    }

    fn failed(&self, error: &Error) {
        let mut state = self.state.lock();
        state.failures += 1;
        state.failure = Some((error.kind(), error.to_string()));
        self.changed.notify_all();
    }

    /// False once the thread should end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.wanted && !state.stopped, PERIOD);
        state.wanted = false;
        !state.stopped
    }
}

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
        if let Err(error) = look_around(&db, round.is_multiple_of(COMPACT_EVERY)) {
            if db.check_open().is_err() {
                return;
            }
            tracing::error!(%error, "background work failed; it will be tried again");
            signals.failed(&error);
        }
    }
}

fn look_around(db: &Inner, compact: bool) -> Result<()> {
    collect::sweep(db);
    if let Some(work) = db.now_and_then.get() {
        work();
    }
    db.files.cache.charge_ended_rows(db.publisher.current().ended_bytes());
    db.begin_to_write();
    if db.check_writable().is_err() {
        return Ok(());
    }
    db.commit.lock().forget_moves(db);
    if db.runs_differ.swap(false, Ordering::AcqRel)
        && let Err(error) = ddl::mend_runs(db)
    {
        db.runs_differ.store(true, Ordering::Release);
        return Err(error);
    }
    let flushed = flush_if_needed(db)?;
    if !flushed && collect::is_overdue(db) {
        flush::checkpoint(db)?;
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
    let needed = db.needs_flush();
    if needed {
        flush::checkpoint(db)?;
    }
    Ok(needed)
}
