//! A server that is no cluster over a store that fails: what is in memory is answered, what must be read says why not,
//! and writes go on when it is back, unless a commit was on its way.

use std::{
    any::Any,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use grizzly_flight::{FlightSqlConnection, FlightSqlServer};
use grizzly_provider::{
    Error, ErrorKind, Grizzly,
    storage::{self, AppendFile, ObjectMeta, PutMode, Storage, open_storage},
};
use parking_lot::Mutex;

use crate::support::{Served, TestResult, ask, factory};

/// Within this whoever needs the store is told.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    /// It takes nothing into the log, and has nothing of what it was to take.
    Refuses,
    /// Nothing reaches it.
    Away,
    /// What goes into the log reaches it, and none of its answers come.
    Unheard,
}

/// A store that works as it is told to. Clones are the same.
#[derive(Debug, Clone)]
struct Store {
    inner: Arc<dyn Storage>,
    state: Arc<Mutex<State>>,
}

impl Store {
    fn new() -> storage::Result<Self> {
        Ok(Self { inner: open_storage("memory://")?, state: Arc::new(Mutex::new(State::Works)) })
    }

    fn set(&self, state: State) {
        *self.state.lock() = state;
    }

    fn state(&self) -> State {
        *self.state.lock()
    }

    fn reach(&self) -> storage::Result<&dyn Storage> {
        match self.state() {
            State::Works | State::Refuses => Ok(self.inner.as_ref()),
            State::Away | State::Unheard => Err(broken()),
        }
    }
}

fn broken() -> storage::Error {
    storage::Error::new(storage::ErrorKind::Io, "the connection was reset")
}

impl Storage for Store {
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> storage::Result<()> {
        self.reach()?.put(path, parts, mode)
    }

    fn get(&self, path: &str) -> storage::Result<Bytes> {
        self.reach()?.get(path)
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> storage::Result<Bytes> {
        self.reach()?.get_range(path, range)
    }

    fn list(&self, prefix: &str) -> storage::Result<Vec<ObjectMeta>> {
        self.reach()?.list(prefix)
    }

    fn remove(&self, path: &str) -> storage::Result<()> {
        self.reach()?.remove(path)
    }

    fn create_append(&self, path: &str, preallocate: u64) -> storage::Result<Box<dyn AppendFile>> {
        let file = self.reach()?.create_append(path, preallocate)?;
        Ok(Box::new(Log { store: self.clone(), file }))
    }

    fn read_append(&self, path: &str) -> storage::Result<Bytes> {
        self.reach()?.read_append(path)
    }

    fn seal_append(&self, path: &str) -> storage::Result<Bytes> {
        self.reach()?.seal_append(path)
    }

    fn list_append(&self, prefix: &str) -> storage::Result<Vec<String>> {
        self.reach()?.list_append(prefix)
    }

    fn remove_append(&self, path: &str) -> storage::Result<()> {
        self.reach()?.remove_append(path)
    }

    fn lock(&self) -> storage::Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock()
    }

    fn lock_shared(&self) -> storage::Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock_shared()
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

struct Log {
    store: Store,
    file: Box<dyn AppendFile>,
}

impl AppendFile for Log {
    fn append(&mut self, data: &[u8]) -> storage::Result<()> {
        match self.store.state() {
            State::Works | State::Unheard => self.file.append(data),
            State::Refuses | State::Away => Err(broken()),
        }
    }

    fn sync(&mut self) -> storage::Result<()> {
        if self.store.state() == State::Unheard {
            self.file.sync()?;
        }
        self.store.reach()?;
        self.file.sync()
    }

    fn withdraw(&mut self) -> storage::Result<()> {
        self.store.reach()?;
        self.file.withdraw()
    }
}

/// A server on the store, and a client.
struct Server {
    db: Grizzly,
    client: FlightSqlConnection,
    _served: Served,
}

impl Server {
    async fn start(store: &Store) -> Result<Self, Box<dyn std::error::Error>> {
        let db = Grizzly::builder("memory://").storage(Arc::new(store.clone())).open()?;
        let served = Served::of(FlightSqlServer::builder(factory(&db)).listen("127.0.0.1:0").await?);
        Ok(Self { db, client: served.connect().await?, _served: served })
    }

    /// One with a table `cold` of which nothing is in memory, and a table `t` that is, with the row 1.
    async fn filled(store: &Store) -> Result<Self, Box<dyn std::error::Error>> {
        let server = Self::start(store).await?;
        server.client.update("CREATE TABLE cold (id BIGINT PRIMARY KEY, b BIGINT)").await?;
        server.client.update("INSERT INTO cold SELECT value, value * 3 FROM generate_series(1, 1000)").await?;
        server.db.flush()?;
        server.db.close()?;
        let server = Self::start(store).await?;
        server.client.update("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
        server.client.update("INSERT INTO t VALUES (1)").await?;
        Ok(server)
    }

    /// How many rows of `t` have this number.
    async fn count(&self, id: i64) -> Result<i64, Box<dyn std::error::Error>> {
        ask(&self.client, &format!("SELECT count(*) FROM t WHERE id = {id}")).await
    }

    async fn insert(&self, id: i64) -> Result<i64, Error> {
        let begun = Instant::now();
        let inserted = self.client.update(&format!("INSERT INTO t VALUES ({id})")).await;
        assert!(begun.elapsed() < LIMIT, "{:?}: {inserted:?}", begun.elapsed());
        inserted
    }
}

/// Of a table that must be read.
const COLD: &str = "SELECT count(*) FROM cold WHERE b % 7 = 3";
const ITS_ROWS: i64 = 143;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_alone_goes_on_when_its_store_is_back() -> TestResult {
    let store = Store::new()?;
    let server = Server::filled(&store).await?;
    store.set(State::Away);
    assert_eq!(server.count(1).await?, 1, "it is in memory");
    let begun = Instant::now();
    let unread = server.client.execute(COLD).await.err().ok_or("it is not in memory")?;
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    assert_eq!((unread.kind(), unread.sqlstate()), (ErrorKind::Unavailable, "08006"), "{unread}");
    store.set(State::Works);
    assert_eq!(ask(&server.client, COLD).await?, ITS_ROWS);
    server.insert(2).await?;
    // One of which nothing was sent is refused and leaves nothing.
    store.set(State::Refuses);
    let refused = server.insert(3).await.err().ok_or("nothing is stored")?;
    assert_eq!((refused.kind(), refused.sqlstate()), (ErrorKind::Unavailable, "08006"), "{refused}");
    assert_eq!((server.count(2).await?, server.count(3).await?), (1, 0));
    store.set(State::Works);
    let begun = Instant::now();
    while let Err(refused) = server.insert(3).await {
        assert!(refused.kind() == ErrorKind::Unavailable && begun.elapsed() < LIMIT, "{refused}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.db.close()?;
    let server = Server::start(&store).await?;
    assert_eq!(ask(&server.client, "SELECT sum(id) FROM t").await?, 1 + 2 + 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_alone_whose_commit_failed_half_sent_is_started_again() -> TestResult {
    for failure in [State::Away, State::Unheard] {
        let store = Store::new()?;
        let server = Server::filled(&store).await?;
        store.set(failure);
        let unknown = server.insert(2).await.err().ok_or("nobody knows")?;
        assert_eq!((unknown.kind(), unknown.sqlstate()), (ErrorKind::OutcomeUnknown, "08007"), "{unknown}");
        for state in [failure, State::Works] {
            store.set(state);
            let refused = server.insert(3).await.err().ok_or("its log has failed")?;
            assert_eq!((refused.kind(), refused.sqlstate()), (ErrorKind::Closed, "57P01"), "{state:?}: {refused}");
            assert_eq!((server.count(1).await?, server.count(2).await?), (1, 0), "{state:?}");
        }
        assert_eq!(ask(&server.client, COLD).await?, ITS_ROWS);
        // It has nothing to end in good order.
        drop(server.db.close());
        let server = Server::start(&store).await?;
        assert_eq!(server.count(1).await?, 1, "it was acknowledged");
        assert_eq!(server.count(2).await?, i64::from(failure == State::Unheard), "and this is what became of it");
        assert_eq!(server.count(3).await?, 0, "it was refused");
        server.insert(3).await?;
        assert_eq!(ask(&server.client, COLD).await?, ITS_ROWS);
    }
    Ok(())
}
