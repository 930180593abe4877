//! A storage that crashes, loses and fails by plan, for tests of everything above it.
//!
//! It tells synced bytes from unsynced ones and counts *sync points*: every `put`, `create_append`, `seal_append`,
//! `remove`, `remove_append` and every `sync` of an append file. A plan names one of them as the moment of the crash;
//! that call and all later ones fail. [`FaultyStorage::crash_image`] then is the disk as it is found after the
//! restart: everything synced, and of what was not, a part chosen by the seed.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::memory::{exists, missing, slice};
use super::{AppendFile, MemoryStorage, ObjectMeta, PutMode, Storage, path, process_lock};
use crate::error::{Error, Result};
use crate::world::Mutex;

/// Disks lose and keep whole sectors.
const SECTOR: usize = 512;

/// What happens to the call in whose middle the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashEffect {
    /// Nothing of it reached the disk, nor of anything unsynced.
    Lost,
    /// All of it did, only the caller never heard of it.
    Done,
    /// Of unsynced appends a prefix did. An object is there or not, by the seed.
    Prefix,
    /// Of unsynced appends any sectors did, later ones perhaps without earlier ones, one of them perhaps cut in the
    /// middle. An object is there or not, by the seed.
    Torn,
}

/// What goes wrong, and when. The default is a disk without faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// Crash at this sync point, counted from 0, with this effect.
    pub crash: Option<(u64, CrashEffect)>,
    /// The writing call (sync point or append) of this number, counted from 0, fails once with an I/O error. If it is
    /// a sync, what it should have made durable is lost.
    pub fail_call: Option<u64>,
    /// The disk is full when this many bytes are stored.
    pub capacity: Option<u64>,
    /// Nothing can be written, created or removed.
    pub read_only: bool,
    /// Decides what a crash leaves of unsynced data.
    pub seed: u64,
}

/// See the module's description. Clones share the disk.
#[derive(Debug, Clone)]
pub struct FaultyStorage {
    disk: Arc<Mutex<Disk>>,
    lock_key: String,
}

#[derive(Debug, Default)]
struct Disk {
    plan: FaultPlan,
    objects: BTreeMap<String, Bytes>,
    files: BTreeMap<String, File>,
    sync_points: u64,
    calls: u64,
    crashed: bool,
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    unsynced: Vec<u8>,
    /// Zeros that follow, as preallocation leaves them.
    reserved: usize,
    sealed: bool,
}

/// How a call that writes goes on.
#[derive(PartialEq, Eq)]
enum Course {
    Normal,
    /// Take effect, then report the crash.
    ThenCrash,
}

impl FaultyStorage {
    /// An empty disk that will fail as planned.
    pub fn new(plan: FaultPlan) -> Self {
        let disk = Arc::new(Mutex::new(Disk { plan, ..Disk::default() }));
        let lock_key = format!("faulty:#{:p}", Arc::as_ptr(&disk));
        Self { disk, lock_key }
    }

    /// Replaces the plan; counters go on.
    pub fn arm(&self, plan: FaultPlan) {
        self.disk.lock().plan = plan;
    }

    /// Sync points so far. A run without faults tells how many crashes there are to try.
    pub fn sync_points(&self) -> u64 {
        self.disk.lock().sync_points
    }

    /// Writing calls so far, for [`FaultPlan::fail_call`].
    pub fn calls(&self) -> u64 {
        self.disk.lock().calls
    }

    /// Whether the planned crash has happened.
    pub fn crashed(&self) -> bool {
        self.disk.lock().crashed
    }

    /// The disk as found after power came back, healthy from now on. Without a crash in the plan's past, the power
    /// goes out at this moment.
    pub fn crash_image(&self) -> Arc<dyn Storage> {
        let disk = self.disk.lock();
        let effect = disk.plan.crash.map_or(CrashEffect::Lost, |(_, effect)| effect);
        let mut dice = Dice::new(disk.plan.seed);
        let survives = |(path, file): (&String, &File)| (path.clone(), file.after_crash(effect, &mut dice));
        let files = disk.files.iter().map(survives).collect();
        Arc::new(MemoryStorage::with_content(disk.objects.clone(), files))
    }

    /// Changes stored bytes of an append file, as a bad disk does. `change` gets what is durable.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut disk = self.disk.lock();
        let file = disk.files.get_mut(path).ok_or_else(|| missing(path))?;
        change(&mut file.synced);
        Ok(())
    }
}

impl Disk {
    fn io_error(what: &str, place: &str) -> Error {
        Error::io(what, place, io::Error::other("injected fault"))
    }

    fn alive(&self, what: &str, place: &str) -> Result<()> {
        if self.crashed {
            return Err(Error::io(what, place, io::Error::other("the machine has crashed")));
        }
        Ok(())
    }

    /// Counts a writing call that is no sync point; it may be the one to fail.
    fn count_call(&mut self, what: &str, place: &str) -> Result<()> {
        self.alive(what, place)?;
        if self.plan.read_only {
            return Err(Error::io(what, place, io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        self.calls += 1;
        if self.plan.fail_call == Some(self.calls - 1) {
            return Err(Self::io_error(what, place));
        }
        Ok(())
    }

    /// Counts a sync point; it may be the one to fail, or the last one.
    fn sync_point(&mut self, what: &str, place: &str) -> Result<Course> {
        self.count_call(what, place)?;
        self.sync_points += 1;
        let Some((point, effect)) = self.plan.crash else {
            return Ok(Course::Normal);
        };
        if point != self.sync_points - 1 {
            return Ok(Course::Normal);
        }
        self.crashed = true;
        let done = match effect {
            CrashEffect::Lost => false,
            CrashEffect::Done => true,
            CrashEffect::Prefix | CrashEffect::Torn => Dice::new(self.plan.seed ^ point).roll(2) == 0,
        };
        // What an append file keeps of its unsynced bytes is decided when the image is taken.
        if done { Ok(Course::ThenCrash) } else { Err(Self::io_error(what, place)) }
    }

    fn finish(course: Course, what: &str, place: &str) -> Result<()> {
        if course == Course::ThenCrash { Err(Self::io_error(what, place)) } else { Ok(()) }
    }

    fn room_for(&self, more: usize, place: &str) -> Result<()> {
        let objects: usize = self.objects.values().map(Bytes::len).sum();
        let files: usize = self.files.values().map(|file| file.synced.len() + file.unsynced.len()).sum();
        match self.plan.capacity {
            Some(capacity) if (objects + files + more) as u64 > capacity => {
                Err(Error::io("write", place, io::ErrorKind::StorageFull.into()))
            }
            _ => Ok(()),
        }
    }
}

impl File {
    fn after_crash(&self, effect: CrashEffect, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let unsynced = &self.unsynced;
        match effect {
            CrashEffect::Lost => {}
            CrashEffect::Done => bytes.extend_from_slice(unsynced),
            CrashEffect::Prefix => bytes.extend_from_slice(&unsynced[..dice.roll(unsynced.len() + 1)]),
            CrashEffect::Torn => {
                for sector in unsynced.chunks(SECTOR) {
                    let kept = match dice.roll(3) {
                        0 => 0,
                        1 => sector.len(),
                        _ => dice.roll(sector.len() + 1),
                    };
                    bytes.extend_from_slice(&sector[..kept]);
                    bytes.resize(bytes.len() + sector.len() - kept, 0);
                }
            }
        }
        bytes.resize(bytes.len() + self.reserved, 0);
        bytes
    }
}

impl Storage for FaultyStorage {
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> Result<()> {
        path::check(path)?;
        let mut disk = self.disk.lock();
        let course = disk.sync_point("write", path)?;
        let bytes = Bytes::from(parts.concat());
        disk.room_for(bytes.len(), path)?;
        if mode == PutMode::Create && disk.objects.contains_key(path) {
            return Err(exists(path));
        }
        disk.objects.insert(path.to_owned(), bytes);
        Disk::finish(course, "write", path)
    }

    fn get(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        let disk = self.disk.lock();
        disk.alive("read", path)?;
        disk.objects.get(path).cloned().ok_or_else(|| missing(path))
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        slice(&self.get(path)?, path, range)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let folder = path::check_folder(prefix)?;
        let disk = self.disk.lock();
        disk.alive("list", prefix)?;
        let below = disk.objects.iter().filter(|(path, _)| path::below(path, folder).is_some());
        Ok(below.map(|(path, bytes)| ObjectMeta { path: path.clone(), size: bytes.len() as u64 }).collect())
    }

    fn remove(&self, path: &str) -> Result<()> {
        path::check(path)?;
        let mut disk = self.disk.lock();
        let course = disk.sync_point("remove", path)?;
        disk.objects.remove(path);
        Disk::finish(course, "remove", path)
    }

    fn create_append(&self, path: &str, preallocate: u64) -> Result<Box<dyn AppendFile>> {
        path::check(path)?;
        let mut disk = self.disk.lock();
        let course = disk.sync_point("create", path)?;
        if disk.files.contains_key(path) {
            return Err(exists(path));
        }
        let reserved = preallocate.min(4 * SECTOR as u64) as usize;
        disk.files.insert(path.to_owned(), File { reserved, ..File::default() });
        Disk::finish(course, "create", path)?;
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.disk), path: path.to_owned() }))
    }

    fn read_append(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        let disk = self.disk.lock();
        disk.alive("read", path)?;
        let file = disk.files.get(path).ok_or_else(|| missing(path))?;
        Ok(file.synced.clone().into())
    }

    fn seal_append(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        let mut disk = self.disk.lock();
        let course = disk.sync_point("seal", path)?;
        let file = disk.files.get_mut(path).ok_or_else(|| missing(path))?;
        file.sealed = true;
        let bytes = file.synced.clone().into();
        Disk::finish(course, "seal", path)?;
        Ok(bytes)
    }

    fn list_append(&self, prefix: &str) -> Result<Vec<String>> {
        let folder = path::check_folder(prefix)?;
        let disk = self.disk.lock();
        disk.alive("list", prefix)?;
        let directly = |path: &&String| path::below(path, folder).is_some_and(|name| !name.contains('/'));
        Ok(disk.files.keys().filter(directly).cloned().collect())
    }

    fn remove_append(&self, path: &str) -> Result<()> {
        path::check(path)?;
        let mut disk = self.disk.lock();
        let course = disk.sync_point("remove", path)?;
        disk.files.remove(path);
        Disk::finish(course, "remove", path)
    }

    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>> {
        process_lock::acquire(&self.lock_key)
    }

    fn lock_shared(&self) -> Result<Box<dyn Any + Send + Sync>> {
        process_lock::acquire_shared(&self.lock_key)
    }

    fn seal_shuts_out(&self) -> bool {
        true
    }

    fn url(&self) -> String {
        "faulty://".into()
    }
}

/// The writing end of an append file on a faulty disk.
struct FaultyFile {
    disk: Arc<Mutex<Disk>>,
    path: String,
}

impl AppendFile for FaultyFile {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.alive("append to", &self.path)?;
        let fits = disk.count_call("append to", &self.path).and_then(|()| disk.room_for(data.len(), &self.path));
        let file = disk.files.get_mut(&self.path).ok_or_else(|| missing(&self.path))?;
        // Of an append that fails, a part is there.
        let written = if fits.is_ok() { data.len() } else { data.len() / 2 };
        file.unsynced.extend_from_slice(&data[..written]);
        fits
    }

    fn withdraw(&mut self) -> Result<()> {
        let mut disk = self.disk.lock();
        let course = disk.sync_point("withdraw from", &self.path)?;
        let file = disk.files.get_mut(&self.path).ok_or_else(|| missing(&self.path))?;
        file.unsynced.clear();
        file.reserved = 0;
        Disk::finish(course, "withdraw from", &self.path)
    }

    fn sync(&mut self) -> Result<()> {
        let mut disk = self.disk.lock();
        let course = disk.sync_point("sync", &self.path);
        let crashed = disk.crashed;
        let file = disk.files.get_mut(&self.path).ok_or_else(|| missing(&self.path))?;
        if file.sealed {
            return Err(super::memory::taken_over(&self.path));
        }
        match course {
            Ok(course) => {
                let mut unsynced = std::mem::take(&mut file.unsynced);
                file.synced.append(&mut unsynced);
                Disk::finish(course, "sync", &self.path)
            }
            Err(error) => {
                // A crash keeps what it keeps; a sync that failed once has dropped what it should have written.
                if !crashed {
                    file.unsynced.clear();
                }
                Err(error)
            }
        }
    }
}

/// A small generator of numbers (xorshift), so that a seed always gives the same disk.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % sides.max(1) as u64) as usize
    }
}
