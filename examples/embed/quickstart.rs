//! A database inside a program: tables, an index, a transaction, time travel, all in SQL.
//!
//! `cargo run --release --example quickstart`

use datafusion::{arrow::util::pretty::print_batches, execution::SessionStateBuilder};
use grizzly_optimizer::GrizzlyOptimizerExt;
use grizzly_provider::{
    Grizzly,
    adapter::{GrizzlySession, GrizzlySessionExt},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A folder or an object-store URL instead of `memory://` makes it durable.
    let db = Grizzly::open("memory://")?;

    // Two lines make a DataFusion session one that knows the database and reads it cleverly.
    let state = SessionStateBuilder::new().with_default_features().with_grizzly(&db).with_grizzly_optimizer()?.build();
    let session = GrizzlySession::with_state(state)?;

    session
        .execute(
            "CREATE TABLE bears (id BIGINT NOT NULL, name VARCHAR NOT NULL, kg DOUBLE, PRIMARY KEY (id))
                 PARTITION BY HASH(id) SHARDS 4;
             CREATE INDEX bears_by_name ON bears (name);
             INSERT INTO bears VALUES (1, 'Otis', 540), (2, 'Holly', 320), (3, 'Grazer', 310)",
        )
        .await?;
    let before = db.snapshot().csn();

    // Several statements, one commit; a conflict with another session would be an error of kind `Conflict`.
    session.execute("BEGIN; UPDATE bears SET kg = kg + 60 WHERE name = 'Otis'; COMMIT").await?;
    session
        .execute("INSERT INTO bears VALUES (3, 'Grazer', 330) ON CONFLICT (id) DO UPDATE SET kg = excluded.kg")
        .await?;

    println!("now, and how often each row was changed:");
    print_batches(
        &session
            .execute("SELECT id, name, kg, row_version FROM \"bears$rows\" WHERE deleted IS NULL ORDER BY id")
            .await?,
    )?;

    println!("before the changes:");
    let sql = format!("SELECT * FROM bears FOR SYSTEM_TIME AS OF {before} ORDER BY id");
    print_batches(&session.execute(&sql).await?)?;

    // The same rows without SQL.
    let key: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int64Array::from(vec![2]));
    let holly = db.get("bears", &[key])?.ok_or("Holly is gone")?;
    println!("by key, without SQL: {} columns, {} row", holly.num_columns(), holly.num_rows());
    db.close()?;
    Ok(())
}
