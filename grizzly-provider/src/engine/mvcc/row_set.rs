//! Sets of rows: a handful as a tree, many of one chunk as a bit each. Persistent: a copy shares what does not change, so
//! a savepoint costs nothing, and millions of rows that one commit ends take one bit each, in the transaction, in the
//! log and in every version behind it.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::tombstones::CHUNK_ROWS;
use crate::access::RowId;

/// Words of a chunk's bits.
pub(crate) const WORDS: usize = CHUNK_ROWS as usize / 64;
/// So many rows of a chunk become bits: as a tree they would take about as much memory.
pub(crate) const MANY: usize = 256;

/// Rows of one chunk, a bit each.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RowBits {
    words: Arc<[u64; WORDS]>,
    count: u32,
}

impl std::fmt::Debug for RowBits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowBits").field("count", &self.count).finish_non_exhaustive()
    }
}

impl RowBits {
    pub(crate) fn new(words: [u64; WORDS]) -> Self {
        let count = words.iter().map(|word| word.count_ones()).sum();
        Self { words: Arc::new(words), count }
    }

    pub(crate) fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    pub(crate) fn contains(&self, row: u16) -> bool {
        self.words[usize::from(row) / 64] >> (row % 64) & 1 == 1
    }

    /// False if it was there.
    pub(crate) fn insert(&mut self, row: u16) -> bool {
        let new = !self.contains(row);
        if new {
            Arc::make_mut(&mut self.words)[usize::from(row) / 64] |= 1 << (row % 64);
            self.count += 1;
        }
        new
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let next = |rest: &u64| Some(rest & rest.wrapping_sub(1)).filter(|rest| *rest != 0);
            let words = std::iter::successors(Some(*word).filter(|word| *word != 0), next);
            words.map(move |rest| (64 * at + rest.trailing_zeros() as usize) as u16)
        })
    }

    /// The first row that both have.
    pub(crate) fn first_common(&self, other: &Self) -> Option<u16> {
        let both = self.words.iter().zip(other.words.iter()).map(|(a, b)| a & b);
        both.enumerate().find(|(_, both)| *both != 0).map(|(at, both)| (64 * at) as u16 + both.trailing_zeros() as u16)
    }
}

impl FromIterator<u16> for RowBits {
    fn from_iter<I: IntoIterator<Item = u16>>(rows: I) -> Self {
        let mut words = [0; WORDS];
        rows.into_iter().for_each(|row| words[usize::from(row) / 64] |= 1 << (row % 64));
        Self::new(words)
    }
}

/// Rows of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChunkRows {
    Few(OrdSet<u16>),
    Many(RowBits),
}

impl Default for ChunkRows {
    fn default() -> Self {
        Self::Few(OrdSet::new())
    }
}

impl ChunkRows {
    /// False if it was there.
    pub(crate) fn insert(&mut self, row: u16) -> bool {
        match self {
            Self::Few(rows) => {
                let new = rows.insert(row).is_none();
                if rows.len() >= MANY {
                    *self = Self::Many(rows.iter().copied().collect());
                }
                new
            }
            Self::Many(bits) => bits.insert(row),
        }
    }

    fn contains(&self, row: u16) -> bool {
        match self {
            Self::Few(rows) => rows.contains(&row),
            Self::Many(bits) => bits.contains(row),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(rows) => rows.len(),
            Self::Many(bits) => bits.len() as usize,
        }
    }

    /// In order.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = u16> + '_> {
        match self {
            Self::Few(rows) => Box::new(rows.iter().copied()),
            Self::Many(bits) => Box::new(bits.iter()),
        }
    }
}

/// Rows of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RowSet {
    chunks: OrdMap<u32, ChunkRows>,
    count: usize,
}

impl RowSet {
    /// False if it was there.
    pub(crate) fn insert(&mut self, row: u32) -> bool {
        let new = self.chunks.entry(row / CHUNK_ROWS).or_default().insert((row % CHUNK_ROWS) as u16);
        self.count += usize::from(new);
        new
    }

    /// Adds the rows of a chunk; false if it has rows of that chunk.
    pub(crate) fn push(&mut self, chunk: u32, rows: ChunkRows) -> bool {
        self.count += rows.len();
        self.chunks.insert(chunk, rows).is_none()
    }

    pub(crate) fn contains(&self, row: u32) -> bool {
        self.chunks.get(&(row / CHUNK_ROWS)).is_some_and(|rows| rows.contains((row % CHUNK_ROWS) as u16))
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// By chunk, in order.
    pub(crate) fn chunks(&self) -> impl ExactSizeIterator<Item = (u32, &ChunkRows)> {
        self.chunks.iter().map(|(chunk, rows)| (*chunk, rows))
    }

    /// The greatest.
    pub(crate) fn last(&self) -> Option<u32> {
        let (chunk, rows) = self.chunks.get_max()?;
        Some(chunk * CHUNK_ROWS + u32::from(rows.iter().last()?))
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks().flat_map(|(chunk, rows)| rows.iter().map(move |row| chunk * CHUNK_ROWS + u32::from(row)))
    }
}

/// Rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableRows {
    segments: OrdMap<u32, RowSet>,
}

impl TableRows {
    /// False if it was there.
    pub(crate) fn insert(&mut self, row: RowId) -> bool {
        self.segments.entry(row.segment()).or_default().insert(row.row())
    }

    /// Adds rows of a segment; false if it has rows of that segment.
    pub(crate) fn push(&mut self, segment: u32, rows: RowSet) -> bool {
        self.segments.insert(segment, rows).is_none()
    }

    /// Adds rows of a segment.
    pub(crate) fn add(&mut self, segment: u32, rows: &RowSet) {
        match self.segments.get_mut(&segment) {
            Some(has) => {
                for row in rows.iter() {
                    has.insert(row);
                }
            }
            None => drop(self.segments.insert(segment, rows.clone())),
        }
    }

    pub(crate) fn contains(&self, row: RowId) -> bool {
        self.segments.get(&row.segment()).is_some_and(|rows| rows.contains(row.row()))
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.values().map(RowSet::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// By segment, in order.
    pub(crate) fn segments(&self) -> impl ExactSizeIterator<Item = (u32, &RowSet)> {
        self.segments.iter().map(|(segment, rows)| (*segment, rows))
    }
}

impl Extend<RowId> for TableRows {
    fn extend<I: IntoIterator<Item = RowId>>(&mut self, rows: I) {
        for row in rows {
            self.insert(row);
        }
    }
}

impl FromIterator<RowId> for TableRows {
    fn from_iter<I: IntoIterator<Item = RowId>>(rows: I) -> Self {
        let mut all = Self::default();
        all.extend(rows);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        // Few rows of one chunk, many of another, all of a third.
        let rows: Vec<u32> = (0..40).chain((65_536..131_072).step_by(7)).chain(131_072..196_608).collect();
        let mut set = RowSet::default();
        for row in rows.iter().rev() {
            assert!(set.insert(*row));
        }
        assert!(!set.insert(65_536) && !set.insert(3));
        assert_eq!(set.len(), rows.len());
        assert!(set.iter().eq(rows.iter().copied()));
        assert!(set.contains(196_607) && !set.contains(40) && !set.contains(65_537) && !set.contains(200_000));
        let before = set.clone();
        assert!(set.insert(65_537) && !before.contains(65_537));
    }

    #[test]
    fn bits_tell_what_they_have_in_common() {
        let even: RowBits = (0..=u16::MAX).filter(|row| row % 2 == 0).collect();
        let odd: RowBits = (0..=u16::MAX).filter(|row| row % 2 == 1).collect();
        assert_eq!((even.len(), even.first_common(&odd)), (32_768, None));
        let last: RowBits = [u16::MAX].into_iter().collect();
        assert_eq!(odd.first_common(&last), Some(u16::MAX));
    }
}
