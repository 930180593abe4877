//! One query over three places: a table of this process's database, tables of another Grizzly server, and a Parquet
//! file. What the server can do itself is sent to it as SQL.
//!
//! `cargo run --release --example federated`

use std::{error::Error, sync::Arc};

use datafusion::{
    arrow::util::pretty::{pretty_format_batches, print_batches},
    execution::SessionStateBuilder,
};
use grizzly_flight::{FederationExt, FlightSqlServer, federation};
use grizzly_optimizer::GrizzlyOptimizerExt;
use grizzly_provider::{
    Grizzly,
    adapter::{GrizzlySession, GrizzlySessionExt},
};

const QUERY: &str = "
    SELECT r.region, sum(o.total) AS total, sum(c.visits) AS visits
    FROM orders o
    JOIN (SELECT p.id, p.region, count(*) AS visits
          FROM crm.public.people p JOIN crm.public.visits v ON v.person = p.id
          WHERE p.active GROUP BY p.id, p.region) c ON c.id = o.customer
    JOIN regions r ON r.id = c.region
    GROUP BY r.region ORDER BY r.region";

/// A server with two tables; any process on the network could be it.
async fn serve_crm() -> Result<String, Box<dyn Error>> {
    let crm = Grizzly::open("memory://")?;
    GrizzlySession::new(&crm)
        .execute(
            "CREATE TABLE people (id BIGINT PRIMARY KEY, region BIGINT, active BOOLEAN);
             CREATE TABLE visits (id BIGINT PRIMARY KEY, person BIGINT);
             INSERT INTO people VALUES (1, 10, true), (2, 20, true), (3, 10, false);
             INSERT INTO visits SELECT value, value % 3 + 1 FROM generate_series(1, 300)",
        )
        .await?;
    let server =
        FlightSqlServer::builder(Arc::new(move || Ok(GrizzlySession::new(&crm)))).listen("127.0.0.1:0").await?;
    let url = server.url();
    tokio::spawn(server.serve());
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = serve_crm().await?;
    let db = Grizzly::open("memory://")?;
    let builder = SessionStateBuilder::new().with_default_features().with_grizzly(&db).with_grizzly_optimizer()?;
    let session = GrizzlySession::with_state(builder.with_federation().build())?;

    // All tables of the server, as a catalog of this session.
    session.context().register_catalog("crm", Arc::new(federation::attach(&url).await?));

    session
        .execute(
            "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer BIGINT, total DECIMAL(12,2));
             INSERT INTO orders VALUES (1, 1, 10.00), (2, 1, 5.50), (3, 2, 7.25), (4, 3, 99.00)",
        )
        .await?;
    let file = std::env::temp_dir().join(format!("grizzly-regions-{}.parquet", std::process::id()));
    let location = file.display();
    session
        .execute(&format!(
            "COPY (SELECT * FROM (VALUES (10, 'north'), (20, 'south')) AS v (id, region)) TO '{location}'
                 STORED AS PARQUET;
             CREATE EXTERNAL TABLE regions STORED AS PARQUET LOCATION '{location}'"
        ))
        .await?;

    let plan = session.execute(&format!("EXPLAIN {QUERY}")).await?;
    let plan = pretty_format_batches(&plan)?.to_string();
    let sent = plan.split("sql=").nth(1).and_then(|rest| rest.lines().next()).ok_or("nothing is sent")?;
    println!("sent to {url}: {}", sent.trim_end_matches(['|', ' ']));
    assert!([" JOIN ", "WHERE", "GROUP BY"].iter().all(|part| sent.contains(part)), "{plan}");

    let rows = session.execute(QUERY).await?;
    print_batches(&rows)?;
    let shown = pretty_format_batches(&rows)?.to_string();
    // Visits are counted once for each order of a customer; the third customer is not active.
    for row in ["| north  | 15.50 | 200    |", "| south  | 7.25  | 100    |"] {
        assert!(shown.contains(row), "{shown}");
    }
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
    std::fs::remove_file(&file)?;
    Ok(())
}
