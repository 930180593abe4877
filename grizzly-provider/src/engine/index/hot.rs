//! The live index over the hot segment.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_skiplist::SkipSet;

use super::super::key::KeyRange;
use super::builder::RunBuilder;
use super::run::IndexRun;

/// Bytes of a row number at the end of an entry.
const ROW: usize = 4;
/// About the bytes of a node besides its key.
#[cfg(test)]
const NODE_BYTES: usize = 64;
/// Entries that an estimate looks at.
const ESTIMATE_LIMIT: usize = 512;

/// Key and row of every row of a hot segment. Insert-only, and shared without locks: a reader says how many rows its
/// snapshot knows, and sees no others.
///
/// All keys come from one encoder, so that none is a prefix of another.
#[derive(Default)]
pub(crate) struct HotIndex {
    entries: SkipSet<Entry>,
    heap_bytes: AtomicUsize,
}

impl HotIndex {
    /// An index without entries.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. Adding one again changes nothing.
    pub(crate) fn insert(&self, key: &[u8], row: u32) {
        let entry = Entry::new(key, row);
        self.heap_bytes.fetch_add(entry.heap_bytes(), Relaxed);
        self.entries.insert(entry);
    }

    /// How many entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory held, about.
    #[cfg(test)]
    pub(crate) fn nbytes(&self) -> usize {
        self.len() * NODE_BYTES + self.heap_bytes.load(Relaxed)
    }

    /// Appends the rows less than `below_row` of all keys in `range`, in order of (key, row).
    pub(crate) fn lookup(&self, range: &KeyRange, below_row: u32, out: &mut Vec<u32>) {
        self.for_each(range, below_row, &mut |_, row| {
            out.push(row);
            ControlFlow::Continue(())
        });
    }

    /// Calls `f` with every entry in `range` whose row is less than `below_row`, in ascending order, until it breaks.
    pub(crate) fn for_each(&self, range: &KeyRange, below_row: u32, f: &mut dyn FnMut(&[u8], u32) -> ControlFlow<()>) {
        // An excluded bound starts among the entries equal to it, since those are longer by their row.
        let lower = match range.lower_bound() {
            Bound::Included(key) | Bound::Excluded(key) => Bound::Included(key),
            Bound::Unbounded => Bound::Unbounded,
        };
        for entry in self.entries.range::<[u8], _>((lower, Bound::Unbounded)) {
            let (key, row) = entry.value().split();
            if range.is_above(key) {
                return;
            }
            if row < below_row && !range.is_below(key) && f(key, row).is_break() {
                return;
            }
        }
    }

    /// Calls `f` with every entry in `range` whose row is less than `below_row`, in descending order, until it breaks.
    #[cfg(test)]
    pub(crate) fn for_each_rev(
        &self,
        range: &KeyRange,
        below_row: u32,
        f: &mut dyn FnMut(&[u8], u32) -> ControlFlow<()>,
    ) {
        let last = match range.upper_bound() {
            Bound::Included(key) => Some([key, &[0xFF; ROW][..]].concat()),
            _ => None,
        };
        let upper = match (&last, range.upper_bound()) {
            (Some(last), _) => Bound::Included(last.as_slice()),
            (None, upper) => upper,
        };
        for entry in self.entries.range::<[u8], _>((Bound::Unbounded, upper)).rev() {
            let (key, row) = entry.value().split();
            if range.is_below(key) {
                return;
            }
            if row < below_row && !range.is_above(key) && f(key, row).is_break() {
                return;
            }
        }
    }

    /// About how many entries `range` has: exact up to some hundreds, then half of all entries.
    pub(crate) fn estimate(&self, range: &KeyRange) -> u64 {
        if matches!((&range.lower, &range.upper), (Bound::Unbounded, Bound::Unbounded)) {
            return self.len() as u64;
        }
        let mut count = 0;
        self.for_each(range, u32::MAX, &mut |_, _| {
            count += 1;
            if count < ESTIMATE_LIMIT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if count < ESTIMATE_LIMIT { count as u64 } else { (self.len() / 2).max(count) as u64 }
    }

    /// The entries of rows less than `rows_below` as a run: rows keep their numbers when the segment becomes cold.
    pub(crate) fn to_run(&self, rows_below: u32) -> IndexRun {
        let mut builder = RunBuilder::new();
        self.for_each(&KeyRange::full(), rows_below, &mut |key, row| {
            builder.push(key, row);
            ControlFlow::Continue(())
        });
        builder.finish()
    }
}

impl fmt::Debug for HotIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotIndex").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A key and its row, big-endian: in the order of their bytes, entries are in the order of (key, row).
enum Entry {
    /// Short keys lie in the list's own nodes: one allocation and one cache miss less.
    Inline {
        len: u8,
        bytes: [u8; Self::INLINE],
    },
    Heap(Box<[u8]>),
}

impl Entry {
    const INLINE: usize = 22;

    fn new(key: &[u8], row: u32) -> Self {
        let (len, row) = (key.len() + ROW, row.to_be_bytes());
        if len > Self::INLINE {
            return Self::Heap([key, &row].concat().into());
        }
        let mut bytes = [0; Self::INLINE];
        bytes[..key.len()].copy_from_slice(key);
        bytes[key.len()..len].copy_from_slice(&row);
        // The length was just compared with 22.
        Self::Inline { len: len as u8, bytes }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }

    #[inline]
    fn split(&self) -> (&[u8], u32) {
        match self.bytes().split_last_chunk::<ROW>() {
            Some((key, row)) => (key, u32::from_be_bytes(*row)),
            None => (&[], 0),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline { .. } => 0,
            Self::Heap(bytes) => bytes.len(),
        }
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}
