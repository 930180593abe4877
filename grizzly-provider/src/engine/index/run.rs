//! The immutable, sorted run of one index over one cold segment.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{
    super::key::KeyRange,
    IndexError, PairVisitor, Result,
    block::{Block, ENTRIES, common_prefix, compare_front, is_before},
    format::{Layout, head},
};

/// Sorted (key, row) entries: three to five bytes each for integer keys, and any of them is found without touching the
/// others. Cloning shares the bytes.
#[derive(Clone)]
pub(crate) struct IndexRun {
    bytes: Bytes,
    layout: Layout,
    /// How many bytes all keys have in common at the front.
    prefix: usize,
    /// [`head`] of each fence after the prefix: most searches need nothing else to find their block.
    heads: Box<[u64]>,
}

impl IndexRun {
    /// The run in the bytes that [`Self::to_bytes`] gave, of a segment of `rows` rows. Fails, and says where, if they were
    /// damaged.
    pub(crate) fn from_bytes(bytes: Bytes, rows: u32) -> Result<Self> {
        let layout = Layout::read(&bytes)?;
        let run = Self::assemble(bytes, layout);
        let odd = run.blocks().position(|block| !block.rows_below(rows));
        match odd {
            None => Ok(run),
            Some(block) => {
                let what = format!("only rows of its segment in block {block}");
                Err(IndexError::Corrupt { what, offset: 0 })
            }
        }
    }

    fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        (0..self.layout.blocks).map_while(|block| self.block(block))
    }

    pub(super) fn assemble(bytes: Bytes, layout: Layout) -> Self {
        let prefix = common_prefix(layout.fence(&bytes, 0), layout.fence(&bytes, layout.blocks));
        let heads = (0..layout.blocks).map(|block| head(&layout.fence(&bytes, block)[prefix..])).collect();
        Self { bytes, layout, prefix, heads }
    }

    /// What to write to a file, in order. Shares memory with the run.
    pub(crate) fn to_bytes(&self) -> Vec<Bytes> {
        vec![self.bytes.clone()]
    }

    /// How many entries.
    pub(crate) fn len(&self) -> usize {
        self.layout.len
    }

    /// Bytes of memory held, which is about the size of the file.
    pub(crate) fn nbytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.heads)
    }

    /// The least and the greatest key.
    pub(crate) fn bounds(&self) -> Option<(&[u8], &[u8])> {
        (self.layout.len > 0).then(|| (self.fence(0), self.fence(self.layout.blocks)))
    }

    /// Appends the rows of all keys in `range`, in order of (key, row).
    pub(crate) fn lookup(&self, range: &KeyRange, out: &mut Vec<u32>) {
        let (start, end) = self.span(range);
        let mut at = start;
        while let Some(block) = (at < end).then(|| self.block(at / ENTRIES)).flatten() {
            let first = at - at % ENTRIES;
            let stop = (end - first).min(block.len());
            out.extend((at - first..stop).map(|index| block.row(index)));
            at = first + stop;
        }
    }

    /// How many entries `range` has. Costs two searches, whatever the answer.
    pub(crate) fn estimate(&self, range: &KeyRange) -> u64 {
        let (start, end) = self.span(range);
        (end - start) as u64
    }

    /// Calls `f` with every entry in `range` in ascending order, until it breaks.
    pub(crate) fn for_each(&self, range: &KeyRange, f: &mut dyn FnMut(&[u8], u32) -> ControlFlow<()>) {
        let (start, end) = self.span(range);
        let mut key = Vec::new();
        let mut at = start;
        while let Some(block) = (at < end).then(|| self.block(at / ENTRIES)).flatten() {
            let first = at - at % ENTRIES;
            block.begin_key(&mut key);
            while at < end && at < first + block.len() {
                block.write_key(at - first, &mut key);
                if f(&key, block.row(at - first)).is_break() {
                    return;
                }
                at += 1;
            }
        }
    }

    /// Calls `f` with every entry in `range` in descending order, until it breaks.
    #[cfg(test)]
    pub(crate) fn for_each_rev(&self, range: &KeyRange, f: &mut dyn FnMut(&[u8], u32) -> ControlFlow<()>) {
        let (start, end) = self.span(range);
        let mut key = Vec::new();
        let mut at = end;
        while let Some(block) = (at > start).then(|| self.block((at - 1) / ENTRIES)).flatten() {
            let first = (at - 1) - (at - 1) % ENTRIES;
            block.begin_key(&mut key);
            while at > start.max(first) {
                at -= 1;
                block.write_key(at - first, &mut key);
                if f(&key, block.row(at - first)).is_break() {
                    return;
                }
            }
        }
    }

    /// Calls `f(key, row, next row)` for every two neighbours with one key, until it breaks: a key of three rows
    /// comes twice.
    pub(crate) fn for_each_duplicate(&self, f: &mut PairVisitor<'_>) {
        let mut key = Vec::new();
        let mut before: Option<Block<'_>> = None;
        for block in self.blocks() {
            if let Some(before) = before {
                let last = before.len() - 1;
                before.begin_key(&mut key);
                before.write_key(last, &mut key);
                let first = block.row(0);
                if block.has_first(&key) && f(&key, before.row(last), first).is_break() {
                    return;
                }
            }
            block.begin_key(&mut key);
            for index in (1..block.len()).filter(|&index| block.repeats(index)) {
                block.write_key(index, &mut key);
                if f(&key, block.row(index - 1), block.row(index)).is_break() {
                    return;
                }
            }
            before = Some(block);
        }
    }

    /// The first key that more than one live row has, of the keys that `counts` takes.
    pub(crate) fn first_live_duplicate(
        &self,
        counts: impl Fn(&[u8]) -> bool,
        live: impl Fn(u32) -> bool,
    ) -> Option<Vec<u8>> {
        let (mut found, mut before) = (None, None::<(Vec<u8>, bool)>);
        self.for_each_duplicate(&mut |key, row, next| {
            if !counts(key) {
                return ControlFlow::Continue(());
            }
            // Neighbours come two by two; whether one before them was live is carried along.
            let carried = before.take().filter(|(last, _)| last == key).map(|(_, live)| live);
            let first = carried.unwrap_or(false) || live(row);
            if first && live(next) {
                found = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            before = Some((key.to_vec(), first || live(next)));
            ControlFlow::Continue(())
        });
        found
    }

    /// The positions of the first entry in `range` and of the first one after it.
    fn span(&self, range: &KeyRange) -> (usize, usize) {
        let (lower, after_lower) = match &range.lower {
            Bound::Unbounded => (&[][..], false),
            Bound::Included(key) => (key.as_slice(), false),
            Bound::Excluded(key) => (key.as_slice(), true),
        };
        let (upper, after_upper) = match &range.upper {
            Bound::Unbounded => return (self.position(lower, after_lower), self.len()),
            Bound::Included(key) => (key.as_slice(), true),
            Bound::Excluded(key) => (key.as_slice(), false),
        };
        let block = self.fences_before(lower, after_lower).saturating_sub(1);
        let Some(entries) = self.block(block) else { return (0, 0) };
        let start = entries.count_before(0, lower, after_lower);
        // Most ranges end in the block where they start.
        let mut end = block * ENTRIES + entries.count_before(start, upper, after_upper);
        if end == (block + 1) * ENTRIES {
            end = end.max(self.position(upper, after_upper));
        }
        (block * ENTRIES + start, end)
    }

    /// How many entries come before `bound`; with `after`, entries equal to it count too.
    pub(super) fn position(&self, bound: &[u8], after: bool) -> usize {
        // The last block that begins before the bound has the answer; the first block that does not would have none.
        let Some(block) = self.fences_before(bound, after).checked_sub(1) else { return 0 };
        match self.block(block) {
            Some(entries) => block * ENTRIES + entries.count_before(0, bound, after),
            None => self.len(),
        }
    }

    /// How many blocks begin before `bound`.
    fn fences_before(&self, bound: &[u8], after: bool) -> usize {
        let common = &self.fence(0)[..self.prefix];
        match compare_front(bound, common) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.layout.blocks,
            Ordering::Equal => {}
        }
        let wanted = head(&bound[self.prefix..]);
        let start = self.heads.partition_point(|&head| head < wanted);
        if self.heads.get(start) != Some(&wanted) {
            return start;
        }
        let ties = self.heads[start..].partition_point(|&head| head == wanted);
        let (mut low, mut high) = (start, start + ties);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.fence(middle), bound, after) { low = middle + 1 } else { high = middle }
        }
        low
    }

    #[inline]
    pub(super) fn fence(&self, fence: usize) -> &[u8] {
        self.layout.fence(&self.bytes, fence)
    }

    #[inline]
    pub(super) fn block(&self, block: usize) -> Option<Block<'_>> {
        self.layout.block(&self.bytes, block)
    }
}

impl fmt::Debug for IndexRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexRun").field("len", &self.len()).field("nbytes", &self.nbytes()).finish_non_exhaustive()
    }
}
