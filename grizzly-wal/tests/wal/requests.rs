//! What a log in a bucket costs: stores are slow, and paid by request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream::BoxStream;
use grizzly_wal::{LogTail, Lsn, ObjectStorage, Result, Storage};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};

use super::{DIR, check, commit, reopen};

/// Counts the requests that one process sends to a store.
#[derive(Debug, Default)]
struct Counted {
    inner: Arc<InMemory>,
    requests: AtomicUsize,
}

impl Counted {
    /// The same store as another process sees it.
    fn other(&self) -> Arc<Self> {
        Arc::new(Self { inner: Arc::clone(&self.inner), ..Self::default() })
    }

    fn count(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
    }

    /// What `work` returns, and how many requests it took.
    fn during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, usize)> {
        self.requests.store(0, Ordering::Release);
        let done = work()?;
        Ok((done, self.requests.load(Ordering::Acquire)))
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counted {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.count();
        self.inner.put_opts(location, payload, opts).await
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
        self.count();
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
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.count();
        self.inner.list_with_offset(prefix, offset)
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

fn storage(store: &Arc<Counted>) -> Result<Arc<dyn Storage>> {
    let store: Arc<dyn ObjectStore> = Arc::<Counted>::clone(store);
    Ok(Arc::new(ObjectStorage::new(store, Path::from("db"), "test://requests")?))
}

#[test]
fn a_commit_is_one_request_and_a_look_for_it_two() -> Result<()> {
    let writing = Arc::new(Counted::default());
    let reading = writing.other();
    let (_, wal) = reopen(&storage(&writing)?, Lsn::FIRST)?;
    let mut tail = LogTail::new(storage(&reading)?, DIR, Lsn::FIRST);
    commit(&wal)?;
    assert_eq!(tail.poll()?.len(), 1, "it knows its place");
    // However long the log has become.
    for _ in 0..200 {
        let (none, looked) = reading.during(|| tail.poll())?;
        assert_eq!((none.len(), looked), (0, 2), "is there a next file, or more in this one");
        let (lsn, stored) = writing.during(|| commit(&wal))?;
        assert_eq!(stored, 1, "record {lsn}");
        let (found, looked) = reading.during(|| tail.poll())?;
        assert_eq!((found.len(), looked), (1, 3), "what was found is read");
        check(&found[0], lsn.0);
    }
    // Where nothing comes for long, a file may be missing in the row, and the folder is listed now and then.
    let (found, looked) = reading.during(|| (0..160).map(|_| Ok(tail.poll()?.len())).sum::<Result<usize>>())?;
    assert_eq!(found, 0);
    assert!((320..=330).contains(&looked), "{looked} requests in 160 looks");
    wal.close()
}
