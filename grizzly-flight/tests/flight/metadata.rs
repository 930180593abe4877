//! What the server says about itself and its tables.

use arrow::{
    array::{Array, AsArray, UnionArray},
    datatypes::{Int32Type, Schema, UInt32Type},
    record_batch::RecordBatch,
};
use arrow_flight::{
    IpcMessage,
    sql::{
        CommandGetCatalogs, CommandGetDbSchemas, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
        CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo, SqlSupportedTransaction,
    },
};

use crate::support::{Served, TestResult};

fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let columns = batches.iter().filter_map(|batch| batch.column_by_name(column));
    columns.flat_map(|c| c.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_keys_and_types_are_listed() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    connection.update("CREATE TABLE t (a BIGINT NOT NULL, b VARCHAR NOT NULL, v INT, PRIMARY KEY (b, a))").await?;
    connection.update("CREATE VIEW w AS SELECT a FROM t").await?;
    assert!(texts(&connection.ask(&CommandGetCatalogs {}).await?, "catalog_name").contains(&"grizzly".to_owned()));
    let schemas = connection.ask(&CommandGetDbSchemas::default()).await?;
    assert!(texts(&schemas, "db_schema_name").contains(&"public".to_owned()));
    let command = CommandGetTables {
        db_schema_filter_pattern: Some("pub%".to_owned()),
        table_name_filter_pattern: Some("_".to_owned()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let tables = connection.ask(&command).await?;
    assert_eq!(texts(&tables, "table_name"), ["t", "w"]);
    assert_eq!(texts(&tables, "table_type"), ["TABLE", "VIEW"]);
    let schemas = tables[0].column_by_name("table_schema").ok_or("no schemas")?.as_binary::<i32>();
    let schema = Schema::try_from(IpcMessage(schemas.value(0).to_vec().into()))?;
    assert_eq!(schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["a", "b", "v"]);
    let keys = connection.ask(&CommandGetPrimaryKeys { table: "t".to_owned(), ..Default::default() }).await?;
    assert_eq!(texts(&keys, "column_name"), ["b", "a"]);
    let none = connection.ask(&CommandGetImportedKeys { table: "t".to_owned(), ..Default::default() }).await?;
    assert_eq!(none.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    let types = connection.ask(&CommandGetTableTypes {}).await?;
    assert!(texts(&types, "table_type").contains(&"VIEW".to_owned()));
    let names = texts(&connection.ask(&CommandGetXdbcTypeInfo { data_type: None }).await?, "type_name");
    assert!(names.contains(&"BIGINT".to_owned()) && names.contains(&"DECIMAL".to_owned()), "{names:?}");
    Ok(())
}

/// Drivers turn autocommit off only where the server says that it has transactions.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_that_it_has_transactions() -> TestResult {
    let served = Served::start().await?;
    let connection = served.connect().await?;
    let wanted = [SqlInfo::FlightSqlServerTransaction, SqlInfo::FlightSqlServerName];
    let command = CommandGetSqlInfo { info: wanted.iter().map(|info| *info as u32).collect() };
    let answer = connection.ask(&command).await?;
    let batch = answer.first().ok_or("no answer")?;
    let names = batch.column(0).as_primitive::<UInt32Type>();
    let values = batch.column(1).as_any().downcast_ref::<UnionArray>().ok_or("values are a union")?;
    let row = names.values().iter().position(|name| *name == wanted[0] as u32).ok_or("not told")?;
    let value = values.value(row);
    assert_eq!(value.as_primitive::<Int32Type>().value(0), SqlSupportedTransaction::Savepoint as i32);
    assert_eq!(names.len(), 2);
    Ok(())
}
