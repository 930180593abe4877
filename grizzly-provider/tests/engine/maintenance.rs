//! What runs in the background needs bounded means, and lets go of everything in the end.

use std::sync::Arc;

use grizzly_provider::{Grizzly, Result, Settings};

use super::tables::{definition, key, manual, pairs, rows};

/// Waits for something that background work does, for a while.
fn comes_true(what: &str, is: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !is() {
        assert!(begun.elapsed().as_secs() < 20, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_database_at_rest_lets_go_of_what_nobody_reads() -> Result<()> {
    static ROUNDS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
    let db = Grizzly::builder("memory://").storage(Arc::clone(&storage)).open()?;
    db.now_and_then(|| {
        ROUNDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    db.create_table(definition("t", 1), false)?;
    db.create_table(definition("u", 1), false)?;
    for table in ["t", "u"] {
        db.put(table, rows((0..100).map(|id| (id, id))))?;
    }
    db.flush()?;
    let files = || storage.list("data").expect("memory is always there").len();
    let before = files();
    let reader = db.snapshot();
    db.drop_table("t", false)?;
    // The last write; from here on nobody does anything.
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(files(), before, "a snapshot reads them");
    assert_eq!(pairs(&reader, "t", None)?.len(), 100);
    drop(reader);
    comes_true("files of a table that is gone stay", || files() == before / 2);
    assert!(ROUNDS.load(std::sync::atomic::Ordering::Relaxed) > 0);
    // And it does not store one checkpoint after the other.
    let manifests =
        || storage.list("manifest").expect("memory is always there").iter().map(|file| file.path.clone()).max();
    let last = manifests();
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(manifests(), last);
    assert_eq!(pairs(&db.snapshot(), "u", None)?.len(), 100);
    Ok(())
}

/// Text that does not become much smaller.
fn noise(random: &mut u64) -> String {
    let mut word = || {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{random:016x}")
    };
    (0..125).map(|_| word()).collect()
}

#[test]
fn a_merge_takes_in_no_more_than_its_share_of_memory() -> Result<()> {
    let storage = grizzly_wal::open_storage("memory://").expect("memory is always there");
    let settings = Settings { memory_bytes: 1 << 20, ..manual() };
    let db = Grizzly::builder("memory://").settings(settings).storage(Arc::clone(&storage)).open()?;
    db.create_table(definition("t", 1), false)?;
    let mut random = 1;
    for first in 0..16_i64 {
        let text: arrow::array::StringViewArray = (0..50).map(|_| Some(noise(&mut random))).collect();
        let batch = rows((50 * first..50 * (first + 1)).map(|id| (id, id)));
        let columns = vec![Arc::clone(batch.column(0)), Arc::clone(batch.column(1)), Arc::new(text) as _];
        db.put("t", arrow::array::RecordBatch::try_new(batch.schema(), columns).expect("the columns fit"))?;
        db.flush()?;
    }
    let sizes = || {
        let files = storage.list("data").expect("memory is always there");
        files.into_iter().filter(|file| file.path.ends_with(".seg")).map(|file| file.size).collect::<Vec<_>>()
    };
    let sum: u64 = sizes().iter().sum();
    assert!(sum > 2 * (1 << 18), "{sum} bytes are too few for this test");
    // A transaction from before follows its rows through all steps.
    let mut transaction = db.begin()?;
    let (row, _) = transaction.find("t", &key(777))?.expect("row 777 is there");
    db.compact("t")?;
    transaction.update("t", &[row], rows([(777, -1)]))?;
    transaction.commit()?.into_result()?;
    // Its snapshot kept the old files.
    db.flush()?;
    let merged = sizes();
    assert!(merged.len() > 1 && merged.len() < 16, "{merged:?}");
    assert!(merged.iter().all(|size| *size <= 5 << 16), "{merged:?}");
    assert_eq!(pairs(&db.snapshot(), "t", None)?.iter().filter(|(id, grp)| *id == 777 && *grp == -1).count(), 1);
    db.compact("t")?;
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}
