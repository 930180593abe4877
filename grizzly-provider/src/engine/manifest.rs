//! The manifest: catalog, segments and the place in the log to replay from, as of a checkpoint. One is written under
//! its writer's epoch and the next number, which must not exist yet; of the greatest epoch the one with the greatest number
//! counts.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use grizzly_wal::{Known, Lsn, PutMode, Storage};
use serde::{Deserialize, Serialize};

use super::{
    catalog::{BEYOND, Catalog},
    maintenance::tombstone_file::{self, ListFile},
    mvcc::tombstones::Tombstones,
    redo,
    segment::{
        cold::ColdSegment,
        meta::{OVERLAY, SegmentKey, SegmentMeta, checkpoint_of_list, segment_of_path},
    },
};
use crate::{
    access::Csn,
    error::{Error, ErrorKind, Result},
};

/// The folder of the log.
pub(crate) const LOG_DIR: &str = "log";
/// Manifests that others, who do not know yet that they were replaced, may store while a new writer claims its own.
const CLAIMS: usize = 8;
/// The version of the layout of a database: folder names, manifest, segment files, log records.
///
/// - 2: files say what they are, and the manifest how far the log was.
pub(crate) const FORMAT: u32 = 2;
const DIR: &str = "manifest";
const KEPT: usize = 2;

/// A database at a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// Identity of this database; a restored copy gets another.
    pub(crate) database: uuid::Uuid,
    pub(crate) number: u64,
    /// Grows each time a writer takes over.
    pub(crate) epoch: u64,
    pub(crate) csn: u64,
    pub(crate) history_from: u64,
    /// The first log record that is not contained.
    pub(crate) replay_from: u64,
    pub(crate) next_segment: u32,
    pub(crate) catalog: Catalog,
    /// Segments of each table, by shard.
    pub(crate) tables: BTreeMap<u64, Vec<Vec<SegmentEntry>>>,
    /// Segments that the log before `replay_from` names, with the record; a backup will need them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) named_by_log: Vec<NamedByLog>,
    /// How far the log was when this was stored; not known of a database that has no log yet, or in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<LogEnd>,
}

/// How far the log was at some moment: it never ends before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEnd {
    /// The number of its newest file.
    pub(crate) file: u64,
    /// The last record that was durable.
    pub(crate) lsn: u64,
}

impl From<Known> for LogEnd {
    fn from(known: Known) -> Self {
        Self { file: known.file, lsn: known.last.0 }
    }
}

impl From<LogEnd> for Known {
    fn from(end: LogEnd) -> Self {
        Self { owner: None, file: end.file, last: Lsn(end.lsn) }
    }
}

/// A segment, and the record that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedByLog {
    pub(crate) segment: u32,
    pub(crate) epoch: u64,
    pub(crate) lsn: u64,
}

impl NamedByLog {
    pub(crate) fn key(&self) -> SegmentKey {
        (self.segment, self.epoch)
    }
}

/// A segment and its ended rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SegmentEntry {
    #[serde(flatten)]
    pub(crate) meta: SegmentMeta,
    /// The file that lists ended rows, if there are any.
    pub(crate) tombstones: Option<String>,
    /// The checksum of what that file lists; not known in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tombstones_crc: Option<u32>,
}

impl SegmentEntry {
    /// The ended rows of its segment from the file at `path`.
    pub(crate) fn read_list(
        &self,
        storage: &Arc<dyn Storage>,
        path: &str,
        segment: &ColdSegment,
    ) -> Result<(Tombstones, ListFile)> {
        let order = checkpoint_of_list(path).filter(|_| segment_of_path(path) == Some(self.meta.key()));
        let (checkpoint, writer) =
            order.ok_or_else(|| Error::corrupt(format!("'{path}' cannot list rows of segment {}", self.meta.id)))?;
        let label = segment.list_label(checkpoint, writer);
        let (ended, list) = tombstone_file::read(storage, path, &label, self.tombstones_crc)?;
        match ended.last().is_none_or(|row| row < self.meta.rows) {
            true => Ok((ended, list)),
            false => Err(Error::corrupt(format!("'{path}' lists rows that segment {} does not have", self.meta.id))),
        }
    }

    fn is_possible(&self) -> bool {
        self.meta.id < OVERLAY && self.meta.epoch < BEYOND && self.meta.file_bytes < BEYOND
    }
}

/// The epoch comes first: what a writer that was replaced stores late never counts, whatever its number.
fn path(epoch: u64, number: u64) -> String {
    format!("{DIR}/{epoch:020}-{number:020}.json")
}

/// Epoch and number of a manifest, by its path; the epoch was not part of it in earlier versions.
fn order(path: &str) -> Option<(u64, u64)> {
    let name = path.strip_prefix(DIR)?.strip_prefix('/')?.strip_suffix(".json")?;
    let (epoch, number) = name.split_once('-').unwrap_or(("0", name));
    let (epoch, number) = (epoch.parse().ok()?, number.parse().ok()?);
    // No database has as many.
    (epoch < BEYOND && number < BEYOND).then_some((epoch, number))
}

/// All manifests, the one that counts last.
fn ordered(storage: &Arc<dyn Storage>) -> Result<Vec<((u64, u64), String)>> {
    let files = storage.list(DIR)?.into_iter().map(|file| file.path);
    let mut found: Vec<_> = files.filter_map(|path| Some((order(&path)?, path))).collect();
    found.sort_unstable();
    Ok(found)
}

/// Text with its checksum in a line of its own.
pub(crate) fn checked(json: Bytes) -> [Bytes; 2] {
    let checksum = checksum_line(&json);
    [json, checksum.into()]
}

/// The text that [`checked`] stored as `path`.
pub(crate) fn unchecked<'t>(path: &str, text: &'t [u8]) -> Result<&'t [u8]> {
    let damaged = |what: &str| Error::corrupt(format!("'{path}' is damaged: {what}"));
    let end = text.iter().rposition(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no checksum"))?;
    let (json, checksum) = text.split_at(end);
    match checksum == checksum_line(json).as_bytes() {
        true => Ok(json),
        false => Err(damaged("its checksum is wrong")),
    }
}

/// What is wrong with the objects of a folder, which `parse` reads. One that is removed meanwhile is no problem.
pub(crate) fn unreadable<T>(
    storage: &dyn Storage,
    dir: &str,
    parse: impl Fn(&str, &[u8]) -> Result<T>,
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in storage.list(dir)? {
        let text = match storage.get(&file.path) {
            Err(error) if error.kind() == grizzly_wal::ErrorKind::NotFound => continue,
            text => text.map_err(Error::from),
        };
        problems.extend(text.and_then(|text| parse(&file.path, &text)).err().map(|error| error.to_string()));
    }
    Ok(problems)
}

fn checksum_line(json: &[u8]) -> String {
    format!("\n{:08x}", crc32c::crc32c(json))
}

impl Manifest {
    /// Of a database that holds nothing yet.
    pub(crate) fn new(database: uuid::Uuid, csn: Csn) -> Self {
        Self {
            format: FORMAT,
            database,
            number: 1,
            epoch: 0,
            csn: csn.0,
            history_from: csn.0,
            replay_from: 1,
            next_segment: 1,
            catalog: Catalog::default(),
            tables: BTreeMap::new(),
            named_by_log: Vec::new(),
            log: None,
        }
    }

    /// The number of the newest manifest, or 0.
    pub(crate) fn newest(storage: &Arc<dyn Storage>) -> Result<u64> {
        Ok(ordered(storage)?.last().map_or(0, |((_, number), _)| *number))
    }

    /// The newest manifest, or `None` where there is no database yet.
    pub(crate) fn load(storage: &Arc<dyn Storage>) -> Result<Option<Self>> {
        let is_manifest = |path: &str| order(path).is_some();
        let Some((_, newest)) = ordered(storage)?.pop() else {
            return match Self::foreign(storage)? {
                // Another process has created the database just now.
                Some(path) if is_manifest(&path) => Self::load(storage),
                Some(path) => Err(Error::invalid(format!(
                    "'{}' is not a Grizzly database and not empty: it contains '{path}'",
                    storage.url()
                ))),
                None => Ok(None),
            };
        };
        let text = storage.get(&newest)?;
        Self::parse(&newest, &text).map(Some)
    }

    /// A file that a place without a manifest should not have: one that holds such files is not a new database.
    fn foreign(storage: &Arc<dyn Storage>) -> Result<Option<String>> {
        let mut foreign = storage.list("")?.into_iter().map(|file| file.path);
        let ours =
            |path: &String| path == "LOCK" || ["log/", "data/", "lease/"].iter().any(|dir| path.starts_with(dir));
        Ok(foreign.find(|path| !ours(path)))
    }

    fn parse(path: &str, text: &[u8]) -> Result<Self> {
        grizzly_wal::storage::check_plain(path, text)?;
        let manifest = Self::decode(path, unchecked(path, text)?)?;
        // In earlier versions the name did not have the epoch.
        let named = order(path).map(|(epoch, number)| (if epoch == 0 { manifest.epoch } else { epoch }, number));
        match named == Some((manifest.epoch, manifest.number)) {
            true => Ok(manifest),
            false => Err(Error::corrupt(format!(
                "'{path}' was exchanged: it is manifest {} of epoch {}",
                manifest.number, manifest.epoch
            ))),
        }
    }

    /// Stores the newest manifest of the epochs before again under this one. From then on no earlier writer can store one that
    /// counts. One that it had under way, and that came in between, is claimed too: others may have gone on from it.
    pub(crate) fn claim(storage: &Arc<dyn Storage>, epoch: u64) -> Result<Self> {
        let mut claimed: Option<(u64, Self)> = None;
        for _ in 0..CLAIMS {
            let found = ordered(storage)?;
            let Some(((newest, _), last)) = found.last() else { break };
            if *newest > epoch {
                break;
            }
            let earlier = found.iter().rfind(|((of, _), _)| *of < epoch);
            let (of, path) = earlier.map_or((0, last), |((_, number), path)| (*number, path));
            if let Some((_, claimed)) = claimed.take_if(|(made_of, _)| of <= *made_of) {
                return Ok(claimed);
            }
            let number = found.iter().map(|((_, number), _)| *number).max().unwrap_or(0) + 1;
            let manifest = Self { number, epoch, ..Self::parse(path, &storage.get(path)?)? };
            match manifest.store(storage) {
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                stored => claimed = stored.map(|()| Some((of, manifest)))?,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("another writer has taken over '{}'", storage.url())))
    }

    /// What is known of the log behind this.
    pub(crate) fn known_log(&self) -> Known {
        Known { owner: Some(self.database.as_u128()), ..self.log.map_or(Known::default(), Known::from) }
    }

    /// Segments that the log before `replay_from` names, with the record.
    pub(crate) fn named_by_log(&self) -> BTreeMap<SegmentKey, u64> {
        self.named_by_log.iter().map(|named| (named.key(), named.lsn)).collect()
    }

    /// A manifest without its checksum.
    pub(crate) fn decode(path: &str, json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = redo::decode_json(&format!("manifest '{path}'"), json)?;
        if head.format > FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "'{path}' was written by a newer Grizzly: format {}, this one reads up to {FORMAT}",
                    head.format
                ),
            ));
        }
        let manifest: Self = redo::decode_json(&format!("manifest '{path}'"), json)?;
        manifest.check().map_err(|error| Error::corrupt(format!("manifest '{path}' is damaged: {error}")))?;
        Ok(manifest)
    }

    /// An error if no writer can have stored this.
    fn check(&self) -> Result<()> {
        let Self { number, epoch, csn, history_from, replay_from, .. } = *self;
        let log = self.log.map_or([0, 0], |log| [log.file, log.lsn]);
        if [number, epoch, csn, history_from, replay_from].iter().chain(&log).any(|number| *number >= BEYOND) {
            return Err(Error::corrupt("it has numbers that no database reaches"));
        }
        let mut entries = self.tables.values().flatten().flatten();
        if self.next_segment > OVERLAY || !entries.all(SegmentEntry::is_possible) {
            return Err(Error::corrupt("it has segments that no database has"));
        }
        self.catalog.check()
    }

    /// Stores this manifest under its number. `Unavailable` if another writer did so first.
    pub(crate) fn store(&self, storage: &Arc<dyn Storage>) -> Result<()> {
        let (path, parts) = (path(self.epoch, self.number), checked(redo::encode_json(self)?));
        let Err(error) = storage.put(&path, &parts, PutMode::Create) else { return Ok(()) };
        // It may be there though the call failed, or because an earlier one that seemed to fail had stored it.
        if storage.get(&path).is_ok_and(|stored| stored == parts.concat()) {
            return Ok(());
        }
        Err(match error.kind() {
            grizzly_wal::ErrorKind::AlreadyExists => Error::new(
                ErrorKind::Unavailable,
                format!("another writer has taken over '{}': manifest {} exists", storage.url(), self.number),
            ),
            _ => error.into(),
        })
    }

    /// What is wrong with the manifests on storage, the older ones included.
    pub(crate) fn verify(storage: &Arc<dyn Storage>) -> Result<Vec<String>> {
        unreadable(storage.as_ref(), DIR, Self::parse)
    }

    /// Removes manifests that are no longer needed.
    pub(crate) fn prune(storage: &Arc<dyn Storage>) -> Result<()> {
        for (_, old) in ordered(storage)?.iter().rev().skip(KEPT) {
            storage.remove(old)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest { epoch: 1, ..Manifest::new(uuid::Uuid::nil(), Csn(5)) }
    }

    fn stored(change: impl FnOnce(String) -> String) -> Result<Option<Manifest>> {
        let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
        manifest().store(&storage).expect("it can be stored");
        let second = Manifest { number: 2, ..manifest() };
        let text = checked(redo::encode_json(&second).expect("it can be written")).concat();
        let text = String::from_utf8(text).expect("it is text");
        storage.put(&path(1, 2), &[change(text).into()], PutMode::Create).expect("it can be stored");
        Manifest::load(&storage)
    }

    #[test]
    fn a_claim_is_of_the_newest_that_a_replaced_writer_has_stored() -> Result<()> {
        let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
        Manifest { number: 5, csn: 1, ..manifest() }.store(&storage)?;
        let claimed = Manifest::claim(&storage, 2)?;
        assert_eq!((claimed.epoch, claimed.number, claimed.csn), (2, 6, 1));
        // It was under way while that was claimed.
        Manifest { number: 6, csn: 3, ..manifest() }.store(&storage)?;
        let claimed = Manifest::claim(&storage, 2)?;
        assert_eq!((claimed.epoch, claimed.number, claimed.csn), (2, 7, 3));
        assert_eq!(Manifest::load(&storage)?.map(|newest| newest.number), Some(7));
        assert!(Manifest::claim(&storage, 1).is_err(), "a later epoch has begun");
        Ok(())
    }

    #[test]
    fn what_a_replaced_writer_stores_late_does_not_count() -> Result<()> {
        let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
        for (epoch, number, csn) in [(1, 5, 1), (2, 6, 2), (1, 9, 3)] {
            Manifest { epoch, number, csn, ..manifest() }.store(&storage)?;
        }
        assert_eq!(Manifest::load(&storage)?.map(|manifest| manifest.csn), Some(2));
        assert_eq!(Manifest::newest(&storage)?, 6);
        Manifest { epoch: 2, number: 7, csn: 4, ..manifest() }.store(&storage)?;
        Manifest::prune(&storage)?;
        let left: Vec<_> = ordered(&storage)?.into_iter().map(|(order, _)| order).collect();
        assert_eq!(left, [(2, 6), (2, 7)]);
        Ok(())
    }

    #[test]
    fn damage_and_newer_formats_are_told_apart() {
        assert!(matches!(stored(|text| text), Ok(Some(manifest)) if manifest.csn == 5));
        let damaged = stored(|text| text.replace("\"csn\":5", "\"csn\":6"));
        assert_eq!(damaged.map_err(|error| error.kind()).err(), Some(ErrorKind::Corrupt));
        let newer = stored(|text| {
            let json = text.lines().next().unwrap_or_default().replace("\"format\":2", "\"format\":9");
            format!("{json}\n{:08x}", crc32c::crc32c(json.as_bytes()))
        });
        assert_eq!(newer.map_err(|error| error.kind()).err(), Some(ErrorKind::Unsupported));
        let exchanged = stored(|_| {
            let json = redo::encode_json(&manifest()).expect("it can be written");
            String::from_utf8(checked(json).concat()).expect("it is text")
        });
        assert_eq!(exchanged.map_err(|error| error.kind()).err(), Some(ErrorKind::Corrupt));
    }
}
