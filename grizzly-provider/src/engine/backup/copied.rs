//! What is to be copied is looked at first: damage that a backup took with it would be found when it is needed.

use bytes::Bytes;
use uuid::Uuid;

use super::super::{label, segment::container::check_file};
use crate::error::{Error, Result};

/// An error if a file is damaged, or not the one that its name tells. `mark` is that of its segment, if it is known and has
/// one.
pub(super) fn check(path: &str, file: &Bytes, mark: Option<Uuid>) -> Result<()> {
    let found = match path.ends_with(".seg") {
        true => check_file(path, file)?.label,
        false => label::of_file(path, file)?,
    };
    match found {
        Some(label) if label.fits(path, mark) => Ok(()),
        None if mark.is_none() => Ok(()),
        Some(label) => Err(Error::corrupt(format!("'{path}' was exchanged: it is {label}"))),
        None => Err(Error::corrupt(format!("'{path}' was exchanged or damaged: it does not say what it is"))),
    }
}
