//! Queries on three nodes have the answers that they have on one.

use arrow::{compute::concat_batches, record_batch::RecordBatch, util::pretty::pretty_format_batches};
use grizzly_flight::FlightSqlConnection;
use grizzly_provider::{Grizzly, Settings, adapter::GrizzlySession};

use super::{
    compare::{order_of, same_rows},
    data::Table,
    nodes::{database, fill, three},
};
use crate::support::TestResult;

macro_rules! queries {
    ($($file:literal),* $(,)?) => {
        [$(($file, include_str!(concat!("../../../src/bin/grizzly/tour/queries/", $file)))),*]
    };
}

pub(super) const TPCH: [(&str, &str); 22] = queries![
    "q01.sql", "q02.sql", "q03.sql", "q04.sql", "q05.sql", "q06.sql", "q07.sql", "q08.sql", "q09.sql", "q10.sql",
    "q11.sql", "q12.sql", "q13.sql", "q14.sql", "q15.sql", "q16.sql", "q17.sql", "q18.sql", "q19.sql", "q20.sql",
    "q21.sql", "q22.sql",
];

/// Runs `sql` on the cluster and on one node alone; whether it was divided.
async fn same(
    connection: &FlightSqlConnection,
    alone: &GrizzlySession,
    sql: &str,
) -> Result<bool, Box<dyn std::error::Error>> {
    let plan = connection.execute(&format!("EXPLAIN {sql}")).await?;
    let divided = pretty_format_batches(&plan)?.to_string().contains("Stage 1");
    let ours = connection.execute(sql).await.map_err(|error| format!("{error}\n{sql}"))?;
    let frame = alone.sql(sql).await?;
    let ordered = order_of(frame.logical_plan());
    let theirs = frame.collect().await?;
    same_rows(&ours, &theirs, &ordered).map_err(|difference| format!("{difference}\n{sql}"))?;
    Ok(divided)
}

/// Creates the tables of TPC-H and fills them.
pub(super) async fn load(db: &Grizzly, scale: f64) -> TestResult {
    let session = GrizzlySession::new(db);
    for table in Table::ALL {
        session.execute(table.definition()).await?;
        let rows = table.generate(scale, 1, 1).collect::<Result<Vec<RecordBatch>, _>>()?;
        let schema = rows.first().map(RecordBatch::schema).ok_or("no rows")?;
        session.context().register_batch("generated", concat_batches(&schema, &rows)?)?;
        session.execute(&format!("INSERT INTO {} SELECT * FROM generated", table.name())).await?;
        session.context().deregister_table("generated")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tpch_has_the_same_answers_on_three_nodes() -> TestResult {
    let db = Grizzly::open("memory://")?;
    load(&db, 0.01).await?;
    let nodes = three(&db).await?;
    let (connection, alone) = (nodes[0].connect().await?, GrizzlySession::new(&db));
    let mut divided = 0;
    for (_, sql) in TPCH {
        let sql = sql.trim_end().trim_end_matches(';');
        divided += usize::from(same(&connection, &alone, sql).await?);
    }
    // All but those of tables with one shard.
    assert!(divided >= 15, "only {divided} queries ran on several nodes");
    assert_eq!(nodes[0].live(), 3, "{:?}", nodes[0].cluster.nodes());
    Ok(())
}

/// Shapes that are easy to divide wrongly: outer, semi and anti joins, DISTINCT, windows, unions, limits, subqueries.
const SHAPES: [&str; 27] = [
    "SELECT * FROM t ORDER BY id",
    "SELECT * FROM t ORDER BY amount DESC, id LIMIT 7",
    "SELECT * FROM t ORDER BY id LIMIT 10 OFFSET 25",
    "SELECT count(*) FROM (SELECT * FROM t LIMIT 17)",
    "SELECT DISTINCT name FROM t ORDER BY name",
    "SELECT count(DISTINCT grp), count(DISTINCT name), count(*) FROM t",
    "SELECT grp, avg(amount), min(name), max(name), stddev(amount) FROM t GROUP BY grp ORDER BY grp",
    "SELECT grp, count(*) c FROM t WHERE id % 3 = 0 GROUP BY grp HAVING count(*) > 5 ORDER BY c DESC, grp",
    "SELECT median(amount), approx_distinct(name) > 0 FROM t",
    "SELECT string_agg(name, ',' ORDER BY id) FROM t WHERE id < 20",
    "SELECT a.id, b.id FROM t a JOIN t b ON a.id = b.amount ORDER BY 1, 2",
    "SELECT a.id, b.id FROM t a LEFT JOIN t b ON a.id = b.amount ORDER BY 1, 2",
    "SELECT a.id, b.id FROM t a RIGHT JOIN t b ON a.id = b.amount AND b.grp = 2 ORDER BY 1, 2",
    "SELECT a.id, b.id FROM t a FULL JOIN t b ON a.amount = b.id AND a.grp = 1 ORDER BY 1, 2",
    "SELECT count(*) FROM t a, u b WHERE a.id < b.id",
    "SELECT count(*) FROM t a LEFT JOIN u b ON a.id < b.id AND a.grp = b.grp",
    "SELECT id FROM t WHERE id IN (SELECT amount FROM t WHERE grp = 3) ORDER BY id",
    "SELECT id FROM t WHERE id NOT IN (SELECT amount FROM t WHERE amount IS NOT NULL) ORDER BY id",
    "SELECT id FROM t WHERE grp NOT IN (SELECT missing FROM u) ORDER BY id",
    "SELECT id FROM t a WHERE NOT EXISTS (SELECT 1 FROM u b WHERE b.grp = a.grp) ORDER BY id",
    "SELECT id, amount - (SELECT min(amount) FROM t b WHERE b.grp = a.grp) FROM t a ORDER BY id",
    "SELECT id FROM t WHERE amount > (SELECT avg(amount) FROM t) ORDER BY id",
    "SELECT id, row_number() OVER (PARTITION BY grp ORDER BY id), sum(amount) OVER (ORDER BY id) FROM t ORDER BY id",
    "SELECT id FROM t WHERE grp = 1 UNION ALL SELECT amount FROM t WHERE grp = 2 ORDER BY 1",
    "SELECT grp FROM t UNION SELECT grp FROM u ORDER BY 1",
    "SELECT grp FROM t EXCEPT SELECT grp FROM u ORDER BY 1",
    "SELECT t.grp, n, sum(amount) FROM t JOIN (SELECT grp, count(*) n FROM u GROUP BY grp) s ON s.grp = t.grp \
     GROUP BY t.grp, n ORDER BY 1",
];

#[tokio::test(flavor = "multi_thread")]
async fn joins_aggregates_windows_and_limits_have_the_same_answers_on_three_nodes() -> TestResult {
    let db = database(600).await?;
    let alone = GrizzlySession::new(&db);
    // One shard and one stream: the kind of table that is never divided.
    alone.execute("CREATE TABLE u (id BIGINT NOT NULL, grp BIGINT, missing BIGINT, PRIMARY KEY (id))").await?;
    alone.execute("INSERT INTO u SELECT id, id % 4, CASE WHEN id < 3 THEN id END FROM t WHERE id < 40").await?;
    alone.execute("DELETE FROM t WHERE id BETWEEN 100 AND 120").await?;
    let nodes = three(&db).await?;
    let connection = nodes[1].connect().await?;
    let mut divided = 0;
    for sql in SHAPES {
        divided += usize::from(same(&connection, &alone, sql).await?);
    }
    assert!(divided >= 20, "only {divided} queries ran on several nodes");
    assert_eq!(nodes[1].live(), 3, "{:?}", nodes[1].cluster.nodes());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_several_nodes_is_kept_until_its_table_changes() -> TestResult {
    let settings = Settings { result_cache: 1 << 20, ..Settings::default() };
    let db = Grizzly::builder("memory://").settings(settings).open()?;
    fill(&db, 600).await?;
    let nodes = three(&db).await?;
    let (connection, alone) = (nodes[0].connect().await?, GrizzlySession::new(&db));
    connection.update("SET grizzly.result_cache_rows = 1").await?;
    let sql = "SELECT grp, sum(amount) FROM t GROUP BY grp ORDER BY grp";
    let plan = pretty_format_batches(&connection.execute(&format!("EXPLAIN {sql}")).await?)?.to_string();
    assert!(plan.contains("ResultCacheExec: tables=[public.t]") && plan.contains("ClusterExec"), "{plan}");
    for change in ["UPDATE t SET amount = amount + 1 WHERE grp = 3", "DELETE FROM t WHERE id = 7"] {
        for _ in 0..3 {
            assert!(same(&connection, &alone, sql).await?, "it runs on several nodes");
        }
        connection.update(change).await?;
    }
    let totals = "SELECT hits, misses, (SELECT count(*) FROM grizzly.nodes) FROM grizzly.cache_totals";
    let totals = pretty_format_batches(&connection.execute(totals).await?)?.to_string();
    assert!(totals.contains("| 4    | 2      | 3"), "{totals}");
    Ok(())
}
