//! Reading runs in order, and finding the keys that two runs share.

use std::cmp::Ordering;
#[cfg(test)]
use std::ops::ControlFlow;

use super::{
    CommonKeyVisitor,
    block::{Block, ENTRIES},
    run::IndexRun,
};

/// Neighbours to look at before a search is worth it.
const STEPS: usize = 8;

/// A place in a run that moves forward.
#[derive(Debug)]
pub(crate) struct RunCursor<'a> {
    run: &'a IndexRun,
    /// The block of the current entry; none after the last one.
    block: Option<Block<'a>>,
    at: usize,
    key: Vec<u8>,
}

impl IndexRun {
    /// A cursor at the first entry, for merging.
    pub(crate) fn cursor(&self) -> RunCursor<'_> {
        RunCursor::new(self)
    }
}

impl<'a> RunCursor<'a> {
    pub(super) fn new(run: &'a IndexRun) -> Self {
        let mut cursor = Self { run, block: None, at: 0, key: Vec::new() };
        cursor.enter(0);
        cursor
    }

    /// The entry here, or none after the last one.
    #[inline]
    pub(crate) fn current(&self) -> Option<(&[u8], u32)> {
        let block = self.block.as_ref()?;
        Some((&self.key, block.row(self.at % ENTRIES)))
    }

    /// Goes to the next entry.
    #[inline]
    pub(crate) fn advance(&mut self) {
        let Some(block) = &self.block else { return };
        self.at += 1;
        let index = self.at % ENTRIES;
        if index != 0 && index < block.len() {
            block.write_key(index, &mut self.key);
        } else {
            self.enter(self.at);
        }
    }

    /// Goes forward to the first entry whose key is not less than `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) {
        for _ in 0..STEPS {
            match self.current() {
                Some((current, _)) if current < key => self.advance(),
                _ => return,
            }
        }
        let position = self.run.position(key, false);
        if position > self.at {
            self.enter(position);
        }
    }

    fn enter(&mut self, at: usize) {
        self.at = at;
        self.block = self.run.block(at / ENTRIES).filter(|block| at % ENTRIES < block.len());
        if let Some(block) = &self.block {
            block.begin_key(&mut self.key);
            block.write_key(at % ENTRIES, &mut self.key);
        }
    }

    /// Takes the rows of the current key and goes to the next key.
    fn take_rows(&mut self, key: &mut Vec<u8>, rows: &mut Vec<u32>) {
        rows.clear();
        key.clear();
        if let Some((current, _)) = self.current() {
            key.extend_from_slice(current);
        }
        while let Some((current, row)) = self.current() {
            if current != key.as_slice() {
                return;
            }
            rows.push(row);
            self.advance();
        }
    }
}

/// Calls `f(key, rows in a, rows in b)` for every key that both have, in key order, until it breaks.
///
/// Where one run has nothing between two keys of the other, that part of the other is skipped by its fences.
pub(crate) fn for_each_common_key(a: &IndexRun, b: &IndexRun, f: &mut CommonKeyVisitor<'_>) {
    let (mut left, mut right) = (a.cursor(), b.cursor());
    let (mut key, mut left_rows, mut right_rows) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let (Some((l, _)), Some((r, _))) = (left.current(), right.current()) else { return };
        match l.cmp(r) {
            Ordering::Less => left.seek(r),
            Ordering::Greater => right.seek(l),
            Ordering::Equal => {
                left.take_rows(&mut key, &mut left_rows);
                right.take_rows(&mut key, &mut right_rows);
                if f(&key, &left_rows, &right_rows).is_break() {
                    return;
                }
            }
        }
    }
}

/// The least key that both runs have, with its first row in each.
#[cfg(test)]
pub(crate) fn first_common_key(a: &IndexRun, b: &IndexRun) -> Option<(Vec<u8>, u32, u32)> {
    let mut found = None;
    for_each_common_key(a, b, &mut |key, rows_in_a, rows_in_b| {
        found = Some((key.to_vec(), rows_in_a[0], rows_in_b[0]));
        ControlFlow::Break(())
    });
    found
}
