//! Storage in RAM, for databases that need not outlive their process, and for tests.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use super::{AppendFile, ObjectMeta, PutMode, Storage, path, process_lock};
use crate::error::{Error, ErrorKind, Result};
use crate::world::Mutex;

/// Named storages live until the process ends, so that a database can be closed and opened again.
static NAMED: Mutex<BTreeMap<String, MemoryStorage>> = Mutex::new(BTreeMap::new());
static UNNAMED: AtomicU64 = AtomicU64::new(0);

/// Objects and append files in memory. Clones share their content.
#[derive(Debug, Clone)]
pub struct MemoryStorage {
    url: String,
    /// Tells unnamed storages apart.
    lock_key: String,
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    objects: BTreeMap<String, Bytes>,
    files: BTreeMap<String, File>,
}

#[derive(Debug, Default)]
struct File {
    bytes: BytesMut,
    sealed: bool,
}

impl MemoryStorage {
    /// A new, empty storage that nobody else can open.
    pub fn new() -> Self {
        let number = UNNAMED.fetch_add(1, Ordering::Relaxed);
        Self { url: "memory://".into(), lock_key: format!("memory:#{number}"), content: Arc::default() }
    }

    /// The storage of that name in this process.
    pub fn named(name: &str) -> Self {
        let create = || {
            let url = format!("memory://{name}");
            Self { lock_key: url.clone(), url, content: Arc::default() }
        };
        NAMED.lock().entry(name.to_owned()).or_insert_with(create).clone()
    }

    /// A storage with this content, as a crash would have left it.
    pub(super) fn with_content(objects: BTreeMap<String, Bytes>, files: BTreeMap<String, Vec<u8>>) -> Self {
        let as_file = |bytes: Vec<u8>| File { bytes: bytes.as_slice().into(), sealed: false };
        let files = files.into_iter().map(|(path, bytes)| (path, as_file(bytes))).collect();
        Self { content: Arc::new(Mutex::new(Content { objects, files })), ..Self::new() }
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Storage for MemoryStorage {
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> Result<()> {
        path::check(path)?;
        let bytes = match parts {
            [one] => one.clone(),
            several => Bytes::from(several.concat()),
        };
        let mut content = self.content.lock();
        if mode == PutMode::Create && content.objects.contains_key(path) {
            return Err(exists(path));
        }
        content.objects.insert(path.to_owned(), bytes);
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        self.content.lock().objects.get(path).cloned().ok_or_else(|| missing(path))
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let object = self.get(path)?;
        slice(&object, path, range)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let folder = path::check_folder(prefix)?;
        let content = self.content.lock();
        let below = content.objects.iter().filter(|(path, _)| path::below(path, folder).is_some());
        Ok(below.map(|(path, bytes)| ObjectMeta { path: path.clone(), size: bytes.len() as u64 }).collect())
    }

    fn remove(&self, path: &str) -> Result<()> {
        path::check(path)?;
        self.content.lock().objects.remove(path);
        Ok(())
    }

    fn create_append(&self, path: &str, _preallocate: u64) -> Result<Box<dyn AppendFile>> {
        path::check(path)?;
        let mut content = self.content.lock();
        if content.files.contains_key(path) {
            return Err(exists(path));
        }
        content.files.insert(path.to_owned(), File::default());
        let (content, path) = (Arc::clone(&self.content), path.to_owned());
        Ok(Box::new(MemoryFile { content, path, pending: Vec::new() }))
    }

    fn read_append(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        let content = self.content.lock();
        let file = content.files.get(path).ok_or_else(|| missing(path))?;
        Ok(Bytes::copy_from_slice(&file.bytes))
    }

    fn seal_append(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        let mut content = self.content.lock();
        let file = content.files.get_mut(path).ok_or_else(|| missing(path))?;
        file.sealed = true;
        Ok(Bytes::copy_from_slice(&file.bytes))
    }

    fn list_append(&self, prefix: &str) -> Result<Vec<String>> {
        let folder = path::check_folder(prefix)?;
        let content = self.content.lock();
        let directly = |path: &&String| path::below(path, folder).is_some_and(|name| !name.contains('/'));
        Ok(content.files.keys().filter(directly).cloned().collect())
    }

    fn remove_append(&self, path: &str) -> Result<()> {
        path::check(path)?;
        self.content.lock().files.remove(path);
        Ok(())
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
        self.url.clone()
    }
}

/// The writing end of an append file in memory.
struct MemoryFile {
    content: Arc<Mutex<Content>>,
    path: String,
    pending: Vec<u8>,
}

impl AppendFile for MemoryFile {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(data);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let mut content = self.content.lock();
        match content.files.get_mut(&self.path) {
            Some(file) if !file.sealed => {
                file.bytes.extend_from_slice(&self.pending);
                self.pending.clear();
                Ok(())
            }
            _ => Err(taken_over(&self.path)),
        }
    }

    fn withdraw(&mut self) -> Result<()> {
        self.pending.clear();
        Ok(())
    }
}

pub(super) fn exists(path: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{path} already exists"))
}

pub(super) fn missing(path: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{path} does not exist"))
}

pub(super) fn taken_over(path: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{path} was taken over by another writer"))
}

/// The bytes of `range`, or an error that names the object and its size.
pub(super) fn slice(object: &Bytes, path: &str, range: Range<u64>) -> Result<Bytes> {
    if range.start > range.end || range.end > object.len() as u64 {
        return Err(outside(path, &range, object.len() as u64));
    }
    Ok(object.slice(range.start as usize..range.end as usize))
}

pub(super) fn outside(path: &str, range: &Range<u64>, size: u64) -> Error {
    let Range { start, end } = range;
    Error::invalid(format!("bytes {start}..{end} of {path} were asked for, but it has {size}"))
}
