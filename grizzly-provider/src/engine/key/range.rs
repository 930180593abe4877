//! Ranges of keys.

use std::ops::Bound;

use crate::access::KeyRange;

impl KeyRange {
    /// Every key.
    pub fn full() -> Self {
        Self { lower: Bound::Unbounded, upper: Bound::Unbounded }
    }

    /// Exactly this key.
    pub fn point(key: &[u8]) -> Self {
        Self { lower: Bound::Included(key.to_vec()), upper: Bound::Included(key.to_vec()) }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self::between(Bound::Included(prefix), Bound::Included(prefix))
    }

    /// A range between prefixes of keys: an included prefix takes in every key that begins with it, an excluded one
    /// leaves all of them out. In a descending column the caller has swapped the bounds.
    pub fn between(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Self {
        let lower = match lower {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Included([]) => Bound::Unbounded,
            Bound::Included(prefix) => Bound::Included(prefix.to_vec()),
            Bound::Excluded(prefix) => match successor(prefix) {
                Some(next) => Bound::Included(next),
                // Nothing is greater than all keys that begin with FF FF ...
                None => return Self::empty(),
            },
        };
        let upper = match upper {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Included(prefix) => successor(prefix).map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Excluded(prefix) => Bound::Excluded(prefix.to_vec()),
        };
        Self { lower, upper }
    }

    /// The keys from `least` to `greatest`, both included.
    pub(crate) fn closed(least: &[u8], greatest: &[u8]) -> Self {
        Self { lower: Bound::Included(least.to_vec()), upper: Bound::Included(greatest.to_vec()) }
    }

    /// Whether a key from `least` to `greatest` may lie in it.
    pub(crate) fn meets(&self, least: &[u8], greatest: &[u8]) -> bool {
        !self.is_below(greatest) && !self.is_above(least)
    }

    /// No key.
    pub fn empty() -> Self {
        Self { lower: Bound::Included(Vec::new()), upper: Bound::Excluded(Vec::new()) }
    }

    /// Whether `key` is in the range.
    #[inline]
    pub fn contains(&self, key: &[u8]) -> bool {
        !self.is_below(key) && !self.is_above(key)
    }

    /// Whether `key` comes before the range.
    #[inline]
    pub fn is_below(&self, key: &[u8]) -> bool {
        match &self.lower {
            Bound::Unbounded => false,
            Bound::Included(lower) => key < lower.as_slice(),
            Bound::Excluded(lower) => key <= lower.as_slice(),
        }
    }

    /// Whether `key` comes after the range.
    #[inline]
    pub fn is_above(&self, key: &[u8]) -> bool {
        match &self.upper {
            Bound::Unbounded => false,
            Bound::Included(upper) => key > upper.as_slice(),
            Bound::Excluded(upper) => key >= upper.as_slice(),
        }
    }

    /// Whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        match (&self.lower, &self.upper) {
            (_, Bound::Excluded(upper)) if upper.is_empty() => true,
            (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
            (Bound::Included(lower) | Bound::Excluded(lower), Bound::Excluded(upper))
            | (Bound::Excluded(lower), Bound::Included(upper)) => lower >= upper,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }

    /// The lower bound, borrowed.
    pub fn lower_bound(&self) -> Bound<&[u8]> {
        self.lower.as_ref().map(Vec::as_slice)
    }

    /// The upper bound, borrowed.
    pub fn upper_bound(&self) -> Bound<&[u8]> {
        self.upper.as_ref().map(Vec::as_slice)
    }
}

/// The smallest byte string greater than every one that begins with `prefix`; none if it is empty or all `FF`.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}
