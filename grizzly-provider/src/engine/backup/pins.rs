//! What must stay on storage for backups: the log behind the last backup, and the files its records name.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use grizzly_wal::{Lsn, PutMode, Storage, world::Mutex};
use serde::{Deserialize, Serialize};

use super::super::{
    clock::now,
    manifest::{NamedByLog, checked, unchecked},
    redo,
    segment::meta::SegmentKey,
};
use crate::error::{Error, ErrorKind, Result};

/// Where positions are stored.
const DIR: &str = "backup";

/// How far a chain of backups has come; stored in the database's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) chain: String,
    /// The place of the chain.
    pub(super) to: String,
    /// The first record that the next backup needs.
    pub(super) lsn: u64,
    /// When the backup was taken, in microseconds since 1970.
    pub(super) created: u64,
    /// Whose backup it is; not known in earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<uuid::Uuid>,
}

/// Keeps log and files from being removed.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By chain.
    positions: BTreeMap<String, Position>,
    /// A backup runs, and reads the log from here once that is known.
    running: Option<Option<Lsn>>,
    /// Segments that records of the log name, with those records.
    named: BTreeMap<SegmentKey, u64>,
}

impl State {
    /// Positions that are not older than `window`.
    fn recent(&self, window: Duration) -> impl Iterator<Item = &Position> {
        let oldest = now().0.saturating_sub(window.as_micros() as u64);
        self.positions.values().filter(move |position| position.created >= oldest)
    }
}

/// Ends the protection of what a running backup reads.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a Pins);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running = None;
    }
}

fn path(chain: &str) -> String {
    format!("{DIR}/{chain}.json")
}

/// The position stored as `path`, of a chain of backups of `database`.
fn read(storage: &Arc<dyn Storage>, path: &str, database: uuid::Uuid) -> Result<Position> {
    let text = storage.get(path)?;
    let position: Position = redo::decode_json(path, unchecked(path, &text)?)?;
    let ours = position.database.is_none_or(|found| found == database);
    match ours && self::path(&position.chain) == path {
        true => Ok(position),
        false => Err(Error::corrupt(format!("'{path}' was exchanged: it is that of chain {}", position.chain))),
    }
}

impl Pins {
    /// Goes on with the positions on storage, and with the segments that the log names.
    pub(crate) fn resume(
        &self,
        storage: &Arc<dyn Storage>,
        database: uuid::Uuid,
        named: BTreeMap<SegmentKey, u64>,
    ) -> Result<()> {
        let mut positions = BTreeMap::new();
        for file in storage.list(DIR)? {
            match read(storage, &file.path, database) {
                Ok(position) => drop(positions.insert(position.chain.clone(), position)),
                // What is merely not read now must not be forgotten.
                Err(error) if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => return Err(error),
                // The database works without; the next incremental backup will be refused.
                Err(error) => tracing::warn!(file = file.path, %error, "cannot read how far a backup has come"),
            }
        }
        let mut state = self.state.lock();
        (state.positions, state.named) = (positions, named);
        Ok(())
    }

    /// What is wrong with the positions on storage.
    pub(crate) fn verify(storage: &Arc<dyn Storage>, database: uuid::Uuid) -> Result<Vec<String>> {
        let files = storage.list(DIR)?;
        Ok(files
            .iter()
            .filter_map(|file| read(storage, &file.path, database).err())
            .map(|error| error.to_string())
            .collect())
    }

    /// The record `lsn` of the log names `segment`.
    pub(crate) fn note(&self, lsn: Lsn, segment: SegmentKey) {
        self.state.lock().named.insert(segment, lsn.0);
    }

    /// The first record that the log must keep, where a checkpoint no longer needs those before `replay_from`.
    /// Backups older than `window` keep nothing.
    pub(crate) fn keep_from(&self, replay_from: Lsn, window: Duration) -> Lsn {
        let state = self.state.lock();
        let running = state.running.flatten().map(|lsn| lsn.0);
        Lsn(state.recent(window).map(|position| position.lsn).chain(running).fold(replay_from.0, u64::min))
    }

    /// The log from `kept` on is all that anybody needs: the manifest is stored that says so. Not earlier: until then a
    /// backup begins with the one before.
    pub(crate) fn forget_before(&self, kept: Lsn) {
        self.state.lock().named.retain(|_, lsn| *lsn >= kept.0);
    }

    /// Segments that records of the log name, and those records, which are in `range`.
    pub(crate) fn named_in(&self, range: Range<Lsn>) -> Vec<NamedByLog> {
        let state = self.state.lock();
        let named = state.named.iter().filter(|(_, lsn)| range.contains(&Lsn(**lsn)));
        named.map(|(&(segment, epoch), &lsn)| NamedByLog { segment, epoch, lsn }).collect()
    }

    /// Whether the files of a segment must stay although no version names them.
    pub(crate) fn holds(&self, segment: SegmentKey) -> bool {
        let state = self.state.lock();
        state.running.is_some() || state.named.contains_key(&segment)
    }

    /// Whether a backup that is not older than `window`, or one that runs, needs the files of a segment.
    pub(crate) fn keeps(&self, segment: SegmentKey, window: Duration) -> bool {
        let state = self.state.lock();
        let needed = |named: &u64| state.recent(window).any(|position| position.lsn <= *named);
        state.running.is_some() || state.named.get(&segment).is_some_and(needed)
    }

    /// Whether files are being copied now.
    pub(crate) fn is_running(&self) -> bool {
        self.state.lock().running.is_some()
    }

    /// Lets no file be removed until the guard is dropped.
    pub(super) fn start(&self) -> Result<Running<'_>> {
        let mut state = self.state.lock();
        if state.running.is_some() {
            return Err(Error::new(ErrorKind::Unavailable, "a backup of this database is being made already"));
        }
        state.running = Some(None);
        Ok(Running(self))
    }

    /// Stores how far a chain has come. Chains in the same place that this one replaces hold nothing any more.
    pub(super) fn advance(&self, storage: &Arc<dyn Storage>, position: Position) -> Result<()> {
        let json = redo::encode_json(&position)?;
        storage.put(&path(&position.chain), &checked(json), PutMode::Overwrite)?;
        self.release(storage, |other| other.to == position.to && other.chain != position.chain)?;
        self.state.lock().positions.insert(position.chain.clone(), position);
        Ok(())
    }

    /// Forgets positions; returns how many.
    pub(super) fn release(&self, storage: &Arc<dyn Storage>, of: impl Fn(&Position) -> bool) -> Result<usize> {
        let chosen: Vec<Position> =
            self.state.lock().positions.values().filter(|position| of(position)).cloned().collect();
        for position in &chosen {
            storage.remove(&path(&position.chain))?;
            self.state.lock().positions.remove(&position.chain);
        }
        Ok(chosen.len())
    }
}

impl Running<'_> {
    /// Lets the log keep everything from here on, too.
    pub(super) fn read_from(&self, lsn: Lsn) {
        self.0.state.lock().running = Some(Some(lsn));
    }
}
