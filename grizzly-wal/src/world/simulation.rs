//! Threads that run one at a time, in an order and at times that follow from one seed.
//!
//! Each is a thread of the operating system and waits for its turn. Whoever has it passes it on at every lock, wait, sleep
//! and call of storage, to any that can go on. Time passes a microsecond at a step, and when all wait for time, up to the
//! first that waits no longer. The way is that of FoundationDB's simulator (Zhou et al., SIGMOD 2021), with threads where
//! that has actors.

use std::{
    any::Any,
    cell::RefCell,
    fmt::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How many simulations there are in this process: whoever is in none finds it out by one load.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CURRENT: RefCell<Option<Task>> = const { RefCell::new(None) };
}

/// How long a step takes.
const STEP: Duration = Duration::from_micros(1);
/// A simulation that goes on for so many steps, or so much of its time, never ends.
const STEPS: u64 = 200_000_000;
const AGES: Duration = Duration::from_secs(30 * 24 * 3600);

/// A world in which everything that runs is decided by a seed.
#[derive(Debug, Clone)]
pub struct Simulation(Arc<Shared>);

/// Threads that stand still and go on together, as those of a process.
#[derive(Debug, Clone)]
pub struct Group {
    simulation: Simulation,
    number: usize,
}

/// What a simulation did. Two with one seed did the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Turns that were passed on or kept.
    pub steps: u64,
    /// A hash of all decisions.
    pub hash: u64,
    /// The time that passed in it.
    pub elapsed: Duration,
}

struct Shared {
    seed: u64,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    dice: u64,
    clock: Duration,
    /// What was added to the time of day.
    ahead: Duration,
    behind: Duration,
    tasks: Vec<TaskState>,
    /// By group.
    frozen: Vec<bool>,
    turn: usize,
    trace: Trace,
}

struct TaskState {
    name: String,
    group: usize,
    course: Course,
    /// The last wait ended because it was notified.
    notified: bool,
    turn: Arc<Condvar>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Ready,
    /// Until what is at this place is released or notified, or until then.
    Waiting(usize, Option<Duration>),
    Ended,
}

/// A thread of a simulation.
#[derive(Clone)]
pub(super) struct Task {
    shared: Arc<Shared>,
    id: usize,
}

/// The calling thread, if it is part of a simulation.
#[inline]
pub(super) fn current() -> Option<Task> {
    if RUNNING.load(Ordering::Relaxed) == 0 {
        return None;
    }
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

impl Simulation {
    /// Runs `work` as the first thread of a world whose every decision follows from `seed`, and waits for all threads that
    /// are started in it.
    ///
    /// If one of them panics, or none can go on, that is printed with the seed, and the process ends: threads that stand
    /// still in the middle of something cannot be cleared away.
    pub fn run(seed: u64, work: impl FnOnce(&Self)) -> Trace {
        RUNNING.fetch_add(1, Ordering::Relaxed);
        let state = State {
            dice: seed ^ 0x9E37_79B9_7F4A_7C15,
            clock: Duration::ZERO,
            ahead: Duration::ZERO,
            behind: Duration::ZERO,
            tasks: Vec::new(),
            frozen: vec![false],
            turn: 0,
            trace: Trace { steps: 0, hash: seed, elapsed: Duration::ZERO },
        };
        let shared = Arc::new(Shared { seed, began: Instant::now(), state: Mutex::new(state) });
        let simulation = Self(Arc::clone(&shared));
        let task = shared.add("main", 0);
        CURRENT.set(Some(task.clone()));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&simulation))) {
            shared.fail(&format!("thread main panicked: {}", said(panic.as_ref())));
        }
        while shared.state().tasks.iter().skip(1).any(|task| task.course != Course::Ended) {
            task.sleep(Duration::from_millis(10));
        }
        CURRENT.set(None);
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        let state = shared.state();
        Trace { elapsed: state.clock, ..state.trace }
    }

    /// A number below `end` that follows from the seed.
    pub fn roll(&self, end: u64) -> u64 {
        self.0.state().roll(end)
    }

    /// A new group without threads.
    pub fn group(&self) -> Group {
        let mut state = self.0.state();
        state.frozen.push(false);
        Group { simulation: self.clone(), number: state.frozen.len() - 1 }
    }

    /// Sets the time of day forward, or back. What never goes back is not touched.
    pub fn set_clock(&self, forward: bool, by: Duration) {
        let mut state = self.0.state();
        if forward { state.ahead += by } else { state.behind += by }
    }

    /// The time that has passed.
    pub fn elapsed(&self) -> Duration {
        self.0.state().clock
    }
}

impl Group {
    /// Starts a thread in the group; those that it starts are of the group, too.
    pub fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> super::JoinHandle {
        let task = self.simulation.0.add(name, self.number);
        let run = {
            let task = task.clone();
            move || task.run(work)
        };
        match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
            Ok(thread) => super::JoinHandle { thread, task: Some(task) },
            Err(error) => self.simulation.0.fail(&format!("thread {name} cannot be started: {error}")),
        }
    }

    /// Lets all its threads stand still, wherever they are.
    pub fn freeze(&self) {
        self.simulation.0.state().frozen[self.number] = true;
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.simulation.0.state().frozen[self.number] = false;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, name: &str, group: usize) -> Task {
        let mut state = self.state();
        let name = name.to_owned();
        state.tasks.push(TaskState { name, group, course: Course::Ready, notified: false, turn: Arc::default() });
        Task { shared: Arc::clone(self), id: state.tasks.len() - 1 }
    }

    /// Ends the process, and says why.
    fn fail(&self, why: &str) -> ! {
        // Whoever fails may hold it.
        self.end(why, self.state.try_lock().ok().as_deref())
    }

    fn end(&self, why: &str, state: Option<&State>) -> ! {
        let mut report = format!("simulation with seed {} failed: {why}\n", self.seed);
        if let Some(state) = state {
            state.describe(&mut report);
        }
        eprintln!("{report}");
        std::process::exit(101);
    }
}

impl State {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn roll(&mut self, end: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// Decides who goes on; `Err` if nobody ever will.
    fn choose(&mut self) -> Result<usize, &'static str> {
        self.trace.steps += 1;
        self.clock += STEP;
        if self.trace.steps > STEPS || self.clock > AGES {
            return Err("it does not end");
        }
        loop {
            let clock = self.clock;
            let mut first: Option<Duration> = None;
            let mut ready = Vec::with_capacity(self.tasks.len());
            for (id, task) in self.tasks.iter_mut().enumerate() {
                if self.frozen[task.group] {
                    continue;
                }
                if let Course::Waiting(_, Some(until)) = task.course {
                    if until <= clock {
                        task.course = Course::Ready;
                    } else {
                        first = Some(first.map_or(until, |first| first.min(until)));
                    }
                }
                if task.course == Course::Ready {
                    ready.push(id);
                }
            }
            if !ready.is_empty() {
                let chosen = ready[self.roll(ready.len() as u64) as usize];
                self.trace.hash = (self.trace.hash ^ chosen as u64).wrapping_mul(0x0000_0100_0000_01B3);
                return Ok(chosen);
            }
            self.clock = first.ok_or("nobody can go on")?;
        }
    }

    fn describe(&self, report: &mut String) {
        let _ = writeln!(report, "after {:?} and {} steps:", self.clock, self.trace.steps);
        for (id, task) in self.tasks.iter().enumerate().filter(|(_, task)| task.course != Course::Ended) {
            let frozen = if self.frozen[task.group] { ", frozen" } else { "" };
            let turn = if self.turn == id { ", its turn" } else { "" };
            let _ = writeln!(report, "  {} of group {}: {:?}{frozen}{turn}", task.name, task.group, task.course);
        }
    }
}

impl Task {
    pub(super) fn now(&self) -> SystemTime {
        /// Any day will do, if it is not before the first of anything.
        const START: Duration = Duration::from_secs(1_800_000_000);
        let state = self.shared.state();
        UNIX_EPOCH + START + state.clock + state.ahead - state.behind.min(START)
    }

    pub(super) fn instant(&self) -> Instant {
        self.shared.began + self.shared.state().clock
    }

    pub(super) fn sleep(&self, duration: Duration) {
        self.block(0, Some(duration));
    }

    /// Lets others have their turn.
    pub(super) fn step(&self) {
        self.pass_on(self.shared.state());
    }

    /// Waits until somebody wakes those at `place`, or for so long; whether it was woken.
    pub(super) fn block(&self, place: usize, at_most: Option<Duration>) -> bool {
        let mut state = self.shared.state();
        let until = at_most.map(|at_most| state.clock + at_most);
        let task = &mut state.tasks[self.id];
        (task.course, task.notified) = (Course::Waiting(place, until), false);
        self.pass_on(state);
        self.shared.state().tasks[self.id].notified
    }

    pub(super) fn wake_all(&self, place: usize) {
        let mut state = self.shared.state();
        state.tasks.iter_mut().filter(|task| task.is_at(place)).for_each(TaskState::wake);
    }

    pub(super) fn wake_one(&self, place: usize) {
        let mut state = self.shared.state();
        let waiting: Vec<usize> = (0..state.tasks.len()).filter(|id| state.tasks[*id].is_at(place)).collect();
        if !waiting.is_empty() {
            let chosen = waiting[state.roll(waiting.len() as u64) as usize];
            state.tasks[chosen].wake();
        }
    }

    /// A thread that this one starts.
    pub(super) fn add(&self, name: &str) -> Self {
        let group = self.shared.state().tasks[self.id].group;
        self.shared.add(name, group)
    }

    /// What a thread does: waits for its first turn, works, and passes its last one on.
    pub(super) fn run(self, work: impl FnOnce()) {
        CURRENT.set(Some(self.clone()));
        drop(self.await_turn(self.shared.state()));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let name = self.shared.state().tasks[self.id].name.clone();
            self.shared.fail(&format!("thread {name} panicked: {}", said(panic.as_ref())));
        }
        // What the thread has kept for itself goes after its end, when it must not ask for a turn any more.
        CURRENT.set(None);
        let mut state = self.shared.state();
        state.tasks[self.id].course = Course::Ended;
        let place = self.end();
        state.tasks.iter_mut().filter(|task| task.is_at(place)).for_each(TaskState::wake);
        self.hand_over(&mut state);
    }

    pub(super) fn wait_for_end(&self) {
        let Some(task) = current() else { return };
        while self.shared.state().tasks[self.id].course != Course::Ended {
            task.block(self.end(), None);
        }
    }

    /// Where those wait that wait for its end. No lock has this address.
    fn end(&self) -> usize {
        usize::MAX - self.id
    }

    fn pass_on(&self, mut state: MutexGuard<'_, State>) {
        if state.turn != self.id {
            drop(state);
            self.shared.fail("a thread goes on though it is another's turn");
        }
        if self.hand_over(&mut state) != self.id {
            drop(self.await_turn(state));
        }
    }

    fn hand_over(&self, state: &mut State) -> usize {
        match state.choose() {
            Ok(next) => {
                state.turn = next;
                if next != self.id {
                    state.tasks[next].turn.notify_one();
                }
                next
            }
            Err(why) => self.shared.end(why, Some(state)),
        }
    }

    fn await_turn<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let turn = Arc::clone(&state.tasks[self.id].turn);
        while state.turn != self.id {
            state = turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}

impl TaskState {
    fn is_at(&self, place: usize) -> bool {
        matches!(self.course, Course::Waiting(at, _) if at == place)
    }

    fn wake(&mut self) {
        (self.course, self.notified) = (Course::Ready, true);
    }
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("id", &self.id).finish_non_exhaustive()
    }
}
