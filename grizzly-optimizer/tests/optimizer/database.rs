//! A small database, and sessions on it with and without the optimizer's rules.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Float64Array, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
    datasource::MemTable,
    error::Result,
    execution::session_state::SessionStateBuilder,
    prelude::SessionContext,
};
use grizzly_optimizer::{AccessPathRule, GrizzlyOptimizerExt};
use grizzly_provider::{
    Grizzly,
    access::{IndexDefinition, TableDefinition},
    adapter::GrizzlyTables,
};

/// Rows of table `t`.
pub(crate) const ROWS: i64 = 50_000;

/// `id` unique, `part` in 5,000 values, `day` nullable in 100, `price` with NaN and signed zeros, `name` in 7.
pub(crate) fn batch() -> Result<RecordBatch> {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("part", DataType::Int64, true),
        Field::new("day", DataType::Int64, true),
        Field::new("price", DataType::Float64, true),
        Field::new("name", DataType::Utf8, true),
    ]);
    let prices = [Some(-1.5), Some(-0.0), Some(0.0), None, Some(2.5), Some(f64::NAN)];
    let names = [Some(""), Some("a"), None, Some("a\0"), Some("ab"), Some("b"), Some("B")];
    let id = Int64Array::from_iter_values(0..ROWS);
    let part = Int64Array::from_iter_values((0..ROWS).map(|id| id * 7919 % 5000));
    let day = (0..ROWS).map(|id| (id % 11 != 0).then_some(id * 31 % 100)).collect::<Int64Array>();
    let price = (0..ROWS as usize).map(|id| prices[id * 13 % prices.len()]).collect::<Float64Array>();
    let name = (0..ROWS as usize).map(|id| names[id * 5 % names.len()]).collect::<StringArray>();
    let columns =
        [Arc::new(id) as _, Arc::new(part) as _, Arc::new(day) as _, Arc::new(price) as _, Arc::new(name) as _];
    Ok(RecordBatch::try_new(Arc::new(schema), columns.to_vec())?)
}

/// A database in memory with table `t`: primary key `id`, four shards, and indexes on `part`, on `day` (descending)
/// with `part`, on `price` and on `name`.
pub(crate) fn database() -> Result<Grizzly> {
    let db = Grizzly::open("memory://")?;
    let rows = batch()?;
    let definition = TableDefinition {
        schema_name: "public".to_owned(),
        name: "t".to_owned(),
        schema: rows.schema(),
        primary_key: vec!["id".to_owned()],
        shards: 4,
        shard_by: vec![],
        defaults: vec![],
        indexes: vec![],
    };
    db.create_table(definition, false)?;
    for (name, columns) in [
        ("t_part", vec![("part", false)]),
        ("t_day_part", vec![("day", true), ("part", false)]),
        ("t_price", vec![("price", false)]),
        ("t_name", vec![("name", true)]),
    ] {
        let columns = columns.into_iter().map(|(column, descending)| (column.to_owned(), descending)).collect();
        db.create_index("t", IndexDefinition { name: name.to_owned(), columns, unique: false }, false)?;
    }
    insert(&db, rows)?;
    Ok(db)
}

/// Commits rows to `t`.
pub(crate) fn insert(db: &Grizzly, rows: RecordBatch) -> Result<()> {
    let mut transaction = db.begin()?;
    transaction.insert("t", rows)?;
    transaction.commit()?.into_result()?;
    Ok(())
}

/// A session on `db` with Grizzly's rules and the user's.
pub(crate) fn with_rules(db: &Grizzly, user_rules: Vec<Arc<dyn AccessPathRule>>) -> Result<SessionContext> {
    let builder = SessionStateBuilder::new().with_default_features().with_grizzly_optimizer_rules(user_rules)?;
    let ctx = SessionContext::new_with_state(builder.build());
    ctx.register_table("t", db.table("t")?)?;
    Ok(ctx)
}

/// A session on `db` that DataFusion alone optimizes.
pub(crate) fn without_rules(db: &Grizzly) -> Result<SessionContext> {
    let ctx = SessionContext::new();
    ctx.register_table("t", db.table("t")?)?;
    Ok(ctx)
}

/// The same rows in a MemTable.
pub(crate) fn in_memory() -> Result<SessionContext> {
    let ctx = SessionContext::new();
    let rows = batch()?;
    ctx.register_table("t", Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))?;
    Ok(ctx)
}
