//! Integers of any width up to 64 bits, one after the other without gaps, least significant bit first.

/// Bits needed to tell `max` from zero.
pub(super) fn width_of(max: u64) -> u8 {
    // At most 64.
    (u64::BITS - max.leading_zeros()) as u8
}

/// Bytes that `count` integers of `width` bits take.
pub(super) fn packed_size(count: usize, width: u8) -> usize {
    (count * usize::from(width)).div_ceil(8)
}

/// Appends the integers, each less than two to the power of `width`.
pub(super) fn pack(values: impl IntoIterator<Item = u64>, width: u8, out: &mut Vec<u8>) {
    let mut pending = 0u128;
    let mut filled = 0;
    for value in values {
        pending |= u128::from(value) << filled;
        filled += u32::from(width);
        while filled >= 64 {
            out.extend_from_slice(&(pending as u64).to_le_bytes());
            pending >>= 64;
            filled -= 64;
        }
    }
    let rest = filled.div_ceil(8) as usize;
    out.extend_from_slice(&(pending as u64).to_le_bytes()[..rest]);
}

/// Integer number `index`; 0 if `data` ends before it. `data` goes on for at least 8 bytes after the last integer,
/// because whole words are read.
#[inline]
pub(super) fn get(data: &[u8], index: usize, width: u8) -> u64 {
    let bit = index * usize::from(width);
    let (at, shift) = (bit / 8, bit % 8);
    let Some((word, after)) = data.get(at..).and_then(|rest| rest.split_first_chunk::<8>()) else { return 0 };
    let mut value = u64::from_le_bytes(*word) >> shift;
    if shift + usize::from(width) > 64 {
        // Only then is the shift not zero.
        value |= u64::from(after.first().copied().unwrap_or(0)) << (64 - shift);
    }
    value & mask(width)
}

/// The greatest integer of `width` bits.
#[inline]
pub(super) fn mask(width: u8) -> u64 {
    if width == 0 { 0 } else { u64::MAX >> (64 - u32::from(width)) }
}
