//! Building runs: sorting keys, and writing sorted entries block by block.

use super::{
    super::key::Keys,
    bits,
    block::{self, ENTRIES},
    format::{self, Directory},
    run::IndexRun,
};

/// Writes a run from entries that arrive in order of (key, row): the end of sorting, and of merging runs.
#[derive(Debug)]
pub(crate) struct RunBuilder {
    out: Vec<u8>,
    directory: Directory,
    /// The keys and rows of the block being filled.
    keys: Vec<u8>,
    ends: Vec<usize>,
    rows: Vec<u32>,
}

impl RunBuilder {
    /// A run without entries.
    pub(crate) fn new() -> Self {
        Self {
            out: format::reserve_header(),
            directory: Directory::default(),
            keys: Vec::new(),
            ends: Vec::with_capacity(ENTRIES),
            rows: Vec::with_capacity(ENTRIES),
        }
    }

    /// Appends an entry, which is not less than the one before.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], row: u32) {
        if self.rows.len() == ENTRIES {
            self.end_block();
        }
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.rows.push(row);
    }

    fn end_block(&mut self) {
        let first = self.ends.first().copied().unwrap_or(0);
        self.directory.push(self.out.len(), &self.keys[..first], self.rows.len());
        block::write(&self.keys, &self.ends, &self.rows, &mut self.out);
        self.keys.clear();
        self.ends.clear();
        self.rows.clear();
    }

    /// The finished run.
    pub(crate) fn finish(mut self) -> IndexRun {
        let last_start = self.ends.len().checked_sub(2).map_or(0, |index| self.ends[index]);
        let last = self.keys[last_start..].to_vec();
        if !self.rows.is_empty() {
            self.end_block();
        }
        let layout = format::finish(&mut self.out, &self.directory, &last);
        // It stays for long, and is counted by its length.
        self.out.shrink_to_fit();
        IndexRun::assemble(self.out.into(), layout)
    }
}

impl IndexRun {
    /// Sorts `keys` and compresses them with their rows; without `rows`, key `i` is that of row `i`. At most 2^32
    /// entries, because a segment has no more rows.
    pub(crate) fn build(keys: &Keys, rows: Option<&[u32]>) -> Self {
        build(keys, rows)
    }
}

/// Sorts `keys` and writes them with their rows; without `rows`, key `i` is that of row `i`.
pub(super) fn build(keys: &Keys, rows: Option<&[u32]>) -> IndexRun {
    let row_of = |index: usize| rows.map_or(index as u32, |rows| rows[index]);
    match Narrow::try_new(keys) {
        Some(narrow) => {
            let last_row = (0..keys.len()).map(row_of).max().unwrap_or(0);
            let row_width = bits::width_of(u64::from(last_row));
            if 8 * narrow.positions.len() + usize::from(row_width) <= 64 {
                sort_words(keys, &narrow, u32::from(row_width), row_of)
            } else {
                sort_pairs(keys, &narrow, row_of)
            }
        }
        None => sort_by_head(keys, row_of),
    }
}

/// Keys of one width of which at most eight bytes differ: an integer says everything about a key.
struct Narrow {
    template: Vec<u8>,
    positions: Vec<usize>,
}

impl Narrow {
    fn try_new(keys: &Keys) -> Option<Self> {
        let width = keys.width().filter(|width| *width > 0)?;
        let template = keys.data().get(..width)?.to_vec();
        let mut differs = vec![0u8; width];
        for key in keys.data().chunks_exact(width) {
            differs.iter_mut().zip(key.iter().zip(&template)).for_each(|(differs, (a, b))| *differs |= a ^ b);
        }
        let positions: Vec<usize> = (0..width).filter(|&at| differs[at] != 0).collect();
        (positions.len() <= 8).then_some(Self { template, positions })
    }

    #[inline]
    fn integer(&self, key: &[u8]) -> u64 {
        self.positions.iter().fold(0, |all, &at| all << 8 | u64::from(key[at]))
    }

    #[inline]
    fn write(&self, mut integer: u64, key: &mut [u8]) {
        for &at in self.positions.iter().rev() {
            key[at] = integer as u8;
            integer >>= 8;
        }
    }
}

/// Key and row in one word.
fn sort_words(keys: &Keys, narrow: &Narrow, row_width: u32, row_of: impl Fn(usize) -> u32) -> IndexRun {
    let pack = |(index, key)| {
        let integer = narrow.integer(key);
        // With no row bits there is one row, and with 64 there is no key bit.
        integer.checked_shl(row_width).unwrap_or(0) | u64::from(row_of(index))
    };
    let mut words: Vec<u64> = keys.iter().enumerate().map(pack).collect();
    if !words.is_sorted() {
        words.sort_unstable();
    }
    let mut builder = RunBuilder::new();
    let mut key = narrow.template.clone();
    let row_mask = bits::mask(row_width as u8);
    for word in words {
        narrow.write(word >> row_width, &mut key);
        builder.push(&key, (word & row_mask) as u32);
    }
    builder.finish()
}

fn sort_pairs(keys: &Keys, narrow: &Narrow, row_of: impl Fn(usize) -> u32) -> IndexRun {
    let pair = |(index, key)| (narrow.integer(key), row_of(index));
    let mut pairs: Vec<(u64, u32)> = keys.iter().enumerate().map(pair).collect();
    if !pairs.is_sorted() {
        pairs.sort_unstable();
    }
    let mut builder = RunBuilder::new();
    let mut key = narrow.template.clone();
    for (integer, row) in pairs {
        narrow.write(integer, &mut key);
        builder.push(&key, row);
    }
    builder.finish()
}

/// Compares the first eight bytes after the common prefix, and the keys themselves only if those are equal.
fn sort_by_head(keys: &Keys, row_of: impl Fn(usize) -> u32) -> IndexRun {
    let mut all = keys.iter();
    let prefix = match all.next() {
        Some(first) => all.fold(first, |prefix, key| &prefix[..block::common_prefix(prefix, key)]).len(),
        None => 0,
    };
    let mut order: Vec<(u64, u32)> =
        keys.iter().enumerate().map(|(index, key)| (format::head(&key[prefix..]), index as u32)).collect();
    order.sort_unstable_by(|a, b| {
        a.0.cmp(&b.0).then_with(|| {
            let (a, b) = (a.1 as usize, b.1 as usize);
            keys.get(a).cmp(keys.get(b)).then_with(|| row_of(a).cmp(&row_of(b)))
        })
    });
    let mut builder = RunBuilder::new();
    for (_, index) in order {
        builder.push(keys.get(index as usize), row_of(index as usize));
    }
    builder.finish()
}
