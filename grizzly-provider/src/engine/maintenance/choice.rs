//! Which segments of a shard are merged next, as a function of their sizes alone.
//!
//! A merge takes in a bounded number of rows and bytes, so that it needs bounded memory, time and disk; what is left goes
//! into the next one. A segment of a quarter of that is full and is not merged again for its size, so that any few that are
//! not full fit into one merge: each merge leaves fewer segments, and a row is rewritten once per class of sizes.

use super::super::bulk::{SEGMENT_BYTES, SEGMENT_ROWS};

/// Segments of one shard in one class of sizes before they are merged.
const MERGE_AT: usize = 4;
/// A merge takes in at most so many rows.
const MERGE_ROWS: u64 = 2 * SEGMENT_ROWS as u64;
/// The part of the memory that one merge may take in, as a divisor.
const MEMORY_SHARE: u64 = 4;
/// Segments of less than this part of a merge's limits are alike, however small.
const SMALLEST: u64 = 2048;
/// Share of a segment's rows that must be removable before it is rewritten alone.
const REWRITE_AT: f64 = 0.2;

/// What the choice knows of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Rows that nobody may read any more.
    pub(super) removable: u64,
}

/// What one merge takes in at most. One segment alone may exceed it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    rows: u64,
    bytes: u64,
}

impl Limits {
    /// Those of a database with so much memory.
    pub(super) fn new(memory: usize) -> Self {
        let bytes = (memory as u64 / MEMORY_SHARE).clamp(SMALLEST, SEGMENT_BYTES as u64);
        Self { rows: MERGE_ROWS, bytes }
    }

    fn is_full(&self, size: &Size) -> bool {
        let of = MERGE_AT as u64;
        of * size.rows >= self.rows || of * size.bytes >= self.bytes
    }

    /// The class of sizes: each is four times the one before.
    fn class(&self, size: &Size) -> u32 {
        let share = |part: u64, whole: u64| part.saturating_mul(SMALLEST) / whole;
        share(size.rows, self.rows).max(share(size.bytes, self.bytes)).max(1).ilog(MERGE_AT as u64)
    }

    /// The first of `sizes` that fit into one merge.
    fn fitting(&self, sizes: impl Iterator<Item = (usize, Size)>) -> Vec<usize> {
        let (mut rows, mut bytes) = (0, 0);
        let fits = |(_, size): &(usize, Size)| {
            (rows, bytes) = (rows + size.rows, bytes + size.bytes);
            rows <= self.rows && bytes <= self.bytes
        };
        sizes.take_while(fits).map(|(at, _)| at).collect()
    }
}

/// Segments to merge into one: enough small ones, or one with many rows to remove. None if nothing is worth it.
pub(super) fn worthwhile(sizes: &[Size], limits: &Limits) -> Vec<usize> {
    let small = || sizes.iter().copied().enumerate().filter(|(_, size)| !limits.is_full(size));
    let mut classes: Vec<u32> = small().map(|(_, size)| limits.class(&size)).collect();
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        let alike = limits.fitting(small().filter(|(_, size)| limits.class(size) == class));
        if alike.len() >= MERGE_AT {
            return alike;
        }
    }
    let wasteful = |size: &Size| size.removable as f64 > REWRITE_AT * size.rows as f64;
    sizes.iter().position(wasteful).into_iter().collect()
}

/// All segments, in as few groups as fit into one merge each, without those that gain nothing.
pub(super) fn all(sizes: &[Size], limits: &Limits) -> Vec<Vec<usize>> {
    let (mut groups, mut from) = (Vec::new(), 0);
    while from < sizes.len() {
        let mut group = limits.fitting(sizes.iter().copied().enumerate().skip(from));
        if group.is_empty() {
            group.push(from);
        }
        from += group.len();
        if group.len() > 1 || group.iter().any(|at| sizes[*at].removable > 0) {
            groups.push(group);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: usize = 1 << 30;

    fn size(rows: u64, bytes: u64) -> Size {
        Size { rows, bytes, removable: 0 }
    }

    /// Does what is worth it until nothing is; returns what was rewritten.
    fn settle(sizes: &mut Vec<Size>, limits: &Limits) -> (u64, u64) {
        let mut rewritten = (0, 0);
        loop {
            let chosen = worthwhile(sizes, limits);
            if chosen.is_empty() {
                return rewritten;
            }
            let taken: Vec<Size> = chosen.iter().map(|at| sizes[*at]).collect();
            let (rows, bytes) = taken.iter().fold((0, 0), |sum, size| (sum.0 + size.rows, sum.1 + size.bytes));
            assert!(taken.len() == 1 || (rows <= limits.rows && bytes <= limits.bytes), "{taken:?}");
            assert!(taken.len() > 1 || taken[0].removable > 0);
            rewritten = (rewritten.0 + rows, rewritten.1 + bytes);
            let removable: u64 = taken.iter().map(|size| size.removable).sum();
            let mut at = 0..;
            sizes.retain(|_| at.next().is_none_or(|at| !chosen.contains(&at)));
            sizes.insert(chosen[0], size(rows - removable, bytes));
        }
    }

    #[test]
    fn a_merge_is_bounded_whatever_waits_for_it() {
        for memory in [MEMORY, 64 << 20] {
            let limits = Limits::new(memory);
            for (rows, bytes) in [(500_000, 4 << 20), (16_384, 1 << 20), (10, 1 << 22), (262_144, 9 << 20)] {
                let mut sizes = vec![size(rows, bytes); 1_000];
                let (rewritten, _) = settle(&mut sizes, &limits);
                assert_eq!(sizes.iter().map(|size| size.rows).sum::<u64>(), 1_000 * rows);
                assert!(rewritten <= 3 * 1_000 * rows, "{rewritten} of {}", 1_000 * rows);
                let full = sizes.iter().filter(|size| limits.is_full(size)).count();
                assert!(sizes.len() - full < 4 * MERGE_AT, "{} of {} are small", sizes.len() - full, sizes.len());
            }
        }
    }

    #[test]
    fn a_steady_load_is_rewritten_a_few_times() {
        let limits = Limits::new(MEMORY);
        let mut random = 7_u64;
        let (mut sizes, mut rewritten, mut written) = (Vec::new(), 0, 0);
        for _ in 0..3_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let rows = 1 + (random >> 33) % 40_000;
            written += rows;
            sizes.push(size(rows, 30 * rows));
            rewritten += settle(&mut sizes, &limits).0;
        }
        assert!(rewritten < 5 * written, "{rewritten} of {written}");
        assert!(sizes.len() < 200, "{}", sizes.len());
    }

    #[test]
    fn tiny_segments_do_not_take_larger_ones_with_them() {
        let limits = Limits::new(MEMORY);
        let (mut sizes, mut rewritten) = (vec![size(60_000, 2 << 20)], 0);
        for _ in 0..1_000 {
            sizes.push(size(1, 1_000));
            rewritten += settle(&mut sizes, &limits).0;
        }
        assert!(rewritten < 1_000_000, "{rewritten}");
    }

    #[test]
    fn wide_rows_are_bounded_by_their_bytes() {
        let limits = Limits::new(MEMORY);
        assert!(worthwhile(&[size(12_000, 70 << 20); 10], &limits).is_empty(), "they are full");
        assert_eq!(worthwhile(&[size(12_000, 40 << 20); 10], &limits).len(), 6);
    }

    #[test]
    fn a_segment_with_much_to_remove_is_rewritten_once() {
        let limits = Limits::new(MEMORY);
        let wasteful = Size { rows: 3_000_000, bytes: 1 << 30, removable: 1_000_000 };
        let mut sizes = vec![size(10, 10), wasteful];
        assert_eq!(worthwhile(&sizes, &limits), [1]);
        settle(&mut sizes, &limits);
        assert_eq!(sizes, [size(10, 10), size(2_000_000, 1 << 30)]);
    }

    #[test]
    fn all_segments_become_few_and_then_stay() {
        let limits = Limits::new(MEMORY);
        let groups = all(&[size(500_000, 1 << 20); 10], &limits);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let merged = [size(2_000_000, 4 << 20), size(2_000_000, 4 << 20), size(1_000_000, 2 << 20)];
        assert!(all(&merged, &limits).is_empty());
        let large = Size { rows: 9_000_000, bytes: 1 << 32, removable: 1 };
        assert_eq!(all(&[large, size(1, 1), size(1, 1)], &limits), [vec![0], vec![1, 2]]);
    }
}
