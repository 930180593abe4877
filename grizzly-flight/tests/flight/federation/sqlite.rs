//! A SQLite file in a query with tables that are here.

use grizzly_provider::{ErrorKind, Grizzly, adapter::grizzly_error};

use super::shop::{attach, rows, session};
use crate::support::{TestResult, numbers};

/// The same two tables for SQLite and for Grizzly.
fn tables() -> [String; 4] {
    let texts = ["'a'", "'A'", "NULL", "'b%'"];
    let first = (0..60).map(|id| {
        let k = if id % 7 == 0 { "NULL".to_owned() } else { (id * 3 % 8).to_string() };
        format!("({id}, {k}, {}, {}, {}.5)", (id * 37 % 50) - 20, texts[id as usize % 4], id - 30)
    });
    let second = (0..90).map(|id| {
        let other = if id % 11 == 0 { "NULL".to_owned() } else { (id * 5 % 70).to_string() };
        format!("({id}, {other}, {})", id * 13 % 17)
    });
    let (first, second): (Vec<String>, Vec<String>) = (first.collect(), second.collect());
    [
        "CREATE TABLE one (id INTEGER PRIMARY KEY, k INT, n BIGINT, t TEXT, r REAL)".to_owned(),
        format!("INSERT INTO one VALUES {}", first.join(", ")),
        "CREATE TABLE two (id INTEGER PRIMARY KEY, one_id INT, q INT)".to_owned(),
        format!("INSERT INTO two VALUES {}", second.join(", ")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_over_sqlite_equal_those_over_grizzly() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("two.db");
    let file = rusqlite::Connection::open(&path)?;
    let whole = session(&Grizzly::open("memory://")?)?;
    for statement in tables() {
        file.execute_batch(&statement)?;
        // Numbers in SQLite have 64 bits.
        let wide = statement.replace("INTEGER", "BIGINT").replace(" INT,", " BIGINT,").replace(" INT)", " BIGINT)");
        whole.execute(&wide.replace("REAL", "DOUBLE")).await?;
    }
    let spread = session(&Grizzly::open("memory://")?)?;
    attach(&spread, "lite", &format!("sqlite://{}", path.display())).await?;
    let sent = [
        "SELECT k, count(*), sum(n), min(n), max(id), count(n) FROM {one} o GROUP BY k",
        "SELECT sum(n), count(DISTINCT k) FROM {one} o WHERE id < -5",
        "SELECT count(*) FILTER (WHERE n > 0), sum(n) FILTER (WHERE k = 3) FROM {one} o",
        "SELECT o.id, w.id FROM {one} o JOIN {two} w ON w.one_id = o.id WHERE w.q > 3 AND o.k <> 2",
        "SELECT o.id, w.q FROM {one} o LEFT JOIN {two} w ON w.one_id = o.id AND w.q < 9 WHERE w.q IS NULL OR o.n > 0",
        "SELECT o.id, w.id FROM {one} o RIGHT JOIN {two} w ON w.one_id = o.id WHERE o.k IS NULL",
        "SELECT o.id, w.id FROM {one} o FULL JOIN {two} w ON w.one_id = o.id AND o.n > w.q",
        "SELECT o.id FROM {one} o WHERE EXISTS (SELECT 1 FROM {two} w WHERE w.one_id = o.id AND w.q > o.k)",
        "SELECT o.id FROM {one} o WHERE o.k IN (SELECT w.q FROM {two} w WHERE w.id > 9)",
        "SELECT id FROM {one} o WHERE k IS NULL OR (k BETWEEN 2 AND 4 AND n NOT IN (1, 2, 3))",
        "SELECT id, k FROM {one} o ORDER BY k DESC NULLS LAST, id LIMIT 7",
        "SELECT id, k FROM {one} o ORDER BY k NULLS FIRST, id DESC LIMIT 7",
        "SELECT k FROM {one} o UNION ALL SELECT q FROM {two} w",
        "SELECT k, count(*) FROM {one} o GROUP BY k HAVING count(*) > 6",
        "SELECT DISTINCT k FROM {one} o WHERE CASE WHEN n > 0 THEN k > 2 ELSE id > 20 END",
        "SELECT k FROM {one} o INTERSECT SELECT q FROM {two} w",
    ];
    let kept = [
        "SELECT id, n * 2 + 1, n / 3, n % 4 FROM {one} o WHERE t LIKE 'a' OR r > 3.0",
        "SELECT t, count(*), max(t), sum(r) FROM {one} o GROUP BY t",
        "SELECT o.id FROM {one} o WHERE o.k NOT IN (SELECT w.q FROM {two} w WHERE w.q IS NOT NULL)",
        "SELECT o.id, o.n > 3, upper(o.t), CASE WHEN o.k > 3 THEN 'many' END FROM {one} o",
        "SELECT avg(n), min(r) FROM {one} o",
    ];
    for (sql, is_sent) in sent.iter().map(|sql| (sql, true)).chain(kept.iter().map(|sql| (sql, false))) {
        let of = |one: &str, two: &str| sql.replace("{one}", one).replace("{two}", two);
        let there = of("lite.public.one", "lite.public.two");
        let plan = rows(&spread.execute(&format!("EXPLAIN {there}")).await?)?.join("\n");
        let found = rows(&spread.execute(&there).await.map_err(|error| format!("{sql}: {error}\n{plan}"))?)?;
        assert_eq!(found, rows(&whole.execute(&of("one", "two")).await?)?, "{sql}\n{plan}");
        assert!(!is_sent || plan.matches("RemoteScanExec").count() == 1, "{sql}\n{plan}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_sqlite_is_a_catalog() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("shop.db");
    let file = rusqlite::Connection::open(&path)?;
    file.execute_batch(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INT, note TEXT, weight REAL);
         INSERT INTO orders VALUES (1, 1, 'a', 0.5), (2, 1, NULL, -1.5), (3, 2, 'A', NULL), (4, NULL, 'b', 2.0);
         CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE);
         INSERT INTO customers VALUES (1, 'Ann'), (2, 'ann'), (3, NULL);
         CREATE TABLE odd (id INTEGER, day DATE);",
    )?;
    let here = session(&Grizzly::open("memory://")?)?;
    let url = format!("sqlite://{}", path.display());
    attach(&here, "lite", &url).await?;
    here.execute("CREATE TABLE regions (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))").await?;
    here.execute("INSERT INTO regions VALUES (1, 'north'), (2, 'south')").await?;

    let joined = "SELECT c.id, count(*), sum(o.id), max(o.id) FROM lite.public.customers c JOIN lite.public.orders o ON \
                  o.customer = c.id GROUP BY c.id";
    assert_eq!(rows(&here.execute(joined).await?)?, ["1|2|3|2", "2|1|3|3"]);
    let plan = rows(&here.execute(&format!("EXPLAIN {joined}")).await?)?.join("\n");
    assert_eq!(plan.matches("RemoteScanExec").count(), 1, "{plan}");
    assert!(plan.contains("GROUP BY") && plan.contains(&url), "{plan}");
    // Texts are compared here: the column ignores case there.
    let named = "SELECT id, id > 1 FROM lite.public.customers WHERE name = 'Ann'";
    assert_eq!(rows(&here.execute(named).await?)?, ["1|false"]);
    let mixed =
        "SELECT r.name, o.note, o.weight FROM regions r JOIN lite.public.orders o ON o.customer = r.id WHERE o.id < 3";
    assert_eq!(rows(&here.execute(mixed).await?)?, ["north|NULL|-1.5", "north|a|0.5"]);

    let odd = here.execute("SELECT * FROM lite.public.odd").await.err().ok_or("a type without counterpart")?;
    assert!(odd.to_string().contains("column day"), "{odd}");
    here.execute(&format!("CREATE EXTERNAL TABLE orders STORED AS SQLITE LOCATION '{url}'")).await?;
    file.execute("UPDATE orders SET customer = 'x' WHERE id = 4", [])?;
    let error = here.execute("SELECT customer FROM orders").await.err().ok_or("a text in a column of numbers")?;
    assert!(error.to_string().contains("column customer") && error.to_string().contains(&url), "{error}");
    drop(file);
    std::fs::remove_file(&path)?;
    let error = here.execute("SELECT id FROM orders").await.err().ok_or("the file is gone")?;
    assert_eq!(grizzly_error(&error).map(grizzly_provider::Error::kind), Some(ErrorKind::Unavailable), "{error}");
    assert_eq!(numbers(&here.execute("SELECT count(*) FROM regions").await?), [2]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_read_only() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("shop.db");
    let file = rusqlite::Connection::open(&path)?;
    file.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')")?;
    drop(file);
    let before = std::fs::read(&path)?;
    let here = session(&Grizzly::open("memory://")?)?;
    let url = format!("sqlite://{}", path.display());
    attach(&here, "lite", &url).await?;
    here.execute(&format!("CREATE EXTERNAL TABLE ext STORED AS SQLITE LOCATION '{url}' OPTIONS ('sqlite.table' 't')"))
        .await?;
    here.execute("CREATE TABLE new (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))").await?;
    here.execute("INSERT INTO new VALUES (2, 'x'), (3, 'y')").await?;
    for table in ["lite.public.t", "ext"] {
        for statement in [
            format!("INSERT INTO {table} VALUES (3, 'c')"),
            format!("INSERT INTO {table} SELECT id, name FROM new"),
            format!("UPDATE {table} SET name = 'x'"),
            format!("DELETE FROM {table} WHERE id = 1"),
            format!("TRUNCATE TABLE {table}"),
            format!("MERGE INTO {table} t USING new n ON t.id = n.id WHEN MATCHED THEN DELETE"),
        ] {
            let error = here.execute(&statement).await.err().ok_or_else(|| statement.clone())?;
            let inner = grizzly_error(&error).ok_or_else(|| format!("{statement}: {error}"))?;
            assert_eq!(inner.kind(), ErrorKind::Unsupported, "{statement}: {inner}");
            assert!(inner.message().contains(&url), "{statement}: {inner}");
        }
    }
    for statement in [
        "CREATE TABLE lite.public.u (id BIGINT)",
        "CREATE TABLE lite.public.u AS SELECT id FROM new",
        "CREATE VIEW lite.public.u AS SELECT id FROM new",
        "CREATE SCHEMA lite.u",
        "CREATE INDEX by_name ON lite.public.t (name)",
        "DROP TABLE lite.public.t",
    ] {
        assert!(here.execute(statement).await.is_err(), "{statement}");
    }
    assert_eq!(rows(&here.execute("SELECT id, name FROM lite.public.t").await?)?, ["1|a", "2|b"]);
    assert!(std::fs::read(&path)? == before, "the file has changed");
    // Nor is one made where there is none.
    let missing = folder.path().join("missing.db");
    assert!(attach(&here, "missing", &format!("sqlite://{}", missing.display())).await.is_err());
    assert!(!missing.exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_in_sqlite_that_casts_is_readable() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("shop.db");
    let file = rusqlite::Connection::open(&path)?;
    file.execute_batch(
        "CREATE TABLE odd (id INTEGER, day DATE, price DECIMAL(10, 2), active BOOLEAN);
         INSERT INTO odd VALUES (1, '2026-01-02', 1.5, 1), (2, NULL, NULL, NULL);
         CREATE VIEW readable AS SELECT id, CAST(day AS TEXT) AS day, CAST(price AS REAL) AS price, CAST(active AS \
         INTEGER) AS active FROM odd;",
    )?;
    let here = session(&Grizzly::open("memory://")?)?;
    attach(&here, "lite", &format!("sqlite://{}", path.display())).await?;
    let odd = here.execute("SELECT id FROM lite.public.odd").await.err().ok_or("types without counterpart")?;
    assert_eq!(grizzly_error(&odd).map(grizzly_provider::Error::kind), Some(ErrorKind::Unsupported), "{odd}");
    let all = "SELECT * FROM lite.public.readable";
    assert_eq!(rows(&here.execute(all).await?)?, ["1|2026-01-02|1.5|1", "2|NULL|NULL|NULL"]);
    let some = "SELECT id FROM lite.public.readable WHERE day = '2026-01-02' AND price > 1.0";
    assert_eq!(numbers(&here.execute(some).await?), [1]);
    Ok(())
}
