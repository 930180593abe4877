//! Databases, sessions and results for the tests.

use std::{error::Error, sync::Arc};

use arrow::{record_batch::RecordBatch, util::pretty::pretty_format_batches};
use datafusion::{
    datasource::MemTable,
    error::Result as DataFusionResult,
    prelude::{DataFrame, SessionConfig, SessionContext},
};
use grizzly_provider::{
    Grizzly, Result,
    access::{Csn, TableDefinition},
    adapter::{GrizzlyCatalog, GrizzlyTables, TimeTravelPlanner},
};

pub(crate) type TestResult<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A table `name` with the batch's columns and rows.
pub(crate) fn store(db: &Grizzly, name: &str, batch: &RecordBatch, key: &[&str], shards: u32) -> Result<Csn> {
    let definition = TableDefinition {
        schema_name: "public".to_owned(),
        name: name.to_owned(),
        schema: batch.schema(),
        primary_key: key.iter().map(|column| (*column).to_owned()).collect(),
        shards,
        shard_by: vec![],
        defaults: vec![],
        indexes: vec![],
    };
    db.create_table(definition, false)?;
    insert(db, name, batch)
}

pub(crate) fn insert(db: &Grizzly, table: &str, batch: &RecordBatch) -> Result<Csn> {
    let mut transaction = db.begin()?;
    transaction.insert(table, batch.clone())?;
    transaction.commit()?.into_result()
}

/// A session whose default catalog is the database, without any of Grizzly's rules.
pub(crate) fn catalog_context(db: &Grizzly, partitions: usize) -> DataFusionResult<SessionContext> {
    let config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(partitions)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema("grizzly", "public");
    let context = SessionContext::new_with_config(config);
    context.register_catalog("grizzly", Arc::new(GrizzlyCatalog::new(db)));
    context.register_relation_planner(Arc::new(TimeTravelPlanner))?;
    Ok(context)
}

/// A plain session with one of the database's tables in it.
pub(crate) fn table_context(db: &Grizzly, table: &str, partitions: usize) -> TestResult<SessionContext> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
    context.register_table(table, db.table(table)?)?;
    Ok(context)
}

/// A plain session with the same rows in DataFusion's own table.
pub(crate) fn memory_context(table: &str, batch: &RecordBatch, partitions: usize) -> TestResult<SessionContext> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
    add_memory_table(&context, table, batch)?;
    Ok(context)
}

pub(crate) fn add_memory_table(context: &SessionContext, table: &str, batch: &RecordBatch) -> TestResult {
    let memory = MemTable::try_new(batch.schema(), vec![vec![batch.clone()]])?;
    context.register_table(table, Arc::new(memory))?;
    Ok(())
}

/// The result as text, one line a row.
pub(crate) async fn lines(frame: DataFrame) -> DataFusionResult<Vec<String>> {
    let batches = frame.collect().await?;
    let text = pretty_format_batches(&batches)?.to_string();
    Ok(text.lines().map(str::to_owned).collect())
}

pub(crate) async fn query(context: &SessionContext, sql: &str) -> DataFusionResult<Vec<String>> {
    lines(context.sql(sql).await?).await
}

/// The single value of a result, as text.
pub(crate) async fn value(context: &SessionContext, sql: &str) -> TestResult<String> {
    let lines = query(context, sql).await?;
    match lines.as_slice() {
        [_, _, _, row, _] => Ok(row.trim_matches(['|', ' ']).to_owned()),
        other => Err(format!("{sql}: expected one value, got {other:?}").into()),
    }
}

/// The physical plan.
pub(crate) async fn plan(context: &SessionContext, sql: &str) -> DataFusionResult<String> {
    Ok(query(context, &format!("EXPLAIN {sql}")).await?.join("\n"))
}
