//! CREATE TABLE as DataFusion carries it out ends with a `MemTable` to be registered: its schema, keys, defaults and
//! rows (of CREATE TABLE ... AS) become a table of the database.

use arrow::{array::RecordBatch, datatypes::Schema};
use datafusion::{
    catalog::TableProvider, common::Constraint, datasource::MemTable, logical_expr::Expr, sql::unparser::expr_to_sql,
};

use super::blocking;
use crate::{
    Error, Grizzly, Result,
    access::{IfExists, IndexDefinition, TableDefinition},
};

/// Creates the table with all its rows, or leaves nothing behind.
pub(super) fn store_table(db: &Grizzly, schema: &str, name: &str, table: &MemTable) -> Result<()> {
    let definition = definition(schema, name, table)?;
    let rows = rows(table)?;
    let qualified = format!("{schema}.{name}");
    blocking(|| {
        let mut transaction = db.begin()?;
        transaction.create_table(definition, IfExists::Fail)?;
        for batch in rows {
            transaction.insert(&qualified, batch)?;
        }
        transaction.commit()?.into_result().map(|_| ())
    })
}

fn rows(table: &MemTable) -> Result<Vec<RecordBatch>> {
    let mut rows = Vec::new();
    for partition in &table.batches {
        let batches = partition.try_read();
        let batches = batches.map_err(|_| Error::invalid("the table to be stored is being written to"))?;
        rows.extend(batches.iter().filter(|batch| batch.num_rows() > 0).cloned());
    }
    Ok(rows)
}

/// The table, and an index for each UNIQUE constraint.
fn definition(schema_name: &str, name: &str, table: &MemTable) -> Result<TableDefinition> {
    let schema = table.schema();
    let mut primary_key = Vec::new();
    let mut indexes = Vec::new();
    for constraint in table.constraints().into_iter().flat_map(|constraints| constraints.iter()) {
        match constraint {
            Constraint::PrimaryKey(columns) => primary_key = names(&schema, columns)?,
            Constraint::Unique(columns) => indexes.push(unique_index(name, names(&schema, columns)?)),
        }
    }
    let mut defaults = Vec::new();
    for field in schema.fields() {
        if let Some(default) = table.get_column_default(field.name()) {
            defaults.push((field.name().clone(), default_text(default)?));
        }
    }
    Ok(TableDefinition {
        schema_name: schema_name.to_owned(),
        name: name.to_owned(),
        schema,
        primary_key,
        shards: 1,
        shard_by: vec![],
        defaults,
        indexes,
    })
}

fn names(schema: &Schema, columns: &[usize]) -> Result<Vec<String>> {
    let name = |column: &usize| schema.fields().get(*column).map(|field| field.name().clone());
    let names: Option<Vec<String>> = columns.iter().map(name).collect();
    names.ok_or_else(|| Error::invalid("a key names a column that the table does not have"))
}

/// Named as PostgreSQL would.
fn unique_index(table: &str, columns: Vec<String>) -> IndexDefinition {
    IndexDefinition {
        name: format!("{table}_{}_key", columns.join("_")),
        columns: columns.into_iter().map(|column| (column, false)).collect(),
        unique: true,
    }
}

fn default_text(default: &Expr) -> Result<String> {
    let text = expr_to_sql(default).map(|text| text.to_string());
    text.map_err(|error| Error::invalid(format!("DEFAULT {default} cannot be stored")).with_source(error))
}
