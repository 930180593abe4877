//! Several processes on one database: one of them writes, the others follow its log and are ready to take its place.
//!
//! `lease` says who writes, `following` reads what that one has logged and `follow` shows it, `promote` changes roles; a
//! `member` is what a process knows of all this. One thread per open database does all this in turn, and `news` is how others
//! ask it for a look; the log's own thread asks the lease after each sync (see [`grizzly_wal::WalOptions::fence`]), which is what keeps a writer that was replaced from
//! acknowledging anything.

mod follow;
mod following;
pub(super) mod lease;
pub(super) mod member;
mod news;
pub(super) mod promote;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use grizzly_wal::{Storage, world};

use self::{
    following::{Care, Following},
    lease::Seen,
    member::{Member, Writer},
    news::News,
};
use super::{
    core::{Grizzly, Inner, Parts},
    files::Files,
    maintenance::worker,
    manifest::Manifest,
    recovery,
    settings::{ClusterSettings, Settings},
    txn::publish::Publisher,
};
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
};

/// Looks at the lease while it is good.
const LOOKS: u32 = 12;
/// A lease must outlast a slow sync or two.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);
/// Failures to open in a row, beside a writer that is busy, before the last one counts.
const ATTEMPTS: u32 = 5;
/// How long one that opens a database waits for a new writer to take over, in leases.
const SETTLE_LEASES: u32 = 3;
/// How long one that waits for a commit sleeps at most before it looks by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What others have written did not arrive here in time.
fn lags(db: &Inner, member: &Member, at_most: Duration) -> Error {
    let reason = match member.news.trouble() {
        Some(trouble) => format!("the last look at it failed: {trouble}"),
        None => db.not_writer().message().to_owned(),
    };
    let message = format!("what was written to database '{}' did not arrive within {at_most:?}; {reason}", db.url);
    Error::new(ErrorKind::Unavailable, message)
}

impl Grizzly {
    /// Tells the others where to reach this process, in place of [`ClusterSettings::advertise`]: for servers that know
    /// their address only once they listen. Does nothing outside of a cluster.
    ///
    /// # Errors
    /// Whatever the storage reports; the others hear of it a little later then.
    pub fn advertise(&self, url: &str) -> Result<()> {
        let Some(member) = &self.inner.member else { return Ok(()) };
        url.clone_into(&mut member.url.lock());
        member.lease.load().as_ref().map_or(Ok(()), |lease| lease.move_to(url))
    }

    /// Whether it was opened as one of a cluster.
    pub fn in_cluster(&self) -> bool {
        self.inner.member.is_some()
    }

    /// Whether this process may write at the moment: always, unless it was opened as one of a cluster.
    pub fn is_writer(&self) -> bool {
        self.inner.check_writable().is_ok()
    }

    /// Who writes to the database, as last seen; `None` outside of a cluster, and while nobody does.
    pub fn writer(&self) -> Option<Writer> {
        self.inner.member.as_ref()?.writer()
    }

    /// Returns when snapshots contain everything that any process had acknowledged before this call. At once where this
    /// process writes; else after a look at the storage, which all that wait at the same time share.
    ///
    /// # Errors
    /// `Unavailable` if that takes longer than `at_most`, as it may while another writer is about to take over, or the
    /// storage is silent.
    pub fn catch_up(&self, at_most: Duration) -> Result<()> {
        let deadline = world::instant() + at_most;
        let Some(member) = &self.inner.member else { return self.inner.check_open() };
        let mut asked = None;
        loop {
            self.inner.check_open()?;
            if self.is_writer() && self.inner.check_lease().is_ok() {
                return Ok(());
            }
            let number = *asked.get_or_insert_with(|| member.news.ask());
            if member.news.is_answered(number) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(world::instant());
            if left.is_zero() {
                return Err(lags(&self.inner, member, at_most));
            }
            member.news.wait_for(number, left);
        }
    }

    /// Before a read: the same, if this process has not looked for longer than a lease, in which another one may have
    /// begun to write: after it stood still, or was cut off. So what others have written meanwhile is seen at once,
    /// and not at the first look thereafter. Returns after `at_most` also where that fails, since what is in memory
    /// can be read without storage, and does not wait again for as long as a lease then.
    ///
    /// # Errors
    /// `Closed`.
    pub fn refresh(&self, at_most: Duration) -> Result<()> {
        let Some(member) = self.inner.member.as_ref().filter(|_| self.is_stale()) else {
            return self.inner.check_open();
        };
        if let Err(error) = self.catch_up(at_most) {
            self.inner.check_open()?;
            tracing::warn!(%error, url = self.inner.url, "what is read may be old");
            member.news.give_up();
        }
        Ok(())
    }

    /// Whether [`Grizzly::refresh`] would look.
    pub fn is_stale(&self) -> bool {
        let Some(member) = &self.inner.member else { return false };
        let lease = member.settings.lease;
        !(member.may_write() || member.news.is_fresh(lease) || member.news.has_given_up(lease))
    }

    /// Waits until snapshots contain the commit `csn`, which another process has made.
    ///
    /// # Errors
    /// `Unavailable` if that takes longer than `at_most`.
    pub fn wait_for_commit(&self, csn: Csn, at_most: Duration) -> Result<()> {
        let deadline = world::instant() + at_most;
        loop {
            let seen = self.inner.publisher.current().csn;
            if seen >= csn {
                return Ok(());
            }
            self.inner.check_open()?;
            let left = deadline.saturating_duration_since(world::instant());
            if left.is_zero() {
                let message = format!("commit {csn} did not arrive within {at_most:?}; the last one here is {seen}");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            match &self.inner.member {
                Some(member) => member.news.wait(left.min(LOOK_AGAIN)),
                None => world::sleep(left.min(LOOK_AGAIN)),
            }
        }
    }
}

/// Opens the database in `storage` as one of several processes. The first one creates it and writes.
pub(super) fn open(
    url: String,
    settings: Settings,
    cluster: ClusterSettings,
    storage: Arc<dyn Storage>,
) -> Result<Arc<Inner>> {
    if cluster.lease < SHORTEST_LEASE {
        let message = format!("a lease of {:?} is too short; {SHORTEST_LEASE:?} is the least", cluster.lease);
        return Err(Error::invalid(message));
    }
    if cluster.lease > lease::LONGEST {
        let message = format!("a lease of {:?} is too long; {:?} is the most", cluster.lease, lease::LONGEST);
        return Err(Error::invalid(message));
    }
    let lock = storage.lock_shared()?;
    let create = settings.create && cluster.candidate;
    let manifest = match Manifest::load(&storage)? {
        Some(manifest) => manifest,
        None => match recovery::load_or_create(&storage, create, &url) {
            // Another one created it first.
            Err(error) if error.kind() == ErrorKind::Unavailable => recovery::load_or_create(&storage, false, &url)?,
            manifest => manifest?,
        },
    };
    let files = Files::new(&storage, cluster.grace, settings.memory_bytes);
    let following = patiently(|| Following::load(&storage, files.clone()))?;
    let publisher = Arc::new(Publisher::new(following.version()));
    let member = Member::new(cluster);
    *member.following.lock() = Some(following);
    let parts = Parts { url, settings, storage, publisher, files, lock, member: Some(member) };
    let db = Arc::new(Inner::new(parts, manifest.database));
    patiently(|| step(&db))?;
    patiently(|| settle(&db))?;
    worker::start(&db)?;
    start(&db)?;
    Ok(db)
}

/// Waits until everything is there that was acknowledged before. While a new writer is about to take over, a follower
/// holds back what it has not shown yet, and one that has just begun has shown nothing since the newest manifest.
fn settle(db: &Arc<Inner>) -> Result<()> {
    let Some(member) = &db.member else { return Ok(()) };
    let (begun, at_most) = (world::instant(), member.settings.lease * SETTLE_LEASES);
    while !member.may_write() && !follow::catch_up(db, member, Care::All)? {
        if world::since(begun) > at_most {
            tracing::warn!(url = db.url, "no writer has taken over yet; some of what was acknowledged may be missing");
            return Ok(());
        }
        member.news.pause(LOOK_AGAIN);
        step(db)?;
    }
    Ok(())
}

/// Tries again: the writer may remove a file between two looks, and then there is a newer one.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..ATTEMPTS {
        if let Ok(done) = attempt() {
            return Ok(done);
        }
        world::sleep(LOOK_AGAIN);
    }
    attempt()
}

fn start(db: &Arc<Inner>) -> Result<()> {
    let Some(member) = &db.member else { return Ok(()) };
    let (weak, news, poll) = (Arc::downgrade(db), Arc::clone(&member.news), member.settings.poll);
    let failed = |error| Error::new(ErrorKind::Resource, "the cluster thread cannot be started").with_source(error);
    world::spawn("grizzly-cluster", move || run(&weak, &news, poll)).map(drop).map_err(failed)
}

/// Runs until the database is closed or dropped.
fn run(db: &Weak<Inner>, news: &News, poll: Duration) {
    let mut pause = poll;
    loop {
        // Without a hold on the database, which may be dropped meanwhile.
        news.pause(pause);
        pause = poll;
        let Some(db) = db.upgrade() else { return };
        if db.closed.load(Ordering::Acquire) {
            return;
        }
        let (begun, before) = (world::instant(), db.publisher.current().csn);
        let stepped = panic::catch_unwind(AssertUnwindSafe(|| step(&db)))
            .unwrap_or_else(|_| Err(Error::internal("the cluster thread panicked")));
        news.report(stepped.as_ref().err().map(ToString::to_string));
        if let Err(error) = stepped {
            tracing::warn!(%error, url = db.url, "following the writer failed; it is tried again");
            pause = 10 * poll;
        } else if db.publisher.current().csn == before {
            // For stores that are slow, or paid by request.
            pause = poll.max(world::since(begun));
        }
        if news.is_asked() {
            pause = pause.min(LOOK_AGAIN);
        }
    }
}

/// Does what the present role asks for.
fn step(db: &Arc<Inner>) -> Result<()> {
    let Some(member) = &db.member else { return Ok(()) };
    let (number, is_asked) = member.news.take();
    let begun = world::instant();
    if let Some(lease) = member.lease.load_full() {
        if lease.check().is_ok() && db.wal.load().as_ref().is_some_and(|log| log.poisoned().is_none()) {
            member.news.answer(number, begun);
            return Ok(());
        }
        promote::step_down(db, member);
    }
    let care = if is_asked { Care::All } else { Care::Some };
    let followed = follow::catch_up(db, member, care);
    let is_whole = matches!(followed, Ok(true));
    if is_whole && is_asked {
        member.news.answer(number, begun);
    }
    // Also where that failed: a writer that takes over may be what helps.
    let Some(seen) = look_at_lease(db, member)? else { return followed.map(drop) };
    if seen == Seen::Free && member.settings.candidate {
        return promote::take_lease(db, member);
    }
    if is_whole && !member.is_behind_lease() {
        member.news.refreshed(begun);
    }
    followed.map(drop)
}

/// Looks at the lease now and then.
fn look_at_lease(db: &Inner, member: &Member) -> Result<Option<Seen>> {
    let often = member.settings.lease / LOOKS;
    let mut watch = member.watch.lock();
    let looked = watch.look_after(often, db.storage.as_ref())?;
    if looked.is_some() {
        member.seen.store(watch.seen().cloned().map(Arc::new));
    }
    Ok(looked)
}
