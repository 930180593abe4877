//! Reading tables as they were.

use datafusion::prelude::SessionContext;
use grizzly_provider::{Grizzly, access::AsOf, adapter::GrizzlyTables};

use super::fixtures::{TestResult, catalog_context, query, value};

#[tokio::test]
async fn a_table_can_be_read_as_of_a_commit_or_a_time() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let context = catalog_context(&db, 2)?;
    query(&context, "CREATE TABLE t AS VALUES (1), (2)").await?;
    // DataFusion's own parser knows table versions only in some dialects.
    query(&context, "SET datafusion.sql_parser.dialect = 'databricks'").await?;
    let before = db.snapshot().csn();
    let mut transaction = db.begin()?;
    let batch = context.sql("SELECT column1 FROM t").await?.collect().await?.swap_remove(0);
    transaction.insert("t", batch)?;
    transaction.commit()?.into_result()?;
    let count =
        async |at: String| value(&context, &format!("SELECT count(*) FROM t FOR SYSTEM_TIME AS OF {at} AS x")).await;
    assert_eq!(value(&context, "SELECT count(*) FROM t").await?, "4");
    assert_eq!(count(before.to_string()).await?, "2");
    assert_eq!(count("now()".to_owned()).await?, "4");
    let micros = i64::try_from(before.0)?;
    assert_eq!(count(format!("to_timestamp_micros({micros})")).await?, "2");
    // Both states in one statement.
    let sql = format!("SELECT count(*) FROM t JOIN t FOR SYSTEM_TIME AS OF {before} AS o ON t.column1 = o.column1");
    assert_eq!(value(&context, &sql).await?, "4");
    // In Rust, without SQL.
    let plain = SessionContext::new();
    plain.register_table("old", std::sync::Arc::new(db.table("t")?.as_of(AsOf::Csn(before))))?;
    assert_eq!(value(&plain, "SELECT count(*) FROM old").await?, "2");
    Ok(())
}

#[tokio::test]
async fn a_time_that_cannot_be_read_is_an_error() -> TestResult {
    let db = Grizzly::open("memory://")?;
    let context = catalog_context(&db, 2)?;
    query(&context, "CREATE TABLE t AS VALUES (1), (2)").await?;
    // DataFusion's own parser knows table versions only in some dialects.
    query(&context, "SET datafusion.sql_parser.dialect = 'databricks'").await?;
    for at in ["1", "now() + INTERVAL '1 day'", "'nonsense'", "NULL", "18446744073709551615"] {
        let outcome = query(&context, &format!("SELECT count(*) FROM t FOR SYSTEM_TIME AS OF {at}")).await;
        assert!(outcome.is_err(), "AS OF {at}: {outcome:?}");
    }
    query(&context, "CREATE VIEW v AS SELECT * FROM t").await?;
    let error = query(&context, "SELECT * FROM v FOR SYSTEM_TIME AS OF now()").await.err().ok_or("no history")?;
    assert!(error.to_string().contains("has no history"), "{error}");
    Ok(())
}
