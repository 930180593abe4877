//! Durable commits of one row each, by 1 and by 16 threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, Int64Array, StringViewArray},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use datafusion::error::DataFusionError;
use grizzly_provider::{Grizzly, Result, access::TableDefinition};

/// Measures in a database of its own on the disk of the temporary folder.
pub(super) async fn run(time: Duration) -> std::result::Result<(), DataFusionError> {
    tokio::task::block_in_place(|| measure(time)).map_err(DataFusionError::from)
}

fn measure(time: Duration) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("grizzly-commits-{}", std::process::id()));
    let db = Grizzly::open(&folder.to_string_lossy())?;
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("amount", DataType::Int64, true),
        Field::new("note", DataType::Utf8View, true),
    ]));
    let (schema_name, name) = ("public".to_owned(), "entries".to_owned());
    let primary_key = vec!["id".to_owned()];
    let table = TableDefinition {
        schema_name,
        name,
        schema: Arc::clone(&schema),
        primary_key,
        shards: 4,
        shard_by: vec![],
        defaults: vec![],
        indexes: vec![],
    };
    db.create_table(table, false)?;
    let next = AtomicI64::new(0);
    for threads in [1, 16] {
        let (commits, started) = (AtomicU64::new(0), Instant::now());
        let failed = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| commit_until(&db, &schema, &next, &commits, started + time)))
                .collect();
            workers.into_iter().find_map(|worker| worker.join().ok().and_then(Result::err))
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let rate = commits.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
        println!("durable single-row commits, {threads} threads: {rate:.0} /s");
    }
    db.close()?;
    // The folder is ours alone; what cannot be removed is the operating system's matter.
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}

fn commit_until(db: &Grizzly, schema: &Arc<Schema>, next: &AtomicI64, commits: &AtomicU64, end: Instant) -> Result<()> {
    while Instant::now() < end {
        let id = next.fetch_add(1, Ordering::Relaxed);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![id])),
            Arc::new(Int64Array::from(vec![id % 100])),
            Arc::new(StringViewArray::from(vec!["a note of about thirty letters"])),
        ];
        let mut transaction = db.begin()?;
        transaction.insert("entries", RecordBatch::try_new(Arc::clone(schema), columns).map_err(invalid)?)?;
        transaction.commit()?.into_result()?;
        commits.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn invalid(error: arrow::error::ArrowError) -> grizzly_provider::Error {
    grizzly_provider::Error::new(grizzly_provider::ErrorKind::Internal, "a row could not be made").with_source(error)
}
