//! Storage in a simulated world: slow, failing, full, ambiguous, and left by processes that are killed, as a disk or a
//! bucket is.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use grizzly_provider::storage::{AppendFile, Error, ErrorKind, ObjectMeta, PutMode, Result, Storage};
use grizzly_wal::{
    storage::ObjectStorage,
    world::{Simulation, sleep},
};
use object_store::memory::InMemory;
use parking_lot::{Mutex, MutexGuard};

use super::{
    append::{Appending, Parts},
    store::{Sent, Store},
    told,
};

/// What a disk loses and keeps as a whole.
const SECTOR: usize = 512;

/// What lies there while processes come and go.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(super) content: Arc<Mutex<Content>>,
    simulation: Simulation,
    pub(super) kind: Kind,
    /// What is written there is encrypted.
    pub(crate) encrypted: bool,
    /// Where [`Kind::Store`] has everything.
    pub(super) store: Arc<InMemory>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder: who writes holds a lock that the system takes back, and what was not synced outlives a process.
    Folder,
    /// A bucket: who seals a log shuts its writer out, and what was not synced is nowhere.
    Bucket,
    /// The same, with the code that makes a storage of an object store, and the store below it.
    Store,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Content {
    objects: BTreeMap<String, Bytes>,
    files: BTreeMap<String, File>,
    /// Who holds the lock, if it is held alone.
    alone: Option<u64>,
    shared: Vec<u64>,
    /// There is no room.
    pub(super) full: bool,
    /// Objects that are under way though whoever sent them is gone, and when they arrive.
    late: Vec<(Duration, String, Bytes, PutMode)>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct File {
    pub(super) synced: Vec<u8>,
    pub(super) unsynced: Vec<u8>,
    pub(super) sealed: bool,
}

/// How storage treats one process. Of a thousand calls so many.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Fail, and nothing was done.
    pub(crate) refused: u64,
    /// Fail, and it was done all the same.
    pub(crate) unheard: u64,
    /// Take long.
    pub(crate) slow: u64,
    /// How long those take at most.
    pub(crate) delay: Duration,
}

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and nothing was done.
    Refused,
    /// It fails, and it was done all the same.
    Unheard,
    /// There is no room for it and for some calls that follow.
    Full,
    /// Half of the object is read.
    Short,
    /// The process is killed before it is done.
    Killed,
    /// The process is killed when it was done.
    KilledAfter,
    /// The power goes out before it is done.
    PowerFailure,
    /// The power goes out when it was done.
    PowerFailureAfter,
}

/// For so many calls there is no room.
const FULL_FOR: usize = 12;

/// The calls of a process, and what is to go wrong with one of them.
#[derive(Debug, Default)]
struct Calls {
    made: Vec<&'static str>,
    fault: Option<(usize, Fault)>,
    /// The process is killed while it sends an object, when it has sent so many others.
    sending: Option<u64>,
}

/// A disk as one process has it.
#[derive(Clone)]
pub(crate) struct Mount {
    pub(crate) disk: Disk,
    number: u64,
    dead: Arc<AtomicBool>,
    weather: Arc<Mutex<Weather>>,
    calls: Arc<Mutex<Calls>>,
    sent: Arc<Mutex<Sent>>,
    client: Option<ObjectStorage>,
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on a {:?}", self.number, self.disk.kind)
    }
}

impl Disk {
    pub(crate) fn new(simulation: &Simulation, kind: Kind) -> Self {
        let (content, simulation, store) = (Arc::default(), simulation.clone(), Arc::default());
        Self { content, simulation, kind, encrypted: false, store }
    }

    /// Another one with all that is there now, and all that is under way.
    pub(crate) fn copy(&self) -> Self {
        let content = Arc::new(Mutex::new(self.content.lock().clone()));
        Self { content, store: Arc::new(self.store.fork()), ..self.clone() }
    }

    /// Lets everything arrive that is under way; whether anything was.
    pub(crate) fn hurry(&self) -> bool {
        let mut content = self.content.lock();
        content.late.iter_mut().for_each(|(at, ..)| *at = Duration::ZERO);
        !content.late.is_empty()
    }

    /// What a new process gets to see.
    pub(crate) fn mount(&self, weather: Weather) -> Mount {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (calls, weather) = (Arc::default(), Arc::new(Mutex::new(weather)));
        let (dead, sent) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Sent>>::default());
        let client = (self.kind == Kind::Store).then(|| {
            let (disk, dead, weather, sent) =
                (self.clone(), Arc::clone(&dead), Arc::clone(&weather), Arc::clone(&sent));
            Store { disk, dead, weather, sent }.client()
        });
        Mount { disk: self.clone(), number, dead, weather, calls, sent, client }
    }

    /// The power goes out: of what was not synced any sectors are there, or none. Nobody has it mounted any more.
    pub(crate) fn power_failure(&self) {
        let mut content = self.content.lock();
        (content.alone, content.shared) = (None, Vec::new());
        for file in content.files.values_mut() {
            let unsynced = std::mem::take(&mut file.unsynced);
            for sector in unsynced.chunks(SECTOR) {
                let kept = match self.simulation.roll(3) {
                    0 => 0,
                    1 => sector.len(),
                    _ => self.simulation.roll(sector.len() as u64 + 1) as usize,
                };
                file.synced.extend_from_slice(&sector[..kept]);
                file.synced.resize(file.synced.len() + sector.len() - kept, 0);
            }
        }
    }

    /// There is no more room, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.content.lock().full = full;
    }

    /// What is there now.
    fn arrived(&self) -> MutexGuard<'_, Content> {
        let arrived = self.late();
        let mut content = self.content.lock();
        for (path, bytes, mode) in arrived {
            if mode == PutMode::Overwrite || !content.objects.contains_key(&path) {
                content.objects.insert(path, bytes);
            }
        }
        content
    }

    /// What has arrived since the last look.
    pub(super) fn late(&self) -> Vec<(String, Bytes, PutMode)> {
        let now = self.simulation.elapsed();
        let mut content = self.content.lock();
        let arrived = content.late.extract_if(.., |(at, ..)| *at <= now);
        arrived.map(|(_, path, bytes, mode)| (path, bytes, mode)).collect()
    }

    /// Whether there is no more room.
    pub(super) fn is_full(&self) -> bool {
        self.content.lock().full
    }

    pub(super) fn roll(&self, end: u64) -> u64 {
        self.simulation.roll(end)
    }

    /// Of a request whose sender is gone nobody knows when it arrives.
    pub(super) fn send(&self, path: &str, bytes: &Bytes, mode: PutMode) {
        if self.kind != Kind::Folder && self.simulation.roll(2) == 0 {
            let arrives = self.simulation.elapsed() + Duration::from_micros(self.simulation.roll(20_000_000));
            self.content.lock().late.push((arrives, path.to_owned(), bytes.clone(), mode));
        }
    }

    /// What a process that was killed held goes back to the system.
    fn release(&self, number: u64) {
        let mut content = self.content.lock();
        content.alone = content.alone.filter(|holder| *holder != number);
        content.shared.retain(|holder| *holder != number);
    }
}

impl Mount {
    /// The process is gone: whatever it has begun does not happen any more, and nothing else does.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.disk.release(self.number);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }

    /// Something is to go wrong with the call that follows so many others.
    pub(crate) fn set_fault(&self, others: usize, fault: Fault) {
        self.calls.lock().fault = Some((others, fault));
    }

    /// It is to be killed while it sends a part of the database, when it has sent so many others.
    pub(crate) fn kill_while_sending(&self, others: u64) {
        self.calls.lock().sending = Some(others);
    }

    /// Checkpoints are stored, and in an object store parts of the log, and it is told that they are not: so many times.
    pub(crate) fn lose_answers(&self, count: u32) {
        self.sent.lock().lose_answers(count);
    }

    /// What it has called.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().made.clone()
    }

    /// What is to go wrong with this call.
    fn fault(&self, what: &'static str, path: &str) -> Option<Fault> {
        let mut calls = self.calls.lock();
        calls.made.push(what);
        if what == "put" && !path.starts_with("lease/") {
            match calls.sending {
                Some(0) => return Some(Fault::Killed),
                others => calls.sending = others.map(|others| others - 1),
            }
            if path.starts_with("manifest/") && self.sent.lock().loses() {
                return Some(Fault::Unheard);
            }
        }
        let (at, fault) = calls.fault?;
        let now = calls.made.len() - 1;
        if fault == Fault::Full && (at..=at + FULL_FOR).contains(&now) {
            self.disk.set_full(now < at + FULL_FOR);
        }
        (now == at).then_some(fault)
    }

    /// Whether it was told that something is not there that it had sent, and could not look.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.sent.lock().in_doubt
    }

    /// The objects that it has read since the last call.
    pub(crate) fn take_read(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.sent.lock().read)
    }

    pub(super) fn alive(&self) -> Result<()> {
        match self.is_dead() {
            true => Err(Error::new(ErrorKind::Io, "the process was killed")),
            false => Ok(()),
        }
    }

    /// A call: it takes time before and after it is done, and either may be when the process is killed.
    pub(super) fn call<R>(
        &self,
        what: &'static str,
        path: &str,
        work: impl FnOnce(&mut Content) -> Result<R>,
    ) -> Result<R> {
        let mut done = false;
        let result = self.attempt(what, path, |content| {
            done = true;
            work(content)
        });
        self.tell(what, path, &result, done);
        result
    }

    fn tell<R>(&self, what: &'static str, path: &str, result: &Result<R>, done: bool) {
        told(&self.disk.simulation, || {
            let done = if done { "" } else { ", not done" };
            format!("process {}: {what} {path}: {:?}{done}", self.number, result.as_ref().err().map(Error::kind))
        });
    }

    /// A call of an object store, or of several requests to it: those it treats as the weather is, and what is sent when the
    /// process is killed may arrive.
    pub(super) fn ask<R>(&self, what: &'static str, path: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
        self.alive()?;
        let fault = self.fault(what, path);
        self.pause();
        if matches!(fault, Some(Fault::Killed | Fault::PowerFailure)) {
            self.kill();
        }
        let result = work();
        if matches!(fault, Some(Fault::KilledAfter | Fault::PowerFailureAfter)) {
            self.kill();
        }
        self.pause();
        self.tell(what, path, &result, true);
        self.alive().and(result)
    }

    fn pause(&self) {
        let (weather, roll) = (*self.weather.lock(), |end: u64| self.disk.simulation.roll(end));
        let longest = if roll(1000) < weather.slow { weather.delay } else { Duration::from_micros(300) };
        sleep(Duration::from_nanos(roll(longest.as_nanos() as u64 + 1)));
    }

    fn attempt<R>(&self, what: &'static str, path: &str, work: impl FnOnce(&mut Content) -> Result<R>) -> Result<R> {
        self.alive()?;
        let fault = self.fault(what, path);
        let (weather, roll) = (*self.weather.lock(), |end: u64| self.disk.simulation.roll(end));
        self.pause();
        self.alive()?;
        if matches!(fault, Some(Fault::Killed | Fault::PowerFailure)) {
            self.kill();
            self.alive()?;
        }
        if roll(1000) < weather.refused || fault == Some(Fault::Refused) {
            return Err(Error::new(ErrorKind::Io, format!("{path}: the connection was refused")));
        }
        let done = work(&mut self.disk.arrived())?;
        if matches!(fault, Some(Fault::KilledAfter | Fault::PowerFailureAfter)) {
            self.kill();
        }
        self.pause();
        self.alive()?;
        if roll(1000) < weather.unheard || fault == Some(Fault::Unheard) {
            return Err(Error::new(ErrorKind::Io, format!("{path}: the connection was reset")));
        }
        Ok(done)
    }
}

impl Content {
    pub(super) fn room(&self, path: &str) -> Result<()> {
        match self.full {
            true => Err(Error::new(ErrorKind::Full, format!("cannot write {path}: no space left on device"))),
            false => Ok(()),
        }
    }

    pub(super) fn file(&mut self, path: &str) -> Result<&mut File> {
        self.files.get_mut(path).ok_or_else(|| missing(path))
    }
}

fn missing(path: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{path} does not exist"))
}

fn exists(path: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{path} already exists"))
}

fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    match folder {
        "" => Some(path),
        folder => path.strip_prefix(folder)?.strip_prefix('/'),
    }
}

impl Storage for Mount {
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> Result<()> {
        if let Some(client) = &self.client {
            return self.ask("put", path, || client.put(path, parts, mode));
        }
        let bytes = Bytes::from(parts.concat());
        let (mut tried, mut done, was_dead) = (false, false, self.is_dead());
        let stored = self.call("put", path, |content| {
            tried = true;
            content.room(path)?;
            if mode == PutMode::Create && content.objects.get(path).is_some_and(|there| *there != bytes) {
                return Err(exists(path));
            }
            content.objects.insert(path.to_owned(), bytes.clone());
            done = true;
            Ok(())
        });
        if !tried && self.is_dead() && !was_dead {
            self.disk.send(path, &bytes, mode);
        }
        if done && stored.is_err() && mode == PutMode::Create && !self.is_dead() {
            self.sent.lock().unheard(path);
            if self.disk.roll(2) == 0 {
                // It was sent again, by whatever is in between, and found itself in its way.
                return Err(exists(path));
            }
        }
        stored
    }

    fn get(&self, path: &str) -> Result<Bytes> {
        let found = match &self.client {
            Some(client) => self.ask("get", path, || client.get(path)),
            None => self.call("get", path, |content| content.objects.get(path).cloned().ok_or_else(|| missing(path))),
        };
        match &found {
            Ok(_) => drop(self.sent.lock().read.insert(path.to_owned())),
            Err(_) => self.sent.lock().not_read(path),
        }
        let object = found?;
        let calls = self.calls.lock();
        let is_short = calls.fault.is_some_and(|(at, fault)| fault == Fault::Short && at + 1 == calls.made.len());
        Ok(if is_short { object.slice(..object.len() / 2) } else { object })
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let object = self.get(path)?;
        match range.start <= range.end && range.end <= object.len() as u64 {
            true => Ok(object.slice(range.start as usize..range.end as usize)),
            false => Err(Error::new(ErrorKind::Invalid, format!("{path} has no bytes {range:?}"))),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        if let Some(client) = &self.client {
            return self.ask("list", prefix, || client.list(prefix));
        }
        self.call("list", prefix, |content| {
            let below = content.objects.iter().filter(|(path, _)| below(path, prefix).is_some());
            Ok(below.map(|(path, bytes)| ObjectMeta { path: path.clone(), size: bytes.len() as u64 }).collect())
        })
    }

    fn remove(&self, path: &str) -> Result<()> {
        if let Some(client) = &self.client {
            return self.ask("remove", path, || client.remove(path));
        }
        self.call("remove", path, |content| {
            content.objects.remove(path);
            Ok(())
        })
    }

    fn create_append(&self, path: &str, preallocate: u64) -> Result<Box<dyn AppendFile>> {
        if let Some(client) = &self.client {
            let file = self.ask("create", path, || client.create_append(path, preallocate))?;
            return Ok(Box::new(Parts { mount: self.clone(), path: path.to_owned(), file }));
        }
        self.call("create", path, |content| {
            content.room(path)?;
            if content.files.contains_key(path) {
                return Err(exists(path));
            }
            content.files.insert(path.to_owned(), File::default());
            Ok(())
        })?;
        Ok(Box::new(Appending { mount: self.clone(), path: path.to_owned(), pending: Vec::new() }))
    }

    fn read_append(&self, path: &str) -> Result<Bytes> {
        if let Some(client) = &self.client {
            return self.ask("read", path, || client.read_append(path));
        }
        self.call("read", path, |content| {
            let file = content.file(path)?;
            let unsynced = std::mem::take(&mut file.unsynced);
            file.synced.extend(unsynced);
            Ok(file.synced.clone().into())
        })
    }

    fn seal_append(&self, path: &str) -> Result<Bytes> {
        if let Some(client) = &self.client {
            return self.ask("seal", path, || client.seal_append(path));
        }
        let kind = self.disk.kind;
        self.call("seal", path, |content| {
            let file = content.file(path)?;
            file.sealed |= kind == Kind::Bucket;
            let unsynced = std::mem::take(&mut file.unsynced);
            file.synced.extend(unsynced);
            Ok(file.synced.clone().into())
        })
    }

    fn list_append(&self, prefix: &str) -> Result<Vec<String>> {
        if let Some(client) = &self.client {
            return self.ask("list", prefix, || client.list_append(prefix));
        }
        self.call("list", prefix, |content| {
            let directly = |path: &&String| below(path, prefix).is_some_and(|name| !name.contains('/'));
            Ok(content.files.keys().filter(directly).cloned().collect())
        })
    }

    fn remove_append(&self, path: &str) -> Result<()> {
        if let Some(client) = &self.client {
            return self.ask("remove", path, || client.remove_append(path));
        }
        self.call("remove", path, |content| {
            content.files.remove(path);
            Ok(())
        })
    }

    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>> {
        self.alive()?;
        let mut content = self.disk.content.lock();
        if content.alone.is_some() || !content.shared.is_empty() {
            return Err(Error::new(ErrorKind::Locked, "another process has it"));
        }
        content.alone = Some(self.number);
        Ok(Box::new(Holding(self.clone())))
    }

    fn lock_shared(&self) -> Result<Box<dyn Any + Send + Sync>> {
        self.alive()?;
        let mut content = self.disk.content.lock();
        if content.alone.is_some() {
            return Err(Error::new(ErrorKind::Locked, "another process has it alone"));
        }
        content.shared.push(self.number);
        Ok(Box::new(Holding(self.clone())))
    }

    fn lock_excludes(&self) -> bool {
        self.disk.kind == Kind::Folder
    }

    fn seal_shuts_out(&self) -> bool {
        self.disk.kind != Kind::Folder
    }

    fn url(&self) -> String {
        "simulated://".into()
    }
}

/// Holds a lock until it goes, or its process does.
struct Holding(Mount);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.disk.release(self.0.number);
    }
}
