//! Extend: a rule of your own that says how a table is read.
//!
//! The rule below knows something that no statistics can tell: the newest rows are in memory anyway, so whoever asks
//! for recent orders is served best by the index on `day`, whatever it seems to cost.
//!
//! Run it with `cargo run --release --example custom_rule`.

use std::{error::Error, sync::Arc};

use arrow::{
    array::{Int32Array, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use datafusion::{execution::session_state::SessionStateBuilder, physical_plan::displayable, prelude::SessionContext};
use grizzly_optimizer::{AccessPathRule, Candidate, GrizzlyOptimizerExt, ScanView};
use grizzly_provider::{
    Grizzly,
    access::{IndexDefinition, TableDefinition},
    adapter::GrizzlyTables,
};

/// Reads recent rows through the index on `day`.
#[derive(Debug)]
struct RecentFromIndex;

impl AccessPathRule for RecentFromIndex {
    fn name(&self) -> &str {
        "recent_from_index"
    }

    fn candidates(&self, scan: &ScanView<'_>) -> Vec<Candidate> {
        let by_day = scan.indexes().iter().find(|index| &*index.name == "orders_day");
        // The view builds a path that misses no row; only its cost is ours to say.
        by_day.and_then(|index| scan.index(index)).map(|path| path.with_cost(1.0)).into_iter().collect()
    }
}

fn orders() -> Result<Grizzly, Box<dyn Error>> {
    let db = Grizzly::open("memory://")?;
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("day", DataType::Int32, false),
    ]));
    db.create_table(
        TableDefinition {
            schema_name: "public".to_owned(),
            name: "orders".to_owned(),
            schema: Arc::clone(&schema),
            primary_key: vec!["id".to_owned()],
            shards: 1,
            shard_by: vec![],
            defaults: vec![],
            indexes: vec![],
        },
        false,
    )?;
    let day = IndexDefinition { name: "orders_day".to_owned(), columns: vec![("day".to_owned(), true)], unique: false };
    db.create_index("orders", day, false)?;
    let ids = Int64Array::from_iter_values(0..100_000);
    let days = Int32Array::from_iter_values((0..100_000).map(|id| id / 1000));
    db.put("orders", RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(days)])?)?;
    Ok(db)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let db = orders()?;
    let query = "SELECT id FROM orders WHERE day > 80";
    let sets: [(&str, Vec<Arc<dyn AccessPathRule>>); 2] =
        [("without the rule", vec![]), ("with the rule", vec![Arc::new(RecentFromIndex)])];
    for (title, rules) in sets {
        let state = SessionStateBuilder::new().with_default_features().with_grizzly_optimizer_rules(rules)?.build();
        let ctx = SessionContext::new_with_state(state);
        ctx.register_table("orders", db.table("orders")?)?;
        let frame = ctx.sql(query).await?;
        let plan = frame.clone().create_physical_plan().await?;
        println!("{title}: {} rows", frame.count().await?);
        println!("{}", displayable(plan.as_ref()).indent(false));
    }
    Ok(())
}
