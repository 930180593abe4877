//! Commit numbers, which are times: where they come from, and what may be said about a moment.

use std::{
    sync::atomic::Ordering,
    time::{Duration, UNIX_EPOCH},
};

use grizzly_wal::world;

use super::database::{Grizzly, Inner};
use crate::{access::Csn, error::Result};

/// How far commit numbers may be ahead of the clock without a word: many commits in a moment do that, too.
const CLOCK_BEHIND: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The present moment as a commit number.
pub(crate) fn now() -> Csn {
    Csn(world::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64))
}

impl Grizzly {
    /// The present: the clock's, or the newest commit's where the clock is behind that, as after it was set back.
    pub(crate) fn present(&self) -> Csn {
        now().max(self.inner().publisher.current().csn)
    }
}

impl Inner {
    /// Makes sure that what is visible up to `time` stays as it is: waits for commits from before it that are on their
    /// way into the log, and lets all that follow have later numbers. Returns the newest commit that is visible then.
    pub(super) fn settle(&self, time: Csn) -> Result<Csn> {
        let Some(log) = self.wal.load_full() else { return Ok(self.publisher.current().csn) };
        let last = {
            let _no_commit = self.commit.lock();
            self.floor.fetch_max(time.0, Ordering::AcqRel);
            grizzly_wal::Lsn(log.next_lsn().0.saturating_sub(1))
        };
        if last > log.durable_lsn() && self.settings.sync_commits {
            // What fails to become durable is never visible in this process.
            drop(log.wait_durable(last));
        }
        Ok(self.publisher.current().csn)
    }

    /// The number of a commit that follows `last`: the present microsecond, or one more than any that was given out
    /// or asked about.
    pub(super) fn next_csn(&self, last: Csn) -> Csn {
        let after = last.0.max(self.floor.load(Ordering::Acquire)) + 1;
        let clock = now().0;
        if after > clock.saturating_add(CLOCK_BEHIND.as_micros() as u64) {
            self.warn_of_clock(after - clock);
        }
        Csn(clock.max(after))
    }

    /// Commit numbers are times, and run ahead of a clock that was set back.
    fn warn_of_clock(&self, behind: u64) {
        let now = now().0;
        let before = self.warned.load(Ordering::Relaxed);
        if now.abs_diff(before) < WARN_EVERY.as_micros() as u64 {
            return;
        }
        self.warned.store(now, Ordering::Relaxed);
        let behind = Duration::from_micros(behind);
        tracing::warn!(
            url = self.url,
            ?behind,
            "the clock is behind the newest commit: commits get later times than it"
        );
    }

    /// Rows that ended before this commit may be removed.
    pub(super) fn horizon(&self) -> Csn {
        Csn(now().0.saturating_sub(self.settings.retention.as_micros() as u64))
    }
}
