//! Statements that read from a remote and write elsewhere, write to a remote, or show what would be sent.

use grizzly_flight::FlightSqlConnection;
use grizzly_provider::{ErrorKind, Grizzly, Settings, adapter::grizzly_error};

use super::shop::{Outcome, Shop, attach, rows, session, spread_out};
use crate::support::{Served, TestResult, numbers};

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_the_sql_that_is_sent() -> TestResult {
    let shop = Shop::open().await?;
    let sql = "SELECT c.region, count(*), sum(o.total) FROM customers c JOIN orders o ON c.id = o.customer WHERE o.total \
               > 10.00 GROUP BY c.region ORDER BY sum(o.total) DESC LIMIT 3";
    let plan = shop.explain(sql).await?;
    let scan = plan.lines().find(|line| line.contains("RemoteScanExec")).ok_or("nothing is sent")?;
    assert_eq!(plan.matches("RemoteScanExec").count(), 1, "{plan}");
    for part in [shop.a.as_str(), " JOIN ", "GROUP BY", "ORDER BY", "LIMIT 3", "CAST('10.00' AS DECIMAL(12,2))"] {
        assert!(scan.contains(part), "{part} in {scan}");
    }
    // With a table that is here, only the others' part is sent.
    let mixed = shop.explain(&format!("SELECT * FROM ({sql}) x JOIN regions r ON r.id = x.region")).await?;
    assert!(mixed.contains("GROUP BY") && mixed.contains("GrizzlyScanExec"), "{mixed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_remote_are_inserted_copied_and_kept_here() -> TestResult {
    let shop = Shop::open().await?;
    let here = &shop.spread;
    here.execute("CREATE TABLE big (id BIGINT NOT NULL, total DECIMAL(12,2), PRIMARY KEY (id))").await?;
    let insert = spread_out("INSERT INTO big SELECT o.id, o.total FROM orders o WHERE o.total > 50.00");
    let plan = rows(&here.execute(&format!("EXPLAIN {insert}")).await?)?.join("\n");
    assert!(plan.contains("RemoteScanExec"), "{plan}");
    let inserted = numbers(&here.execute(&insert).await?);
    let expected = numbers(&shop.whole.execute("SELECT count(*) FROM orders WHERE total > 50.00").await?);
    assert_eq!(inserted, expected);
    assert_eq!(numbers(&here.execute("SELECT count(*) FROM big").await?), expected);

    let update = spread_out("UPDATE big SET total = 0 WHERE id IN (SELECT i.order_id FROM items i WHERE i.qty > 3)");
    here.execute(&update).await?;
    let zeros = "SELECT count(*) FROM orders o WHERE o.total > 50.00 AND o.id IN (SELECT i.order_id FROM items i WHERE \
                 i.qty > 3)";
    let expected_zeros = numbers(&shop.whole.execute(zeros).await?);
    assert_eq!(numbers(&here.execute("SELECT count(*) FROM big WHERE total = 0").await?), expected_zeros);

    here.execute(&spread_out(
        "CREATE TABLE per AS SELECT c.region AS region, count(*) AS n FROM customers c GROUP BY c.region",
    ))
    .await?;
    assert_eq!(numbers(&here.execute("SELECT sum(n) FROM per").await?), [40]);

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("totals.csv");
    let copy = "COPY (SELECT o.note, count(*) AS n FROM orders o WHERE o.note = 'fast' GROUP BY o.note) TO";
    here.execute(&format!("{} '{}' STORED AS CSV", spread_out(copy), file.display())).await?;
    assert_eq!(std::fs::read_to_string(&file)?, "note,n\nfast,38\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_table_is_one_table_of_a_server() -> TestResult {
    let shop = Shop::open().await?;
    let here = session(&Grizzly::open("memory://")?)?;
    let url = &shop.a;
    let create = |name: &str, options: &str| {
        format!("CREATE EXTERNAL TABLE {name} STORED AS FLIGHTSQL LOCATION '{url}' {options}")
    };
    here.execute(&create("orders", "")).await?;
    let options = "OPTIONS ('flightsql.table' 'public.customers', 'flightsql.timeout' '20s')";
    here.execute(&create("people", options)).await?;
    let sql = "SELECT p.region, count(*) FROM people p JOIN orders o ON o.customer = p.id GROUP BY p.region";
    let expected = shop.whole.execute(&sql.replace("people", "customers")).await?;
    assert_eq!(rows(&here.execute(sql).await?)?, rows(&expected)?);
    let plan = rows(&here.execute(&format!("EXPLAIN {sql}")).await?)?.join("\n");
    assert_eq!(plan.matches("RemoteScanExec").count(), 1, "tables of one server are joined there: {plan}");

    let prepared = "PREPARE big AS SELECT count(*) FROM orders WHERE total > $1";
    here.execute(prepared).await?;
    let expected = numbers(&shop.whole.execute("SELECT count(*) FROM orders WHERE total > 60").await?);
    assert_eq!(numbers(&here.execute("EXECUTE big(60)").await?), expected);
    assert_eq!(numbers(&here.execute("EXECUTE big(600)").await?), [0]);

    for (options, said) in [
        ("OPTIONS ('flightsql.tabel' 'x')", "tabel"),
        ("OPTIONS ('flightsql.timeout' 'soon')", "soon"),
        ("OPTIONS ('flightsql.table' 'nosuch')", "nosuch"),
    ] {
        let error = here.execute(&create("x", options)).await.err().ok_or("it must be refused")?;
        assert!(error.to_string().contains(said), "{error}");
    }
    let columns = format!("CREATE EXTERNAL TABLE x (a INT) STORED AS FLIGHTSQL LOCATION '{url}'");
    assert!(here.execute(&columns).await.is_err());
    here.execute("DROP TABLE people").await?;
    assert!(here.execute("SELECT * FROM people").await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_is_inserted_into_and_other_writes_are_refused_by_name() -> TestResult {
    let shop = Shop::open().await?;
    let here = &shop.spread;
    let there = FlightSqlConnection::connect(&shop.a).await?;
    here.execute("CREATE TABLE new (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))").await?;
    here.execute("INSERT INTO new VALUES (1001, 'x'), (1002, NULL)").await?;
    let count = here.execute("INSERT INTO a.public.customers (id, name) SELECT id, name FROM new").await?;
    assert_eq!(numbers(&count), [2]);
    assert_eq!(
        numbers(&there.execute("SELECT count(*) FROM customers WHERE id > 1000 AND region IS NULL").await?),
        [2]
    );

    // All or none: the second row fails there, and here half-way.
    let twice =
        here.execute("INSERT INTO a.public.customers (id) VALUES (2000), (1)").await.err().ok_or("a key twice")?;
    let inner = grizzly_error(&twice).ok_or("an error of ours")?;
    assert_eq!(inner.kind(), ErrorKind::UniqueViolation, "{inner}");
    assert!(inner.message().contains(&shop.a), "{inner}");
    let failing = "INSERT INTO a.public.customers (id) SELECT 3000 + 10 / (id - 1002) FROM new";
    assert!(here.execute(failing).await.is_err());
    assert_eq!(numbers(&there.execute("SELECT count(*) FROM customers WHERE id >= 2000").await?), [0]);

    here.execute("BEGIN").await?;
    let error = here.execute("INSERT INTO a.public.customers (id) VALUES (4000)").await.err().ok_or("a transaction")?;
    assert_eq!(grizzly_error(&error).map(grizzly_provider::Error::kind), Some(ErrorKind::Unsupported), "{error}");
    here.execute("ROLLBACK").await?;

    for statement in [
        "DELETE FROM a.public.customers WHERE id = 1",
        "DELETE FROM a.public.customers WHERE id IN (SELECT id FROM new)",
        "UPDATE a.public.customers SET name = 'x' WHERE id = 1",
        "TRUNCATE TABLE a.public.customers",
    ] {
        let error = here.execute(statement).await.err().ok_or(statement)?;
        let inner = grizzly_error(&error).ok_or_else(|| format!("{statement}: {error}"))?;
        assert_eq!(inner.kind(), ErrorKind::Unsupported, "{inner}");
        assert!(inner.message().contains(&shop.a) && inner.message().contains("customers"), "{inner}");
    }
    assert_eq!(numbers(&there.execute("SELECT count(*) FROM customers").await?), [42]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_shows_tables_made_later_and_forgets_dropped_ones() -> TestResult {
    let served = Served::start().await?;
    let there = served.connect().await?;
    there.update("CREATE TABLE t (id BIGINT NOT NULL, PRIMARY KEY (id))").await?;
    let here = session(&Grizzly::open("memory://")?)?;
    attach(&here, "far", &served.url).await?;
    let tables = rows(&here.execute("SHOW TABLES").await?)?.join("\n");
    assert!(tables.contains("far|public|t|"), "{tables}");
    there.update("CREATE TABLE u (id BIGINT NOT NULL, \"Name\" VARCHAR, PRIMARY KEY (id))").await?;
    there.update("INSERT INTO u VALUES (1, 'a')").await?;
    assert_eq!(rows(&here.execute("SELECT \"Name\" FROM far.public.u").await?)?, ["a"]);
    there.update("DROP TABLE t").await?;
    let error = here.execute("SELECT * FROM far.public.t").await.err().ok_or("it is gone")?;
    assert!(error.to_string().contains("not found"), "{error}");
    let outcome: Outcome<()> = attach(&here, "gone", "grpc://127.0.0.1:1").await;
    assert!(outcome.is_err_and(|error| error.to_string().contains("grpc://127.0.0.1:1")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_into_a_remote_is_refused_by_name() -> TestResult {
    let shop = Shop::open().await?;
    let here = &shop.spread;
    let there = FlightSqlConnection::connect(&shop.a).await?;
    here.execute("CREATE TABLE new (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))").await?;
    here.execute("INSERT INTO new VALUES (1, 'x'), (1001, 'y')").await?;
    let all = "SELECT id, name, region, balance FROM customers";
    let before = rows(&there.execute(all).await?)?;
    let options = "OPTIONS ('flightsql.table' 'customers')";
    here.execute(&format!("CREATE EXTERNAL TABLE ext STORED AS FLIGHTSQL LOCATION '{}' {options}", shop.a)).await?;
    for target in ["a.public.customers", "ext"] {
        for clauses in [
            "WHEN MATCHED THEN UPDATE SET name = n.name",
            "WHEN MATCHED THEN DELETE",
            "WHEN NOT MATCHED THEN INSERT (id, name) VALUES (n.id, n.name)",
            "WHEN MATCHED THEN UPDATE SET name = n.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (n.id, n.name)",
        ] {
            let statement = format!("MERGE INTO {target} c USING new n ON c.id = n.id {clauses}");
            let error = here.execute(&statement).await.err().ok_or_else(|| statement.clone())?;
            let inner = grizzly_error(&error).ok_or_else(|| format!("{statement}: {error}"))?;
            assert_eq!(inner.kind(), ErrorKind::Unsupported, "{statement}: {inner}");
            for part in ["MERGE", shop.a.as_str(), "customers"] {
                assert!(inner.message().contains(part), "{statement}: {inner}");
            }
        }
    }
    assert_eq!(rows(&there.execute(all).await?)?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_on_other_databases_are_computed_each_time() -> TestResult {
    let served = Served::start().await?;
    let there = served.connect().await?;
    there.update("CREATE TABLE far (id BIGINT NOT NULL, v BIGINT, PRIMARY KEY (id))").await?;
    let settings = Settings { result_cache: 1 << 20, ..Settings::default() };
    let here = session(&Grizzly::builder("memory://").settings(settings).open()?)?;
    attach(&here, "f", &served.url).await?;
    here.execute(&format!("CREATE EXTERNAL TABLE far STORED AS FLIGHTSQL LOCATION '{}'", served.url)).await?;
    here.execute("SET grizzly.result_cache_rows = 0").await?;
    here.execute("CREATE TABLE near (id BIGINT NOT NULL, PRIMARY KEY (id))").await?;
    here.execute("INSERT INTO near VALUES (1), (2), (3), (4)").await?;
    here.execute("PREPARE sums AS SELECT sum(v) FROM f.public.far").await?;
    let queries = [
        "SELECT sum(v) FROM f.public.far",
        "SELECT sum(v) FROM far",
        "SELECT sum(v) FROM near JOIN far ON far.id = near.id",
        "SELECT (SELECT sum(v) FROM f.public.far) FROM near WHERE id = 1",
        "SELECT 10 * count(*) FROM near WHERE id IN (SELECT id FROM f.public.far)",
        "EXECUTE sums",
    ];
    for id in 1..=3 {
        there.update(&format!("INSERT INTO far VALUES ({id}, 10)")).await?;
        for sql in queries.iter().chain(&queries) {
            assert_eq!(numbers(&here.execute(sql).await?), [10 * id], "{sql}");
        }
    }
    let totals = "SELECT hits, kept FROM grizzly.cache_totals";
    assert_eq!(rows(&here.execute(totals).await?)?, ["0|0"]);
    // What is here alone is kept.
    for _ in 0..2 {
        assert_eq!(numbers(&here.execute("SELECT sum(id) FROM near WHERE id > 1").await?), [9]);
    }
    assert_eq!(rows(&here.execute(totals).await?)?, ["1|1"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_reads_no_table_of_an_attached_database() -> TestResult {
    let shop = Shop::open().await?;
    let here = &shop.spread;
    // The same names here, so that a view could read the wrong table.
    here.execute("CREATE TABLE customers (id BIGINT NOT NULL, PRIMARY KEY (id))").await?;
    here.execute("INSERT INTO customers VALUES (7)").await?;
    for (name, text) in [
        ("alone", "SELECT id FROM a.public.customers"),
        ("joined", "SELECT r.id FROM regions r JOIN a.public.customers c ON c.region = r.id"),
        ("nested", "SELECT id FROM regions WHERE id IN (SELECT region FROM a.public.customers)"),
        ("below", "SELECT id FROM alone"),
    ] {
        // It may be refused when it is created, too.
        if let Err(error) = here.execute(&format!("CREATE VIEW {name} AS {text}")).await {
            assert!(error.to_string().contains("public.customers"), "{name}: {error}");
            continue;
        }
        let error = here.execute(&format!("SELECT * FROM {name}")).await.err().ok_or(name)?;
        let inner = grizzly_error(&error).ok_or_else(|| format!("{name}: {error}"))?;
        assert_eq!(inner.kind(), ErrorKind::NotFound, "{name}: {inner}");
        assert!(inner.message().contains("a.public.customers"), "{name}: {inner}");
    }
    here.execute("CREATE VIEW own AS SELECT id FROM customers").await?;
    assert_eq!(numbers(&here.execute("SELECT id FROM own").await?), [7]);
    // The query around a view may read what it likes.
    let around = "SELECT count(*) FROM own JOIN a.public.customers c ON c.id = own.id";
    assert_eq!(numbers(&here.execute(around).await?), [1]);
    Ok(())
}
