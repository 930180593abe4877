//! Tables about a table: `"t$rows"` (its history with system columns), `"t$shards"` and `"t$indexes"`. They are read
//! when a statement runs, like any table, and in its snapshot.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, StringArray, UInt32Array, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use datafusion::catalog::TableProvider;

use super::{live_table::live_table, statement::bind_snapshot, table::GrizzlyTable};
use crate::{Error, Result, TableSnapshot, access::IndexInfo};

/// The table `"t$kind"` of `table`, if there is such a kind.
pub(super) fn system_table(table: &GrizzlyTable, kind: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let (schema, read): (_, fn(&TableSnapshot) -> Vec<ArrayRef>) = match kind {
        "rows" => return Ok(Some(Arc::new(table.history()))),
        "shards" => (shards_schema(), shards),
        "indexes" => (indexes_schema(), indexes),
        _ => return Ok(None),
    };
    let described = table.clone();
    let table = live_table(schema, move |context| {
        let snapshot = bind_snapshot(described.db(), context, described.reads_as_of())?;
        Ok(read(&snapshot.table_by_id(described.id())?))
    });
    let table = table.map_err(|error| Error::internal("a system table does not fit its schema").with_source(error))?;
    Ok(Some(table))
}

fn shards_schema() -> Schema {
    Schema::new(vec![
        Field::new("shard", DataType::UInt32, false),
        Field::new("rows", DataType::UInt64, false),
        Field::new("segments", DataType::UInt32, false),
        Field::new("hot_rows", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, false),
    ])
}

fn shards(table: &TableSnapshot) -> Vec<ArrayRef> {
    let shards = table.shards();
    let numbers = UInt32Array::from_iter_values(shards.iter().map(|shard| shard.shard));
    let rows = UInt64Array::from_iter_values(shards.iter().map(|shard| shard.rows));
    let segments = UInt32Array::from_iter_values(shards.iter().map(|shard| shard.segments));
    let hot_rows = UInt64Array::from_iter_values(shards.iter().map(|shard| shard.hot_rows));
    let bytes = UInt64Array::from_iter_values(shards.iter().map(|shard| shard.bytes));
    vec![Arc::new(numbers), Arc::new(rows), Arc::new(segments), Arc::new(hot_rows), Arc::new(bytes)]
}

fn indexes_schema() -> Schema {
    Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("columns", DataType::Utf8, false),
        Field::new("unique", DataType::Boolean, false),
        Field::new("primary", DataType::Boolean, false),
    ])
}

fn indexes(table: &TableSnapshot) -> Vec<ArrayRef> {
    let indexes = table.indexes();
    let schema = table.schema();
    let names = StringArray::from_iter_values(indexes.iter().map(|index| index.name.as_ref()));
    let columns = StringArray::from_iter_values(indexes.iter().map(|index| key_columns(index, &schema)));
    let unique: BooleanArray = indexes.iter().map(|index| Some(index.unique)).collect();
    let primary: BooleanArray = indexes.iter().map(|index| Some(index.primary)).collect();
    vec![Arc::new(names), Arc::new(columns), Arc::new(unique), Arc::new(primary)]
}

/// `a, b DESC`.
fn key_columns(index: &IndexInfo, schema: &Schema) -> String {
    let columns = index.columns.iter().enumerate().map(|(i, column)| {
        let name = schema.fields().get(*column).map_or("?", |field| field.name());
        let descending = index.descending.get(i).copied().unwrap_or_default();
        format!("{name}{}", if descending { " DESC" } else { "" })
    });
    columns.collect::<Vec<_>>().join(", ")
}
