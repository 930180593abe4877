//! What a database knows as one of several processes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use grizzly_wal::world::{Mutex, MutexGuard};

use super::{
    super::settings::ClusterSettings,
    following::Following,
    lease::{Clock, Grant, Lease, Watch},
    news::News,
};

/// The process that writes to a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The name of its node.
    pub node: String,
    /// Where to reach it, as it said itself.
    pub url: String,
    /// Greater than that of every writer before.
    pub epoch: u64,
    /// It is this process.
    pub here: bool,
}

/// What a database knows as one of several processes.
pub(crate) struct Member {
    pub(super) settings: ClusterSettings,
    /// Where others reach this process.
    pub(super) url: Mutex<String>,
    /// The newest epoch that this process ever took. Whoever holds an earlier one does not write any more: were such
    /// a holder named, two processes could send a write back and forth.
    pub(super) taken: AtomicU64,
    /// Held while this process writes.
    pub(crate) lease: ArcSwapOption<Lease>,
    /// Held while the lease is looked at, which takes as long as the storage does.
    pub(super) watch: Mutex<Watch>,
    /// What it has seen. Read by whoever asks who writes, on any thread, so nobody waits for storage under its lock.
    pub(super) seen: ArcSwapOption<Grant>,
    /// While another one writes.
    pub(super) following: Mutex<Option<Following>>,
    /// Held while roles change.
    pub(super) roles: Mutex<()>,
    pub(super) news: Arc<News>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Member {
    pub(super) fn new(settings: ClusterSettings) -> Self {
        let watch = Mutex::new(Watch::new(Clock::monotonic()));
        let url = Mutex::new(settings.advertise.clone());
        let (following, roles, news) = (Mutex::default(), Mutex::default(), Arc::default());
        let (taken, lease, seen) = (AtomicU64::new(0), ArcSwapOption::empty(), ArcSwapOption::empty());
        Self { settings, url, taken, lease, watch, seen, following, roles, news }
    }

    /// The lease, if this process holds it and it is still good by the clock.
    pub(crate) fn lease(&self) -> Option<Arc<Lease>> {
        self.lease.load_full().filter(|lease| lease.in_time())
    }

    pub(crate) fn writer(&self) -> Option<Writer> {
        let node = &self.settings.node;
        if let Some(lease) = self.lease() {
            let url = self.url.lock().clone();
            return Some(Writer { node: node.clone(), url, epoch: lease.epoch(), here: true });
        }
        let taken = self.taken.load(Ordering::Acquire);
        let grant = self.seen.load_full().filter(|grant| !grant.released && grant.epoch >= taken)?;
        let here = grant.holder == *node;
        Some(Writer { node: grant.holder.clone(), url: grant.url.clone(), epoch: grant.epoch, here })
    }

    /// Whether the log was not read as far as the newest lease that was seen.
    pub(super) fn is_behind_lease(&self) -> bool {
        let read = self.following.lock().as_ref().map(|following| following.tail.epoch());
        let seen = self.seen.load().as_ref().map_or(0, |grant| grant.epoch);
        read.is_none_or(|read| read < seen)
    }

    /// Whether this process holds a lease that is good by the clock.
    pub(crate) fn may_write(&self) -> bool {
        self.lease().is_some()
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.news.stop();
    }

    /// Ends the thread, and gives the lease back if nothing is written any more.
    pub(crate) fn leave(&self) {
        self.stop();
        if let Some(lease) = self.lease.load_full()
            && let Err(error) = lease.release()
        {
            tracing::warn!(%error, "the writer's lease could not be given back; it runs out by itself");
        }
    }

    /// Keeps roles from changing.
    pub(crate) fn steady(&self) -> MutexGuard<'_, ()> {
        self.roles.lock()
    }
}
