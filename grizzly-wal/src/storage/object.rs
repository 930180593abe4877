//! Storage on any object store.
//!
//! An append file `wal/7` is a sequence of objects `wal/7/00000000`, `wal/7/00000001`, …, one per sync, each created
//! only if its name is free. Whoever takes the log over claims the next name with an empty object; the old writer's
//! next sync then finds its name taken and fails. So of two writers at most one gets anything acknowledged, whatever
//! their clocks and leases say.
//!
//! The store's futures run on a small runtime of their own; callers wait on a channel. That works from plain threads
//! and inside any async runtime alike.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::{Builder, Runtime};

use super::memory::{missing, outside, taken_over};
use super::{AppendFile, ObjectMeta, PutMode, Storage, path, process_lock};
use crate::error::{Error, ErrorKind, Result};
use crate::world::Mutex;

/// Parts of one append file that are fetched at the same time.
const PARALLEL_READS: usize = 32;
/// A store that says nothing for this long is not waited for by calls that can be made again: the link to it may be
/// dead, and the next call goes over another one. Large writes take their time, and what creates an object cannot be
/// made again without asking what became of it.
const SILENCE: Duration = Duration::from_secs(10);
/// An object that is larger may take longer to be written.
const SMALL: usize = 1 << 20;
/// How often the end of a file is claimed anew while its old writer keeps adding to it.
const SEAL_ATTEMPTS: usize = 100;

/// A prefix of an object store.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    bucket: Arc<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
    /// Only `None` while being dropped.
    runtime: Option<Runtime>,
    silence: Option<Duration>,
    /// How far the append file that was followed last has been read.
    reached: Mutex<Option<Reached>>,
}

/// The last part of an append file that was there at some time. Whoever follows the file need not list those before.
#[derive(Debug, Clone)]
struct Reached {
    file: String,
    part: u32,
    /// The byte of the file with which it begins.
    start: u64,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // An ordinary drop would wait, which is not allowed on the threads of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ObjectStorage {
    /// The storage below `prefix` in `store`; `url` is how it is called in messages and locks.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, url: impl Into<String>) -> Result<Self> {
        Self::with_silence(store, prefix, url, Some(SILENCE))
    }

    /// The same with another limit, or none, to how long the store may be silent when it is read. Ten seconds unless set.
    pub fn with_silence(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        url: impl Into<String>,
        silence: Option<Duration>,
    ) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("grizzly-store")
            .enable_all()
            .build()
            .map_err(|error| Error::io("start", "the object store's threads", error))?;
        Ok(Self {
            bucket: Arc::new(Bucket {
                store,
                prefix,
                url: url.into(),
                runtime: Some(runtime),
                silence,
                reached: Mutex::default(),
            }),
        })
    }

    fn locate(&self, path: &str) -> Result<Path> {
        path::check(path)?;
        self.bucket.locate(path)
    }
}

impl Bucket {
    /// Where `path`, which has been checked, stands in the store.
    fn locate(&self, path: &str) -> Result<Path> {
        let full = match self.prefix.as_ref() {
            "" => path.to_owned(),
            prefix if path.is_empty() => prefix.to_owned(),
            prefix => format!("{prefix}/{path}"),
        };
        Path::parse(&full).map_err(|error| Error::invalid(format!("{path:?} is not a path")).with_source(error))
    }

    /// Runs a call on the store's own threads and waits for it.
    fn wait<T: Send + 'static>(
        &self,
        doing: &'static str,
        path: &str,
        call: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let stopped =
            || Error::new(ErrorKind::Io, format!("cannot {doing} {path} in {}: its threads stopped", self.url));
        let runtime = self.runtime.as_ref().ok_or_else(stopped)?;
        runtime.spawn(async move {
            // Nobody listens any more only if the caller's thread died.
            let _ = sender.send(call.await);
        });
        let outcome = receiver.recv().map_err(|_| stopped())?;
        outcome.map_err(|error| self.explain(doing, path, error))
    }

    /// The same for a call that can be made again, without more patience than [`SILENCE`].
    fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        path: &str,
        call: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        let silence = self.silence;
        self.wait(doing, path, async move { in_time(silence, call).await? })
    }

    /// An object, or a part of it.
    fn fetch(&self, path: &str, options: GetOptions) -> Result<Bytes> {
        let (store, location, silence) = (Arc::clone(&self.store), self.locate(path)?, self.silence);
        self.wait("read", path, async move { fetch(store.as_ref(), &location, options, silence).await })
    }

    fn explain(&self, doing: &str, path: &str, error: object_store::Error) -> Error {
        use object_store::Error as Store;
        let kind = match &error {
            Store::NotFound { .. } => ErrorKind::NotFound,
            Store::AlreadyExists { .. } | Store::Precondition { .. } => ErrorKind::AlreadyExists,
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => ErrorKind::Permission,
            Store::NotSupported { .. } | Store::NotImplemented { .. } => ErrorKind::Unsupported,
            Store::InvalidPath { .. } | Store::UnknownConfigurationKey { .. } => ErrorKind::Invalid,
            _ => ErrorKind::Io,
        };
        Error::new(kind, format!("cannot {doing} {path} in {}: {error}", self.url)).with_source(error)
    }

    fn put(&self, path: &str, payload: PutPayload, mode: PutMode) -> Result<()> {
        let (store, location) = (Arc::clone(&self.store), self.locate(path)?);
        let (how, kept) = match mode {
            PutMode::Create => (object_store::PutMode::Create, Some(payload.clone())),
            PutMode::Overwrite => (object_store::PutMode::Overwrite, None),
        };
        let silence = self.silence.filter(|_| kept.is_none() && payload.content_length() <= SMALL);
        let put = async move { in_time(silence, store.put_opts(&location, payload, how.into())).await? };
        let stored = self.wait("write", path, put);
        match (stored, kept) {
            (Ok(_), _) => Ok(()),
            (Err(error), Some(kept)) if self.holds(path, &kept, &error) => Ok(()),
            (Err(error), _) => Err(error),
        }
    }

    /// Whether an object that could not be created is there all the same, with these bytes: the answer to a request
    /// can be lost, or be an error, when the store has carried it out, and a request that is repeated then finds its
    /// own object in its way.
    fn holds(&self, path: &str, payload: &PutPayload, error: &Error) -> bool {
        if !matches!(error.kind(), ErrorKind::Io | ErrorKind::AlreadyExists) {
            return false;
        }
        self.fetch(path, GetOptions::default()).is_ok_and(|found| {
            let mut rest = found.as_ref();
            let same = payload.iter().all(|part| match rest.strip_prefix(part.as_ref()) {
                Some(behind) => {
                    rest = behind;
                    true
                }
                None => false,
            });
            same && rest.is_empty()
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        self.list_behind(folder, None)
    }

    /// What is below `folder`, only names greater than `last` if that is given.
    fn list_behind(&self, folder: &str, last: Option<&str>) -> Result<Vec<ObjectMeta>> {
        let (store, location) = (Arc::clone(&self.store), self.locate(folder)?);
        let last = last.map(|last| self.locate(last)).transpose()?;
        let silence = self.silence;
        let all = self.wait("list", folder, async move {
            let mut found = match &last {
                Some(last) => store.list_with_offset(Some(&location), last),
                None => store.list(Some(&location)),
            };
            let mut all = Vec::new();
            while let Some(object) = in_time(silence, found.try_next()).await?? {
                all.push(object);
            }
            Ok(all)
        });
        // A folder without objects is empty, so it is the bucket that is missing.
        let all = all.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::invalid(error.message().to_owned()).with_source(error),
            _ => error,
        })?;
        let relative = |full: &str| path::below(full, self.prefix.as_ref()).map(str::to_owned);
        let named = |meta: object_store::ObjectMeta| {
            relative(meta.location.as_ref()).map(|path| ObjectMeta { path, size: meta.size })
        };
        let mut found: Vec<_> = all.into_iter().filter_map(named).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn remove(&self, path: &str) -> Result<()> {
        let (store, location) = (Arc::clone(&self.store), self.locate(path)?);
        let removed = self.ask("remove", path, async move { store.delete(&location).await });
        removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
    }

    /// The parts of an append file by number, with their sizes.
    fn parts(&self, file: &str) -> Result<BTreeMap<u32, u64>> {
        self.parts_from(file, 0)
    }

    /// Those of them from number `first` on.
    fn parts_from(&self, file: &str, first: u32) -> Result<BTreeMap<u32, u64>> {
        let mut parts = BTreeMap::new();
        let before = first.checked_sub(1).map(|before| part_name(file, before));
        for object in self.list_behind(file, before.as_deref())? {
            let name = path::below(&object.path, file).unwrap_or_default();
            let number =
                name.parse().map_err(|_| Error::corrupt(file, 0, format!("{name} is not one of its parts")))?;
            parts.insert(number, object.size);
        }
        Ok(parts)
    }

    /// Reads the parts, checking that none is missing. What a removal left of a sealed file is an empty file, and what one left
    /// that did not come to its end is the file's beginning.
    fn read_parts(&self, file: &str, parts: &BTreeMap<u32, u64>) -> Result<Bytes> {
        if parts.is_empty() {
            return Err(missing(file));
        }
        if parts.len() == 1 && parts.values().all(|size| *size == 0) {
            return Ok(Bytes::new());
        }
        let sealed = parts.last_key_value().filter(|(_, size)| **size == 0).map(|(number, _)| *number);
        let (mut offset, mut names) = (0, Vec::with_capacity(parts.len()));
        for (expected, (number, size)) in (0..).zip(parts) {
            if expected != *number {
                // Parts go backwards, all but the one that seals it. Whoever needs them misses their records.
                if sealed == Some(*number) {
                    break;
                }
                return Err(Error::corrupt(file, offset, format!("its part {expected} is missing")));
            }
            names.push(self.locate(&part_name(file, *number))?);
            offset += size;
        }
        let (store, silence) = (Arc::clone(&self.store), self.silence);
        let bytes = self.wait("read", file, async move {
            let fetch = |name: Path| {
                let store = Arc::clone(&store);
                async move { fetch(store.as_ref(), &name, GetOptions::default(), silence).await }
            };
            let mut fetched = futures::stream::iter(names).map(fetch).buffered(PARALLEL_READS);
            let mut whole = BytesMut::new();
            while let Some(part) = fetched.next().await {
                whole.extend_from_slice(&part?);
            }
            Ok(whole.freeze())
        })?;
        Ok(bytes)
    }
}

impl Storage for ObjectStorage {
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> Result<()> {
        path::check(path)?;
        self.bucket.put(path, parts.iter().cloned().collect(), mode)
    }

    fn get(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        self.bucket.fetch(path, GetOptions::default())
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        path::check(path)?;
        if range.start >= range.end {
            let (store, location) = (Arc::clone(&self.bucket.store), self.locate(path)?);
            // Stores refuse empty ranges; ours are allowed anywhere inside the object.
            let size = self.bucket.ask("read", path, async move { store.head(&location).await })?.size;
            let inside = range.start == range.end && range.end <= size;
            return if inside { Ok(Bytes::new()) } else { Err(outside(path, &range, size)) };
        }
        let bytes =
            self.bucket.fetch(path, GetOptions { range: Some(range.clone().into()), ..GetOptions::default() })?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(outside(path, &range, range.start + bytes.len() as u64));
        }
        Ok(bytes)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.bucket.list(path::check_folder(prefix)?)
    }

    fn remove(&self, path: &str) -> Result<()> {
        path::check(path)?;
        self.bucket.remove(path)
    }

    fn create_append(&self, path: &str, _preallocate: u64) -> Result<Box<dyn AppendFile>> {
        path::check(path)?;
        if !self.bucket.parts(path)?.is_empty() {
            return Err(super::memory::exists(path));
        }
        let bucket = Arc::clone(&self.bucket);
        Ok(Box::new(ObjectAppend { bucket, path: path.to_owned(), next: 0, pending: Vec::new() }))
    }

    fn read_append(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        self.bucket.read_parts(path, &self.bucket.parts(path)?)
    }

    fn read_append_from(&self, path: &str, offset: u64) -> Result<Bytes> {
        path::check(path)?;
        let reached = self.bucket.reached.lock().clone();
        let reached = reached.filter(|reached| reached.file == path && reached.start <= offset);
        let (first, mut start) = reached.map_or((0, 0), |reached| (reached.part, reached.start));
        let parts = self.bucket.parts_from(path, first)?;
        if parts.is_empty() {
            return Err(missing(path));
        }
        let (mut reached, mut bytes) = (None, BytesMut::new());
        for (part, size) in parts {
            if start + size > offset {
                let found = self.get(&part_name(path, part))?;
                let skipped = offset.saturating_sub(start) as usize;
                bytes.extend_from_slice(found.get(skipped..).unwrap_or_default());
            }
            reached = Some(Reached { file: path.to_owned(), part, start });
            start += size;
        }
        *self.bucket.reached.lock() = reached;
        Ok(bytes.freeze())
    }

    fn has_begun(&self, path: &str) -> Result<bool> {
        let (store, location) = (Arc::clone(&self.bucket.store), self.locate(&part_name(path, 0))?);
        match self.bucket.ask("look for", path, async move { store.head(&location).await }) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn peek_append(&self, path: &str, len: usize) -> Result<Bytes> {
        match self.get(&part_name(path, 0)) {
            Ok(part) if part.len() >= len => Ok(part.slice(..len)),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => {
                let file = self.read_append(path)?;
                Ok(file.slice(..len.min(file.len())))
            }
        }
    }

    fn size_append(&self, path: &str) -> Result<u64> {
        path::check(path)?;
        Ok(self.bucket.parts(path)?.values().sum())
    }

    fn seal_append(&self, path: &str) -> Result<Bytes> {
        path::check(path)?;
        for _ in 0..SEAL_ATTEMPTS {
            let parts = self.bucket.parts(path)?;
            let last = parts.last_key_value().ok_or_else(|| missing(path))?;
            if *last.1 == 0 {
                return self.bucket.read_parts(path, &parts);
            }
            match self.bucket.put(&part_name(path, last.0 + 1), PutPayload::new(), PutMode::Create) {
                Ok(()) => return self.bucket.read_parts(path, &parts),
                // Its writer was faster; what it wrote counts.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let message = format!("{path} in {} is being written by another writer", self.bucket.url);
        Err(Error::new(ErrorKind::Locked, message))
    }

    fn list_append(&self, prefix: &str) -> Result<Vec<String>> {
        let folder = path::check_folder(prefix)?;
        let parts = self.bucket.list(folder)?;
        let file = |part: &ObjectMeta| {
            let (name, part_name) = path::below(&part.path, folder)?.split_once('/')?;
            let file = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            (!part_name.contains('/')).then_some(file)
        };
        Ok(parts.iter().filter_map(file).collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn remove_append(&self, path: &str) -> Result<()> {
        path::check(path)?;
        // Backwards, so that a removal that was interrupted leaves a file whose beginning can be read.
        for (number, size) in self.bucket.parts(path)?.into_iter().rev() {
            // The empty part is what keeps a writer out that was replaced while it slept.
            if size > 0 {
                self.bucket.remove(&part_name(path, number))?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>> {
        process_lock::acquire(&self.bucket.url)
    }

    fn lock_excludes(&self) -> bool {
        false
    }

    fn lock_shared(&self) -> Result<Box<dyn Any + Send + Sync>> {
        process_lock::acquire_shared(&self.bucket.url)
    }

    fn seal_shuts_out(&self) -> bool {
        true
    }

    fn url(&self) -> String {
        self.bucket.url.clone()
    }
}

/// Waits for one answer of the store, no longer than it may be silent.
async fn in_time<T>(silence: Option<Duration>, answer: impl Future<Output = T>) -> object_store::Result<T> {
    let Some(silence) = silence else { return Ok(answer.await) };
    tokio::time::timeout(silence, answer).await.map_err(|_| object_store::Error::Generic {
        store: "object store",
        source: format!("no answer within {silence:?}").into(),
    })
}

/// Reads an object; its bytes may take their time as long as they come.
async fn fetch(
    store: &dyn ObjectStore,
    location: &Path,
    options: GetOptions,
    silence: Option<Duration>,
) -> object_store::Result<Bytes> {
    let found = in_time(silence, store.get_opts(location, options)).await??;
    let (mut stream, mut parts) = (found.into_stream(), Vec::new());
    while let Some(part) = in_time(silence, stream.try_next()).await?? {
        parts.push(part);
    }
    // One that comes in one piece is not copied.
    Ok(if parts.len() == 1 { parts.remove(0) } else { parts.concat().into() })
}

/// The writing end of an append file: what one sync covers becomes one object.
struct ObjectAppend {
    bucket: Arc<Bucket>,
    path: String,
    next: u32,
    pending: Vec<u8>,
}

impl AppendFile for ObjectAppend {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(data);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let payload = PutPayload::from(std::mem::take(&mut self.pending));
        let put = self.bucket.put(&part_name(&self.path, self.next), payload, PutMode::Create);
        self.next += 1;
        put.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => taken_over(&self.path).with_source(error),
            _ => error,
        })
    }
}

fn part_name(file: &str, number: u32) -> String {
    format!("{file}/{number:08}")
}
