//! A SQLite file in a query with tables that are here.

use grizzly_provider::{ErrorKind, Grizzly, adapter::grizzly_error};

use super::shop::{attach, rows, session};
use crate::support::{TestResult, numbers};

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
