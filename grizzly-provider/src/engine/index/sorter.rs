//! Making a run of many keys in bounded memory: parts are sorted and compressed as they come, and merged in the end.

use super::{
    super::key::Keys,
    builder::{self, RunBuilder},
    run::IndexRun,
};

/// Bytes of keys that are sorted at a time: a segment of two million numbers is sorted at once.
const PART_BYTES: usize = 48 << 20;
/// About the bytes of a key that sorting takes besides.
const ENTRY_BYTES: usize = 16;

/// Collects the keys of rows 0, 1, 2 … of a segment.
#[derive(Debug)]
pub(crate) struct RunSorter {
    part_bytes: usize,
    /// Keys that are not sorted yet.
    waiting: Keys,
    /// The row of the first of them.
    first_row: u32,
    /// Runs of the rows before.
    parts: Vec<IndexRun>,
}

impl Default for RunSorter {
    fn default() -> Self {
        Self::in_parts_of(PART_BYTES)
    }
}

impl RunSorter {
    /// Sorts so many bytes of keys at a time.
    pub(super) fn in_parts_of(part_bytes: usize) -> Self {
        Self { part_bytes, waiting: Keys::default(), first_row: 0, parts: Vec::new() }
    }

    /// Adds the keys of the next rows.
    pub(crate) fn push(&mut self, keys: &Keys) {
        self.waiting.extend(keys);
        if self.waiting.data().len() + ENTRY_BYTES * self.waiting.len() >= self.part_bytes {
            self.sort();
        }
    }

    /// Bytes of memory held, about.
    pub(crate) fn nbytes(&self) -> usize {
        self.waiting.data().len() + self.parts.iter().map(IndexRun::nbytes).sum::<usize>()
    }

    /// The run of all keys.
    pub(crate) fn finish(mut self) -> IndexRun {
        if self.parts.is_empty() {
            return builder::build(&self.waiting, None);
        }
        if self.waiting.len() > 0 {
            self.sort();
        }
        match self.parts.len() {
            1 => self.parts.remove(0),
            _ => merge(&self.parts),
        }
    }

    fn sort(&mut self) {
        let keys = std::mem::take(&mut self.waiting);
        let rows: Vec<u32> = (self.first_row..).take(keys.len()).collect();
        self.first_row += keys.len() as u32;
        self.parts.push(builder::build(&keys, Some(&rows)));
    }
}

/// One run of all entries of several.
fn merge(parts: &[IndexRun]) -> IndexRun {
    let mut cursors: Vec<_> = parts.iter().map(IndexRun::cursor).collect();
    let mut merged = RunBuilder::new();
    loop {
        let heads = cursors.iter().enumerate().filter_map(|(at, cursor)| Some((cursor.current()?, at)));
        let Some(((key, row), at)) = heads.min() else { return merged.finish() };
        merged.push(key, row);
        cursors[at].advance();
    }
}
