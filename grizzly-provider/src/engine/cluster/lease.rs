//! The writer's lease: who may write to a database that several processes share, and until when.
//!
//! Each holder has an epoch, and an object of its own named after it, `lease/{epoch}`, which only it overwrites and
//! which is created only if it is new. So whoever creates the next epoch's object has the lease, and nothing needs
//! comparing and swapping. The greatest epoch counts.
//!
//! No two clocks are compared. A holder trusts its lease for a while after it *began* the last renewal, by its own
//! clock, and only if that renewal returned while the one before it was still good. A watcher takes the lease for
//! run out when its object has not changed for longer than that by the watcher's clock. And since a clock can stand
//! still along with its machine, [`Lease::check`] looks for a successor too, where a replaced writer's last write
//! would not fail by itself.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use grizzly_wal::{
    ErrorKind as Below, Known, PutMode, Storage, Wal,
    world::{self, Mutex},
};
use serde::{Deserialize, Serialize};

use super::super::{
    catalog::BEYOND,
    manifest::{LogEnd, checked, unchecked, unreadable},
    redo::{decode_json, encode_json},
};
use crate::error::{Error, ErrorKind, Result};

/// The folder of all leases.
pub(crate) const DIR: &str = "lease";
/// Share of the lease time for which its holder trusts it. The rest is for clocks that run at different speeds.
const TRUSTED: f64 = 0.9;
/// Longer than any process lives.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// A lease that is good for longer would be waited for by nobody.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Leases of earlier epochs that stay, so that a holder that slept through some of them finds its successor.
const KEPT: usize = 8;

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// Greater by at least one than that of every holder before.
    pub(crate) epoch: u64,
    /// The holder's name.
    pub(crate) holder: String,
    /// Where others reach the holder.
    pub(crate) url: String,
    /// Grows with each renewal.
    pub(crate) renewal: u64,
    /// How long an unchanged lease is good.
    pub(crate) millis: u64,
    /// The holder has finished writing, and anybody may take the next epoch.
    pub(crate) released: bool,
    /// Tells two processes apart that want the same epoch under the same name.
    #[serde(default)]
    pub(crate) nonce: uuid::Uuid,
    /// Whose lease it is; not known in earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<uuid::Uuid>,
    /// How far the log was when this was written, or when the holder before wrote it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<LogEnd>,
}

impl Grant {
    /// One that was not renewed yet, of `database`, the end of whose log is `known`.
    pub(crate) fn new(
        epoch: u64,
        (holder, url): (String, String),
        millis: u64,
        database: uuid::Uuid,
        known: Known,
    ) -> Self {
        let (nonce, log) = (uuid::Uuid::new_v4(), Some(known.into()));
        Self { epoch, holder, url, renewal: 0, millis, released: false, nonce, database: Some(database), log }
    }
}

/// Time that never goes back: since some moment in the past.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// This machine's.
    pub(crate) fn monotonic() -> Self {
        let start = world::instant();
        Self(Arc::new(move || world::since(start)))
    }

    fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

fn path(epoch: u64) -> String {
    format!("{DIR}/{epoch:020}.json")
}

fn epoch_of(path: &str) -> Option<u64> {
    let epoch: u64 = path.strip_prefix(DIR)?.strip_prefix('/')?.strip_suffix(".json")?.parse().ok()?;
    // One that no database reaches is none, and one that is written in another way is not found under its name.
    (epoch < BEYOND && self::path(epoch) == path).then_some(epoch)
}

/// The newest epoch that somebody has taken; 0 if nobody ever has.
pub(crate) fn latest_epoch(storage: &dyn Storage) -> Result<u64> {
    let leases = storage.list(DIR)?;
    Ok(leases.iter().filter_map(|file| epoch_of(&file.path)).max().unwrap_or(0))
}

/// The newest lease, run out or not.
pub(crate) fn latest(storage: &dyn Storage) -> Result<Option<Grant>> {
    match latest_epoch(storage)? {
        0 => Ok(None),
        epoch => {
            let path = path(epoch);
            parse(&path, &storage.get(&path)?).map(Some)
        }
    }
}

/// What a stored lease says.
fn parse(path: &str, text: &[u8]) -> Result<Grant> {
    grizzly_wal::storage::check_plain(path, text)?;
    // Earlier versions stored it without a checksum.
    let json = if text.ends_with(b"}") { text } else { unchecked(path, text)? };
    let grant: Grant = decode_json(&format!("lease '{path}'"), json)?;
    if grant.renewal >= BEYOND || Duration::from_millis(grant.millis) > LONGEST {
        return Err(Error::corrupt(format!("'{path}' is damaged: it is good for {} ms", grant.millis)));
    }
    match epoch_of(path) == Some(grant.epoch) {
        true => Ok(grant),
        false => Err(Error::corrupt(format!("'{path}' was exchanged: it is the lease of epoch {}", grant.epoch))),
    }
}

/// The same, of this database.
fn parse_of(database: uuid::Uuid, path: &str, text: &[u8]) -> Result<Grant> {
    let grant = parse(path, text)?;
    match grant.database.filter(|found| *found != database) {
        None => Ok(grant),
        Some(other) => {
            Err(Error::corrupt(format!("'{path}' was exchanged: it is of database {other}, not of {database}")))
        }
    }
}

/// What the newest lease of a database knows of its log.
pub(crate) fn known_log(storage: &dyn Storage, database: uuid::Uuid) -> Result<Known> {
    let epoch = latest_epoch(storage)?;
    if epoch == 0 {
        return Ok(Known::default());
    }
    let grant = parse_of(database, &path(epoch), &storage.get(&path(epoch))?)?;
    Ok(grant.log.map_or(Known::default(), Known::from))
}

/// A lease as it is stored.
fn stored(grant: &Grant) -> Result<[Bytes; 2]> {
    Ok(checked(encode_json(grant)?))
}

/// What is wrong with the leases on storage.
pub(crate) fn verify(storage: &dyn Storage, database: uuid::Uuid) -> Result<Vec<String>> {
    unreadable(storage, DIR, |path, text| parse_of(database, path, text))
}

/// How long the holder trusts a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// As long as nobody can have taken the next epoch, by the clock.
    Time,
    /// Until it finds a successor. For a writer whose successor shuts it out of the log and whose files have names
    /// of their own: its lease is there to tell others that it is at work.
    Successor,
    /// As long as the process lives, since a lock keeps all others out. The lease only leaves word that earlier epochs are
    /// over, and of the log.
    Lock,
}

/// Takes the epoch of `grant`, or `None` if somebody else was faster.
pub(crate) fn acquire(
    storage: &Arc<dyn Storage>,
    clock: Clock,
    grant: Grant,
    trust: Trust,
) -> Result<Option<Arc<Lease>>> {
    let begun = clock.now();
    match storage.put(&path(grant.epoch), &stored(&grant)?, PutMode::Create) {
        Err(error) if error.kind() == Below::AlreadyExists => return Ok(None),
        put => put?,
    }
    let trusted = match trust {
        Trust::Time => Duration::from_millis(grant.millis).mul_f64(TRUSTED),
        Trust::Successor | Trust::Lock => FOREVER,
    };
    let lease = Lease {
        storage: Arc::clone(storage),
        clock,
        epoch: grant.epoch,
        trust,
        trusted,
        until: AtomicU64::new((begun + trusted).as_micros() as u64),
        ended: AtomicBool::new(false),
        log: Mutex::default(),
        grant: Mutex::new(grant),
    };
    // An epoch long past may have been free again for one that slept.
    match latest_epoch(storage.as_ref()) {
        Ok(latest) if latest > lease.epoch => return Ok(None),
        Ok(_) => {}
        Err(error) => {
            // Nobody holds it, so that others need not wait until it has run out.
            drop(lease.release());
            return Err(error);
        }
    }
    if let Err(error) = remove_old(storage.as_ref()) {
        tracing::warn!(%error, "leases of earlier epochs cannot be removed; the next holder tries again");
    }
    Ok(Some(Arc::new(lease)))
}

fn remove_old(storage: &dyn Storage) -> Result<()> {
    for old in storage.list(DIR)?.iter().rev().skip(KEPT) {
        storage.remove(&old.path)?;
    }
    Ok(())
}

/// A lease that this process took.
#[derive(Debug)]
pub(crate) struct Lease {
    storage: Arc<dyn Storage>,
    clock: Clock,
    epoch: u64,
    trust: Trust,
    trusted: Duration,
    /// The log that is written under it.
    log: Mutex<Weak<Wal>>,
    /// Microseconds of the clock until which it is good.
    until: AtomicU64,
    /// It ran out or was released, for good.
    ended: AtomicBool,
    /// As last written. Held while it is renewed.
    grant: Mutex<Grant>,
}

impl Lease {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether everything that was on storage before this call will be found by whoever writes next.
    ///
    /// # Errors
    /// `Closed` once the lease has run out; it never comes back.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_time()?;
        if self.trust == Trust::Lock {
            return Ok(());
        }
        if self.trust == Trust::Successor {
            // Leases of long ago are removed: the next one may be, and later ones are there.
            return match latest_epoch(self.storage.as_ref())? > self.epoch {
                true => Err(self.end("another writer has taken over")),
                false => Ok(()),
            };
        }
        if self.storage.seal_shuts_out() {
            return Ok(());
        }
        match self.storage.get(&path(self.epoch + 1)) {
            Err(error) if error.kind() == Below::NotFound => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(self.end("another writer has taken over")),
        }
    }

    /// Whether it is good by the clock.
    pub(crate) fn in_time(&self) -> bool {
        self.check_time().is_ok()
    }

    fn check_time(&self) -> Result<()> {
        if self.ended.load(Ordering::Acquire) {
            return Err(self.end("it has ended"));
        }
        match self.clock.now().as_micros() as u64 {
            now if now < self.until.load(Ordering::Acquire) => Ok(()),
            _ => Err(self.end("it could not be renewed in time")),
        }
    }

    fn end(&self, why: &str) -> Error {
        self.ended.store(true, Ordering::Release);
        let (epoch, url) = (self.epoch, self.storage.url());
        let message = format!("the lease of epoch {epoch} to write to '{url}' is lost: {why}");
        Error::new(ErrorKind::Closed, message)
    }

    /// Makes it good for a while longer. After a failure it may be tried again until it has run out.
    pub(crate) fn renew(&self) -> Result<()> {
        let mut grant = self.grant.lock();
        self.check_time()?;
        let begun = self.clock.now();
        grant.renewal += 1;
        self.store(&mut grant)?;
        // A watcher may have looked, for the last time, before this renewal was there. It did not if the time before
        // has not run out yet.
        self.check_time()?;
        self.until.store((begun + self.trusted).as_micros() as u64, Ordering::Release);
        Ok(())
    }

    /// Tells others where the holder is reached, if it has not done so yet.
    pub(crate) fn keep_url(&self, url: &str) -> Result<()> {
        if self.grant.lock().url == url { Ok(()) } else { self.move_to(url) }
    }

    /// Tells others that the holder is reached elsewhere.
    pub(crate) fn move_to(&self, url: &str) -> Result<()> {
        url.clone_into(&mut self.grant.lock().url);
        self.renew()
    }

    /// Lets somebody else take the next epoch at once. Nothing may be written under this lease any more.
    pub(crate) fn release(&self) -> Result<()> {
        // Without waiting for a renewal that is under way: what has run out need not be given back.
        self.check_time()?;
        let mut grant = self.grant.lock();
        self.check_time()?;
        self.ended.store(true, Ordering::Release);
        grant.released = true;
        self.store(&mut grant)
    }

    /// What it knew of the log when it was taken.
    pub(crate) fn known_log(&self) -> Known {
        self.grant.lock().log.map_or(Known::default(), Known::from)
    }

    /// Leaves word of this log from now on, each time it is stored.
    pub(crate) fn follow_log(&self, log: &Arc<Wal>) {
        *self.log.lock() = Arc::downgrade(log);
    }

    /// Stores it as it is, with how far the log is by now.
    pub(crate) fn leave_word(&self) -> Result<()> {
        self.store(&mut self.grant.lock())
    }

    fn store(&self, grant: &mut Grant) -> Result<()> {
        if let Some(log) = self.log.lock().upgrade() {
            grant.log = Some(log.known().into());
        }
        self.storage.put(&path(self.epoch), &stored(grant)?, PutMode::Overwrite)?;
        Ok(())
    }

    /// Renews it from a thread of its own for as long as it is good and in use.
    pub(crate) fn keep(self: &Arc<Self>) -> Result<()> {
        let lease = Arc::downgrade(self);
        let started = world::spawn("grizzly-lease", move || keep(&lease));
        let failed = |error| Error::new(ErrorKind::Resource, "the lease's thread cannot be started").with_source(error);
        started.map(drop).map_err(failed)
    }
}

fn keep(lease: &Weak<Lease>) {
    loop {
        let Some(held) = lease.upgrade() else { return };
        let period = Duration::from_millis(held.grant.lock().millis) / 3;
        let pause = match held.renew() {
            Ok(()) => period,
            Err(_) if held.ended.load(Ordering::Acquire) => return,
            Err(error) => {
                tracing::warn!(%error, "the writer's lease could not be renewed; it is tried again");
                period / 8
            }
        };
        drop(held);
        world::sleep(pause);
    }
}

/// Looks at the lease from time to time, to notice when nobody holds it.
#[derive(Debug)]
pub(crate) struct Watch {
    clock: Clock,
    seen: Option<Grant>,
    /// When `seen` had been read for the first time.
    since: Duration,
    looked: Option<Duration>,
}

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nobody may write: the next epoch can be taken.
    Free,
    /// The holder may be alive.
    Held,
}

impl Watch {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, seen: None, since: Duration::ZERO, looked: None }
    }

    /// The lease as last seen.
    pub(crate) fn seen(&self) -> Option<&Grant> {
        self.seen.as_ref()
    }

    /// Looks, unless the last time was less than `often` ago.
    pub(crate) fn look_after(&mut self, often: Duration, storage: &dyn Storage) -> Result<Option<Seen>> {
        let now = self.clock.now();
        if self.looked.is_some_and(|looked| now.saturating_sub(looked) < often) {
            return Ok(None);
        }
        self.looked = Some(now);
        self.look(storage).map(Some)
    }

    /// Looks.
    pub(crate) fn look(&mut self, storage: &dyn Storage) -> Result<Seen> {
        let begun = self.clock.now();
        let grant = latest(storage)?;
        if grant != self.seen {
            self.since = self.clock.now();
            self.seen = grant;
        }
        Ok(match &self.seen {
            None => Seen::Free,
            Some(grant) if grant.released => Seen::Free,
            Some(grant) if begun.saturating_sub(self.since) >= Duration::from_millis(grant.millis) => Seen::Free,
            Some(_) => Seen::Held,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that a test sets.
    #[derive(Clone, Default)]
    struct Hands(Arc<AtomicU64>);

    impl Hands {
        fn clock(&self) -> Clock {
            let hands = Arc::clone(&self.0);
            Clock(Arc::new(move || Duration::from_millis(hands.load(Ordering::SeqCst))))
        }

        fn pass(&self, millis: u64) {
            self.0.fetch_add(millis, Ordering::SeqCst);
        }
    }

    fn grant(epoch: u64) -> Grant {
        let (holder, url, nonce) = ("a".into(), "grpc://a".into(), uuid::Uuid::new_v4());
        Grant { epoch, holder, url, renewal: 0, millis: 1000, released: false, nonce, database: None, log: None }
    }

    fn storage() -> Arc<dyn Storage> {
        grizzly_wal::open_storage("memory://").expect("memory is always there")
    }

    fn take(storage: &Arc<dyn Storage>, hands: &Hands, epoch: u64) -> Arc<Lease> {
        acquire(storage, hands.clock(), grant(epoch), Trust::Time).expect("storage works").expect("nobody was faster")
    }

    #[test]
    fn a_holder_stops_before_a_watcher_may_begin() -> Result<()> {
        let (storage, holders, watchers) = (storage(), Hands::default(), Hands::default());
        let mut watch = Watch::new(watchers.clock());
        assert_eq!(watch.look(storage.as_ref())?, Seen::Free);
        let lease = take(&storage, &holders, 1);
        assert!(acquire(&storage, holders.clock(), grant(1), Trust::Time)?.is_none());
        for _ in 0..5 {
            for hands in [&holders, &watchers] {
                hands.pass(800);
            }
            lease.check()?;
            lease.renew()?;
            assert_eq!(watch.look(storage.as_ref())?, Seen::Held);
        }
        // The two clocks have nothing to do with each other.
        watchers.pass(999);
        assert_eq!(watch.look(storage.as_ref())?, Seen::Held);
        watchers.pass(1);
        assert_eq!(watch.look(storage.as_ref())?, Seen::Free);
        holders.pass(899);
        lease.check()?;
        holders.pass(1);
        assert_eq!(lease.check().map_err(|error| error.kind()), Err(ErrorKind::Closed));
        assert!(lease.renew().is_err(), "what is lost stays lost");
        Ok(())
    }

    #[test]
    fn a_renewal_that_took_too_long_does_not_count() -> Result<()> {
        // The clock goes on while the renewal is under way: as if the write took that long.
        let hands = Hands::default();
        let ticking = hands.clone();
        let clock = Clock(Arc::new(move || {
            ticking.pass(300);
            Duration::from_millis(ticking.0.load(Ordering::SeqCst))
        }));
        let lease = acquire(&storage(), clock, grant(1), Trust::Time)?.expect("nobody was faster");
        assert!(lease.renew().is_err());
        assert!(lease.check().is_err());
        Ok(())
    }

    #[test]
    fn what_was_released_is_free_at_once() -> Result<()> {
        let (storage, hands) = (storage(), Hands::default());
        let lease = take(&storage, &hands, 4);
        let mut watch = Watch::new(hands.clock());
        assert_eq!(watch.look(storage.as_ref())?, Seen::Held);
        lease.release()?;
        assert_eq!(watch.look(storage.as_ref())?, Seen::Free);
        assert!(lease.check().is_err());
        assert_eq!(latest(storage.as_ref())?.map(|grant| grant.epoch), Some(4));
        Ok(())
    }

    #[test]
    fn a_successor_ends_a_lease_whatever_the_clock_says() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let storage = grizzly_wal::open_storage(&folder.path().to_string_lossy())?;
        let hands = Hands::default();
        let old = take(&storage, &hands, 1);
        old.check()?;
        let new = take(&storage, &hands, 2);
        assert!(old.check().is_err());
        new.check()?;
        for epoch in 3..30 {
            take(&storage, &hands, epoch);
        }
        assert_eq!(storage.list(DIR)?.len(), KEPT);
        assert!(acquire(&storage, hands.clock(), grant(3), Trust::Time)?.is_none(), "an epoch long past");
        Ok(())
    }
}
