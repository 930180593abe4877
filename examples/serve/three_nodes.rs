//! Three nodes over one database: any of them takes any statement, all of them share a large query, one writes.
//!
//! `cargo run --release --example three_nodes`
//!
//! Here they are in one process; elsewhere each is a `grizzly serve --cluster` of its own.

use std::{error::Error, sync::Arc, time::Duration};

use arrow::{array::AsArray, datatypes::Int64Type};
use datafusion::{
    arrow::util::pretty::{pretty_format_batches, print_batches},
    execution::SessionStateBuilder,
};
use grizzly_flight::{Cluster, FlightSqlConnection, FlightSqlServer, GrizzlyClusterExt};
use grizzly_optimizer::GrizzlyOptimizerExt;
use grizzly_provider::{ClusterSettings, Grizzly, adapter::GrizzlySession};

/// A node that has the database open, serves it, and knows the others.
async fn start(folder: &str) -> Result<(Grizzly, String), Box<dyn Error>> {
    // The first one creates the database and writes; the others follow its log, ready to take its place.
    let db = Grizzly::builder(folder).cluster(ClusterSettings::default()).open()?;
    let node = Cluster::builder(&db).build()?;
    let member = node.clone();
    let sessions = Arc::new(move || {
        let builder = SessionStateBuilder::new().with_default_features().with_grizzly_cluster(&member)?;
        Ok(GrizzlySession::with_state(builder.with_grizzly_optimizer()?.build())?)
    });
    let server = FlightSqlServer::builder(sessions).cluster(&node).listen("127.0.0.1:0").await?;
    let url = server.url();
    tokio::spawn(server.serve());
    // Where others send what writes, and where they send their part of a query.
    db.advertise(&url)?;
    node.join(&url).await?;
    Ok((db, url))
}

/// The one number that a query returns.
async fn number(connection: &FlightSqlConnection, sql: &str) -> Result<i64, Box<dyn Error>> {
    let batches = connection.execute(sql).await?;
    let first = batches.iter().find(|batch| batch.num_rows() > 0).ok_or("no row")?;
    Ok(first.column(0).as_primitive::<Int64Type>().value(0))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("grizzly-three-nodes-{}", std::process::id()));
    let place = folder.to_string_lossy();
    let nodes = [start(&place).await?, start(&place).await?, start(&place).await?];
    let [(writer, _), (follower, url), _] = &nodes;
    assert!(writer.is_writer() && !follower.is_writer());

    // A follower takes writes, too: it sends them on, and its sessions see what they wrote.
    let connection = FlightSqlConnection::connect(url).await?;
    connection
        .update("CREATE TABLE catches (id BIGINT PRIMARY KEY, bear BIGINT) PARTITION BY HASH(id) SHARDS 6")
        .await?;
    let rows = connection.update("INSERT INTO catches SELECT value, value % 5 FROM generate_series(1, 60000)").await?;
    assert_eq!(rows, 60_000);
    assert_eq!(number(&connection, "SELECT count(*) FROM catches").await?, 60_000);

    // They find each other through the database's storage.
    while number(&connection, "SELECT count(*) FROM grizzly.nodes WHERE state = 'live'").await? < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    print_batches(&connection.execute("SELECT url, state, is_own FROM grizzly.nodes ORDER BY url").await?)?;

    // By default a query is worth all nodes if it looks at half a million rows.
    connection.update("SET grizzly.distribute_rows = 1").await?;
    let query = "SELECT bear, count(*) AS catches FROM catches GROUP BY bear ORDER BY bear";
    let plan = pretty_format_batches(&connection.execute(&format!("EXPLAIN {query}")).await?)?.to_string();
    println!("{plan}");
    assert!(nodes.iter().all(|(_, url)| plan.contains(url.as_str())), "each node has a part of it");
    let answer = connection.execute(query).await?;
    print_batches(&answer)?;
    assert_eq!(answer.iter().map(|batch| batch.num_rows()).sum::<usize>(), 5);

    for (db, _) in &nodes {
        db.close()?;
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
