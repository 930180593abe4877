//! Commit numbers, which are times: where they come from.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use grizzly_wal::world;

use crate::access::Csn;

/// How far commit numbers may be ahead of the clock without a word: many commits in a moment do that, too.
const CLOCK_BEHIND: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The present moment as a commit number.
pub(crate) fn now() -> Csn {
    Csn(world::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64))
}

/// Rows that ended before this commit are older than `retention`.
pub(crate) fn horizon(retention: Duration) -> Csn {
    Csn(now().0.saturating_sub(retention.as_micros() as u64))
}

/// Gives out commit numbers.
#[derive(Debug, Default)]
pub(crate) struct CommitClock {
    /// The latest time about which something was said: later commits have greater numbers.
    floor: AtomicU64,
    /// When the clock was last found to be behind, in microseconds since 1970.
    warned: AtomicU64,
}

impl CommitClock {
    /// Commits from here on get later numbers than this.
    pub(crate) fn leave_behind(&self, time: Csn) {
        self.floor.fetch_max(time.0, Ordering::AcqRel);
    }

    /// The number of a commit that follows `last` in the database at `url`: the present microsecond, or one more than any
    /// that was given out or asked about.
    pub(crate) fn next(&self, last: Csn, url: &str) -> Csn {
        let after = last.0.max(self.floor.load(Ordering::Acquire)) + 1;
        let clock = now().0;
        if after > clock.saturating_add(CLOCK_BEHIND.as_micros() as u64) {
            self.warn(after - clock, url);
        }
        Csn(clock.max(after))
    }

    /// Commit numbers are times, and run ahead of a clock that was set back.
    fn warn(&self, behind: u64, url: &str) {
        let now = now().0;
        let before = self.warned.load(Ordering::Relaxed);
        if now.abs_diff(before) < WARN_EVERY.as_micros() as u64 {
            return;
        }
        self.warned.store(now, Ordering::Relaxed);
        let behind = Duration::from_micros(behind);
        tracing::warn!(url, ?behind, "the clock is behind the newest commit: commits get later times than it");
    }
}
