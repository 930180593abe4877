//! Locks that a simulation sees: `parking_lot`'s elsewhere.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

use super::simulation::{self, Task};

/// A lock that one holds at a time.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(parking_lot::Mutex<T>);

/// Unlocks when it goes.
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    /// `None` only while a condition is waited for.
    held: Option<parking_lot::MutexGuard<'a, T>>,
}

/// A lock that many hold to read, or one to write.
#[derive(Default)]
pub struct RwLock<T: ?Sized>(parking_lot::RwLock<T>);

/// Unlocks when it goes.
pub struct RwLockReadGuard<'a, T: ?Sized> {
    place: usize,
    held: Option<parking_lot::RwLockReadGuard<'a, T>>,
}

/// Unlocks when it goes.
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    place: usize,
    held: Option<parking_lot::RwLockWriteGuard<'a, T>>,
}

/// Where threads wait for something that others do under a lock.
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

/// What stands for a lock or a condition in a simulation.
fn place<T: ?Sized>(of: &T) -> usize {
    std::ptr::from_ref(of).cast::<()>().addr()
}

/// Tries again and again, whenever what stands in the way was released.
fn acquire<G>(task: &Task, place: usize, mut attempt: impl FnMut() -> Option<G>) -> G {
    task.step();
    loop {
        match attempt() {
            Some(guard) => return guard,
            None => _ = task.block(place, None),
        }
    }
}

fn released(place: usize) {
    if let Some(task) = simulation::current() {
        task.wake_all(place);
    }
}

impl<T> Mutex<T> {
    /// Unlocked.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// What it protected.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks it, and waits for whoever holds it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = match simulation::current() {
            Some(task) => acquire(&task, place(self), || self.0.try_lock()),
            None => self.0.lock(),
        };
        MutexGuard { lock: self, held: Some(held) }
    }

    /// Locks it unless another holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        if let Some(task) = simulation::current() {
            task.step();
        }
        Some(MutexGuard { lock: self, held: Some(self.0.try_lock()?) })
    }

    /// The value, which nobody else has.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect(HELD)
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect(HELD)
    }
}

const HELD: &str = "a guard that can be used holds its lock";

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.held = None;
        released(place(self.lock));
    }
}

impl<T> RwLock<T> {
    /// Unlocked.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Locks it to read.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let held = match simulation::current() {
            Some(task) => acquire(&task, place(self), || self.0.try_read()),
            None => self.0.read(),
        };
        RwLockReadGuard { place: place(self), held: Some(held) }
    }

    /// Locks it to write.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let held = match simulation::current() {
            Some(task) => acquire(&task, place(self), || self.0.try_write()),
            None => self.0.write(),
        };
        RwLockWriteGuard { place: place(self), held: Some(held) }
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect(HELD)
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect(HELD)
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect(HELD)
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.held = None;
        released(self.place);
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.held = None;
        released(self.place);
    }
}

impl Condvar {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    /// Unlocks, waits to be notified, and locks again.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        match simulation::current() {
            Some(task) => _ = self.wait_simulated(&task, guard, None),
            None => self.0.wait(guard.held.as_mut().expect(HELD)),
        }
    }

    /// The same, but not for longer than this.
    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, at_most: Duration) {
        match simulation::current() {
            Some(task) => _ = self.wait_simulated(&task, guard, Some(at_most)),
            None => _ = self.0.wait_for(guard.held.as_mut().expect(HELD), at_most),
        }
    }

    /// Waits while `waits` is true, but not for longer than this.
    pub fn wait_while_for<T: ?Sized>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut waits: impl FnMut(&mut T) -> bool,
        at_most: Duration,
    ) {
        let Some(task) = simulation::current() else {
            self.0.wait_while_for(guard.held.as_mut().expect(HELD), waits, at_most);
            return;
        };
        let end = task.instant() + at_most;
        while waits(guard) {
            let left = end.saturating_duration_since(task.instant());
            if left.is_zero() || !self.wait_simulated(&task, guard, Some(left)) {
                return;
            }
        }
    }

    fn wait_simulated<T: ?Sized>(&self, task: &Task, guard: &mut MutexGuard<'_, T>, at_most: Option<Duration>) -> bool {
        // Nothing runs between the two: whoever notifies holds the lock, or has held it after this.
        guard.held = None;
        task.wake_all(place(guard.lock));
        let notified = task.block(place(self), at_most);
        guard.held = Some(acquire(task, place(guard.lock), || guard.lock.0.try_lock()));
        notified
    }

    /// Wakes one of those who wait.
    pub fn notify_one(&self) {
        match simulation::current() {
            Some(task) => task.wake_one(place(self)),
            None => _ = self.0.notify_one(),
        }
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        match simulation::current() {
            Some(task) => task.wake_all(place(self)),
            None => _ = self.0.notify_all(),
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}
