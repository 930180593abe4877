//! Real processes over one folder, or one bucket (`GRIZZLY_CLUSTER_URL`): TPC-H has the answers of a single node, also
//! while nodes are killed and frozen at random moments; and they reach each other where each says.

use std::{
    net::TcpListener,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::{AsArray, RecordBatch},
    util::pretty::pretty_format_batches,
};
use grizzly_flight::client::IngestMode;
use grizzly_provider::{ErrorKind, Grizzly, adapter::GrizzlySession};

use super::{
    compare::{order_of, same_rows},
    data::Table,
    process::{LIMIT, Outcome, Place, Process, all_see, three},
    proxy::{Network, Proxy},
    queries::{TPCH, load},
};
use crate::support::ask;

/// Nodes killed and frozen; more with `GRIZZLY_KILLS=100`.
const KILLS: usize = 4;
/// Of TPC-H; more with `GRIZZLY_TPCH_SCALE=0.1`.
const SCALE: f64 = 0.01;

/// A query of TPC-H, what a single node answers, and what the cluster took for it undisturbed.
struct Query {
    sql: &'static str,
    answer: Vec<RecordBatch>,
    ordered: Vec<usize>,
    usual: Duration,
}

impl Query {
    fn check(&self, rows: &[RecordBatch]) -> Outcome {
        same_rows(rows, &self.answer, &self.ordered).map_err(|difference| format!("{difference}\n{}", self.sql).into())
    }
}

/// Numbers that look random: SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn new() -> Outcome<Self> {
        let seed = match std::env::var("GRIZZLY_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into(),
        };
        println!("GRIZZLY_SEED={seed} repeats the choice of nodes and moments");
        Ok(Self(seed))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap_or_default()
    }
}

fn setting<T: std::str::FromStr>(name: &str, usual: T) -> Result<T, T::Err> {
    std::env::var(name).map_or(Ok(usual), |value| value.parse())
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_answer_tpch_as_one_does_while_they_are_killed_and_frozen() -> Outcome {
    let place = Place::new()?;
    let outcome = answer_and_survive(&place).await;
    place.explain(outcome)
}

async fn answer_and_survive(place: &Place) -> Outcome {
    let scale = setting("GRIZZLY_TPCH_SCALE", SCALE)?;
    let mut nodes = three(place).await?;
    fill(&nodes, scale).await?;
    let queries = compare(&nodes, scale).await?;
    disturb(&mut nodes, place, &queries, setting("GRIZZLY_KILLS", KILLS)?).await
}

/// Creates and loads the tables through nodes that do not write.
async fn fill(nodes: &[Process], scale: f64) -> Outcome {
    let begun = Instant::now();
    for (table, node) in Table::ALL.into_iter().zip(nodes.iter().cycle()) {
        let connection = node.connect().await?;
        connection.update(table.definition()).await?;
        let rows = table.generate(scale, 1, 1).collect::<Result<Vec<_>, _>>()?;
        let (count, schema) = (rows.iter().map(RecordBatch::num_rows).sum::<usize>(), table.schema());
        let stored = connection.ingest(table.name(), IngestMode::Append, schema, futures::stream::iter(rows)).await?;
        assert_eq!(usize::try_from(stored)?, count, "{}", table.name());
    }
    println!("TPC-H at scale {scale} loaded in {:?}", begun.elapsed());
    Ok(())
}

/// Asks every query of one node or another, and a database that is on no cluster. Returns those that were divided.
async fn compare(nodes: &[Process], scale: f64) -> Outcome<Vec<Query>> {
    let db = Grizzly::open("memory://")?;
    load(&db, scale).await?;
    let alone = GrizzlySession::new(&db);
    let (mut divided, mut longest) = (Vec::new(), Duration::ZERO);
    for ((_, sql), node) in TPCH.into_iter().zip(nodes.iter().cycle()) {
        let sql = sql.trim_end().trim_end_matches(';');
        let frame = alone.sql(sql).await?;
        let ordered = order_of(frame.logical_plan());
        let mut query = Query { sql, answer: frame.collect().await?, ordered, usual: Duration::ZERO };
        let connection = node.connect().await?;
        // What was loaded through one node may not have come to this one yet.
        connection.update("DELETE FROM region WHERE r_regionkey < 0").await?;
        let plan = pretty_format_batches(&connection.execute(&format!("EXPLAIN {sql}")).await?)?.to_string();
        let begun = Instant::now();
        query.check(&connection.execute(sql).await?)?;
        query.usual = begun.elapsed();
        longest = longest.max(query.usual);
        if plan.contains("Stage 1 runs on") && nodes.iter().filter(|node| plan.contains(&node.url)).count() > 1 {
            divided.push(query);
        }
    }
    println!("22 queries have the answers of one node, {} ran on several, {longest:?} at most", divided.len());
    assert!(divided.len() >= 15, "only {} queries ran on several nodes", divided.len());
    Ok(divided)
}

/// Runs queries while nodes are killed and frozen, each time the same query afterwards, and repairs the cluster.
async fn disturb(nodes: &mut [Process], place: &Place, queries: &[Query], kills: usize) -> Outcome {
    let (mut dice, mut seen) = (Dice::new()?, Seen::default());
    for round in 0..kills {
        let query = &queries[dice.below(queries.len())];
        let (asked, killed) = (dice.below(3), round % 2 == 0);
        // Every fourth time the node that was asked.
        let victim = if dice.below(4) == 0 { asked } else { (asked + 1 + dice.below(2)) % 3 };
        let moment = query.usual.mul_f64(dice.below(120) as f64 / 100.0);
        let connection = nodes[asked].connect().await?;
        let sql = query.sql;
        let running = tokio::spawn(async move {
            let begun = Instant::now();
            (connection.execute(sql).await, begun.elapsed())
        });
        tokio::time::sleep(moment).await;
        if killed {
            nodes[victim].kill()?
        } else {
            nodes[victim].freeze()?
        }
        let case = format!(
            "round {round}: {} {} after {moment:?}, asked was {}",
            if killed { "killed" } else { "froze" },
            nodes[victim].url,
            nodes[asked].url
        );
        let (answer, took) = running.await?;
        seen.note(query, answer, took, victim == asked).map_err(|error| format!("{case}: {error}"))?;
        let survivor = if asked == victim { (victim + 1) % 3 } else { asked };
        next(&nodes[survivor], query, &mut seen).await.map_err(|error| format!("{case}, next: {error}"))?;
        if killed {
            nodes[victim] = Process::start(place)?
        } else {
            nodes[victim].thaw()?
        }
        all_see(nodes).await.map_err(|error| format!("{case}, after it: {error}"))?;
    }
    println!("{kills} kills and freezes: {seen:?}");
    Ok(())
}

/// The next query works.
async fn next(node: &Process, query: &Query, seen: &mut Seen) -> Outcome {
    let begun = Instant::now();
    let rows = node.connect().await?.execute(query.sql).await?;
    seen.longest_next = seen.longest_next.max(begun.elapsed());
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    query.check(&rows)
}

/// What became of the queries.
#[derive(Debug, Default)]
struct Seen {
    right: usize,
    errors: usize,
    longest: Duration,
    longest_next: Duration,
}

impl Seen {
    /// The right answer in time; or, if the node that was asked is gone, one clear error.
    fn note(
        &mut self,
        query: &Query,
        answer: grizzly_provider::Result<Vec<RecordBatch>>,
        took: Duration,
        asked_is_gone: bool,
    ) -> Outcome {
        self.longest = self.longest.max(took);
        if took > LIMIT {
            return Err(format!("it took {took:?}: {answer:?}").into());
        }
        match answer {
            Ok(rows) => {
                self.right += 1;
                query.check(&rows)
            }
            Err(error) if asked_is_gone && error.kind() == ErrorKind::Unavailable => {
                self.errors += 1;
                Ok(())
            }
            Err(error) => Err(format!("{:?}: {error}", error.kind()).into()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_writer_is_replaced_and_follows_when_it_wakes() -> Outcome {
    let place = Place::new()?;
    let outcome = freeze_the_writer(&place).await;
    place.explain(outcome)
}

async fn freeze_the_writer(place: &Place) -> Outcome {
    let nodes = three(place).await?;
    let (old, other) = (nodes[0].connect().await?, nodes[1].connect().await?);
    other.update("CREATE TABLE t (id BIGINT)").await?;
    assert_eq!(other.update("INSERT INTO t VALUES (0)").await?, 1);
    nodes[0].freeze()?;
    let frozen = Instant::now();
    let mut stored = None;
    for id in 1_i64.. {
        let begun = Instant::now();
        let written = other.update(&format!("INSERT INTO t VALUES ({id})")).await;
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
        match written {
            Ok(_) => {
                stored = Some(id);
                break;
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown)
                    && frozen.elapsed() < 3 * LIMIT => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("writes went on {:?} after the writer froze", frozen.elapsed());
    nodes[0].thaw()?;
    // What its clients ask it first already has what was written while it stood still.
    let id = stored.unwrap_or_default();
    let woken = nodes[0].connect().await?;
    assert_eq!(ask(&woken, &format!("SELECT count(*) FROM t WHERE id = {id}")).await?, 1);
    // The session was open at the node that wrote; now it writes through the other one.
    let begun = Instant::now();
    while let Err(error) = old.update("DELETE FROM t WHERE id < 0").await {
        // It may learn from this very commit that it was replaced.
        let expected = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Closed | ErrorKind::OutcomeUnknown);
        assert!(expected && begun.elapsed() < LIMIT, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for node in &nodes {
        let connection = node.connect().await?;
        // A write through a node makes its session see all that was written before.
        connection.update("DELETE FROM t WHERE id < 0").await?;
        let acknowledged = format!("SELECT count(*) FROM t WHERE id IN (0, {})", stored.unwrap_or_default());
        assert_eq!(ask(&connection, &acknowledged).await?, 2, "{}", node.url);
        assert_eq!(ask(&connection, "SELECT count(*) - count(DISTINCT id) FROM t").await?, 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn others_reach_a_node_where_it_says() -> Outcome {
    let place = Place::new()?;
    let outcome = reach_over_a_proxy(&place).await;
    place.explain(outcome)
}

async fn reach_over_a_proxy(place: &Place) -> Outcome {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let proxy = Proxy::to(address.clone()).await?;
    // It writes, since it is the first.
    let behind = Process::start_with(place, &["--listen", &address, "--advertise", &proxy.url])?;
    let nodes = [behind, Process::start(place)?];
    all_see(&nodes).await?;
    let (behind, other) = (nodes[0].connect().await?, nodes[1].connect().await?);
    let mut urls = [proxy.url.as_str(), nodes[1].url.as_str()];
    urls.sort_unstable();
    for connection in [&behind, &other] {
        let listed = connection.execute("SELECT url FROM grizzly.nodes ORDER BY url").await?;
        let listed: Vec<&str> = listed.iter().flat_map(|rows| rows.column(0).as_string::<i32>()).flatten().collect();
        assert_eq!(listed, urls);
    }
    other.update("CREATE TABLE t (id BIGINT PRIMARY KEY) PARTITION BY HASH (id) SHARDS 6").await?;
    other.update("INSERT INTO t SELECT value FROM generate_series(1, 1000)").await?;
    let plan = pretty_format_batches(&other.execute("EXPLAIN SELECT sum(id) FROM t").await?)?.to_string();
    assert!(plan.contains(&proxy.url) && !plan.contains(&nodes[0].url), "{plan}");
    assert_eq!(ask(&other, "SELECT sum(id) FROM t").await?, 500_500);
    // There is no other way: without that one, its clients have it and the other node has not.
    proxy.set(Network::Cut);
    let refused = other.update("INSERT INTO t VALUES (1001)").await.expect_err("the writer is out of reach");
    assert!(matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown), "{refused}");
    behind.update("INSERT INTO t VALUES (1002)").await?;
    proxy.set(Network::Works);
    other.update("INSERT INTO t VALUES (1003)").await?;
    assert_eq!(ask(&other, "SELECT count(*) FROM t WHERE id > 1001").await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_begins_where_there_is_no_writer() -> Outcome {
    let place = Place::new()?;
    let outcome = begin_without_a_writer(&place).await;
    place.explain(outcome)
}

/// A driver without autocommit begins a transaction behind each commit: an error of the one would be told as the other's.
async fn begin_without_a_writer(place: &Place) -> Outcome {
    let mut nodes = three(place).await?;
    let (first, second) = (nodes[1].connect().await?, nodes[2].connect().await?);
    first.update("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
    nodes[0].kill()?;
    // No lease has run out yet.
    let nothing = first.begin().await?;
    let waiting = [first.begin().await?, second.begin().await?];
    nothing.commit().await?;
    let torn = first.begin().await?;
    let refused = torn.update("INSERT INTO t VALUES (99)").await.expect_err("the writer is gone");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    let begun = Instant::now();
    for connection in [&first, &second] {
        while let Err(error) = connection.update("DELETE FROM t WHERE id < 0").await {
            assert!(error.kind() == ErrorKind::Unavailable && begun.elapsed() < 3 * LIMIT, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // One of the two nodes writes by now, and the other knows: what has begun goes on at both.
    for (transaction, id) in waiting.into_iter().zip(1..) {
        transaction.update(&format!("INSERT INTO t VALUES ({id})")).await?;
        transaction.commit().await?;
    }
    assert_eq!(ask(&second, "SELECT sum(id) FROM t").await?, 3);
    // A transaction of which a statement found no writer cannot be committed without it.
    assert!(torn.update("INSERT INTO t VALUES (100)").await.is_err());
    assert!(torn.commit().await.is_err());
    assert_eq!(ask(&second, "SELECT count(*) FROM t").await?, 2);
    Ok(())
}
