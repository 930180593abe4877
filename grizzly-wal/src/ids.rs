//! Numbers that must not be mixed up with other numbers.

use std::fmt;

/// The sequence number of a record in the log: 1, 2, 3 … without gaps. Zero means "no record".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number of the first record a log ever gets.
    pub const FIRST: Lsn = Lsn(1);
    /// A number that no log reaches. Where one stands in a file, the file is damaged.
    pub(crate) const BEYOND: Lsn = Lsn(1 << 62);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
