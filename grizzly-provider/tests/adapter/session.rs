//! Sessions: kept plans, prepared plans, and DataFusion's session below.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::{
    common::{ScalarValue, config::ConfigOptions},
    execution::SessionStateBuilder,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{ExecutionPlan, collect, limit::GlobalLimitExec},
    prelude::{col, lit},
};
use grizzly_provider::{
    ErrorKind,
    access::{AccessPath, KeyRange},
    adapter::{AccessChoice, GrizzlyScanExec, GrizzlySession, GrizzlySessionExt},
};

use crate::support::{Sql, Test, database, failure, text};

async fn session() -> datafusion::error::Result<GrizzlySession> {
    let session = GrizzlySession::new(&database()?);
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT); INSERT INTO t VALUES (1, 10), (2, 20)").await?;
    Ok(session)
}

#[tokio::test]
async fn a_kept_plan_reads_present_data() -> Test {
    let session = session().await?;
    let query = "SELECT x FROM t WHERE id = 1";
    for x in ["10", "11", "12"] {
        assert_eq!(text(&session.execute(query).await?)?, [x]);
        assert_eq!(text(&session.sql(query).await?.collect().await?)?, [x]);
        session.execute("UPDATE t SET x = x + 1 WHERE id = 1").await?;
    }
    session.begin().await?;
    session.execute("UPDATE t SET x = 0 WHERE id = 1").await?;
    assert_eq!(text(&session.execute(query).await?)?, ["0"]);
    session.rollback().await?;
    assert_eq!(text(&session.execute(query).await?)?, ["13"]);

    let count = "SELECT count(*), min(x), max(x) FROM t";
    assert_eq!(text(&session.execute(count).await?)?, ["2|13|20"]);
    session.execute("INSERT INTO t VALUES (3, 30)").await?;
    assert_eq!(text(&session.execute(count).await?)?, ["3|13|30"]);
    Ok(())
}

#[tokio::test]
async fn a_kept_plan_does_not_outlive_its_table_or_its_settings() -> Test {
    let session = session().await?;
    let query = "SELECT * FROM t ORDER BY id";
    assert_eq!(text(&session.execute(query).await?)?, ["1|10", "2|20"]);
    session.execute("DROP TABLE t; CREATE TABLE t (id VARCHAR); INSERT INTO t VALUES ('b'), ('a')").await?;
    assert_eq!(text(&session.execute(query).await?)?, ["a", "b"]);
    session.execute("DROP TABLE t").await?;
    assert!(session.execute(query).await.is_err());

    session.execute("CREATE TABLE t (id BIGINT); INSERT INTO t VALUES (1), (NULL)").await?;
    let query = "SELECT id FROM t ORDER BY id LIMIT 1";
    assert_eq!(text(&session.execute(query).await?)?, ["1"]);
    session.execute("SET datafusion.sql_parser.default_null_ordering = 'nulls_min'").await?;
    assert_eq!(text(&session.execute(query).await?)?, ["NULL"]);
    session.execute("SET grizzly.plan_cache = false").await?;
    assert_eq!(text(&session.execute(query).await?)?, ["NULL"]);
    Ok(())
}

#[tokio::test]
async fn plans_that_differ_each_time_are_not_kept() -> Test {
    let session = session().await?;
    for query in ["SELECT now() FROM t LIMIT 1", "SELECT random() FROM t LIMIT 1"] {
        let first = text(&session.execute(query).await?)?;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        assert_ne!(text(&session.execute(query).await?)?, first, "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn a_kept_plan_is_still_a_data_frame() -> Test {
    let session = session().await?;
    for _ in 0..2 {
        let frame = session.sql("SELECT id, x FROM t").await?;
        assert_eq!(frame.schema().fields().len(), 2);
        let rows = frame.filter(col("x").gt(lit(10)))?.select(vec![col("id") + lit(1)])?.collect().await?;
        assert_eq!(text(&rows)?, ["3"]);
        assert!(!session.sql("SELECT id, x FROM t").await?.explain(false, false)?.collect().await?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_plan_takes_parameters() -> Test {
    let session = session().await?;
    let query = session.plan("SELECT x FROM t WHERE id = $1").await?;
    for (id, rows) in [(1i64, vec!["10"]), (2, vec!["20"]), (3, vec![])] {
        let params = vec![ScalarValue::Int64(Some(id))];
        assert_eq!(text(&session.execute_plan(&query, params).await?.collect().await?)?, rows);
    }
    // Narrower than the column.
    let params = vec![ScalarValue::Int32(Some(2))];
    assert_eq!(text(&session.execute_plan(&query, params).await?.collect().await?)?, ["20"]);

    let insert =
        session.plan("INSERT INTO t (id, x) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET x = excluded.x").await?;
    for (id, x) in [(3i64, 30i64), (1, 11), (3, 33)] {
        let params = vec![ScalarValue::from(id), ScalarValue::from(x)];
        let rows = session.execute_plan(&insert, params).await?.collect().await?;
        assert_eq!(text(&rows)?, ["1"]);
    }
    let delete = session.plan("DELETE FROM t WHERE id = $1").await?;
    session.execute_plan(&delete, vec![ScalarValue::from(2i64)]).await?.collect().await?;
    assert_eq!(text(&session.execute("SELECT * FROM t ORDER BY id").await?)?, ["1|11", "3|33"]);
    Ok(())
}

#[tokio::test]
async fn a_filled_plan_means_what_the_plan_with_values_means() -> Test {
    let session = session().await?;
    session.execute("CREATE TABLE w (id INT PRIMARY KEY, name VARCHAR NOT NULL, n INT); INSERT INTO w VALUES (1, 'a', NULL), (2, 'b', 2)").await?;
    let null = ScalarValue::Int32(None);
    let text_of = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
    for (query, runs) in [
        (
            "SELECT id FROM w WHERE id = $1 OR $1 IS NULL ORDER BY id",
            vec![(vec![ScalarValue::from(1)], "1"), (vec![null.clone()], "1 2"), (vec![ScalarValue::from(2)], "2")],
        ),
        (
            "SELECT id FROM w WHERE id = $1",
            vec![
                (vec![ScalarValue::Int64(Some(2))], "2"),
                (vec![ScalarValue::Int64(Some(5_000_000_000))], ""),
                (vec![ScalarValue::Float64(Some(1.5))], ""),
                (vec![null.clone()], ""),
                (vec![ScalarValue::UInt8(Some(1))], "1"),
            ],
        ),
        (
            "SELECT id FROM w WHERE name = $1 AND id < $2",
            vec![(vec![text_of("b"), ScalarValue::from(9)], "2"), (vec![text_of("b"), ScalarValue::from(2)], "")],
        ),
        (
            "SELECT id FROM w ORDER BY id DESC LIMIT $1",
            vec![(vec![ScalarValue::Int64(Some(1))], "2"), (vec![ScalarValue::Int64(Some(5))], "2 1")],
        ),
        (
            "SELECT id + $1 FROM w WHERE id IN (SELECT id FROM t WHERE x > $2)",
            vec![
                (vec![ScalarValue::from(5), ScalarValue::Int64(Some(10))], "7"),
                (vec![ScalarValue::from(6), ScalarValue::Int64(Some(99))], ""),
            ],
        ),
    ] {
        let plan = session.plan(query).await?;
        for (params, expected) in runs {
            for _ in 0..2 {
                let rows = session.execute_plan(&plan, params.clone()).await?.collect().await?;
                assert_eq!(text(&rows)?.join(" "), expected, "{query} {params:?}");
            }
        }
        let none: Vec<ScalarValue> = Vec::new();
        assert!(session.execute_plan(&plan, none).await.is_err(), "{query} without values");
    }
    Ok(())
}

#[tokio::test]
async fn plans_at_one_address_are_not_confused() -> Test {
    let session = session().await?;
    let mut plan = session.plan("SELECT x FROM t WHERE id = $1").await?;
    let one = vec![ScalarValue::Int64(Some(1))];
    assert_eq!(text(&session.execute_plan(&plan, one.clone()).await?.collect().await?)?, ["10"]);
    plan = session.plan("SELECT x + 1 FROM t WHERE id = $1").await?;
    assert_eq!(text(&session.execute_plan(&plan, one.clone()).await?.collect().await?)?, ["11"]);
    session
        .execute("DROP TABLE t; CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT); INSERT INTO t VALUES (1, 77)")
        .await?;
    assert!(session.execute_plan(&plan, one.clone()).await?.collect().await.is_err());
    plan = session.plan("SELECT x + 1 FROM t WHERE id = $1").await?;
    assert_eq!(text(&session.execute_plan(&plan, one).await?.collect().await?)?, ["78"]);
    Ok(())
}

#[tokio::test]
async fn a_text_with_placeholders_is_planned_again_when_anything_changes() -> Test {
    let session = session().await?;
    let query = "SELECT x FROM t WHERE id = $1";
    let one = || vec![ScalarValue::Int64(Some(1))];
    let plan = session.plan(query).await?;
    assert!(Arc::ptr_eq(&plan, &session.plan(query).await?));
    session.execute("SET datafusion.execution.batch_size = 100").await?;
    assert!(!Arc::ptr_eq(&plan, &session.plan(query).await?));
    session
        .execute("DROP TABLE t; CREATE TABLE t (id BIGINT PRIMARY KEY, x VARCHAR); INSERT INTO t VALUES (1, 'new')")
        .await?;
    let plan = session.plan(query).await?;
    assert_eq!(text(&session.execute_plan(&plan, one()).await?.collect().await?)?, ["new"]);
    // A moment may be another the next time, and what is not the database's may change unseen.
    for query in ["SELECT x FROM t WHERE id = $1 AND now() IS NOT NULL", "SELECT v FROM range(9) AS s(v) WHERE v = $1"]
    {
        assert!(!Arc::ptr_eq(&session.plan(query).await?, &session.plan(query).await?), "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn a_prepared_plan_never_writes_to_another_table_of_the_same_name() -> Test {
    let session = session().await?;
    let insert = session.plan("INSERT INTO t VALUES (7, 70)").await?;
    session.execute("DROP TABLE t; CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT)").await?;
    let none: Vec<ScalarValue> = Vec::new();
    assert!(session.execute_plan(&insert, none).await?.collect().await.is_err());
    assert_eq!(text(&session.execute("SELECT count(*) FROM t").await?)?, ["0"]);
    Ok(())
}

#[tokio::test]
async fn a_session_needs_a_prepared_state_and_has_transactions_of_its_own() -> Test {
    let plain = SessionStateBuilder::new().with_default_features().build();
    let error = GrizzlySession::with_state(plain).err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::Invalid));

    let db = database()?;
    let state = SessionStateBuilder::new().with_default_features().with_grizzly(&db).build();
    let (one, two) = (GrizzlySession::with_state(state.clone())?, GrizzlySession::with_state(state)?);
    one.execute("CREATE TABLE t (id BIGINT); BEGIN; INSERT INTO t VALUES (1)").await?;
    assert!(one.in_transaction() && !two.in_transaction());
    assert_eq!(Sql::Front(two).rows("SELECT count(*) FROM t").await?, ["0"]);
    one.commit().await?;
    Ok(())
}

#[tokio::test]
async fn tables_in_memory_join_and_feed_tables_of_the_database() -> Test {
    let session = session().await?;
    let values = Int64Array::from(vec![3, 4]);
    let batch = RecordBatch::try_from_iter([("id", Arc::new(values) as ArrayRef)])?;
    session.context().register_batch("m", batch)?;
    assert_eq!(text(&session.execute("INSERT INTO t SELECT id, id + 1 FROM m").await?)?, ["2"]);
    assert_eq!(text(&session.execute("DELETE FROM t WHERE id IN (SELECT id FROM m)").await?)?, ["2"]);
    let error = session.execute("INSERT INTO t SELECT value, 'x' FROM generate_series(5, 6)").await.err();
    assert!(error.is_some_and(|error| failure(&error).1.starts_with("22")));
    assert_eq!(text(&session.execute("SELECT count(*) FROM t").await?)?, ["2"]);
    Ok(())
}

/// Each statement comes with other values often enough to be filled into a kept plan, and must give what a session
/// gives that keeps no plans.
#[tokio::test]
async fn statements_of_one_shape_mean_what_each_of_them_means() -> Test {
    let db = database()?;
    let (keeping, plain) = (GrizzlySession::new(&db), GrizzlySession::new(&db));
    plain.execute("SET grizzly.plan_cache = false").await?;
    keeping
        .execute(
            "CREATE TABLE s (
                 id INT PRIMARY KEY, big BIGINT, name VARCHAR, day DATE, price DECIMAL(9, 2), f DOUBLE, odd BOOLEAN
             );
             INSERT INTO s SELECT x, CASE WHEN x % 5 = 0 THEN NULL ELSE x * 10 END, 'n' || (x % 7),
                 arrow_cast(CAST(x AS INT), 'Date32'), x / 4.0, x / 3.0, x % 2 = 1 FROM generate_series(1, 60) AS g(x);
             CREATE INDEX by_name ON s (name); CREATE INDEX by_big ON s (big);
             CREATE VIEW v AS SELECT id, name FROM s WHERE id > 20",
        )
        .await?;
    for shape in [
        "SELECT id FROM s WHERE id = {}",
        "SELECT id + 1 AS next FROM s AS t WHERE t.big >= {} AND (id < 9 OR {} > id) ORDER BY id DESC LIMIT 4",
        "SELECT count(*), min(big), max(name) FROM s WHERE big BETWEEN {} AND 300",
        "SELECT name, count(*) FROM s WHERE id <= {} GROUP BY name HAVING count(*) > 1 ORDER BY name",
        "SELECT id FROM s WHERE name = '{}'",
        "SELECT * FROM s WHERE id = {}",
        "SELECT price, name FROM s WHERE id = {}",
        "SELECT name, price FROM s AS t WHERE t.id >= {} AND big < 500 AND name = 'n{}' ORDER BY price",
        "SELECT name FROM s WHERE id = {} AND id = 7",
        "SELECT id FROM s WHERE big > {} AND big > 50 AND big <= {} ORDER BY id",
        "SELECT name, f FROM s WHERE day = '1970-01-{}' AND price >= {}.25",
        "SELECT id FROM s WHERE odd = {} ORDER BY id",
        "SELECT id FROM \"s$rows\" WHERE row_version = 1 AND id = {}",
        "SELECT id FROM s WHERE name IN ('{}', 'n3') AND NOT id = -{} ORDER BY id",
        "SELECT id FROM s WHERE big NOT IN ({}, 30) AND id < 20 ORDER BY id",
        "SELECT id FROM s WHERE price < {} ORDER BY id",
        "SELECT id FROM s WHERE f < {} AND f > -{} ORDER BY id",
        "SELECT id FROM s WHERE day = '1970-01-{}'",
        "SELECT id FROM s WHERE id = '{}'",
        "SELECT id FROM v WHERE id < {} ORDER BY id",
        "SELECT id FROM s WHERE id > (SELECT min(id) FROM s WHERE big > {}) AND id < {} ORDER BY id",
    ] {
        for value in ["7", "n1", "30", "400", "5000000000", "99999999999999999999", "21", "08", "n5", "true"] {
            let statement = shape.replace("{}", value);
            let (kept, expected) = (keeping.execute(&statement).await, plain.execute(&statement).await);
            match (kept, expected) {
                (Ok(kept), Ok(expected)) => assert_eq!(text(&kept)?, text(&expected)?, "{statement}"),
                (kept, expected) => assert_eq!(kept.is_err(), expected.is_err(), "{statement}: {kept:?} {expected:?}"),
            }
        }
    }
    // What is kept reads present data, and does not outlive its table.
    keeping.execute("UPDATE s SET name = 'new' WHERE id = 30").await?;
    assert_eq!(text(&keeping.execute("SELECT id FROM s WHERE name = 'new'").await?)?, ["30"]);
    keeping.execute("DROP INDEX by_name; DROP VIEW v; DROP TABLE s").await?;
    assert!(keeping.execute("SELECT id FROM s WHERE id = 1").await.is_err());
    keeping.execute("CREATE TABLE s (id VARCHAR); INSERT INTO s VALUES ('7')").await?;
    assert_eq!(text(&keeping.execute("SELECT id FROM s WHERE id = 7").await?)?, ["7"]);
    Ok(())
}

#[tokio::test]
async fn a_physical_plan_outlives_the_index_it_was_made_for() -> Test {
    let session = session().await?;
    session.execute("CREATE INDEX t_x ON t (x)").await?;
    let plan = session.sql("SELECT id FROM t WHERE x = 20").await?.create_physical_plan().await?;
    let scan = plan.downcast_ref::<GrizzlyScanExec>().ok_or("a plan of a scan alone")?;
    let key = scan.planning_snapshot()?.index_key("t_x", &[Arc::new(Int64Array::from(vec![20]))])?;
    let path = AccessPath::Index { index: "t_x".into(), ranges: [KeyRange::prefix(&key)].into() };
    let choice = AccessChoice { path, estimated_rows: 1, estimated_cost: 1.0, reason: "a test".to_owned() };
    let plan = Arc::new(scan.with_access(choice)?);
    let rows = async || collect(Arc::clone(&plan) as _, session.context().task_ctx()).await;
    assert_eq!(text(&rows().await?)?, ["2"]);
    session.execute("DROP INDEX t_x").await?;
    assert_eq!(text(&rows().await?)?, ["2"]);
    session.execute("CREATE INDEX t_x ON t (id)").await?;
    assert_eq!(text(&rows().await?)?, ["2"]);
    Ok(())
}

/// A rule of someone else's: it counts the plans it sees, and returns at most the first row of each scan.
#[derive(Debug, Default)]
struct FirstRow(AtomicUsize);

impl PhysicalOptimizerRule for FirstRow {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        // Written without a care for partitions: DataFusion's own rules see to that.
        Ok(if plan.is::<GrizzlyScanExec>() { Arc::new(GlobalLimitExec::new(plan, 0, Some(1))) } else { plan })
    }

    fn name(&self) -> &str {
        "first_row"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn rules_of_others_see_every_plan_also_the_kept_ones() -> Test {
    let db = database()?;
    let rule = Arc::new(FirstRow::default());
    let mut builder = SessionStateBuilder::new().with_default_features().with_grizzly(&db);
    builder.physical_optimizers().get_or_insert_default().rules.insert(0, Arc::clone(&rule) as _);
    let session = GrizzlySession::with_state(builder.build())?;
    session
        .execute("CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT); INSERT INTO t SELECT v, 1 FROM generate_series(1, 9) AS s(v)")
        .await?;
    for (before, sql) in (1..9).map(|id| (rule.0.load(Ordering::Relaxed), format!("SELECT id FROM t WHERE id >= {id}")))
    {
        let plan = session.sql(&sql).await?.create_physical_plan().await?;
        assert_eq!(
            collect(plan, session.context().task_ctx()).await?.iter().map(RecordBatch::num_rows).sum::<usize>(),
            1
        );
        assert!(rule.0.load(Ordering::Relaxed) > before, "{sql}");
    }
    Ok(())
}
