//! Three nodes on one folder, each a process: they answer TPC-H together, and go on when one of them is killed.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use arrow::record_batch::RecordBatch;
use datafusion::{arrow::util::pretty::pretty_format_batches, error::DataFusionError};
use grizzly_flight::FlightSqlConnection;
use parking_lot::Mutex;

use super::{
    check::{expect, failed, number},
    failover,
    queries::{self, Answer, Answers},
    report::{Found, Report},
    server::Server,
};
use crate::output::duration;

const NODES: usize = 3;
/// How long nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(60);
/// Makes every query of a session worth all nodes.
const DISTRIBUTE: &str = "SET grizzly.distribute_rows = 1";

/// All steps on the database at `url`, which nobody has open. Its tables must be those that `answers` are about.
pub(crate) async fn steps(url: &str, memory: usize, answers: &Answers, report: &mut Report) {
    let nodes = Mutex::new(Vec::new());
    report.step("start three nodes on one folder", start(url, memory, &nodes)).await;
    let mut nodes = nodes.into_inner();
    if nodes.len() < NODES {
        return;
    }
    report.step("TPC-H on three nodes", together(&nodes, answers)).await;
    report.step("TPC-H, kill -9 a node in mid-query", lose_one(&mut nodes, answers)).await;
    failover::steps(url, memory, nodes, report).await;
}

async fn start(url: &str, memory: usize, nodes: &Mutex<Vec<Server>>) -> Result<Found, DataFusionError> {
    // Each may have to do what one alone does: not every query is divided, and hash joins cannot spill.
    let memory = memory.to_string();
    let arguments = ["--db", url, "--cluster", "--listen", "127.0.0.1:0", "--memory", &memory];
    let started =
        tokio::task::block_in_place(|| (0..NODES).map(|_| Server::start(&arguments)).collect::<Result<Vec<_>, _>>())?;
    for node in &started {
        sees_all(node).await?;
    }
    *nodes.lock() = started;
    Ok(Found::new(NODES as u64, "each lists all three in grizzly.nodes"))
}

/// Waits until the node sees all nodes live.
async fn sees_all(node: &Server) -> Result<(), DataFusionError> {
    let connection = FlightSqlConnection::connect(node.url()).await?;
    let begun = Instant::now();
    loop {
        let live = number(&connection.execute("SELECT count(*) FROM grizzly.nodes WHERE state = 'live'").await?)?;
        if live == NODES as i64 {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(failed(format!("{} sees {live} of {NODES} nodes", node.url())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connect(node: &Server) -> Result<FlightSqlConnection, DataFusionError> {
    let connection = FlightSqlConnection::connect(node.url()).await?;
    connection.update(DISTRIBUTE).await?;
    Ok(connection)
}

/// Runs the query at `index` and returns how many rows it has.
async fn ask(connection: &FlightSqlConnection, index: usize, answer: &Answer) -> Result<usize, DataFusionError> {
    let query = queries::ALL[index];
    let wrong = |what: String| failed(format!("{} through {}: {what}", query.title(), connection.url()));
    let rows = connection.execute(query.sql()).await.map_err(|error| wrong(error.to_string()))?;
    answer.expect(&rows).map_err(|error| wrong(error.to_string()))?;
    Ok(rows.iter().map(RecordBatch::num_rows).sum())
}

/// All queries through one node, which shares them with the others.
async fn together(nodes: &[Server], answers: &Answers) -> Result<Found, DataFusionError> {
    let connection = connect(&nodes[1]).await?;
    let (mut rows, mut took, mut shared) = (0, Duration::ZERO, 0);
    for (index, answer) in answers {
        let plan = connection.execute(&format!("EXPLAIN {}", queries::ALL[*index].sql())).await?;
        shared += usize::from(pretty_format_batches(&plan)?.to_string().contains("Stage 1"));
        let begun = Instant::now();
        rows += ask(&connection, *index, answer).await?;
        took += begun.elapsed();
    }
    // The others read tables of one shard.
    if 2 * shared < answers.len() {
        return Err(failed(format!("only {shared} of {} queries ran on several nodes", answers.len())));
    }
    let verdict = format!("{} answers, the same; {shared} queries ran on several nodes", answers.len());
    Ok(Found::new(rows as u64, verdict).in_time(took))
}

/// All queries again, by two clients of two nodes, while the third one is killed.
async fn lose_one(nodes: &mut Vec<Server>, answers: &Answers) -> Result<Found, DataFusionError> {
    let third = nodes.pop().ok_or_else(|| failed("there is no third node"))?;
    let clients = [connect(&nodes[0]).await?, connect(&nodes[1]).await?];
    let (running, done, longest) = (Cell::new(0), Cell::new(0), Cell::new(Duration::ZERO));
    let client = async |number: usize| {
        let mut rows = 0;
        for (index, answer) in answers.iter().skip(number).step_by(clients.len()) {
            let begun = Instant::now();
            running.set(running.get() + 1);
            rows += ask(&clients[number], *index, answer).await?;
            running.set(running.get() - 1);
            done.set(done.get() + 1);
            longest.set(longest.get().max(begun.elapsed()));
        }
        Ok::<_, DataFusionError>(rows)
    };
    let kill = async {
        while done.get() < answers.len() / 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let hit = running.get();
        tokio::task::block_in_place(|| third.kill())?;
        Ok(hit)
    };
    let (first, second, hit) = tokio::try_join!(client(0), client(1), kill)?;
    expect("all queries", done.get(), answers.len())?;
    if hit == 0 {
        return Err(failed("no query was running when the node was killed"));
    }
    let longest = duration(longest.get());
    let verdict = format!("{} answers, the same; {hit} were on their way, the longest took {longest}", done.get());
    Ok(Found::new((first + second) as u64, verdict))
}
