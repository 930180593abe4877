//! The end of an open database: everything in files, the log ended, the place free for the next.

use std::sync::atomic::Ordering;

use grizzly_wal::Wal;

use super::{
    cluster::Member,
    database::Inner,
    maintenance::{collect, flush},
};
use crate::error::Result;

impl Inner {
    pub(super) fn close(&self) -> Result<()> {
        self.check_open()?;
        let flushed = match self.check_writable() {
            Ok(()) if !self.hot.is_empty() => flush::checkpoint(self),
            _ => Ok(()),
        };
        if self.check_writable().is_ok() {
            collect::sweep(self);
        }
        let _steady = self.member.as_ref().map(Member::steady);
        self.closed.store(true, Ordering::Release);
        self.signals.stop();
        let closed = self.wal.load_full().map_or(Ok(()), Wal::close);
        if let Some(member) = &self.member {
            member.leave();
        }
        if let Some(lease) = self.alone.load_full()
            && let Err(error) = lease.release()
        {
            tracing::warn!(%error, "no word could be left that this process has closed the database");
        }
        *self.lock.lock() = None;
        flushed?;
        Ok(closed?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.signals.stop();
        if let Some(member) = &self.member {
            member.stop();
        }
        if let Some(lease) = self.alone.swap(None)
            && !self.closed.load(Ordering::Acquire)
        {
            // Ends the log, which syncs what is buffered; only then another may begin. It is held until its end is
            // in the lease.
            let log = self.wal.swap(None);
            let ended = log.clone().map_or(Ok(()), Wal::close);
            drop(ended.map(|()| lease.release()));
            drop(log);
        }
    }
}
