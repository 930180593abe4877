//! What holds readers of untrusted bytes to their promise: no panic, no hang, and no more memory than ten times what they
//! were given. Tests of the log, the engine and the server share it, and fuzzers call what they call.
//!
//! A *case* is a few bytes that say how a sound file is to be damaged, see [`Choices`]; the same case does the same again.
//! By default each test runs some hundred cases that are always the same. Three variables change that:
//!
//! - `GRIZZLY_UNTRUSTED_CASES`: so many cases per test, each another time.
//! - `GRIZZLY_UNTRUSTED_SECONDS`: new cases per test, for so long.
//! - `GRIZZLY_UNTRUSTED_CASE`: this case alone, in hexadecimal, as a failure prints it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// What reading may take beside ten times its input: a decoder's tables and window, buffers of a log that is opened, and
/// messages of errors. Independent of what is read.
pub(crate) const CONSTANT: usize = 1 << 20;
/// What reading may take for each byte that it was given.
pub(crate) const FACTOR: usize = 10;
/// Whatever is read here takes milliseconds; a machine that does much else at once is no hang.
const HANG: Duration = Duration::from_secs(60);
/// Bytes of a case, at most.
const LONGEST_CASE: usize = 72;

/// An allocator that knows how many bytes are in use. A test binary makes it its global one.
#[derive(Debug)]
pub(crate) struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn take(bytes: usize) {
    MOST.fetch_max(IN_USE.fetch_add(bytes, Ordering::Relaxed) + bytes, Ordering::Relaxed);
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is ours.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        take(new_size);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is ours.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// The bytes of a case, taken one after the other; zeros when there are no more.
#[derive(Debug, Clone)]
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(case: &'a [u8]) -> Self {
        Self(case)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was not taken yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn bit(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = (0..4).fold(0_u64, |number, _| number << 8 | u64::from(self.byte()));
        usize::try_from((number * end as u64) >> 32).unwrap_or_default()
    }

    /// A number that lengths, counts and offsets are not meant to be.
    pub(crate) fn odd_number(&mut self, len: usize) -> u64 {
        let len = len as u64;
        let numbers = [
            0,
            1,
            u64::MAX,
            u64::MAX - 1,
            1 << 63,
            i64::MAX as u64,
            1 << 32,
            u64::from(u32::MAX),
            1 << 31,
            u64::from(u32::MAX) - 1,
            1 << 30,
            0x7FFF_FFFF,
            u64::MAX - 47,
            u64::MAX / 8,
            65_535,
            65_536,
            len,
            len + 1,
            len.saturating_sub(1),
            len / 2,
            1 << 24,
        ];
        let choice = self.byte();
        numbers.get(usize::from(choice) % 32).copied().unwrap_or_else(|| u64::from(self.byte()))
    }
}

/// Texts that names, paths and identities are not meant to be.
const ODD_TEXTS: [&str; 12] = [
    "",
    "../x",
    "/etc/passwd",
    "data/../../x",
    "LOCK",
    "data/00000001.seg",
    "log/0000000001.log",
    "data/ffffffff.e18446744073709551615-4294967295.idx",
    "\\u0000",
    "ä€😀",
    "data/ÿ0000001ÿ.seg",
    "00000000-0000-0000-0000-000000000000",
];
const ODD_JSON: [&str; 12] = [
    "18446744073709551615",
    "18446744073709551614",
    "9223372036854775807",
    "4294967295",
    "4294967296",
    "4294901760",
    "-1",
    "0",
    "1e308",
    "null",
    "[]",
    "{}",
];

/// Damages `bytes` as the choices say, some places at most; `other` is a file of the same kind.
pub(crate) fn damage(bytes: &mut Vec<u8>, other: &[u8], choices: &mut Choices<'_>) {
    let mut steps = usize::from(choices.byte() % 4) + 1;
    while steps > 0 && !choices.is_empty() {
        steps -= 1;
        damage_once(bytes, other, choices);
    }
}

fn damage_once(bytes: &mut Vec<u8>, other: &[u8], choices: &mut Choices<'_>) {
    let kind = choices.byte() % 16;
    let at = choices.below(bytes.len().max(1));
    let end = bytes.len().min(at + 1 + choices.clone().below(64));
    // Flipped bits seldom leave JSON that can be read.
    if bytes.first() == Some(&b'{') && choices.bit() {
        return odd_json(bytes, at, choices);
    }
    match kind {
        0 | 1 => change(bytes, at, |byte| byte ^ (1 << (choices.byte() % 8))),
        2 => change(bytes, at, |_| 0),
        3 => change(bytes, at, |_| 0xFF),
        4 => change(bytes, at, |_| choices.byte()),
        // Numbers stand where their size divides the place, mostly.
        5..=7 => {
            let size = [2, 4, 8][usize::from(choices.byte() % 3)];
            let number = choices.odd_number(bytes.len()).to_le_bytes();
            let at = if choices.bit() { at } else { at - at % size };
            bytes.iter_mut().skip(at).zip(&number[..size]).for_each(|(byte, new)| *byte = *new);
        }
        8 => drop(bytes.drain(at.min(bytes.len())..end)),
        9 => {
            let part = bytes.get(at..end).unwrap_or_default().to_vec();
            bytes.splice(at.min(bytes.len())..at.min(bytes.len()), part);
        }
        10 => bytes.iter_mut().take(end).skip(at).for_each(|byte| *byte = 0),
        11 => bytes.truncate(at),
        12 => {
            let from = choices.below(other.len().max(1));
            let part = other.get(from..other.len().min(from + (end - at.min(end)))).unwrap_or_default();
            bytes.splice(at.min(bytes.len())..at.min(bytes.len()), part.iter().copied());
        }
        13 => {
            let part = other.iter().skip(at).copied();
            bytes.truncate(at);
            bytes.extend(part);
        }
        14 => odd_json(bytes, at, choices),
        _ => bytes.extend_from_slice(&other[..other.len().min(1 + usize::from(choices.byte()))]),
    }
}

fn change(bytes: &mut [u8], at: usize, new: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = new(*byte);
    }
}

/// Puts another number, or another text, in the place of the next one behind `at`.
fn odd_json(bytes: &mut Vec<u8>, at: usize, choices: &mut Choices<'_>) {
    let wanted = |byte: &u8| byte.is_ascii_digit() || *byte == b'"';
    let Some(start) = bytes.iter().skip(at).position(wanted).map(|found| at + found) else { return };
    let choice = usize::from(choices.byte());
    if bytes[start] == b'"' {
        let end = bytes[start + 1..].iter().position(|byte| *byte == b'"').map_or(bytes.len(), |len| start + 1 + len);
        bytes.splice(start + 1..end, ODD_TEXTS[choice % ODD_TEXTS.len()].bytes());
    } else {
        let len = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        bytes.splice(start..start + len, ODD_JSON[choice % ODD_JSON.len()].bytes());
    }
}

/// The case under work, for the watch and for failures.
static AT_WORK: Mutex<Option<(String, Instant)>> = Mutex::new(None);
/// One case at a time: memory is counted for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Bytes that nobody vouches for are being read.
static WATCHED: AtomicBool = AtomicBool::new(false);
/// What fails is told when the shortest case is known.
static QUIET: AtomicBool = AtomicBool::new(false);
static ONCE: Once = Once::new();

thread_local! {
    static CASE: Cell<Option<String>> = const { Cell::new(None) };
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Begins to watch for hangs, and for panics of any thread while a case is at work.
fn watch() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if WATCHED.load(Ordering::Relaxed) {
            locked(&PANICS).push(info.to_string());
        } else if !QUIET.load(Ordering::Relaxed) {
            before(info);
        }
    }));
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(HANG / 60);
            let at_work = locked(&AT_WORK);
            if let Some((case, begun)) = at_work.as_ref()
                && begun.elapsed() > HANG
            {
                eprintln!("a case hangs: {case}");
                std::process::exit(101);
            }
        }
    });
}

/// Reads untrusted bytes with `read`, which were `input` bytes.
///
/// # Panics
/// If `read` panics, in whatever thread, does not come back, or takes too much memory.
pub(crate) fn holds<T>(input: usize, read: impl FnOnce() -> T) -> T {
    ONCE.call_once(watch);
    let case = CASE.take();
    *locked(&AT_WORK) = Some((case.clone().unwrap_or_default(), Instant::now()));
    CASE.set(case);
    let before = IN_USE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    WATCHED.store(true, Ordering::Relaxed);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    WATCHED.store(false, Ordering::Relaxed);
    let took = MOST.load(Ordering::Relaxed).saturating_sub(before);
    *locked(&AT_WORK) = None;
    let panics = std::mem::take(&mut *locked(&PANICS));
    let ours: Vec<_> = panics.into_iter().filter(|panic| outcome.is_err() || !is_foreign(panic)).collect();
    assert!(ours.is_empty(), "{}", ours.join("; "));
    let limit = FACTOR * input + CONSTANT;
    assert!(took <= limit, "reading {input} bytes took {took} bytes of memory, more than {limit}");
    match outcome {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs what makes no cases of its own.
pub(crate) fn alone(check: impl FnOnce()) {
    let _alone = locked(&ONE_AT_A_TIME);
    check();
}

/// What `read` returns, and how much memory it takes at most.
pub(crate) fn took<T>(read: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = read();
    (result, MOST.load(Ordering::Relaxed).saturating_sub(before))
}

/// Whether a library's decoder panicked, which its caller has made an error of.
fn is_foreign(panic: &str) -> bool {
    panic.contains("/registry/src/") || panic.contains("/rustc/")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs `check` on many cases; see the top of this file for how many, and which.
///
/// # Panics
/// With the shortest case that fails, in hexadecimal.
pub(crate) fn run(name: &str, cases: u32, check: impl Fn(&[u8])) {
    let _alone = locked(&ONE_AT_A_TIME);
    if let Some(hex) = variable("GRIZZLY_UNTRUSTED_CASE") {
        return check(&from_hex(&hex));
    }
    let seconds = variable("GRIZZLY_UNTRUSTED_SECONDS").and_then(|seconds| seconds.parse().ok());
    let asked = variable("GRIZZLY_UNTRUSTED_CASES").and_then(|cases| cases.parse().ok());
    let begun = Instant::now();
    let mut done = 0;
    loop {
        let config = Config { cases: asked.unwrap_or(cases), failure_persistence: None, ..Config::default() };
        let mut runner = match (seconds, asked) {
            (None, None) => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
            _ => TestRunner::new(config),
        };
        done += runner.config().cases;
        one_round(name, &mut runner, &check);
        if seconds.is_none_or(|seconds| begun.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    println!("{name}: {done} cases in {:.1} s", begun.elapsed().as_secs_f64());
}

fn one_round(name: &str, runner: &mut TestRunner, check: &impl Fn(&[u8])) {
    let strategy = proptest::collection::vec(any::<u8>(), 0..LONGEST_CASE);
    ONCE.call_once(watch);
    QUIET.store(true, Ordering::Relaxed);
    let outcome = runner.run(&strategy, |case| {
        CASE.set(Some(format!("{name} {}", to_hex(&case))));
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&case)));
        outcome.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            TestCaseError::fail(text.unwrap_or_default())
        })
    });
    QUIET.store(false, Ordering::Relaxed);
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => {
            let hex = to_hex(&case);
            let again = format!("GRIZZLY_UNTRUSTED_CASE={hex} does it again in test {name}");
            assert!(case.len() > LONGEST_CASE, "{reason}; {again}");
        }
        Err(TestError::Abort(reason)) => assert!(name.is_empty(), "{name} could not go on: {reason}"),
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |at: usize| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..hex.len()).step_by(2).filter_map(digit).collect()
}

/// Holds this to what it is to hold others to.
///
/// # Panics
/// If too much memory, or a panic of another thread, is not noticed.
pub(crate) fn check_itself() {
    alone(|| {
        let (_, bytes) = took(|| vec![1_u8; 3 << 20].len());
        assert!(bytes >= 3 << 20);
        QUIET.store(true, Ordering::Relaxed);
        let too_much = catch_unwind(|| holds(100, || vec![1_u8; CONSTANT + 2000].len()));
        let panics = catch_unwind(|| holds(100, || assert!(std::thread::spawn(|| assert_eq!(1, 2)).join().is_err())));
        QUIET.store(false, Ordering::Relaxed);
        assert!(too_much.is_err() && panics.is_err());
        assert_eq!(holds(100, || vec![1_u8; CONSTANT].len()), CONSTANT);
    });
}
