//! Which rows of a segment have ended, and when. Persistent: a new version shares all it did not change, so readers of
//! older versions are undisturbed. A deletion of a row costs O(log n); one of very many costs a bit for each. Rows stay
//! here until no reader wants their past, so those of many small commits are packed, four bytes for each.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, OnceLock},
};

use arrow::{array::BooleanBufferBuilder, buffer::BooleanBuffer};
use imbl::OrdMap;

use super::{
    packed_rows::PackedRows,
    row_set::{ChunkRows, RowBits, RowSet, WORDS},
};
use crate::access::Csn;

/// Rows per chunk of a segment, in memory and in files.
pub(crate) const CHUNK_ROWS: u32 = 65_536;
/// So many rows of a chunk that ended one by one are packed, and more if many are, as all are packed again.
const PACK_ROWS: usize = 1024;
const PACK_SHARE: usize = 8;
/// So many sets of a bit for each row are looked at for those that are smaller when packed.
const PACK_SETS: usize = 16;
/// A commit's rows take less room as bits, if there are so many of them.
const BITS: usize = WORDS * 8 / PackedRows::ROW_BYTES;

/// Ended rows of one segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tombstones {
    chunks: OrdMap<u32, Arc<ChunkTombstones>>,
    count: u32,
    latest: Csn,
}

/// Ended rows of one chunk.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChunkTombstones {
    /// Row by row, where one commit ended few: the last of them,
    few: OrdMap<u16, Csn>,
    /// and those before.
    packed: Arc<PackedRows>,
    /// Commits that ended many, with those rows.
    many: Vec<(Csn, RowBits)>,
    /// Rows that are not ended, made when a scan first asks for it.
    live: Arc<OnceLock<BooleanBuffer>>,
}

impl Tombstones {
    /// Ends `row` at `csn`; false if it had ended before.
    pub(crate) fn insert(&mut self, row: u32, csn: Csn) -> bool {
        let within = (row % CHUNK_ROWS) as u16;
        let chunk = self.chunks.entry(row / CHUNK_ROWS).or_default();
        if chunk.get(within).is_some() {
            return false;
        }
        Arc::make_mut(chunk).insert(within, csn);
        self.count += 1;
        self.latest = self.latest.max(csn);
        true
    }

    /// Ends all of `rows` at `csn`, or none: then the first that had ended before is the error.
    pub(crate) fn end(&mut self, rows: &RowSet, csn: Csn) -> Result<(), u32> {
        if let Some((row, _)) = self.first_of(rows) {
            return Err(row);
        }
        for (number, rows) in rows.chunks() {
            let chunk = Arc::make_mut(self.chunks.entry(number).or_default());
            match rows {
                ChunkRows::Few(rows) => rows.iter().for_each(|row| chunk.insert(*row, csn)),
                ChunkRows::Many(bits) => {
                    chunk.live = Arc::default();
                    chunk.many.push((csn, bits.clone()));
                    if chunk.many.iter().filter(|(_, rows)| !is_many(rows.len())).count() >= PACK_SETS {
                        chunk.pack();
                    }
                }
            }
        }
        self.count += rows.len() as u32;
        self.latest = self.latest.max(csn);
        Ok(())
    }

    /// The first of `rows` that has ended, and when.
    pub(crate) fn first_of(&self, rows: &RowSet) -> Option<(u32, Csn)> {
        rows.chunks().find_map(|(number, rows)| {
            let chunk = self.chunks.get(&number)?;
            let row = chunk.first_of(rows)?;
            Some((number * CHUNK_ROWS + u32::from(row), chunk.get(row)?))
        })
    }

    /// The commit that ended `row`.
    pub(crate) fn get(&self, row: u32) -> Option<Csn> {
        self.chunks.get(&(row / CHUNK_ROWS))?.get((row % CHUNK_ROWS) as u16)
    }

    /// The greatest row that has ended.
    pub(crate) fn last(&self) -> Option<u32> {
        let (number, chunk) = self.chunks.get_max()?;
        chunk.ended(*number).map(|(row, _)| row).max()
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
        self.chunks.iter().flat_map(|(number, chunk)| chunk.ended(*number))
    }

    /// Rows that had not ended in `before`, an earlier version of this, in order.
    pub(crate) fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (u32, Csn)> + 'a {
        let changed = self
            .chunks
            .iter()
            .filter(|(number, chunk)| before.chunks.get(*number).is_none_or(|before| !Arc::ptr_eq(before, chunk)));
        let ended = changed.flat_map(|(number, chunk)| chunk.ended(*number));
        ended.filter(|(row, _)| before.get(*row).is_none())
    }

    /// By chunk, in order.
    pub(crate) fn chunks(&self) -> impl ExactSizeIterator<Item = (u32, &ChunkTombstones)> {
        self.chunks.iter().map(|(number, chunk)| (*number, chunk.as_ref()))
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

    /// Bytes of memory, about.
    pub(crate) fn nbytes(&self) -> usize {
        self.chunks.values().map(|chunk| chunk.nbytes()).sum()
    }

    /// How many rows had ended at `snapshot`.
    pub(crate) fn len_at(&self, snapshot: Csn) -> u32 {
        if self.latest <= snapshot {
            return self.count;
        }
        self.chunks.values().map(|chunk| chunk.len_at(snapshot)).sum()
    }
}

impl ChunkTombstones {
    /// Rows that are not among those of [`many`](Self::many), with their commits, in no order.
    pub(crate) fn few(&self) -> impl Iterator<Item = (u16, Csn)> {
        self.few.iter().map(|(row, csn)| (*row, *csn)).chain(self.packed.iter())
    }

    /// How many those are.
    pub(crate) fn few_len(&self) -> usize {
        self.few.len() + self.packed.len()
    }

    /// Commits that ended many rows, with those.
    pub(crate) fn many(&self) -> &[(Csn, RowBits)] {
        &self.many
    }

    fn get(&self, row: u16) -> Option<Csn> {
        if self.live.get().is_some_and(|live| live.value(usize::from(row))) {
            return None;
        }
        let many = || self.many.iter().find(|(_, rows)| rows.contains(row)).map(|(csn, _)| *csn);
        self.few.get(&row).copied().or_else(|| self.packed.get(row)).or_else(many)
    }

    /// Ends a row that has not ended.
    fn insert(&mut self, row: u16, csn: Csn) {
        self.live = Arc::default();
        if let Some((_, rows)) = self.many.iter_mut().rev().find(|(of, _)| *of == csn) {
            rows.insert(row);
            return;
        }
        self.few.insert(row, csn);
        if self.few.len() >= PACK_ROWS.max(self.packed.len() / PACK_SHARE) {
            self.pack();
        }
    }

    /// Gives each commit's rows the form in which they are smallest.
    fn pack(&mut self) {
        let (bits, small): (Vec<_>, Vec<_>) =
            mem::take(&mut self.many).into_iter().partition(|(_, rows)| is_many(rows.len()));
        let small = small.iter().flat_map(|(csn, rows)| rows.iter().map(|row| (row, *csn)));
        let rows = self.few().chain(small).collect();
        *self = Self::of(rows, bits);
    }

    /// Those rows, each once, and those that are bits already, of other commits.
    fn of(mut rows: Vec<(u16, Csn)>, mut many: Vec<(Csn, RowBits)>) -> Self {
        rows.sort_unstable_by_key(|(row, csn)| (*csn, *row));
        let mut small = Vec::new();
        for of_commit in rows.chunk_by(|(_, one), (_, other)| one == other) {
            let (csn, rows) = (of_commit[0].1, of_commit.iter().map(|(row, _)| *row));
            match is_many(of_commit.len() as u32) {
                true => many.push((csn, rows.collect())),
                false => small.push((csn, rows.collect())),
            }
        }
        Self { few: OrdMap::new(), packed: Arc::new(PackedRows::new(small)), many, live: Arc::default() }
    }

    fn nbytes(&self) -> usize {
        /// An entry of a tree whose nodes are two thirds full.
        const ENTRY: usize = 24;
        let bits = self.many.len() + usize::from(self.live.get().is_some());
        ENTRY * self.few.len() + self.packed.nbytes() + 8 * WORDS * bits
    }

    /// The first of `rows` that has ended.
    fn first_of(&self, rows: &ChunkRows) -> Option<u16> {
        let ChunkRows::Many(rows) = rows else { return rows.iter().find(|row| self.get(*row).is_some()) };
        let few = self.few().map(|(row, _)| row).filter(|row| rows.contains(*row)).min();
        let many = self.many.iter().filter_map(|(_, ended)| ended.first_common(rows)).min();
        few.into_iter().chain(many).min()
    }

    /// Ended rows of chunk `number` in order.
    fn ended(&self, number: u32) -> impl Iterator<Item = (u32, Csn)> + use<> {
        let many = self.many.iter().flat_map(|(csn, rows)| rows.iter().map(move |row| (row, *csn)));
        let mut all: Vec<(u16, Csn)> = self.few().chain(many).collect();
        all.sort_unstable_by_key(|(row, _)| *row);
        all.into_iter().map(move |(row, csn)| (number * CHUNK_ROWS + u32::from(row), csn))
    }

    fn len_at(&self, snapshot: Csn) -> u32 {
        let few = self.few().filter(|(_, csn)| *csn <= snapshot).count() as u32;
        few + self.many.iter().filter(|(csn, _)| *csn <= snapshot).map(|(_, rows)| rows.len()).sum::<u32>()
    }

    fn mask(&self, len: usize, ended: impl Fn(Csn) -> bool) -> BooleanBuffer {
        let mut mask = BooleanBufferBuilder::new(len);
        mask.append_n(len, true);
        let many = self.many.iter().filter(|(csn, _)| ended(*csn)).flat_map(|(_, rows)| rows.iter());
        let few = self.few().filter(|(_, csn)| ended(*csn)).map(|(row, _)| row);
        for row in few.chain(many).filter(|row| usize::from(*row) < len) {
            mask.set_bit(usize::from(row), false);
        }
        mask.finish()
    }
}

/// Whether so many rows of a commit take less room as bits than packed.
fn is_many(rows: u32) -> bool {
    rows as usize >= BITS
}

/// A list that names a row twice names it with the commit that came first.
impl FromIterator<(u32, Csn)> for Tombstones {
    fn from_iter<I: IntoIterator<Item = (u32, Csn)>>(rows: I) -> Self {
        let mut chunks: BTreeMap<u32, Vec<(u16, Csn)>> = BTreeMap::new();
        for (row, csn) in rows {
            chunks.entry(row / CHUNK_ROWS).or_default().push(((row % CHUNK_ROWS) as u16, csn));
        }
        let mut tombstones = Self::default();
        for (number, mut rows) in chunks {
            rows.sort_unstable();
            rows.dedup_by_key(|(row, _)| *row);
            tombstones.count += rows.len() as u32;
            tombstones.latest = rows.iter().map(|(_, csn)| *csn).fold(tombstones.latest, Csn::max);
            tombstones.chunks.insert(number, Arc::new(ChunkTombstones::of(rows, Vec::new())));
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
        assert_eq!(tombstones.since(&before).collect::<Vec<_>>(), [(4, Csn(12))]);
    }

    #[test]
    fn rows_of_commits_that_lie_side_by_side_take_a_bit_each() {
        let ended: Tombstones = (0..60_000).map(|row| (row, Csn(u64::from(row % 7)))).collect();
        assert_eq!(ended.len(), 60_000);
        for (_, chunk) in ended.chunks() {
            assert_eq!((chunk.few_len(), chunk.many().len()), (0, 7));
        }
        assert!((0..60_000).all(|row| ended.get(row) == Some(Csn(u64::from(row % 7)))));
    }

    #[test]
    fn rows_of_many_small_commits_take_few_bytes() {
        // 65,536 rows, each tenth of one of ten times 40 commits, in an order that mixes them.
        let ends: Vec<(u32, Csn)> = (0..CHUNK_ROWS).map(|row| (row, Csn(u64::from(row * 7 % 400)))).collect();
        let together: Tombstones = ends.iter().copied().collect();
        let mut singly = Tombstones::default();
        for (row, csn) in ends.iter().rev() {
            assert!(singly.insert(*row, *csn) && !singly.insert(*row, Csn(1_000)));
        }
        let mut by_commit = Tombstones::default();
        for commit in 0..400 {
            let mut rows = RowSet::default();
            ends.iter().filter(|(_, csn)| *csn == Csn(commit)).for_each(|(row, _)| _ = rows.insert(*row));
            assert_eq!(by_commit.end(&rows, Csn(commit)), Ok(()));
            assert!(by_commit.end(&rows, Csn(1_000)).is_err());
        }
        for ended in [&together, &singly, &by_commit] {
            assert!(ended.iter().eq(ends.iter().copied()));
            assert!(ends.iter().all(|(row, csn)| ended.get(*row) == Some(*csn)));
            assert_eq!(ended.len_at(Csn(199)), ended.iter().filter(|(_, csn)| *csn <= Csn(199)).count() as u32);
            assert!(ended.nbytes() < 8 * CHUNK_ROWS as usize, "{} bytes", ended.nbytes());
        }
    }

    #[test]
    fn many_rows_end_as_few_do() {
        // The same rows: one by one, and at once.
        let sets = [(Csn(7), 0, 3), (Csn(9), 1, 5), (Csn(8), 70_003, 300)];
        let (mut single, mut whole) = (Tombstones::default(), Tombstones::default());
        for (csn, first, step) in sets {
            let mut rows = RowSet::default();
            for row in (first..180_000).step_by(step).filter(|row| single.get(*row).is_none()).collect::<Vec<_>>() {
                assert!(single.insert(row, csn) && rows.insert(row));
            }
            assert_eq!(whole.end(&rows, csn), Ok(()));
            let before = whole.clone();
            assert_eq!(whole.end(&rows, Csn(50)), Err(rows.iter().next().unwrap_or_default()));
            assert_eq!(before.len(), whole.len(), "nothing of it");
        }
        assert_eq!(single.len(), whole.len());
        assert!(single.iter().eq(whole.iter()) && single.iter().is_sorted());
        let again: Tombstones = single.iter().collect();
        assert!(again.iter().eq(whole.iter()));
        for snapshot in [6, 7, 8, 9, 10].map(Csn) {
            assert_eq!(single.len_at(snapshot), whole.len_at(snapshot));
            for first in [0, 65_536, 131_072] {
                let masks = [&single, &whole].map(|ended| ended.live(first, 48_000, snapshot));
                assert_eq!(masks[0], masks[1]);
            }
        }
        assert!((0..180_000).all(|row| single.get(row) == whole.get(row)));
        assert!(whole.chunks().any(|(_, chunk)| !chunk.many().is_empty()));
    }
}
