//! The database as a catalog: DDL in SQL through a plain DataFusion session, views, metadata tables.

use grizzly_provider::{ErrorKind, Grizzly, adapter::grizzly_error};

use super::fixtures::{TestResult, catalog_context, query, value};

#[tokio::test]
async fn create_table_stores_schema_key_defaults_and_rows() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let context = catalog_context(&db, 2)?;
    query(&context, "CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR DEFAULT 'none', n INT, PRIMARY KEY (id))")
        .await?;
    let table = db.snapshot().table("t")?;
    assert_eq!(table.primary_key(), [0]);
    assert!(!table.schema().field(0).is_nullable());
    assert!(table.default("name").is_some_and(|text| text.contains("'none'")), "{:?}", table.default("name"));
    query(&context, "CREATE TABLE c AS SELECT column1 AS a, column2 AS b FROM (VALUES (1, 'x'), (2, 'y'))").await?;
    assert_eq!(value(&context, "SELECT count(*) FROM c WHERE b = 'y'").await?, "1");
    assert!(query(&context, "CREATE TABLE c (a INT)").await.is_err());
    query(&context, "DROP TABLE c").await?;
    assert_eq!(db.snapshot().table("c").err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    Ok(())
}

#[tokio::test]
async fn rows_that_break_the_key_leave_no_table_behind() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let context = catalog_context(&db, 2)?;
    let outcome = query(&context, "CREATE TABLE t (a INT, PRIMARY KEY (a)) AS VALUES (1), (2), (1)").await;
    let error = outcome.err().ok_or("two rows have one key")?;
    assert_eq!(grizzly_error(&error).map(|error| error.kind()), Some(ErrorKind::UniqueViolation), "{error}");
    assert!(db.snapshot().table("t").is_err());
    Ok(())
}

#[tokio::test]
async fn views_are_stored_and_follow_their_tables() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let context = catalog_context(&db, 2)?;
    query(&context, "CREATE TABLE t AS VALUES (1, 'a'), (2, 'b')").await?;
    query(&context, "CREATE VIEW v AS SELECT column1 AS id FROM t WHERE column2 = 'b'").await?;
    query(&context, "CREATE VIEW w (x) AS SELECT id + 1 FROM v").await?;
    assert_eq!(value(&context, "SELECT x FROM w").await?, "3");
    // Another session finds them, too.
    let other = catalog_context(&db, 1)?;
    assert_eq!(value(&other, "SELECT x FROM w").await?, "3");
    query(&context, "CREATE OR REPLACE VIEW v AS SELECT column1 AS id FROM t WHERE column2 = 'a'").await?;
    assert_eq!(value(&other, "SELECT x FROM w").await?, "2");
    query(&context, "CREATE OR REPLACE VIEW v AS SELECT x AS id FROM w").await?;
    let error = query(&context, "SELECT * FROM v").await.err().ok_or("a view that reads itself has no rows")?;
    assert!(error.to_string().contains("view public.v reads itself"), "{error}");
    query(&context, "CREATE OR REPLACE VIEW v AS SELECT 7 AS id").await?;
    assert_eq!(value(&context, "SELECT x FROM w").await?, "8");
    query(&context, "DROP VIEW w").await?;
    assert!(query(&context, "SELECT * FROM w").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_view_that_cannot_be_read_says_why_and_is_in_nobodys_way() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let context = catalog_context(&db, 2)?;
    for statement in [
        "CREATE TABLE t AS VALUES (1)",
        "CREATE VIEW v AS SELECT column1 AS id FROM t",
        "CREATE VIEW w AS SELECT id FROM v",
        "CREATE VIEW good AS SELECT 5 AS five",
        "DROP TABLE t",
    ] {
        query(&context, statement).await?;
    }
    for select in ["SELECT id FROM v", "SELECT * FROM v AS x", "SELECT count(*) FROM v WHERE false", "SELECT 1 FROM w"]
    {
        let error = query(&context, select).await.err().ok_or(select)?;
        assert_eq!(grizzly_error(&error).map(|error| error.kind()), Some(ErrorKind::NotFound), "{select}: {error}");
        assert!(error.to_string().contains("view public.v cannot be read: table 'grizzly.public.t' not found"));
    }
    let error = context.table("v").await?.collect().await.err().ok_or("there are no rows to be had")?;
    assert!(error.to_string().contains("view public.v cannot be read"), "{error}");
    // A name of the query's own is no view.
    assert_eq!(value(&context, "WITH v AS (SELECT 3 AS id) SELECT id FROM v").await?, "3");
    let schema = "table_schema = 'public'";
    assert_eq!(value(&context, &format!("SELECT count(*) FROM information_schema.tables WHERE {schema}")).await?, "3");
    assert_eq!(
        value(&context, &format!("SELECT column_name FROM information_schema.columns WHERE {schema}")).await?,
        "five"
    );
    assert_eq!(value(&context, &format!("SELECT count(*) FROM information_schema.views WHERE {schema}")).await?, "3");
    assert!(query(&context, "CREATE VIEW v AS SELECT 1").await.is_err());
    assert!(query(&context, "DROP TABLE v").await.is_err());
    query(&context, "CREATE OR REPLACE VIEW v AS SELECT 2 AS id").await?;
    assert_eq!(value(&context, "SELECT id FROM w").await?, "2");
    query(&context, "DROP VIEW v").await?;
    query(&context, "DROP VIEW w").await?;
    assert_eq!(value(&context, "SELECT five FROM good").await?, "5");
    Ok(())
}

#[tokio::test]
async fn schemas_are_created_and_dropped() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let context = catalog_context(&db, 2)?;
    query(&context, "CREATE SCHEMA s").await?;
    query(&context, "CREATE TABLE s.t AS VALUES (1)").await?;
    assert_eq!(value(&context, "SELECT count(*) FROM s.t").await?, "1");
    assert!(query(&context, "DROP SCHEMA s").await.is_err());
    query(&context, "DROP SCHEMA s CASCADE").await?;
    assert!(!db.snapshot().schema_names().contains(&"s".to_owned()));
    let tables = value(&context, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 's'").await?;
    assert_eq!(tables, "0");
    Ok(())
}

#[tokio::test]
async fn metadata_tables_describe_a_table() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let context = catalog_context(&db, 2)?;
    query(&context, "CREATE TABLE t (id INT, v INT, PRIMARY KEY (id)) AS VALUES (1, 10), (2, 20)").await?;
    let mut transaction = db.begin()?;
    let mut rows = Vec::new();
    for batch in context.sql("SELECT row_id FROM \"t$rows\" WHERE id = 1").await?.collect().await? {
        use arrow::array::AsArray;
        let ids = batch.column(0).as_primitive::<arrow::datatypes::UInt64Type>();
        rows.extend(ids.values().iter().map(|id| grizzly_provider::access::RowId(*id)));
    }
    assert_eq!(transaction.delete("t", &rows)?, 1);
    transaction.commit()?.into_result()?;
    assert_eq!(value(&context, "SELECT count(*) FROM t").await?, "1");
    assert_eq!(value(&context, "SELECT count(*) FROM \"t$rows\"").await?, "2");
    assert_eq!(value(&context, "SELECT id FROM \"t$rows\" WHERE deleted IS NOT NULL").await?, "1");
    assert_eq!(value(&context, "SELECT max(row_version) FROM \"t$rows\" WHERE created > 0").await?, "1");
    assert_eq!(value(&context, "SELECT sum(rows) FROM \"t$shards\"").await?, "1");
    assert_eq!(value(&context, "SELECT columns FROM \"t$indexes\" WHERE \"primary\"").await?, "id");
    assert!(query(&context, "SELECT * FROM \"t$nothing\"").await.is_err());
    assert!(query(&context, "DROP TABLE \"t$shards\"").await.is_err());
    Ok(())
}
