//! What the manifest and the log say of a segment, and how its files are named.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

/// Segment numbers from here on belong to uncommitted rows of a transaction, one per shard.
pub(crate) const OVERLAY: u32 = 0xFFFF_0000;
/// Where segments and all that belongs to them are stored.
pub(crate) const DATA_DIR: &str = "data";
const CREATED: &str = "__created";
const VERSION: &str = "__row_version";

/// What the manifest and the log say of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentMeta {
    pub(crate) id: u32,
    /// The epoch of the writer that made the file, or 0 if it was the only one. It is part of the file's name, so
    /// that a writer that was replaced and does not know it yet cannot write over what its successor wrote.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) epoch: u64,
    pub(crate) rows: u32,
    pub(crate) file_bytes: u64,
    /// The commit that wrote every row, or `None` if the file has a column for it.
    pub(crate) created: Option<u64>,
    /// The version of every row, or `None` if the file has a column for it.
    pub(crate) row_version: Option<u64>,
    /// What the segment's files carry, so that no other file is taken for one of them; `None` for a segment of an
    /// earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<uuid::Uuid>,
}

/// Which segment a file belongs to: its number, and the epoch in which it was written.
pub(crate) type SegmentKey = (u32, u64);

fn is_zero(epoch: &u64) -> bool {
    *epoch == 0
}

/// `.e` and the epoch, or nothing for epoch 0.
fn suffix(epoch: u64) -> String {
    if epoch == 0 { String::new() } else { format!(".e{epoch}") }
}

/// Path of a segment's file.
pub(crate) fn segment_path((id, epoch): SegmentKey) -> String {
    format!("{DATA_DIR}/{id:08x}{}.seg", suffix(epoch))
}

/// The segment that the name of a file under [`DATA_DIR`] tells.
pub(crate) fn segment_of_path(path: &str) -> Option<SegmentKey> {
    let name = path.strip_prefix(DATA_DIR)?.strip_prefix('/')?;
    let (id, rest) = name.split_at_checked(8)?;
    let id = u32::from_str_radix(id, 16).ok().filter(|id| *id < OVERLAY)?;
    Some((id, epoch_at(rest)))
}

/// The checkpoint of a list of ended rows, and the epoch of its writer, if it is one.
pub(crate) fn checkpoint_of_list(path: &str) -> Option<(u64, u64)> {
    let (_, rest) = path.strip_suffix(".del")?.rsplit_once('-')?;
    let epoch = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    Some((rest[..rest.len() - epoch.len()].parse().ok()?, epoch_at(epoch)))
}

/// The epoch that a [`suffix`] at the beginning of `rest` tells.
fn epoch_at(rest: &str) -> u64 {
    let digits = rest.strip_prefix(".e").unwrap_or_default();
    digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Segment and index in the name of a run.
pub(crate) fn run_of_path(path: &str) -> Option<(SegmentKey, u32)> {
    let segment = segment_of_path(path)?;
    let index = path.strip_suffix(".idx")?.rsplit_once('-')?.1;
    Some((segment, index.parse().ok()?))
}

/// The schema of a segment file: the table's columns, then those row stamps that differ within the segment.
pub(crate) fn file_schema(schema: &SchemaRef, created: bool, versions: bool) -> SchemaRef {
    let stamp = |name: &str| Arc::new(Field::new(name, DataType::UInt64, false));
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.extend(created.then(|| stamp(CREATED)));
    fields.extend(versions.then(|| stamp(VERSION)));
    Arc::new(Schema::new(fields))
}

impl SegmentMeta {
    pub(crate) fn key(&self) -> SegmentKey {
        (self.id, self.epoch)
    }

    /// Path of the segment's file.
    pub(crate) fn path(&self) -> String {
        segment_path(self.key())
    }

    /// Path of the run of one index over the segment.
    pub(crate) fn run_path(&self, index: u32) -> String {
        format!("{DATA_DIR}/{:08x}{}-{index}.idx", self.id, suffix(self.epoch))
    }

    /// Path of the list of ended rows that the writer of an epoch makes at a checkpoint.
    pub(crate) fn list_path(&self, checkpoint: u64, writer: u64) -> String {
        format!("{DATA_DIR}/{:08x}{}-{checkpoint}{}.del", self.id, suffix(self.epoch), suffix(writer))
    }

    /// The schema of this segment's file for a table with columns `schema`.
    pub(crate) fn file_schema(&self, schema: &SchemaRef) -> SchemaRef {
        file_schema(schema, self.created.is_none(), self.row_version.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(id: u32, epoch: u64) -> SegmentMeta {
        SegmentMeta { id, epoch, rows: 0, file_bytes: 0, created: None, row_version: None, mark: None }
    }

    #[test]
    fn names_tell_what_they_belong_to() {
        // Numbers of rows in memory are no files', whatever lies in the folder.
        assert_eq!(segment_of_path("data/ffff0000.seg"), None);
        for epoch in [0, 1, 12] {
            let meta = meta(0xAB, epoch);
            for path in [meta.path(), meta.run_path(3), meta.list_path(7, 0), meta.list_path(7, 15)] {
                assert_eq!(segment_of_path(&path), Some((0xAB, epoch)), "{path}");
            }
            assert_eq!(checkpoint_of_list(&meta.list_path(7, 15)), Some((7, 15)));
            assert_eq!(checkpoint_of_list(&meta.list_path(7, 0)), Some((7, 0)));
            assert_eq!(checkpoint_of_list(&meta.run_path(3)), None);
            assert_eq!(run_of_path(&meta.run_path(3)), Some(((0xAB, epoch), 3)));
            assert_eq!(run_of_path(&meta.list_path(7, 15)), None);
        }
        let alone = meta(1, 0);
        assert_eq!(alone.path(), "data/00000001.seg");
        assert_eq!(segment_of_path("data/x"), None);
    }
}
