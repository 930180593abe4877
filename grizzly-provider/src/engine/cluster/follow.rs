//! Making visible what another process writes.

use std::sync::Arc;

use super::{
    super::core::Inner,
    following::{Care, Following},
    member::Member,
};
use crate::error::Result;

/// Makes visible what the writer has logged since the last call. Whether that is all there is.
pub(super) fn catch_up(db: &Inner, member: &Member, care: Care) -> Result<bool> {
    // While roles stay: a version from the log must not take the place of one that this process wrote itself.
    let _roles = member.roles.lock();
    if member.lease.load().is_some() {
        return Ok(false);
    }
    let mut place = member.following.lock();
    // After an error the next call begins anew, from the newest manifest, which may contain all there is.
    let (mut following, anew) = match place.take() {
        Some(following) => (following, false),
        None => (Following::load(&db.storage, db.files.clone())?, true),
    };
    let advanced = following.advance(&db.storage, care)?;
    let adopted = following.adopt_checkpoint(&db.storage)?;
    // What was seen once stays, also while a fresh start has not come as far yet.
    let as_new = following.replica.version.csn >= db.publisher.current().csn;
    if (anew || advanced.changed || adopted) && as_new {
        db.publisher.publish_now(Arc::new(following.version()));
        member.news.tell();
    }
    *place = Some(following);
    Ok(advanced.complete && as_new)
}
