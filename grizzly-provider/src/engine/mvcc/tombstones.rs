//! Which rows of a segment have ended, and when. A persistent map: a new version shares all it did not change,
//! so readers of older versions are undisturbed and one deletion costs O(log n).

use std::sync::{Arc, OnceLock};

use arrow::{array::BooleanBufferBuilder, buffer::BooleanBuffer};
use imbl::OrdMap;

use crate::access::Csn;

/// Rows per chunk of a segment, in memory and in files.
pub(crate) const CHUNK_ROWS: u32 = 65_536;

/// Ended rows of one segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tombstones {
    chunks: OrdMap<u32, ChunkTombstones>,
    count: u32,
    latest: Csn,
}

#[derive(Debug, Clone, Default)]
struct ChunkTombstones {
    ended: OrdMap<u16, Csn>,
    /// Rows that are not ended, made when a scan first asks for it.
    live: Arc<OnceLock<BooleanBuffer>>,
}

impl Tombstones {
    /// Ends `row` at `csn`; false if it had ended before.
    pub(crate) fn insert(&mut self, row: u32, csn: Csn) -> bool {
        let chunk = self.chunks.entry(row / CHUNK_ROWS).or_default();
        let within = (row % CHUNK_ROWS) as u16;
        if chunk.ended.contains_key(&within) {
            return false;
        }
        chunk.ended.insert(within, csn);
        chunk.live = Arc::default();
        self.count += 1;
        self.latest = self.latest.max(csn);
        true
    }

    /// The commit that ended `row`.
    pub(crate) fn get(&self, row: u32) -> Option<Csn> {
        self.chunks.get(&(row / CHUNK_ROWS))?.ended.get(&((row % CHUNK_ROWS) as u16)).copied()
    }

    /// Number of ended rows.
    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ended rows in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Csn)> + '_ {
        self.chunks.iter().flat_map(|(chunk, tombstones)| {
            tombstones.ended.iter().map(move |(row, csn)| (chunk * CHUNK_ROWS + u32::from(*row), *csn))
        })
    }

    /// Rows among `len` from `first` on (all of one chunk) that have not ended at `snapshot`; `None` if all of them.
    pub(crate) fn live(&self, first: u32, len: usize, snapshot: Csn) -> Option<BooleanBuffer> {
        let chunk = self.chunks.get(&(first / CHUNK_ROWS))?;
        let offset = (first % CHUNK_ROWS) as usize;
        if self.latest > snapshot {
            return Some(chunk.mask(offset + len, |csn| csn <= snapshot).slice(offset, len));
        }
        let live = chunk.live.get_or_init(|| chunk.mask(CHUNK_ROWS as usize, |_| true));
        let live = live.slice(offset, len);
        (live.count_set_bits() < len).then_some(live)
    }

    /// How many rows had ended at `snapshot`.
    pub(crate) fn len_at(&self, snapshot: Csn) -> u32 {
        if self.latest <= snapshot {
            return self.count;
        }
        self.iter().filter(|(_, csn)| *csn <= snapshot).count() as u32
    }
}

impl ChunkTombstones {
    fn mask(&self, len: usize, ended: impl Fn(Csn) -> bool) -> BooleanBuffer {
        let mut mask = BooleanBufferBuilder::new(len);
        mask.append_n(len, true);
        for (row, csn) in &self.ended {
            if usize::from(*row) < len && ended(*csn) {
                mask.set_bit(usize::from(*row), false);
            }
        }
        mask.finish()
    }
}

impl FromIterator<(u32, Csn)> for Tombstones {
    fn from_iter<I: IntoIterator<Item = (u32, Csn)>>(rows: I) -> Self {
        let mut tombstones = Self::default();
        for (row, csn) in rows {
            tombstones.insert(row, csn);
        }
        tombstones
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_does_not_change_an_earlier_one() {
        let mut tombstones: Tombstones = [(3, Csn(10)), (70_000, Csn(11))].into_iter().collect();
        let before = tombstones.clone();
        assert!(tombstones.insert(4, Csn(12)));
        assert!(!tombstones.insert(4, Csn(13)), "a row ends once");
        assert_eq!((before.len(), tombstones.len()), (2, 3));
        assert_eq!(before.get(4), None);
        assert_eq!(tombstones.get(4), Some(Csn(12)));
        let live = tombstones.live(0, 6, Csn(20)).map(|mask| mask.iter().collect::<Vec<_>>());
        assert_eq!(live, Some(vec![true, true, true, false, false, true]));
        let earlier = tombstones.live(0, 6, Csn(11)).map(|mask| mask.iter().collect::<Vec<_>>());
        assert_eq!(earlier, Some(vec![true, true, true, false, true, true]));
        assert!(tombstones.live(65_536, 100, Csn(20)).is_none(), "row 70,000 is further on");
    }
}
