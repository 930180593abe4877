//! An object store in a simulated world: it loses requests and answers, its clients ask again, and what somebody sent who is
//! gone arrives late.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use grizzly_provider::storage::PutMode;
use grizzly_wal::storage::ObjectStorage;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode as StorePutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use parking_lot::Mutex;

use super::disk::{Disk, Weather};

/// What a process has created, and was told that it had not.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The last such object.
    unheard: Option<String>,
    /// So many answers are to be lost to requests that create what nobody can do without.
    lost: u32,
    /// It looked for one, in vain.
    pub(super) in_doubt: bool,
    /// Objects that it has read.
    pub(super) read: BTreeSet<String>,
}

impl Sent {
    pub(super) fn unheard(&mut self, path: &str) {
        self.unheard = Some(path.to_owned());
    }

    pub(super) fn lose_answers(&mut self, count: u32) {
        self.lost = count;
    }

    /// Whether the next answer is to be lost.
    pub(super) fn loses(&mut self) -> bool {
        let loses = self.lost > 0;
        self.lost = self.lost.saturating_sub(1);
        loses
    }

    pub(super) fn not_read(&mut self, path: &str) {
        self.in_doubt |= self.unheard.as_deref() == Some(path);
    }
}

/// A store as one process has it.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) disk: Disk,
    pub(super) dead: Arc<AtomicBool>,
    pub(super) weather: Arc<Mutex<Weather>>,
    pub(super) sent: Arc<Mutex<Sent>>,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated object store")
    }
}

fn failed(why: &str) -> Error {
    Error::Generic { store: "simulated", source: why.into() }
}

impl Store {
    /// The storage that is made of it. It waits as long as it must: time is simulated where it is used, and not in it.
    pub(super) fn client(self) -> ObjectStorage {
        ObjectStorage::with_silence(Arc::new(self), Path::default(), "simulated://", None).expect("a runtime starts")
    }

    /// Whether a request comes through.
    async fn reach(&self) -> Result<()> {
        for (path, bytes, mode) in self.disk.late() {
            let mode = if mode == PutMode::Create { StorePutMode::Create } else { StorePutMode::Overwrite };
            // One that was created since stays.
            drop(self.disk.store.put_opts(&Path::from(path), bytes.into(), mode.into()).await);
        }
        let refused = self.weather.lock().refused;
        match self.dead.load(Ordering::Relaxed) {
            true => Err(failed("the process was killed")),
            false if self.disk.roll(1000) < refused => Err(failed("the connection was refused")),
            false => Ok(()),
        }
    }

    /// Whether the answer comes through.
    fn answer(&self) -> Result<()> {
        let unheard = self.weather.lock().unheard;
        if self.disk.roll(1000) < unheard { Err(failed("the connection was reset")) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let creates = matches!(opts.mode, StorePutMode::Create);
        if self.dead.load(Ordering::Relaxed) {
            let mode = if creates { PutMode::Create } else { PutMode::Overwrite };
            self.disk.send(location.as_ref(), &Bytes::from(payload.clone()), mode);
        }
        self.reach().await?;
        if self.disk.is_full() {
            return Err(failed("there is no room"));
        }
        let stored = self.disk.store.put_opts(location, payload, opts).await?;
        let loses = creates && self.sent.lock().loses();
        let lost = if loses { Err(failed("the connection was reset")) } else { self.answer() };
        let Err(lost) = lost else { return Ok(stored) };
        if creates {
            self.sent.lock().unheard(location.as_ref());
            if self.disk.roll(2) == 0 {
                // The client has sent it again, and it found itself in its way.
                return Err(Error::AlreadyExists { path: location.to_string(), source: Box::new(lost) });
            }
        }
        Err(lost)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.disk.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let found = match self.reach().await {
            Ok(()) => self.disk.store.get_opts(location, options).await,
            Err(refused) => Err(refused),
        };
        let found = found.and_then(|found| self.answer().map(|()| found));
        if found.is_err() {
            self.sent.lock().not_read(location.as_ref());
        }
        found
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (store, answering) = (self.clone(), self.clone());
        let removed = stream::once(async move {
            store.reach().await?;
            Ok::<_, Error>(store.disk.store.delete_stream(locations))
        });
        removed.try_flatten().and_then(move |path| ready(answering.answer().map(|()| path))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = stream::once(async move {
            store.reach().await?;
            store.answer()?;
            Ok::<_, Error>(store.disk.store.list(prefix.as_ref()))
        });
        listed.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.disk.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.disk.store.copy_opts(from, to, options).await
    }
}
