//! An object store in memory that does as it is told: it may carry a request out and say that it failed, or say nothing, and
//! it counts what it is asked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::stream::BoxStream;
use grizzly_wal::Result;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};

/// Stores what it is given, and reports an error, or nothing, while it is told to. A clone is told the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToldStore {
    inner: Arc<InMemory>,
    pub(crate) lies: Arc<AtomicBool>,
    /// It takes every call and answers none.
    pub(crate) is_silent: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl ToldStore {
    /// The same objects as another process sees them, whose requests are its own.
    pub(crate) fn other(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), ..Self::default() }
    }

    /// What `work` returns, and how many requests it took.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, usize)> {
        self.requests.store(0, Ordering::Release);
        let done = work()?;
        Ok((done, self.requests.load(Ordering::Acquire)))
    }

    fn count(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
    }

    async fn listen(&self) {
        self.count();
        if self.is_silent.load(Ordering::Acquire) {
            std::future::pending().await
        }
    }
}

impl fmt::Display for ToldStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToldStore")
    }
}

#[async_trait::async_trait]
impl ObjectStore for ToldStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.listen().await;
        let stored = self.inner.put_opts(location, payload, opts).await?;
        match self.lies.load(Ordering::Acquire) {
            true => Err(object_store::Error::Generic { store: "ToldStore", source: "500 Internal Error".into() }),
            false => Ok(stored),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.count();
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.listen().await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.count();
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.count();
        match self.is_silent.load(Ordering::Acquire) {
            true => Box::pin(futures::stream::pending()),
            false => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.count();
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.count();
        self.inner.copy_opts(from, to, options).await
    }
}
