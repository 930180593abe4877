//! The one rule that decides what a snapshot sees.

use crate::access::Csn;

/// Whether a row version written by commit `created` and ended by commit `deleted` is visible at `snapshot`.
/// Commit 0 stands for the reader's own uncommitted transaction and is before every snapshot.
pub(crate) fn visible(created: Csn, deleted: Option<Csn>, snapshot: Csn) -> bool {
    created <= snapshot && deleted.is_none_or(|deleted| deleted > snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_visible_from_its_commit_until_the_one_that_ends_it() {
        let (created, deleted) = (Csn(5), Some(Csn(9)));
        let seen: Vec<u64> = (0..12).filter(|at| visible(created, deleted, Csn(*at))).collect();
        assert_eq!(seen, [5, 6, 7, 8]);
        assert!(visible(Csn(0), None, Csn(1)));
        assert!(!visible(Csn(0), Some(Csn(0)), Csn(1)));
    }
}
