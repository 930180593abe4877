//! The end of an open database: everything in files, the log ended, the place free for the next.

use std::sync::atomic::Ordering;

use grizzly_wal::Wal;

use super::{
    cluster::member::Member,
    core::Inner,
    maintenance::{collect, flush},
};
use crate::error::Result;

/// Ends all work and lets go of the storage; see [`Grizzly::close`](crate::Grizzly::close).
pub(super) fn close(db: &Inner) -> Result<()> {
    db.check_open()?;
    let flushed = match db.check_writable() {
        Ok(()) if !db.hot.is_empty() => flush::checkpoint(db),
        _ => Ok(()),
    };
    if db.check_writable().is_ok() {
        collect::sweep(db);
    }
    let _steady = db.member.as_ref().map(Member::steady);
    db.closed.store(true, Ordering::Release);
    db.signals.stop();
    let closed = db.wal.load_full().map_or(Ok(()), Wal::close);
    if let Some(member) = &db.member {
        member.leave();
    }
    if let Some(lease) = db.alone.load_full()
        && let Err(error) = lease.release()
    {
        tracing::warn!(%error, "no word could be left that this process has closed the database");
    }
    *db.lock.lock() = None;
    flushed?;
    Ok(closed?)
}
