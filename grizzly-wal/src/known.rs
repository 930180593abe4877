//! What is known of a log before it is read, because its writer left word of it elsewhere.

use crate::codec::FileHeader;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ids::Lsn;

/// What a log must be and have. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Whose log it is. A file that says otherwise was put there from elsewhere.
    pub owner: Option<u128>,
    /// A file of this number was begun, and is there unless a later one is.
    pub file: u64,
    /// Everything up to this record was durable.
    pub last: Lsn,
}

impl Known {
    /// What this and `other` know together of one log.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let owner = self.owner.or(other.owner);
        Self { owner, file: self.file.max(other.file), last: self.last.max(other.last) }
    }

    /// An error if a file of this log's folder belongs to another log, or stands where another file stood. `previous`
    /// is the salt of the file that has the record before its first, if that file was read.
    pub(crate) fn check_file(&self, path: &str, header: &FileHeader, previous: Option<u64>) -> Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        let Some(place) = &header.place else {
            // Files of earlier versions do not say it, and later ones follow them.
            return match self.file > 0 && header.number >= self.file {
                true => {
                    Err(Error::corrupt(path, 8, "it is a file of an earlier version where a newer one was written"))
                }
                false => Ok(()),
            };
        };
        if place.owner != owner {
            let what = format!("it belongs to the log of {:032x}, and this is that of {owner:032x}", place.owner);
            return Err(Error::corrupt(path, 64, what));
        }
        check_link(path, header, previous)
    }

    /// An error if a log that ends before record `next`, and whose newest file is `newest`, lacks something.
    pub(crate) fn check_end(&self, dir: &str, newest: u64, next: Lsn) -> Result<()> {
        if newest < self.file {
            let message =
                format!("{} is missing or empty, but records were written to it", files::path(dir, self.file));
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        if next <= self.last {
            let message = format!("{dir} ends before record {next}, but {} was durable", self.last);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(())
    }
}

/// An error if a file says that another one than that with salt `previous` comes before it.
pub(crate) fn check_link(path: &str, header: &FileHeader, previous: Option<u64>) -> Result<()> {
    let said = header.place.map_or(0, |place| place.previous);
    match previous {
        Some(previous) if said != 0 && said != previous => {
            Err(Error::corrupt(path, 80, "the file before it is not the one it was written after"))
        }
        _ => Ok(()),
    }
}
