//! Tables elsewhere: a second Grizzly in a process of its own, and a Parquet file, joined with tables that are here.

use arrow::record_batch::RecordBatch;
use datafusion::{arrow::util::pretty::pretty_format_batches, error::DataFusionError};
use grizzly_flight::FlightSqlConnection;
use grizzly_provider::{ErrorKind, adapter::grizzly_error};
use parking_lot::Mutex;

use super::{
    check::{expect, failed, number},
    compare::same_rows,
    data::Table,
    folder::Folder,
    report::{Found, Report},
    server::Server,
};
use crate::session::{Attachment, Database, invalid};

/// The tables of the second Grizzly.
const REMOTE: [Table; 2] = [Table::Nation, Table::Customer];
/// The catalog that shows them, and the table that shows the file.
const CATALOG: &str = "crm";
const FILE: &str = "region_file";

/// What must be in the SQL that is sent: the remote joins its tables, filters and groups.
const SENT: [&str; 3] = [" JOIN ", "'BUILDING'", "GROUP BY"];

/// The second Grizzly, and sessions that have its tables.
struct Far {
    server: Server,
    database: Database,
}

pub(crate) async fn steps(database: &Database, scratch: &Folder, memory: usize, report: &mut Report) {
    let far = Mutex::new(None);
    report.step("fill a second Grizzly with INSERT", fill(database, scratch, memory, &far)).await;
    let Some(far) = far.into_inner() else { return };
    let file = format!("{}.parquet", scratch.place("region"));
    report.step("COPY a table to a Parquet file", copy(database, &file)).await;
    report.step("join local, remote and Parquet tables", join(database, &far, &file)).await;
    report.step("the same after the remote was killed", lose(far, &file)).await;
}

/// Per nation: revenue of its suppliers, which are here, and its customers, which are in `catalog`.
fn query(catalog: &str, region: &str) -> String {
    format!(
        "SELECT r_name, n_name, customers, balance, revenue FROM ( \
           SELECT s_nationkey, sum(l_extendedprice * (1 - l_discount)) AS revenue \
           FROM lineitem JOIN supplier ON s_suppkey = l_suppkey \
           WHERE l_shipdate >= DATE '1996-01-01' AND l_shipdate < DATE '1997-01-01' GROUP BY s_nationkey) AS sold \
         JOIN ( \
           SELECT n_nationkey, n_name, n_regionkey, count(*) AS customers, sum(c_acctbal) AS balance \
           FROM {catalog}public.customer JOIN {catalog}public.nation ON n_nationkey = c_nationkey \
           WHERE c_mktsegment = 'BUILDING' GROUP BY n_nationkey, n_name, n_regionkey) AS known \
         ON n_nationkey = s_nationkey \
         JOIN {region} ON r_regionkey = n_regionkey \
         ORDER BY revenue DESC, n_name"
    )
}

async fn fill(
    database: &Database,
    scratch: &Folder,
    memory: usize,
    far: &Mutex<Option<Far>>,
) -> Result<Found, DataFusionError> {
    let (folder, memory) = (scratch.place("second"), (memory / 4).to_string());
    let server = tokio::task::block_in_place(|| Server::start(&["--db", &folder, "--memory", &memory]))?;
    let connection = FlightSqlConnection::connect(server.url()).await?;
    for table in REMOTE {
        connection.update(table.definition()).await?;
    }
    let attachment: Attachment = format!("{CATALOG}={}", server.url()).parse().map_err(invalid)?;
    let database = database.clone().attach(&[attachment]).await?;
    let session = database.session()?;
    let mut rows = 0;
    for name in REMOTE.map(Table::name) {
        let inserted = session.execute(&format!("INSERT INTO {CATALOG}.public.{name} SELECT * FROM {name}")).await?;
        rows += number(&inserted)?;
        let there = number(&connection.execute(&format!("SELECT count(*) FROM {name}")).await?)?;
        expect(name, there, number(&session.execute(&format!("SELECT count(*) FROM {name}")).await?)?)?;
    }
    let found = Found::new(rows.unsigned_abs(), format!("{} has them all", server.url()));
    *far.lock() = Some(Far { server, database });
    Ok(found)
}

async fn copy(database: &Database, file: &str) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    let copied = session.execute(&format!("COPY (SELECT * FROM region) TO {} STORED AS PARQUET", text(file))).await?;
    let bytes = std::fs::metadata(file)?.len();
    Ok(Found::new(number(&copied)?.unsigned_abs(), format!("{bytes} bytes")))
}

async fn join(database: &Database, far: &Far, file: &str) -> Result<Found, DataFusionError> {
    let session = far.database.session()?;
    session.execute(&external(file)).await?;
    let sql = query(&format!("{CATALOG}."), FILE);
    let plan = session.execute(&format!("EXPLAIN {sql}")).await?;
    let plan = pretty_format_batches(&plan)?.to_string();
    let mut sent = plan.lines().filter_map(|line| line.split_once("RemoteScanExec: ")).map(|(_, sent)| sent);
    let (Some(sent), None) = (sent.next(), sent.next()) else {
        return Err(failed(format!("one query should be sent to the remote:\n{plan}")));
    };
    if let Some(missing) = SENT.iter().find(|part| !sent.contains(**part)) {
        return Err(failed(format!("'{missing}' is not in what is sent to the remote: {sent}")));
    }
    let spread = session.execute(&sql).await?;
    let here = database.session()?.execute(&query("", "region")).await?;
    same_rows(&spread, &here, &[4, 1]).map_err(failed)?;
    let rows: usize = spread.iter().map(RecordBatch::num_rows).sum();
    let verdict = "same as with all tables here; EXPLAIN sends the remote its join, filter and GROUP BY";
    Ok(Found::new(rows as u64, verdict))
}

/// Kills the second Grizzly: a query that needs it fails, and says who is to blame.
async fn lose(far: Far, file: &str) -> Result<Found, DataFusionError> {
    let url = far.server.url().to_owned();
    let session = far.database.session()?;
    session.execute(&external(file)).await?;
    tokio::task::block_in_place(|| far.server.kill())?;
    let error = match session.execute(&query(&format!("{CATALOG}."), FILE)).await {
        Ok(_) => return Err(failed("a query answered without its remote")),
        Err(error) => error,
    };
    expect("the error", grizzly_error(&error).map(|error| error.kind()), Some(ErrorKind::Unavailable))?;
    expect("the error names the remote", error.to_string().contains(&url), true)?;
    Ok(Found::new(0, format!("an error that names {url}")))
}

/// The statement that shows the file as a table, for the rest of the session.
fn external(file: &str) -> String {
    format!("CREATE EXTERNAL TABLE {FILE} STORED AS PARQUET LOCATION {}", text(file))
}

/// A text in SQL.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
