//! Storage in a local folder.
//!
//! An object is written to a temporary file, synced, and then given its name: by rename, or by a hard link where the
//! name must be new. The folder is synced too, or a power failure could take the name away again. Temporary files
//! stand in one folder, `.tmp`, which the next writer empties.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::memory::outside;
use super::path::{self, LOCK_NAME};
use super::{AppendFile, ObjectMeta, PutMode, Storage};
use crate::error::{Error, ErrorKind, Result};

const TEMPORARY: &str = ".tmp";
/// Zeros are written ahead of the log in steps of this size, growing with the file.
const STEP_MIN: u64 = 256 * 1024;
const STEP_MAX: u64 = 4 * 1024 * 1024;
/// An append of at least this size does not profit from space written ahead; zeroing would double its work.
const LARGE_APPEND: usize = 256 * 1024;

/// A folder on a local disk.
#[derive(Debug)]
pub struct FsStorage {
    root: PathBuf,
    /// Makes the names of temporary files unique among all that use the folder.
    prefix: u64,
    temporaries: AtomicU64,
}

impl FsStorage {
    /// The storage in the folder `root`, which is created by the first write.
    ///
    /// # Errors
    /// `Invalid` for a path that names a file.
    pub fn new(root: impl AsRef<Path>) -> Result<Self> {
        let root =
            std::path::absolute(root.as_ref()).map_err(|error| Error::io("resolve", root.as_ref().display(), error))?;
        let is_file = match root.metadata() {
            Ok(found) => !found.is_dir(),
            Err(error) => error.kind() == io::ErrorKind::NotADirectory,
        };
        if is_file {
            return Err(Error::invalid(format!("{} is a file, or lies below one; expected a folder", root.display())));
        }
        let prefix = RandomState::new().build_hasher().finish();
        Ok(Self { root, prefix, temporaries: AtomicU64::new(0) })
    }

    fn locate(&self, path: &str) -> Result<PathBuf> {
        path::check(path)?;
        Ok(self.root.join(path))
    }

    fn temporary(&self) -> Result<PathBuf> {
        let folder = self.root.join(TEMPORARY);
        create_folders(&folder)?;
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        Ok(folder.join(format!("{:016x}-{number}", self.prefix)))
    }

    /// Removes what writers before us left half written. Only for the holder of the lock.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.root.join(TEMPORARY)) else {
            return;
        };
        for entry in entries.flatten() {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(file = %entry.path().display(), %error, "cannot remove a temporary file");
            }
        }
    }

    /// The lock file, locked.
    fn lock_file(&self, lock: fn(&File) -> std::result::Result<(), TryLockError>) -> Result<File> {
        let name = self.root.join(LOCK_NAME);
        let failed = |error| Error::io("lock", name.display(), error);
        let written = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
        let mut file = match written {
            // Where nothing can be written, the lock still keeps apart those who can read.
            Err(error) if is_read_only(&error) => File::open(&name).map_err(failed),
            opened => opened.map_err(failed),
        }?;
        match lock(&file) {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder may be writing its name just now; then we do without.
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "the processes of a cluster" } else { holder.trim() };
                let message = format!("{} is already open for writing by {holder}", self.url());
                Err(Error::new(ErrorKind::Locked, message))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn open_file(&self, path: &str) -> Result<(PathBuf, File)> {
        let target = self.locate(path)?;
        let file = File::open(&target).map_err(|error| Error::io("open", target.display(), error))?;
        Ok((target, file))
    }

    fn collect(&self, folder: &Path, name: &str, found: &mut Vec<ObjectMeta>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let file_name = entry.file_name();
            // Names that are not UTF-8 or start with a dot cannot be objects of ours.
            let Some(file_name) = file_name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let path = if name.is_empty() { file_name.to_owned() } else { format!("{name}/{file_name}") };
            // A file may vanish between the two calls; then it is not in the list.
            let meta = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta?,
            };
            if meta.is_dir() {
                self.collect(&entry.path(), &path, found)?;
            } else if path != LOCK_NAME {
                found.push(ObjectMeta { path, size: meta.len() });
            }
        }
        Ok(())
    }
}

impl Storage for FsStorage {
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> Result<()> {
        let target = self.locate(path)?;
        let temporary = self.temporary()?;
        let written = write_whole(&temporary, parts)
            .map_err(|error| Error::io("write", target.display(), error))
            .and_then(|()| give_name(&temporary, &target, mode));
        // After a rename it is gone; otherwise it is of no use any more, and the next sweep would take it.
        if mode == PutMode::Create || written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn get(&self, path: &str) -> Result<Bytes> {
        let (target, mut file) = self.open_file(path)?;
        read_all(&mut file).map_err(|error| Error::io("read", target.display(), error))
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let (target, file) = self.open_file(path)?;
        let failed = |error| Error::io("read", target.display(), error);
        let size = file.metadata().map_err(failed)?.len();
        if range.start > range.end || range.end > size {
            return Err(outside(path, &range, size));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        position::read_exact_at(&file, &mut bytes, range.start).map_err(failed)?;
        Ok(bytes.into())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let name = path::check_folder(prefix)?;
        let folder = if name.is_empty() { self.root.clone() } else { self.root.join(name) };
        let mut found = Vec::new();
        match self.collect(&folder, name, &mut found) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(Error::io("list", folder.display(), error));
            }
            _ => {}
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn remove(&self, path: &str) -> Result<()> {
        let target = self.locate(path)?;
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", target.display(), error)),
            _ => Ok(()),
        }
    }

    fn create_append(&self, path: &str, preallocate: u64) -> Result<Box<dyn AppendFile>> {
        let target = self.locate(path)?;
        let failed = |error| Error::io("create", target.display(), error);
        let folder = target.parent().unwrap_or(&self.root);
        create_folders(folder)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&target).map_err(failed)?;
        let mut file =
            FsAppend { file, target: target.clone(), position: 0, synced: 0, allocated: 0, reserve: preallocate };
        let made = file.reserve().and_then(|()| file.file.sync_all()).and_then(|()| sync_folder(folder));
        if let Err(error) = made {
            // Nobody was told of it.
            let _ = fs::remove_file(&target);
            return Err(failed(error));
        }
        Ok(Box::new(file))
    }

    fn read_append(&self, path: &str) -> Result<Bytes> {
        let (target, mut file) = self.open_file(path)?;
        // A writer that was killed may have left bytes that only the page cache has. Who acts on them must not lose
        // them to a power failure afterwards.
        file.sync_all().and_then(|()| read_all(&mut file)).map_err(|error| Error::io("read", target.display(), error))
    }

    fn read_append_from(&self, path: &str, offset: u64) -> Result<Bytes> {
        let (target, file) = self.open_file(path)?;
        let failed = |error| Error::io("read", target.display(), error);
        let len = file.metadata().map_err(failed)?.len();
        let mut start = [0; 16];
        if offset + start.len() as u64 > len {
            return Ok(Bytes::new());
        }
        position::read_exact_at(&file, &mut start, offset).map_err(failed)?;
        if start == [0; 16] {
            return Ok(Bytes::new());
        }
        // What its writer has not synced yet must not be lost to a power failure once somebody has acted on it.
        file.sync_data().map_err(failed)?;
        let mut bytes = vec![0; (len - offset) as usize];
        position::read_exact_at(&file, &mut bytes, offset).map_err(failed)?;
        Ok(bytes.into())
    }

    fn peek_append(&self, path: &str, len: usize) -> Result<Bytes> {
        let (target, file) = self.open_file(path)?;
        let mut bytes = Vec::new();
        file.take(len as u64).read_to_end(&mut bytes).map_err(|error| Error::io("read", target.display(), error))?;
        Ok(bytes.into())
    }

    fn size_append(&self, path: &str) -> Result<u64> {
        let (target, file) = self.open_file(path)?;
        let meta = file.metadata().map_err(|error| Error::io("read", target.display(), error))?;
        Ok(meta.len())
    }

    fn seal_append(&self, path: &str) -> Result<Bytes> {
        let target = self.locate(path)?;
        let rewrite = || {
            let mut file = OpenOptions::new().read(true).write(true).open(&target)?;
            let bytes = read_all(&mut file)?;
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            // After a failed sync the kernel may call pages clean that never reached the disk. Writing the same
            // bytes again makes them dirty, so that this sync tells the truth.
            position::write_all_at(&file, &bytes[..used], 0)?;
            file.sync_all()?;
            Ok(bytes)
        };
        rewrite().map_err(|error| Error::io("seal", target.display(), error))
    }

    fn list_append(&self, prefix: &str) -> Result<Vec<String>> {
        let files = self.list(prefix)?.into_iter().map(|file| file.path);
        let folder = path::check_folder(prefix)?;
        Ok(files.filter(|path| path::below(path, folder).is_some_and(|name| !name.contains('/'))).collect())
    }

    fn remove_append(&self, path: &str) -> Result<()> {
        self.remove(path)
    }

    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>> {
        create_folders(&self.root)?;
        let mut file = self.lock_file(File::try_lock)?;
        // The name is for people; whoever cannot write it has the lock all the same.
        let named = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
        if let Err(error) = named {
            tracing::debug!(%error, "the lock does not say who holds it");
        }
        self.sweep();
        Ok(Box::new(file))
    }

    fn lock_shared(&self) -> Result<Box<dyn Any + Send + Sync>> {
        create_folders(&self.root)?;
        let file = self.lock_file(File::try_lock_shared)?;
        // Whoever had it alone before is not there any more.
        if let Err(error) = file.set_len(0) {
            tracing::debug!(%error, "the lock still says who held it before");
        }
        Ok(Box::new(file))
    }

    fn url(&self) -> String {
        match ::url::Url::from_file_path(&self.root) {
            Ok(url) => url.into(),
            Err(()) => format!("file://{}", self.root.display()),
        }
    }
}

/// The writing end of an append file: overwrites zeros in place, because a sync that need not also record a new
/// length takes half the time.
struct FsAppend {
    file: File,
    target: PathBuf,
    position: u64,
    /// Everything before is durable.
    synced: u64,
    /// Bytes the file has, zeros at the end included.
    allocated: u64,
    /// Zeros are written ahead up to this length.
    reserve: u64,
}

impl FsAppend {
    /// Writes the next step of zeros behind what is allocated, as far as there is room.
    fn reserve(&mut self) -> io::Result<()> {
        let step = (self.allocated / 2).clamp(STEP_MIN, STEP_MAX);
        let end = (self.allocated + step).min(self.reserve);
        let zeros = [0; 64 * 1024];
        while self.allocated < end {
            let len = (end - self.allocated).min(zeros.len() as u64);
            match position::write_all_at(&self.file, &zeros[..len as usize], self.allocated) {
                Err(error) if is_full(&error) => break,
                written => written?,
            }
            self.allocated += len;
        }
        Ok(())
    }
}

impl AppendFile for FsAppend {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        let failed = |error| Error::io("append to", self.target.display(), error);
        position::write_all_at(&self.file, data, self.position).map_err(failed)?;
        self.position += data.len() as u64;
        if self.position > self.allocated {
            self.allocated = self.position;
            if data.len() < LARGE_APPEND {
                self.reserve().map_err(|error| Error::io("extend", self.target.display(), error))?;
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", self.target.display(), error))?;
        self.synced = self.position;
        Ok(())
    }

    fn withdraw(&mut self) -> Result<()> {
        let cut = self.file.set_len(self.synced).and_then(|()| self.file.sync_all());
        cut.map_err(|error| Error::io("cut off the end of", self.target.display(), error))
    }
}

/// Whether an error says that nothing can be written there.
fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether an error says that no more can be written.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn write_whole(temporary: &Path, parts: &[Bytes]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(temporary)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_data()
}

/// Makes a finished file visible under its name, and the name durable.
fn give_name(temporary: &Path, target: &Path, mode: PutMode) -> Result<()> {
    let name = || match mode {
        PutMode::Create => fs::hard_link(temporary, target),
        PutMode::Overwrite => fs::rename(temporary, target),
    };
    let folder = target.parent().unwrap_or(target);
    let named = match name() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_folders(folder)?;
            name()
        }
        named => named,
    };
    named.and_then(|()| sync_folder(folder)).map_err(|error| Error::io("write", target.display(), error))
}

/// Creates a folder and what is missing above it, each made durable in its parent.
fn create_folders(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let failed = |error| Error::io("create folder", folder.display(), error);
    if let Some(parent) = folder.parent() {
        create_folders(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        created => created.map_err(failed)?,
    }
    folder.parent().map_or(Ok(()), sync_folder).map_err(failed)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere folders cannot be opened as files; their system makes names durable by itself.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

fn read_all(file: &mut File) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// Reading and writing at a position, without a shared cursor where the system has that.
#[cfg(unix)]
mod position {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    pub(super) fn write_all_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(data, offset)
    }

    pub(super) fn read_exact_at(file: &File, data: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(data, offset)
    }
}

#[cfg(not(unix))]
mod position {
    use std::fs::File;
    use std::io::{self, Read, Seek, SeekFrom, Write};

    pub(super) fn write_all_at(mut file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(data)
    }

    pub(super) fn read_exact_at(mut file: &File, data: &mut [u8], offset: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(data)
    }
}
