//! Changes of role: a follower takes the lease and goes on where the writer ended, and a writer that lost its lease
//! follows.

use std::sync::{Arc, atomic::Ordering};

use grizzly_wal::Known;

use super::{
    super::{
        core::Inner,
        manifest::{LOG_DIR, Manifest},
        recovery,
    },
    following::Following,
    lease::{self, Clock, Grant, Lease, Trust},
    member::Member,
};
use crate::error::{Error, Result};

/// Takes the lease, which is free, and becomes the writer. Does nothing if somebody else was faster.
pub(super) fn take_lease(db: &Arc<Inner>, member: &Member) -> Result<()> {
    let _roles = member.roles.lock();
    db.check_open()?;
    // The one behind what was found free: whoever has taken that meanwhile keeps it.
    let seen = member.watch.lock().seen().map(|grant| grant.epoch);
    let epoch = match seen {
        None => {
            // In this order: the manifest of somebody who takes the first lease now has its epoch already.
            let before = Manifest::load(&db.storage)?.map_or(0, |manifest| manifest.epoch);
            if lease::latest_epoch(db.storage.as_ref())? > 0 {
                return Ok(());
            }
            before + 1
        }
        Some(seen) => seen + 1,
    };
    let settings = &member.settings;
    let (holder, millis) = ((settings.node.clone(), member.url.lock().clone()), settings.lease.as_millis() as u64);
    let stored = Manifest::load(&db.storage)?.map_or(Known::default(), |manifest| manifest.known_log());
    let known = lease::known_log(db.storage.as_ref(), db.identity)?.and(stored);
    let grant = Grant::new(epoch, holder, millis, db.identity, known);
    let Some(lease) = lease::acquire(&db.storage, Clock::monotonic(), grant, Trust::Time)? else { return Ok(()) };
    member.taken.store(epoch, Ordering::Release);
    lease.keep()?;
    let following = member.following.lock().take();
    let taken = match following {
        Some(following) => take_over(db, member, following, &lease),
        None => Err(Error::internal("nothing was followed yet")),
    };
    // What the follower had may need files that are gone; the newest manifest never does.
    let taken = taken.or_else(|error| {
        tracing::info!(%error, "taking over begins anew from the newest manifest");
        take_over(db, member, Following::load(&db.storage, db.files.clone())?, &lease)
    });
    if taken.is_err() {
        drop(lease.release());
    }
    taken?;
    tracing::info!(url = db.url, epoch, csn = db.publisher.current().csn.0, "this process writes from now on");
    member.news.tell();
    Ok(())
}

/// Reads the log to its end, shuts out whoever wrote it, and goes on.
fn take_over(db: &Arc<Inner>, member: &Member, mut following: Following, lease: &Arc<Lease>) -> Result<()> {
    let _no_maintenance = db.checkpoint.lock();
    let options = recovery::wal_options(&db.publisher, db.identity, lease.epoch(), Some(lease));
    let replay = grizzly_wal::open(Arc::clone(&db.storage), LOG_DIR, following.tail.next_lsn(), options)?;
    let mut replay = replay.knowing(lease.known_log());
    for record in &mut replay {
        following.replica.apply(&record?)?;
    }
    // The file it begins says where it takes over: what the old writer adds behind that point is read by nobody.
    let torn = replay.torn().to_vec();
    let wal = replay.into_writer()?;
    let manifest = Manifest::claim(&db.storage, lease.epoch())?;
    // Rows that it names in files, and that are in memory here, must not become more: whoever begins with it finds none of
    // them to add to.
    following.replica.adopt(&manifest)?;
    following.replica.check_begun_from(&manifest)?;
    lease.check()?;
    member.lease.store(Some(Arc::clone(lease)));
    // After that: whoever changes it from here on tells the lease.
    let url = member.url.lock().clone();
    if let Err(error) = lease.keep_url(&url) {
        tracing::warn!(%error, "where this process is reached is told with the next renewal of its lease");
    }
    let wal = Arc::new(wal);
    lease.follow_log(&wal);
    recovery::install(db, following.replica, (wal, torn), &manifest)
}

/// Stops writing. What was not acknowledged by now never will be.
pub(super) fn step_down(db: &Inner, member: &Member) {
    give_up(db, member);
    let _roles = member.roles.lock();
    let _no_maintenance = db.checkpoint.lock();
    let (log, lease) = {
        let _no_commits = db.commit.lock();
        db.term.fetch_add(1, Ordering::AcqRel);
        (db.wal.swap(None), member.lease.swap(None))
    };
    if let Some(log) = log
        && let Err(error) = log.close()
    {
        tracing::warn!(%error, url = db.url, "this process stops writing");
    }
    db.publisher.publish_now(db.publisher.current());
    // Its log has ended, so that others need not wait if the lease was not what failed.
    drop(lease.map(|lease| lease.release()));
    *member.following.lock() = None;
}

/// Tells whoever waits for a commit that its outcome is not known, if the lease has run out. The log's thread would say
/// the same once the storage has answered it, which may be long after another one has begun to write.
fn give_up(db: &Inner, member: &Member) {
    let (lease, log) = (member.lease.load_full(), db.wal.load_full());
    if let (Some(lease), Some(log)) = (lease, log)
        && !lease.in_time()
    {
        let message = format!("the lease of epoch {} has run out", lease.epoch());
        log.give_up(grizzly_wal::Error::new(grizzly_wal::ErrorKind::AlreadyExists, message));
    }
}
