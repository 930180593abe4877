//! Answers that are lost on the way from the writer: what the session may read afterwards.

use std::{
    error::Error,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use grizzly_flight::{FlightSqlConnection, FlightSqlServer};
use grizzly_provider::{ClusterSettings, ErrorKind, Grizzly, Settings, Storage, storage::open_storage};

use super::{
    process::LIMIT,
    proxy::{Network, Proxy},
};
use crate::{
    gate::{Gate, Point},
    support::{Served, TestResult, ask, factory},
};

/// Longer than a test runs: nobody loses its lease, and a follower looks at the storage when it is asked to.
const NEVER: Duration = Duration::from_secs(3600);

/// A node, and its storage, which stands still when told to.
struct Node {
    db: Grizzly,
    gate: Gate,
    served: Served,
}

impl Node {
    async fn start(storage: &Arc<dyn Storage>, name: &str) -> Result<Self, Box<dyn Error>> {
        let gate = Gate::new(Arc::clone(storage));
        let cluster =
            ClusterSettings { node: name.to_owned(), lease: NEVER, poll: NEVER, ..ClusterSettings::default() };
        let settings = Settings { cluster: Some(cluster), background: false, ..Settings::default() };
        let db = Grizzly::builder("memory://").settings(settings).storage(Arc::new(gate.clone())).open()?;
        let served = Served::of(FlightSqlServer::builder(factory(&db)).listen("127.0.0.1:0").await?);
        Ok(Self { db, gate, served })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that fails must not wait for one that stands still.
        self.gate.thaw();
    }
}

/// A writer behind a link, a node that follows it, and a session there.
struct Pair {
    writer: Node,
    link: Proxy,
    follower: Node,
    session: FlightSqlConnection,
}

impl Pair {
    async fn start() -> Result<Self, Box<dyn Error>> {
        let storage = open_storage("memory://")?;
        let writer = Node::start(&storage, "one").await?;
        let link = Proxy::to(writer.served.url.trim_start_matches("grpc://").to_owned()).await?;
        writer.db.advertise(&link.url)?;
        let follower = Node::start(&storage, "two").await?;
        assert!(writer.db.is_writer() && !follower.db.is_writer());
        let session = follower.served.connect().await?;
        session.update("CREATE TABLE t (a BIGINT PRIMARY KEY)").await?;
        session.update("INSERT INTO t VALUES (1)").await?;
        Ok(Self { writer, link, follower, session })
    }

    /// The link breaks while the commit that `work` ends with is on its way into the log, where it arrives.
    async fn lose_answer(
        &self,
        work: impl Future<Output = grizzly_provider::Result<()>> + Send + 'static,
    ) -> Result<(), Box<dyn Error>> {
        let before = self.writer.db.snapshot().csn();
        self.writer.gate.stop_at(Point::Sync);
        let asked = tokio::spawn(work);
        until("the commit is under way", || self.writer.gate.is_frozen()).await;
        self.link.set(Network::Cut);
        let lost = tokio::time::timeout(LIMIT, asked).await??.expect_err("nobody can have answered");
        assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown, "{lost}");
        self.writer.gate.thaw();
        until("the commit is done", || self.writer.db.snapshot().csn() > before).await;
        self.link.set(Network::Works);
        assert!(self.follower.db.snapshot().csn() <= before, "the node has not looked");
        assert!(!self.follower.db.is_stale(), "it would look for another reason");
        Ok(())
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < 3 * LIMIT, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_answer_the_session_reads_what_was_written() -> TestResult {
    let pair = Pair::start().await?;
    let session = pair.session.clone();
    pair.lose_answer(async move { session.update("INSERT INTO t VALUES (2)").await.map(drop) }).await?;
    assert_eq!(ask(&pair.session, "SELECT count(*) FROM t WHERE a = 2").await?, 1);

    pair.session.update("BEGIN").await?;
    pair.session.update("INSERT INTO t VALUES (3)").await?;
    let session = pair.session.clone();
    pair.lose_answer(async move { session.update("COMMIT").await.map(drop) }).await?;
    assert_eq!(ask(&pair.session, "SELECT count(*) FROM t WHERE a = 3").await?, 1);

    // A transaction of Flight's actions belongs to the session that began it.
    let transaction = pair.session.begin().await?;
    transaction.update("INSERT INTO t VALUES (4)").await?;
    pair.lose_answer(async move { transaction.commit().await }).await?;
    assert_eq!(ask(&pair.session, "SELECT count(*) FROM t WHERE a = 4").await?, 1);

    assert_eq!(ask(&pair.session, "SELECT sum(a) FROM t").await?, 10, "nothing was written twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_answer_a_node_that_cannot_catch_up_refuses_the_read() -> TestResult {
    let pair = Pair::start().await?;
    let other = pair.follower.served.connect().await?;
    let session = pair.session.clone();
    pair.lose_answer(async move { session.update("INSERT INTO t VALUES (2)").await.map(drop) }).await?;
    pair.follower.gate.freeze();
    let begun = Instant::now();
    let refused = pair.session.execute("SELECT a FROM t").await.expect_err("it may be less than was written");
    assert_eq!((refused.kind(), refused.sqlstate()), (ErrorKind::Unavailable, "08006"), "{refused}");
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    // Another session has written nothing, and reads what is here.
    assert_eq!(ask(&other, "SELECT count(*) FROM t").await?, 1);
    pair.follower.gate.thaw();
    assert_eq!(ask(&pair.session, "SELECT count(*) FROM t").await?, 2);
    Ok(())
}
