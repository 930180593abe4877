//! Which files of the data folder a manifest names, and which nothing does.

use std::collections::HashSet;

use super::super::{manifest::Manifest, segment::meta::SegmentKey, version::DatabaseVersion};

/// Files that a manifest names.
pub(super) struct Named {
    pub(super) segments: HashSet<SegmentKey>,
    pub(super) tombstones: HashSet<String>,
}

impl Named {
    pub(super) fn by(manifest: &Manifest) -> Self {
        let entries = || manifest.tables.values().flatten().flatten();
        Self {
            segments: entries().map(|entry| entry.meta.key()).collect(),
            tombstones: entries().filter_map(|entry| entry.tombstones.clone()).collect(),
        }
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

    /// Whether a segment was left over.
    pub(super) fn has(&self, segment: SegmentKey) -> bool {
        let (_, epoch) = segment;
        epoch < self.epoch && !self.named.contains(&segment)
    }
}
