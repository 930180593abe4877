//! Ended rows of one chunk with their commits, in four bytes each. Never changed: a new one takes its place.

use crate::access::Csn;

/// Rows in order, each with the position of its commit among those that there are.
#[derive(Debug, Default)]
pub(super) struct PackedRows {
    rows: Box<[u16]>,
    /// A chunk has no more commits than rows, so that their positions have 16 bits, too.
    positions: Box<[u16]>,
    commits: Box<[Csn]>,
}

impl PackedRows {
    pub(super) const ROW_BYTES: usize = 2 * size_of::<u16>();

    /// Commits, each with the rows that it ended. No row is there twice.
    pub(super) fn new(ended: Vec<(Csn, Vec<u16>)>) -> Self {
        let (mut commits, mut rows) = (Vec::new(), Vec::new());
        for (csn, of_commit) in ended {
            let position = commits.len() as u16;
            rows.extend(of_commit.into_iter().map(|row| (row, position)));
            commits.push(csn);
        }
        rows.sort_unstable();
        let (rows, positions): (Vec<u16>, Vec<u16>) = rows.into_iter().unzip();
        Self { rows: rows.into(), positions: positions.into(), commits: commits.into() }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of memory.
    pub(super) fn nbytes(&self) -> usize {
        Self::ROW_BYTES * self.rows.len() + size_of_val(self.commits.as_ref())
    }

    /// The commit that ended `row`.
    pub(super) fn get(&self, row: u16) -> Option<Csn> {
        let at = self.rows.binary_search(&row).ok()?;
        Some(self.commits[usize::from(self.positions[at])])
    }

    /// In the order of rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, Csn)> + '_ {
        let commits = self.positions.iter().map(|position| self.commits[usize::from(*position)]);
        self.rows.iter().copied().zip(commits)
    }
}
