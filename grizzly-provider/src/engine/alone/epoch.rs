//! The epoch of a process that writes alone: who else may be writing, and when that is over.

use std::{sync::Arc, time::Duration};

use grizzly_wal::{Storage, world};

use super::super::{
    cluster::lease::{Clock, Grant, Lease, Seen, Trust, Watch, acquire, known_log, latest},
    manifest::Manifest,
};
use crate::error::{Error, ErrorKind, Result};

/// How long the lease of a writer without a cluster is good, in milliseconds.
const ALONE_MILLIS: u64 = 3_000;
/// Renewals that may arrive when their sender is gone: it sends one at a time. Should two be under way, since a request was given
/// up, opening fails once.
const STRAY_RENEWALS: u32 = 1;

/// For a writer that shares the database with no other: waits until a lease that others may have left has run out, and
/// takes the next epoch behind that of `manifest`, which is in the name of every file that it will write. Where nothing
/// else keeps others out (`held`), it holds the lease from then on; else it only leaves word that earlier epochs are over.
///
/// # Errors
/// `Unavailable` if another writer is at work.
pub(super) fn take(storage: &Arc<dyn Storage>, manifest: &Manifest, held: bool) -> Result<Arc<Lease>> {
    let mut watch = Watch::new(Clock::monotonic());
    watch.look(storage.as_ref())?;
    let (mut last, mut renewals) = (watch.seen().cloned(), 0);
    let first = last.as_ref().map_or(0, |grant| grant.epoch);
    let millis = last.as_ref().map_or(ALONE_MILLIS, |grant| grant.millis);
    while watch.look(storage.as_ref())? == Seen::Held {
        let seen = watch.seen();
        if seen != last.as_ref() {
            renewals += 1;
            if renewals > STRAY_RENEWALS || seen.is_none_or(|seen| seen.epoch != first) {
                return Err(in_use(storage, seen));
            }
            last = seen.cloned();
        }
        world::sleep(Duration::from_millis(millis / 20 + 1));
    }
    let log = manifest.known_log().and(known_log(storage.as_ref(), manifest.database)?);
    let epoch = first.max(manifest.epoch) + 1;
    let holder = (format!("process {}", std::process::id()), String::new());
    let millis = if held { ALONE_MILLIS } else { millis };
    let grant = Grant { released: !held, ..Grant::new(epoch, holder, millis, manifest.database, log) };
    let trust = if held { Trust::Successor } else { Trust::Lock };
    let lease = acquire(storage, Clock::monotonic(), grant, trust)?;
    let Some(lease) = lease else { return Err(in_use(storage, latest(storage.as_ref())?.as_ref())) };
    if held {
        lease.keep()?;
    }
    Ok(lease)
}

fn in_use(storage: &Arc<dyn Storage>, grant: Option<&Grant>) -> Error {
    let holder = match grant {
        Some(grant) if grant.url.is_empty() => format!("{}, epoch {}", grant.holder, grant.epoch),
        Some(grant) => format!("'{}' of a cluster, at {}", grant.holder, grant.url),
        None => "another process".to_owned(),
    };
    Error::new(ErrorKind::Unavailable, format!("'{}' is already open for writing by {holder}", storage.url()))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn storage() -> Arc<dyn Storage> {
        grizzly_wal::open_storage("memory://").expect("memory is always there")
    }

    fn short(epoch: u64) -> Grant {
        let (holder, url, nonce) = ("a".into(), "grpc://a".into(), uuid::Uuid::new_v4());
        Grant { epoch, holder, url, renewal: 0, millis: 100, released: false, nonce, database: None, log: None }
    }

    fn manifest(epoch: u64) -> Manifest {
        Manifest { epoch, ..Manifest::new(uuid::Uuid::nil(), crate::access::Csn(0)) }
    }

    #[test]
    fn one_alone_waits_for_the_dead_and_not_for_the_living() -> Result<()> {
        let storage = storage();
        let alone = |held| take(&storage, &manifest(0), held).map(|lease| lease.epoch()).map_err(|error| error.kind());
        assert_eq!(alone(false), Ok(1));
        let grant = Grant { millis: 1_000, ..short(2) };
        let lease = acquire(&storage, Clock::monotonic(), grant, Trust::Time)?.expect("nobody was faster");
        lease.keep()?;
        assert_eq!(alone(false), Err(ErrorKind::Unavailable));
        drop(lease);
        assert_eq!(alone(false), Ok(3), "it has run out");
        assert_eq!(alone(false), Ok(4));
        assert_eq!(take(&storage, &manifest(17), false)?.epoch(), 18, "a manifest may be ahead of all leases");
        let held = take(&storage, &manifest(0), true)?;
        assert_eq!(alone(true), Err(ErrorKind::Unavailable), "it is renewed");
        held.release()?;
        assert_eq!(alone(true), Ok(20));
        held.check().expect_err("it has a successor");
        Ok(())
    }

    #[test]
    fn a_renewal_of_the_dead_that_arrives_late_is_no_sign_of_life() -> Result<()> {
        let storage = storage();
        // Long enough for a busy machine.
        let grant = Grant { millis: 1_000, ..short(1) };
        let dead = acquire(&storage, Clock::monotonic(), grant, Trust::Time)?.expect("nobody was faster");
        thread::scope(|scope| {
            let renewing = scope.spawn(|| {
                world::sleep(Duration::from_millis(300));
                dead.renew()
            });
            assert_eq!(take(&storage, &manifest(0), true)?.epoch(), 2);
            renewing.join().expect("no panic")
        })
    }
}
