//! How the rest of the database talks to the maintenance thread.

use std::time::Duration;

use grizzly_wal::world::{Condvar, Mutex};

use crate::error::{Error, ErrorKind};

/// How often the thread looks around without being asked.
const PERIOD: Duration = Duration::from_millis(500);

/// What is asked of the thread, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: bool,
    stopped: bool,
    flushes: u64,
    /// How often the work has failed, and why the last time.
    failures: u64,
    failure: Option<(ErrorKind, String)>,
}

impl Signals {
    /// Asks for a look around.
    pub(super) fn wake(&self) {
        self.state.lock().wanted = true;
        self.changed.notify_all();
    }

    /// Ends the thread after what it is doing.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// A flush is done.
    pub(super) fn flushed(&self) {
        self.state.lock().flushes += 1;
        self.changed.notify_all();
    }

    /// Waits until a flush is done, or for a moment. Returns why it failed, if it did.
    pub(super) fn wait_for_flush(&self, at_most: Duration) -> Option<(ErrorKind, String)> {
        let mut state = self.state.lock();
        let (flushes, failures) = (state.flushes, state.failures);
        state.wanted = true;
        self.changed.notify_all();
        let waits = |state: &mut State| state.flushes == flushes && state.failures == failures && !state.stopped;
        self.changed.wait_while_for(&mut state, waits, at_most);
        state.failure.clone().filter(|_| state.flushes == flushes && state.failures > failures)
    }

    pub(super) fn failed(&self, error: &Error) {
        let mut state = self.state.lock();
        state.failures += 1;
        state.failure = Some((error.kind(), error.to_string()));
        self.changed.notify_all();
    }

    /// False once the thread should end.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.wanted && !state.stopped, PERIOD);
        state.wanted = false;
        !state.stopped
    }
}
