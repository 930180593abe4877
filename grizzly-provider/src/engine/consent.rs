//! How a change that takes long learns that it is not wanted any more.

use crate::error::Result;

/// Asked by a change whether it shall go on. Each answer but `Ok` ends it with that error, and nothing was written.
///
/// ```
/// use grizzly_provider::{Consent, Error, ErrorKind};
///
/// struct Cancelled;
///
/// impl Consent for Cancelled {
///     fn commit(&self) -> grizzly_provider::Result<()> {
///         Err(Error::new(ErrorKind::Cancelled, "the client has left"))
///     }
/// }
/// ```
pub trait Consent {
    /// Asked now and then by what computes for long, before it commits.
    ///
    /// # Errors
    /// The reason to stop.
    fn go_on(&self) -> Result<()> {
        Ok(())
    }

    /// Asked once, when everything is checked and only the log is left to write: whoever consents here must await the
    /// outcome. A change that turns out to be none does not ask.
    ///
    /// # Errors
    /// The reason not to commit.
    fn commit(&self) -> Result<()> {
        Ok(())
    }
}

/// The consent of whoever changes nothing about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given;

impl Consent for Given {}
