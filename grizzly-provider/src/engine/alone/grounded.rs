//! Why a process that opened a database alone does not write to it at the moment.

use std::time::{Duration, Instant};

use grizzly_wal::world::{self, Mutex};

use crate::error::{Error, ErrorKind};

/// Attempts to write again are at least so far apart.
const PAUSE: Duration = Duration::from_millis(50);

/// The last attempt to begin to write, if it failed.
#[derive(Debug, Default)]
pub(crate) struct Grounded {
    last: Mutex<Option<Attempt>>,
}

/// An attempt to begin to write that failed.
#[derive(Debug)]
struct Attempt {
    kind: ErrorKind,
    why: String,
    /// When the next one makes sense.
    again: Instant,
}

impl Grounded {
    /// An attempt that began then has failed. It may have read much, so the next one waits the longer.
    pub(super) fn set(&self, begun: Instant, error: &Error) {
        let again = world::instant() + PAUSE.max(4 * world::since(begun));
        *self.last.lock() = Some(Attempt { kind: error.kind(), why: error.to_string(), again });
    }

    pub(super) fn is_too_early(&self) -> bool {
        self.last.lock().as_ref().is_some_and(|last| world::instant() < last.again)
    }

    /// The error for a write.
    pub(crate) fn refusal(&self, url: &str) -> Error {
        let last = self.last.lock();
        let (kind, why) = last.as_ref().map_or((ErrorKind::Unavailable, ""), |last| (last.kind, last.why.as_str()));
        let message =
            format!("database '{url}' can be read but not written at the moment; writing is tried again: {why}");
        Error::new(kind, message)
    }
}
