//! One block of a run: up to [`ENTRIES`] sorted entries, compressed so that any one can be read by its position.
//!
//! Key bytes that are the same in all keys of the block are stored once, in the fence key, which is the block's first
//! key. If the keys have one length and at most eight of their bytes differ, those bytes are an integer, and the block
//! is integers relative to the first one (`PACKED`); otherwise it is the suffixes after the common prefix (`PLAIN`).
//!
//! ```text
//! kind u8 | value width u8 | row width u8 | positions u8 | first row u32 | positions 8 x u16
//! rows: row width x entries bits
//! PACKED values: value width x entries bits
//! PLAIN  offsets: value width x (entries + 1) bits, none if the width is 0 and all keys have the fence's length
//!        suffix bytes
//! ```
//! In a `PLAIN` block the first two positions are the length of the common prefix, as a u32.

use std::cmp::Ordering;

use super::bits;

/// Entries per block; only the last block of a run has fewer.
pub(super) const ENTRIES: usize = 1024;
/// Bytes before a block's rows.
pub(super) const HEADER: usize = 24;
const PACKED: u8 = 0;
const PLAIN: u8 = 1;
/// Bytes of a key that fit the integer of a packed block.
const MAX_POSITIONS: usize = 8;

/// A block, read where it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    first: &'a [u8],
    len: usize,
    row_base: u32,
    row_width: u8,
    rows: &'a [u8],
    suffixes: Suffixes<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Suffixes<'a> {
    Packed { positions: [u16; MAX_POSITIONS], count: usize, base: u64, width: u8, values: &'a [u8] },
    Plain { prefix: usize, width: u8, offsets: &'a [u8], bytes: &'a [u8] },
}

impl<'a> Block<'a> {
    /// Reads the block of `len` entries and the fence `first` at the front of `data`, which goes on past the block.
    /// `None` if it cannot be one. Says in the second place how long the block is; only [`Self::check`] reads more.
    #[inline]
    pub(super) fn parse(first: &'a [u8], len: usize, data: &'a [u8]) -> Option<Self> {
        let (header, rest) = data.split_first_chunk::<HEADER>()?;
        let [kind, width, row_width, count, ..] = *header;
        if width > 64 || row_width > 32 {
            return None;
        }
        let row_base = u32::from_le_bytes(*header[4..].first_chunk()?);
        let values = rest.get(bits::packed_size(len, row_width)..)?;
        let suffixes = match kind {
            PACKED => {
                let count = usize::from(count);
                let mut positions = [0; MAX_POSITIONS];
                let mut base = 0;
                for (slot, bytes) in positions.iter_mut().zip(header[8..].chunks_exact(2)).take(count) {
                    *slot = u16::from_le_bytes([bytes[0], bytes[1]]);
                    base = base << 8 | u64::from(*first.get(usize::from(*slot))?);
                }
                Suffixes::Packed { positions, count, base, width, values }
            }
            PLAIN => {
                let prefix = u32::from_le_bytes(*header[8..].first_chunk()?) as usize;
                let bytes = values.get(offsets_size(len, width)..)?;
                first.get(prefix..)?;
                Suffixes::Plain { prefix, width, offsets: values, bytes }
            }
            _ => return None,
        };
        Some(Self { first, len, row_base, row_width, rows: rest, suffixes })
    }

    /// Whether the block is sound and takes exactly `size` bytes.
    pub(super) fn check(&self, size: usize) -> bool {
        let rows = HEADER + bits::packed_size(self.len, self.row_width);
        let sound = match self.suffixes {
            Suffixes::Packed { positions, count, width, .. } => {
                let used = &positions[..count.min(MAX_POSITIONS)];
                count <= MAX_POSITIONS
                    && usize::from(width) <= 8 * count
                    && used.is_sorted_by(|a, b| a < b)
                    && rows + bits::packed_size(self.len, width) == size
            }
            Suffixes::Plain { width, .. } => {
                let ordered = (0..self.len).all(|index| self.offset(index) <= self.offset(index + 1));
                width <= 57 && ordered && rows + offsets_size(self.len, width) + self.offset(self.len) == size
            }
        };
        sound && self.row_width <= 32
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The row of entry `index`.
    #[inline]
    pub(super) fn row(&self, index: usize) -> u32 {
        // The width is at most 32 bits.
        self.row_base.wrapping_add(bits::get(self.rows, index, self.row_width) as u32)
    }

    /// Whether all its rows are less than `end`.
    pub(super) fn rows_below(&self, end: u32) -> bool {
        let greatest = u64::from(self.row_base) + bits::mask(self.row_width);
        // What the width leaves room for is more than what is there, mostly by less than one bit.
        greatest < u64::from(end)
            || (0..self.len)
                .all(|index| u64::from(self.row_base) + bits::get(self.rows, index, self.row_width) < u64::from(end))
    }

    /// Prepares `key` for [`Self::write_key`].
    #[inline]
    pub(super) fn begin_key(&self, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.first);
    }

    /// Makes `key`, which held another key of this block, the key of entry `index`.
    #[inline]
    pub(super) fn write_key(&self, index: usize, key: &mut Vec<u8>) {
        match self.suffixes {
            Suffixes::Packed { positions, count, base, width, values } => {
                let mut value = base.wrapping_add(bits::get(values, index, width));
                for position in positions[..count].iter().rev() {
                    key[usize::from(*position)] = value as u8;
                    value >>= 8;
                }
            }
            Suffixes::Plain { prefix, .. } => {
                key.truncate(prefix);
                key.extend_from_slice(self.suffix(index));
            }
        }
    }

    /// Whether the first key is `key`.
    pub(super) fn has_first(&self, key: &[u8]) -> bool {
        self.first == key
    }

    /// Whether entries `index - 1` and `index` have one key.
    #[inline]
    pub(super) fn repeats(&self, index: usize) -> bool {
        match self.suffixes {
            Suffixes::Packed { width, values, .. } => {
                bits::get(values, index - 1, width) == bits::get(values, index, width)
            }
            Suffixes::Plain { .. } => self.suffix(index - 1) == self.suffix(index),
        }
    }

    /// How many entries come before `bound`; with `after`, entries equal to it count too. The first `known` entries
    /// are known to: the search goes on from there, and is quick if it ends near.
    #[inline]
    pub(super) fn count_before(&self, known: usize, bound: &[u8], after: bool) -> usize {
        match self.suffixes {
            Suffixes::Packed { positions, count, base, width, values } => {
                let Some(target) = first_integer(self.first, &positions[..count], bound, after) else {
                    return self.len;
                };
                let Some(delta) = target.checked_sub(base) else { return known };
                if delta > bits::mask(width) {
                    return self.len;
                }
                partition_point(known, self.len, |index| bits::get(values, index, width) < delta)
            }
            Suffixes::Plain { prefix, .. } => match compare_front(bound, &self.first[..prefix]) {
                Ordering::Less => known,
                Ordering::Greater => self.len,
                Ordering::Equal => {
                    let rest = &bound[prefix..];
                    partition_point(known, self.len, |index| is_before(self.suffix(index), rest, after))
                }
            },
        }
    }

    #[inline]
    fn offset(&self, index: usize) -> usize {
        match self.suffixes {
            Suffixes::Plain { prefix, width: 0, .. } => index * (self.first.len() - prefix),
            Suffixes::Plain { width, offsets, .. } => bits::get(offsets, index, width) as usize,
            Suffixes::Packed { .. } => 0,
        }
    }

    #[inline]
    fn suffix(&self, index: usize) -> &'a [u8] {
        match self.suffixes {
            Suffixes::Plain { bytes, .. } => bytes.get(self.offset(index)..self.offset(index + 1)).unwrap_or_default(),
            Suffixes::Packed { .. } => &[],
        }
    }
}

/// Whether `key` is less than `bound`, or equal to it if `after`.
#[inline]
pub(super) fn is_before(key: &[u8], bound: &[u8], after: bool) -> bool {
    if after { key <= bound } else { key < bound }
}

/// The first index from `known` to `len` at which `before` is false.
#[inline]
fn partition_point(known: usize, len: usize, mut before: impl FnMut(usize) -> bool) -> usize {
    let (mut start, mut end) = (known, len);
    if known > 0 {
        // Most ranges are short: look near their start first.
        let mut step = 1;
        while start + step < end {
            if !before(start + step - 1) {
                end = start + step - 1;
                break;
            }
            start += step;
            step *= 2;
        }
    }
    let mut size = end - start;
    while size > 1 {
        let half = size / 2;
        // Written so that it compiles to a conditional move: the outcome cannot be predicted.
        start = if before(start + half) { start + half } else { start };
        size -= half;
    }
    if size == 1 && before(start) { start + 1 } else { start }
}

/// The least integer whose key is not before `bound`; `None` if there is none.
#[inline]
fn first_integer(first: &[u8], positions: &[u16], bound: &[u8], after: bool) -> Option<u64> {
    let mut value = 0u128;
    let mut at = 0;
    for (taken, &position) in positions.iter().enumerate() {
        let position = usize::from(position);
        let rest = 8 * (positions.len() - taken);
        if at < position {
            match compare_front(&bound[at.min(bound.len())..], &first[at..position]) {
                Ordering::Equal => {}
                Ordering::Less => return u64::try_from(value << rest).ok(),
                Ordering::Greater => return u64::try_from((value + 1) << rest).ok(),
            }
        }
        let Some(&byte) = bound.get(position) else { return u64::try_from(value << rest).ok() };
        value = value << 8 | u128::from(byte);
        at = position + 1;
    }
    let found = match bound[at.min(bound.len())..].cmp(&first[at..]) {
        Ordering::Less => value,
        Ordering::Equal => value + u128::from(after),
        Ordering::Greater => value + 1,
    };
    u64::try_from(found).ok()
}

/// Compares the front of `bound` with `part`; less if it ends inside.
#[inline]
pub(super) fn compare_front(bound: &[u8], part: &[u8]) -> Ordering {
    // A loop, because the parts are a few bytes long: shorter than a call of memcmp.
    for (index, byte) in part.iter().enumerate() {
        match bound.get(index).map(|given| given.cmp(byte)) {
            Some(Ordering::Equal) => {}
            Some(unequal) => return unequal,
            None => return Ordering::Less,
        }
    }
    Ordering::Equal
}

fn offsets_size(len: usize, width: u8) -> usize {
    if width == 0 { 0 } else { bits::packed_size(len + 1, width) }
}

/// Appends a block of the sorted keys that end at `ends` in `bytes`. There is at least one.
pub(super) fn write(bytes: &[u8], ends: &[usize], rows: &[u32], out: &mut Vec<u8>) {
    let first = &bytes[..ends.first().copied().unwrap_or(0)];
    let one_length = bytes.len() == first.len() * ends.len()
        && ends.iter().enumerate().all(|(i, &end)| end == (i + 1) * first.len());
    let positions = if one_length { differing(bytes, first) } else { None };
    let base = rows.iter().copied().min().unwrap_or(0);
    let row_width = bits::width_of(rows.iter().map(|row| u64::from(row - base)).max().unwrap_or(0));
    let pack_rows = |out: &mut Vec<u8>| bits::pack(rows.iter().map(|row| u64::from(row - base)), row_width, out);
    if let Some(positions) = positions {
        let integer = |key: &[u8]| positions.iter().fold(0, |all, &at| all << 8 | u64::from(key[usize::from(at)]));
        let least = integer(first);
        let keys = || ends.iter().map(|end| integer(&bytes[end - first.len()..*end]) - least);
        let width = bits::width_of(keys().next_back().unwrap_or(0));
        let mut tail = [0; 16];
        for (slot, position) in tail.chunks_exact_mut(2).zip(&positions) {
            slot.copy_from_slice(&position.to_le_bytes());
        }
        write_header([PACKED, width, row_width, positions.len() as u8], base, tail, out);
        pack_rows(out);
        bits::pack(keys(), width, out);
        return;
    }
    let last_start = ends.len().checked_sub(2).map_or(0, |index| ends[index]);
    let prefix = common_prefix(first, &bytes[last_start..]).min(u32::MAX as usize);
    let suffixes = bytes.len() - prefix * ends.len();
    let width = if one_length { 0 } else { bits::width_of(suffixes as u64).max(1) };
    let mut tail = [0; 16];
    tail[..4].copy_from_slice(&(prefix as u32).to_le_bytes());
    write_header([PLAIN, width, row_width, 0], base, tail, out);
    pack_rows(out);
    if width > 0 {
        let offsets = ends.iter().enumerate().map(|(index, end)| (end - prefix * (index + 1)) as u64);
        bits::pack(std::iter::once(0).chain(offsets), width, out);
    }
    let mut start = 0;
    for &end in ends {
        out.extend_from_slice(&bytes[start + prefix..end]);
        start = end;
    }
}

fn write_header(start: [u8; 4], row_base: u32, tail: [u8; 16], out: &mut Vec<u8>) {
    out.extend_from_slice(&start);
    out.extend_from_slice(&row_base.to_le_bytes());
    out.extend_from_slice(&tail);
}

/// The positions at which keys of one length differ, if they fit an integer.
fn differing(bytes: &[u8], first: &[u8]) -> Option<Vec<u16>> {
    if first.is_empty() {
        return Some(Vec::new());
    }
    u16::try_from(first.len()).ok()?;
    let mut differs = vec![0; first.len()];
    for key in bytes.chunks_exact(first.len()) {
        differs.iter_mut().zip(key.iter().zip(first)).for_each(|(differs, (a, b))| *differs |= a ^ b);
    }
    let positions: Vec<u16> = (0u16..).zip(&differs).filter(|(_, bits)| **bits != 0).map(|(at, _)| at).collect();
    (positions.len() <= MAX_POSITIONS).then_some(positions)
}

/// How many bytes two keys have in common at the front.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
