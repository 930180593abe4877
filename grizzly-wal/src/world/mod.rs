//! Time, threads and locks: what the log and the engine take from the machine besides [`Storage`](crate::Storage). They take
//! it from here alone, so that a test can put a simulation in its place.
//!
//! In a process of its own right these are the standard library's and `parking_lot`'s. Within a [`Simulation`] the same
//! calls are where it decides which thread goes on, and what time it is. That costs others one atomic load for each lock.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "nobody else takes these from the machine")]

mod simulation;
mod sync;

use std::{
    io, thread,
    time::{Duration, Instant, SystemTime},
};

pub use self::{
    simulation::{Group, Simulation, Trace},
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Whether the calling thread is part of a simulation, for the few places that another library's locks are in.
pub fn is_simulated() -> bool {
    simulation::current().is_some()
}

/// The time of day.
pub fn now() -> SystemTime {
    simulation::current().map_or_else(SystemTime::now, |task| task.now())
}

/// A clock that is never set.
pub fn instant() -> Instant {
    simulation::current().map_or_else(Instant::now, |task| task.instant())
}

/// How much time has passed since `earlier`.
pub fn since(earlier: Instant) -> Duration {
    instant().saturating_duration_since(earlier)
}

/// Lets the calling thread sleep.
pub fn sleep(duration: Duration) {
    match simulation::current() {
        Some(task) => task.sleep(duration),
        None => thread::sleep(duration),
    }
}

/// A thread that [`spawn`] has started.
#[derive(Debug)]
pub struct JoinHandle {
    thread: thread::JoinHandle<()>,
    task: Option<simulation::Task>,
}

/// Starts a thread.
///
/// # Errors
/// If the system has no room for another.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
    let builder = thread::Builder::new().name(name.to_owned());
    match simulation::current() {
        Some(current) => {
            let task = current.add(name);
            let thread = builder.spawn({
                let task = task.clone();
                move || task.run(work)
            })?;
            Ok(JoinHandle { thread, task: Some(task) })
        }
        None => Ok(JoinHandle { thread: builder.spawn(work)?, task: None }),
    }
}

impl JoinHandle {
    /// Waits for its end; an error if it panicked.
    pub fn join(self) -> thread::Result<()> {
        if let Some(task) = &self.task {
            task.wait_for_end();
        }
        self.thread.join()
    }

    /// Whether it is the calling thread.
    pub fn is_current(&self) -> bool {
        self.thread.thread().id() == thread::current().id()
    }
}
