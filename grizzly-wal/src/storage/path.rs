//! What a path may be, checked once for all storages.

use crate::error::{Error, Result};

/// The name of the lock file in a local folder.
pub(super) const LOCK_NAME: &str = "LOCK";

/// Refuses paths that could leave the storage's folder or meet its own files.
pub(super) fn check(path: &str) -> Result<()> {
    let sound = path.split('/').all(|part| {
        !part.is_empty() && !part.starts_with('.') && !part.contains(|c: char| c == '\\' || c.is_control())
    });
    if sound && path != LOCK_NAME {
        return Ok(());
    }
    Err(Error::invalid(format!("{path:?} is not a path inside a storage")))
}

/// A folder without its trailing slash; `""` is the storage itself.
pub(super) fn check_folder(prefix: &str) -> Result<&str> {
    let folder = prefix.strip_suffix('/').unwrap_or(prefix);
    if !folder.is_empty() {
        check(folder)?;
    }
    Ok(folder)
}

/// The part of `path` below `folder`, if it is below it.
pub(super) fn below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    if folder.is_empty() {
        return Some(path);
    }
    path.strip_prefix(folder)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for good in ["a", "wal/0001.log", "t/shard=1/ä.seg", "x/LOCK"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a\\b", "a\0", "LOCK"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folders_end_at_a_slash() {
        assert_eq!(below("ab/c", "a"), None);
        assert_eq!(below("a/b/c", "a"), Some("b/c"));
        assert_eq!(below("a", "a"), None);
        assert_eq!(below("a/b", ""), Some("a/b"));
    }
}
