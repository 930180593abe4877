//! Many keys in one allocation.

/// Keys in the order they were pushed. All of one width: no offsets are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    shape: Shape,
    data: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Fixed {
        width: usize,
        len: usize,
    },
    /// `len + 1` ends, the first one 0.
    Variable(Vec<usize>),
}

impl Default for Shape {
    fn default() -> Self {
        Self::Fixed { width: 0, len: 0 }
    }
}

impl Keys {
    /// `data` must be `len` keys of `width` bytes.
    pub(super) fn fixed(width: usize, len: usize, data: Vec<u8>) -> Self {
        debug_assert_eq!(width * len, data.len());
        Self { shape: Shape::Fixed { width, len }, data }
    }

    /// Key `i` is `data[offsets[i]..offsets[i + 1]]`.
    pub(super) fn variable(offsets: Vec<usize>, data: Vec<u8>) -> Self {
        debug_assert_eq!(offsets.last().copied(), Some(data.len()));
        Self { shape: Shape::Variable(offsets), data }
    }

    /// How many keys.
    pub(crate) fn len(&self) -> usize {
        match &self.shape {
            Shape::Fixed { len, .. } => *len,
            Shape::Variable(offsets) => offsets.len() - 1,
        }
    }

    /// Bytes per key, if all have one length.
    pub(crate) fn width(&self) -> Option<usize> {
        match &self.shape {
            Shape::Fixed { width, .. } => Some(*width),
            Shape::Variable(_) => None,
        }
    }

    /// The bytes of all keys, one after the other.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    /// Key number `index`. Panics if there is none, like a slice.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        match &self.shape {
            Shape::Fixed { width, len } => {
                assert!(index < *len, "key {index} of {len}");
                &self.data[index * width..(index + 1) * width]
            }
            Shape::Variable(offsets) => &self.data[offsets[index]..offsets[index + 1]],
        }
    }

    /// All keys in order.
    pub(crate) fn iter(&self) -> KeysIter<'_> {
        KeysIter { keys: self, next: 0 }
    }

    /// Appends a key of any length.
    pub(crate) fn push(&mut self, key: &[u8]) {
        match &mut self.shape {
            Shape::Fixed { width, len } if *len == 0 || *width == key.len() => {
                *width = key.len();
                *len += 1;
            }
            Shape::Fixed { width, len } => {
                let mut offsets: Vec<usize> = (0..=*len).map(|index| index * *width).collect();
                offsets.push(self.data.len() + key.len());
                self.shape = Shape::Variable(offsets);
            }
            Shape::Variable(offsets) => offsets.push(self.data.len() + key.len()),
        }
        self.data.extend_from_slice(key);
    }

    /// Appends all keys of `other`.
    pub(crate) fn extend(&mut self, other: &Keys) {
        match (&mut self.shape, &other.shape) {
            (Shape::Fixed { width, len }, Shape::Fixed { width: wide, len: more }) if *len == 0 || width == wide => {
                *width = *wide;
                *len += more;
                self.data.extend_from_slice(&other.data);
            }
            _ => other.iter().for_each(|key| self.push(key)),
        }
    }
}

impl<'a> FromIterator<&'a [u8]> for Keys {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(keys: I) -> Self {
        let mut all = Self::default();
        keys.into_iter().for_each(|key| all.push(key));
        all
    }
}

impl<'a> IntoIterator for &'a Keys {
    type Item = &'a [u8];
    type IntoIter = KeysIter<'a>;

    fn into_iter(self) -> KeysIter<'a> {
        self.iter()
    }
}

/// Iterates over [`Keys`].
#[derive(Debug, Clone)]
pub(crate) struct KeysIter<'a> {
    keys: &'a Keys,
    next: usize,
}

impl<'a> Iterator for KeysIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.next == self.keys.len() {
            return None;
        }
        self.next += 1;
        Some(self.keys.get(self.next - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.keys.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for KeysIter<'_> {}
