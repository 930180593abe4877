//! Files that nothing names any more. Only what this database wrote, under names that are never used again, and only
//! once no manifest, version or snapshot needs it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::super::{
    database::Inner,
    manifest::Manifest,
    segment::cold::{ColdSegment, DATA_DIR, SegmentKey, checkpoint_of_list, segment_of_path},
    version::DatabaseVersion,
};
use crate::error::Result;

/// Files that a manifest names.
struct Named {
    segments: HashSet<SegmentKey>,
    tombstones: HashSet<String>,
}

impl Named {
    fn by(manifest: &Manifest) -> Self {
        let entries = || manifest.tables.values().flatten().flatten();
        Self {
            segments: entries().map(|entry| entry.meta.key()).collect(),
            tombstones: entries().filter_map(|entry| entry.tombstones.clone()).collect(),
        }
    }
}

/// How long files that nothing needs any more wait for a checkpoint that comes by itself.
const WAIT: Duration = Duration::from_secs(5);

impl Inner {
    /// Takes note of segments that were replaced or dropped: they go when a checkpoint names them no more.
    pub(crate) fn retire(&self, segments: impl IntoIterator<Item = Arc<ColdSegment>>) {
        let segments: Vec<_> = segments.into_iter().collect();
        self.files.let_go(&segments);
        self.obsolete.lock().extend(segments);
    }
}

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

/// What is under the data folder when a writer begins and no version names, left over from a crash or a roll-back.
///
/// What the manifest or the log names stays even if the log has replaced it since: a start that fails halfway must be
/// able to begin again from the same manifest and log.
#[derive(Debug)]
pub(crate) struct LeftOver {
    /// Files of this epoch and later ones are this writer's.
    epoch: u64,
    named: HashSet<SegmentKey>,
}

impl LeftOver {
    pub(crate) fn beside(manifest: &Manifest, version: &DatabaseVersion) -> Self {
        let mut named = Named::by(manifest).segments;
        let segments = version.tables.values().flat_map(|table| table.segments());
        named.extend(segments.filter_map(|(_, segment)| Some(segment.cold()?.meta.key())));
        Self { epoch: manifest.epoch, named }
    }
}

/// Removes what was left over, if that was not done yet. Transactions may begin before this ends, and before it succeeds:
/// nothing that they write goes.
pub(crate) fn remove_left_over(db: &Inner) -> Result<()> {
    // Files that a backup may be about to copy stay.
    if db.pins.is_running() {
        return Ok(());
    }
    let Some(LeftOver { epoch, named }) = db.left_over.lock().take() else { return Ok(()) };
    let files = match db.storage.list(DATA_DIR) {
        Ok(files) => files,
        Err(error) => {
            *db.left_over.lock() = Some(LeftOver { epoch, named });
            return Err(error.into());
        }
    };
    let stays = |segment: SegmentKey| segment.1 >= epoch || named.contains(&segment) || db.pins.holds(segment);
    for file in files {
        if segment_of_path(&file.path).is_some_and(|segment| !stays(segment)) {
            db.files.removal.remove(file.path);
        }
    }
    Ok(())
}
