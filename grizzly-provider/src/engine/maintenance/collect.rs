//! Files that nothing names any more. Only what this database wrote, under names that are never used again, and only
//! once no manifest, version or snapshot needs it.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        core::Inner,
        manifest::Manifest,
        segment::{
            cold::ColdSegment,
            meta::{DATA_DIR, checkpoint_of_list, segment_of_path},
        },
    },
    left_over::Named,
};
use crate::error::Result;

/// How long files that nothing needs any more wait for a checkpoint that comes by itself.
const WAIT: Duration = Duration::from_secs(5);

/// Whether files would go with a checkpoint, and none has come for a while: where nobody writes, none comes by itself.
pub(crate) fn is_overdue(db: &Inner) -> bool {
    let goes = |segment: &Arc<ColdSegment>| !db.pins.keeps(segment.meta.key(), db.settings.backup_window);
    db.checkpoints.is_older_than(WAIT)
        && (db.obsolete.lock().iter().any(goes) || db.left_over.lock().is_some() && !db.pins.is_running())
}

/// After a checkpoint: segments that were replaced or dropped before it go when their last reader does, and lists
/// of ended rows that a newer list replaces go at once. What a backup needs stays.
pub(crate) fn release_obsolete(db: &Inner, manifest: &Manifest) -> Result<()> {
    let named = Named::by(manifest);
    let goes = |segment: &mut Arc<ColdSegment>| {
        !named.segments.contains(&segment.meta.key()) && !db.pins.holds(segment.meta.key())
    };
    let gone: Vec<_> = db.obsolete.lock().extract_if(.., goes).collect();
    gone.iter().for_each(|segment| segment.mark_obsolete());
    drop(gone);
    if db.pins.is_running() {
        return Ok(());
    }
    remove_left_over(db)?;
    for file in db.storage.list(DATA_DIR)? {
        // A list of a later epoch belongs to a writer that has replaced this one.
        let replaced = checkpoint_of_list(&file.path).is_some_and(|(_, writer)| writer <= manifest.epoch)
            && !named.tombstones.contains(&file.path);
        if replaced && segment_of_path(&file.path).is_some_and(|segment| named.segments.contains(&segment)) {
            db.files.removal.remove(file.path);
        }
    }
    db.files.removal.sweep();
    Ok(())
}

/// Removes files whose time has come, unless a backup may be about to copy them.
pub(crate) fn sweep(db: &Inner) {
    // A backup chooses its files while it holds this, and is known to run by then.
    let Some(_none_chooses) = db.checkpoint.try_lock() else { return };
    if !db.pins.is_running() {
        db.files.removal.sweep();
    }
}

/// Removes what was left over, if that was not done yet. Transactions may begin before this ends, and before it succeeds:
/// nothing that they write goes.
pub(crate) fn remove_left_over(db: &Inner) -> Result<()> {
    // Files that a backup may be about to copy stay.
    if db.pins.is_running() {
        return Ok(());
    }
    let Some(left_over) = db.left_over.lock().take() else { return Ok(()) };
    let files = match db.storage.list(DATA_DIR) {
        Ok(files) => files,
        Err(error) => {
            *db.left_over.lock() = Some(left_over);
            return Err(error.into());
        }
    };
    for file in files {
        if segment_of_path(&file.path).is_some_and(|segment| left_over.has(segment) && !db.pins.holds(segment)) {
            db.files.removal.remove(file.path);
        }
    }
    Ok(())
}
