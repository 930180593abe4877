//! The node that writes is killed while clients commit: another one goes on, and has every acknowledged commit.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    time::{Duration, Instant},
};

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use datafusion::error::DataFusionError;
use grizzly_flight::FlightSqlConnection;
use grizzly_provider::{ClusterSettings, Grizzly, Settings};
use parking_lot::Mutex;

use super::{
    check::{ask, expect, failed, number, verify},
    report::{Found, Report},
    server::Server,
};
use crate::{output::duration, session::Database};

const CLIENTS: usize = 4;
/// Commits to wait for before the kill, and after it.
const COMMITS: usize = 100;
/// How long writes may take to go on.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks, and before a client tries another commit.
const PAUSE: Duration = Duration::from_millis(10);

/// Kills the writer among the nodes, and in the end all of them.
pub(crate) async fn steps(url: &str, memory: usize, nodes: Vec<Server>, report: &mut Report) {
    let journal = Mutex::new(None);
    report.step("kill -9 the writer in mid-commit", lose_the_writer(url, nodes, &journal)).await;
    let Some(commits) = journal.into_inner() else { return };
    report.step("verify what the nodes left behind", left_behind(url, memory, commits)).await;
}

/// What the clients share. All of them are futures of one task.
struct Clients {
    stop: Cell<bool>,
    killed: Cell<Option<Instant>>,
    /// Commits that were acknowledged, and when those were that began after the kill.
    acknowledged: RefCell<BTreeSet<i64>>,
    after: RefCell<Vec<Instant>>,
}

async fn lose_the_writer(
    url: &str,
    mut nodes: Vec<Server>,
    journal: &Mutex<Option<i64>>,
) -> Result<Found, DataFusionError> {
    let writer = find_writer(url, &nodes).await?;
    let writer = nodes.swap_remove(writer);
    let survivor = nodes.first().ok_or_else(|| failed("no other node is left"))?;
    let connection = FlightSqlConnection::connect(survivor.url()).await?;
    // Without a key, so that a commit that came twice would be there twice.
    connection.update("CREATE TABLE journal (id BIGINT NOT NULL, amount BIGINT NOT NULL)").await?;
    let clients = Clients {
        stop: Cell::new(false),
        killed: Cell::new(None),
        acknowledged: RefCell::default(),
        after: RefCell::default(),
    };
    let committing = futures::future::try_join_all((0..CLIENTS).map(|client| clients.commit(survivor.url(), client)));
    let (_, interrupted) = tokio::try_join!(committing, clients.interrupt(writer))?;
    let acknowledged = clients.acknowledged.into_inner();
    *journal.lock() = Some(nothing_lost(&connection, &acknowledged).await?);
    let verdict = format!("none acknowledged is lost or doubled; writes went on after {}", duration(interrupted));
    Ok(Found::new(acknowledged.len() as u64, verdict))
}

/// Which of the nodes writes, as one sees who follows the database.
async fn find_writer(url: &str, nodes: &[Server]) -> Result<usize, DataFusionError> {
    let cluster = ClusterSettings { candidate: false, ..ClusterSettings::default() };
    let settings = Settings { memory_bytes: 1 << 20, cluster: Some(cluster), ..Settings::default() };
    let watcher = tokio::task::block_in_place(|| Grizzly::builder(url).settings(settings).open())?;
    let begun = Instant::now();
    let found = loop {
        let writer = watcher.writer();
        let found = nodes.iter().position(|node| writer.as_ref().is_some_and(|writer| writer.url == node.url()));
        match found {
            Some(found) => break found,
            None if begun.elapsed() > PATIENCE => return Err(failed(format!("none of the nodes writes: {writer:?}"))),
            None => tokio::time::sleep(PAUSE).await,
        }
    };
    tokio::task::block_in_place(|| watcher.close())?;
    Ok(found)
}

impl Clients {
    /// Commits pairs of rows whose sum is zero until it is told to stop. A pair that fails is not tried again: nobody
    /// knows whether it was committed.
    async fn commit(&self, url: &str, client: usize) -> Result<(), DataFusionError> {
        let connection = FlightSqlConnection::connect(url).await?;
        let mut pair = client as i64;
        while !self.stop.get() {
            let begun = Instant::now();
            let insert = format!("INSERT INTO journal VALUES ({}, {pair}), ({}, -{pair})", 2 * pair, 2 * pair + 1);
            match connection.update(&insert).await {
                Ok(rows) => {
                    expect("rows of a commit", rows, 2)?;
                    self.acknowledged.borrow_mut().insert(pair);
                    if self.killed.get().is_some_and(|killed| begun > killed) {
                        self.after.borrow_mut().push(Instant::now());
                    }
                }
                Err(error) if self.killed.get().is_none() => return Err(error.into()),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            pair += CLIENTS as i64;
        }
        Ok(())
    }

    /// Kills the writer once there were commits, and tells the clients to stop once there were more. Returns how long
    /// after the kill the first of them was acknowledged.
    async fn interrupt(&self, writer: Server) -> Result<Duration, DataFusionError> {
        while self.acknowledged.borrow().len() < COMMITS {
            tokio::time::sleep(PAUSE).await;
        }
        let killed = Instant::now();
        self.killed.set(Some(killed));
        tokio::task::block_in_place(|| writer.kill())?;
        while self.after.borrow().len() < COMMITS {
            if killed.elapsed() > PATIENCE {
                return Err(failed(format!("writes did not go on within {}", duration(PATIENCE))));
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.stop.set(true);
        let first = self.after.borrow().first().copied();
        Ok(first.map_or(Duration::ZERO, |first| first - killed))
    }
}

/// Every acknowledged pair is in the journal, every pair is whole, and none is there twice. Returns its rows.
async fn nothing_lost(connection: &FlightSqlConnection, acknowledged: &BTreeSet<i64>) -> Result<i64, DataFusionError> {
    let mut found = BTreeSet::new();
    let mut rows = 0;
    for batch in connection.execute("SELECT id FROM journal").await? {
        rows += batch.num_rows();
        let ids = cast(batch.column(0), &DataType::Int64)?;
        found.extend(ids.as_primitive::<Int64Type>().iter().flatten());
    }
    expect("different ids", found.len(), rows)?;
    let lost = acknowledged.iter().filter(|pair| !found.contains(&(2 * **pair)) || !found.contains(&(2 * **pair + 1)));
    expect("acknowledged commits that are lost", lost.count(), 0)?;
    expect("the sum of all pairs", number(&connection.execute("SELECT sum(amount) FROM journal").await?)?, 0)?;
    Ok(rows as i64)
}

/// Opens the folder without any of the nodes.
async fn left_behind(url: &str, memory: usize, journal: i64) -> Result<Found, DataFusionError> {
    let database = Database::open(url, Some(memory), false)?;
    let rows = ask(&database.session()?, "SELECT count(*) FROM journal").await?;
    expect("rows of the journal", rows, journal)?;
    let found = verify(&database).await?;
    database.close()?;
    Ok(found)
}
