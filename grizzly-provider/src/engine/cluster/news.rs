//! What the cluster's thread and those who wait for it tell each other. Only that thread looks at the storage, so who
//! waits can stop waiting however long the storage is silent, and all who wait at the same time share one look.

use std::time::{Duration, Instant};

use grizzly_wal::world::{self, Condvar, Mutex};

/// Wakes those who wait for a commit, for a look at the storage, or for the end.
#[derive(Default)]
pub(super) struct News {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    /// The last number that was given to somebody who waits for a look.
    asked: u64,
    /// The last one that a look was begun for.
    taken: u64,
    /// The last one for which a look has found all there is.
    answered: u64,
    /// When the last such look had begun.
    fresh: Option<Instant>,
    /// Since when nobody waits for a fresh look any more.
    given_up: Option<Instant>,
    /// Why the last look failed.
    trouble: Option<String>,
}

impl News {
    /// Something may be new.
    pub(super) fn tell(&self) {
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Asks for a look that begins after this call.
    pub(super) fn ask(&self) -> u64 {
        let mut state = self.state.lock();
        state.asked += 1;
        let number = state.asked;
        drop(state);
        self.changed.notify_all();
        number
    }

    /// Takes up what was asked for: the number up to which a look that begins now answers, and whether anybody waits.
    pub(super) fn take(&self) -> (u64, bool) {
        let mut state = self.state.lock();
        state.taken = state.asked;
        (state.taken, state.asked > state.answered)
    }

    /// Whether somebody waits for a look.
    pub(super) fn is_asked(&self) -> bool {
        let state = self.state.lock();
        state.asked > state.answered
    }

    /// A look has found all there is that anybody had acknowledged when it began.
    pub(super) fn answer(&self, number: u64, begun: Instant) {
        let mut state = self.state.lock();
        state.answered = state.answered.max(number);
        (state.fresh, state.given_up) = (Some(begun), None);
        drop(state);
        self.changed.notify_all();
    }

    /// A look that began then has found all there is.
    pub(super) fn refreshed(&self, begun: Instant) {
        self.answer(0, begun);
    }

    /// How the last look ended.
    pub(super) fn report(&self, trouble: Option<String>) {
        self.state.lock().trouble = trouble;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.state.lock().trouble.clone()
    }

    /// Whether a look has answered `number`.
    pub(super) fn is_answered(&self, number: u64) -> bool {
        self.state.lock().answered >= number
    }

    /// Whether a look that has begun within so long found all there was.
    pub(super) fn is_fresh(&self, within: Duration) -> bool {
        self.state.lock().fresh.is_some_and(|fresh| world::since(fresh) < within)
    }

    /// Nobody need wait for a look for a while.
    pub(super) fn give_up(&self) {
        self.state.lock().given_up = Some(world::instant());
    }

    pub(super) fn has_given_up(&self, within: Duration) -> bool {
        self.state.lock().given_up.is_some_and(|given_up| world::since(given_up) < within)
    }

    /// Sleeps until there may be news, or for so long.
    pub(super) fn wait(&self, at_most: Duration) {
        let mut state = self.state.lock();
        if !state.stopped {
            self.changed.wait_for(&mut state, at_most);
        }
    }

    /// Sleeps until the look was made that has this number, for so long, or until the end.
    pub(super) fn wait_for(&self, number: u64, at_most: Duration) {
        let mut state = self.state.lock();
        if !state.stopped && state.answered < number {
            self.changed.wait_for(&mut state, at_most);
        }
    }

    /// Sleeps for so long, until somebody asks for a look, or until the end.
    pub(super) fn pause(&self, long: Duration) {
        let mut state = self.state.lock();
        let idle = |state: &mut State| !state.stopped && state.asked == state.taken;
        self.changed.wait_while_for(&mut state, idle, long);
    }
}
