//! Bulk ingest: create, append, replace, in a transaction or alone.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use grizzly_flight::client::IngestMode;
use grizzly_provider::ErrorKind;

use crate::support::{Served, TestResult, ask, numbers};

fn batch(ids: std::ops::Range<i64>) -> Result<RecordBatch, arrow::error::ArrowError> {
    let names = StringArray::from_iter_values(ids.clone().map(|id| format!("n{id}")));
    let ids = Int64Array::from_iter_values(ids);
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("name", Arc::new(names) as ArrayRef)])
}

fn stream(batches: Vec<RecordBatch>) -> impl futures::Stream<Item = RecordBatch> + Send + 'static {
    futures::stream::iter(batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_create_append_and_replace() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    let (one, two) = (batch(0..1000)?, batch(1000..3000)?);
    let schema = one.schema();
    let missing = connection.ingest("t", IngestMode::Append, schema.clone(), stream(vec![one.clone()])).await;
    assert_eq!(missing.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    let both = stream(vec![one.clone(), two.clone()]);
    assert_eq!(connection.ingest("t", IngestMode::Create, schema.clone(), both).await?, 3000);
    let exists = connection.ingest("t", IngestMode::Create, schema.clone(), stream(vec![one.clone()])).await;
    assert_eq!(exists.err().map(|error| error.kind()), Some(ErrorKind::AlreadyExists));
    assert_eq!(connection.ingest("t", IngestMode::CreateAppend, schema.clone(), stream(vec![two])).await?, 2000);
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 5000);
    assert_eq!(connection.ingest("t", IngestMode::Replace, schema, stream(vec![one])).await?, 1000);
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 1000);
    assert_eq!(ask(&connection, "SELECT count(DISTINCT name) FROM t").await?, 1000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_go_by_name_and_missing_ones_get_their_default() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (a VARCHAR, id BIGINT NOT NULL, v BIGINT DEFAULT 42, PRIMARY KEY (id))").await?;
    let ids = Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef;
    let names = Arc::new(StringArray::from(vec!["x", "y"])) as ArrayRef;
    let rows = RecordBatch::try_from_iter([("id", ids), ("a", names)])?;
    assert_eq!(connection.ingest("t", IngestMode::Append, rows.schema(), stream(vec![rows])).await?, 2);
    assert_eq!(ask(&connection, "SELECT sum(v) FROM t WHERE a IN ('x', 'y')").await?, 84);
    let unknown = RecordBatch::try_from_iter([("nosuch", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])?;
    let refused = connection.ingest("t", IngestMode::Append, unknown.schema(), stream(vec![unknown])).await;
    assert!(refused.err().is_some_and(|error| error.message().contains("nosuch")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_ingest_leaves_nothing() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))").await?;
    let batches = vec![batch(0..5000)?, batch(4999..6000)?];
    let refused = connection.ingest("t", IngestMode::Append, batches[0].schema(), stream(batches)).await;
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::UniqueViolation));
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_belongs_to_its_transaction() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (id BIGINT, name VARCHAR)").await?;
    let rows = batch(0..10)?;
    let transaction = connection.begin().await?;
    let schema = rows.schema();
    assert_eq!(transaction.ingest("t", IngestMode::Append, schema.clone(), stream(vec![rows.clone()])).await?, 10);
    assert_eq!(numbers(&transaction.execute("SELECT count(*) FROM t").await?), [10]);
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 0);
    transaction.rollback().await?;
    let transaction = connection.begin().await?;
    transaction.ingest("t", IngestMode::Append, schema, stream(vec![rows])).await?;
    transaction.commit().await?;
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_s_transaction_may_begin_with_a_new_table() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    let rows = batch(0..10)?;
    let transaction = connection.begin().await?;
    let schema = rows.schema();
    assert_eq!(transaction.ingest("t", IngestMode::Create, schema.clone(), stream(vec![rows.clone()])).await?, 10);
    let refused = transaction.ingest("u", IngestMode::Create, schema, stream(vec![rows])).await;
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::TransactionState));
    transaction.commit().await?;
    assert_eq!(ask(&connection, "SELECT count(*) FROM t").await?, 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rows_still_make_a_table() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    assert_eq!(connection.ingest("t", IngestMode::Create, schema, stream(vec![])).await?, 0);
    assert_eq!(ask(&connection, "SELECT count(id) FROM t").await?, 0);
    Ok(())
}
