//! How long a small commit and a read wait while a large change commits. Measured, not judged, so run by hand:
//!
//! ```text
//! cargo test --release -p grizzly-provider --no-default-features --test engine -- --ignored --nocapture pauses
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use grizzly_provider::{Grizzly, Result, Settings, access::IndexDefinition};

use super::tables::{definition, key, rows, versions};

const ROWS: i64 = 3_000_000;
const BATCH: usize = 8_192;

/// Megabytes that the process holds, and the most that it held.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|value| value.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Forgets the most that was held so far.
fn reset_peak() {
    // It may not be allowed; then peaks only grow.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Does `work`, and says how long it took and how long a commit and a read beside it took at most.
fn beside<R>(db: &Grizzly, what: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let done = Arc::new(AtomicBool::new(false));
    let longest = |step: fn(&Grizzly, i64) -> Result<()>| {
        let (db, done) = (db.clone(), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            for round in 0.. {
                if done.load(Ordering::Acquire) {
                    break;
                }
                let start = Instant::now();
                step(&db, round)?;
                longest = longest.max(start.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok::<_, grizzly_provider::Error>(longest)
        })
    };
    let commits = longest(|db, round| db.put("small", rows([(round, round)])).map(drop));
    let reads = longest(|db, _| db.snapshot().table("t").map(drop));
    let gets = longest(|db, _| db.get("small", &key(0)).map(drop));
    reset_peak();
    let start = Instant::now();
    let result = work()?;
    let took = start.elapsed();
    done.store(true, Ordering::Release);
    let [commits, reads, gets] = [commits, reads, gets].map(|thread| thread.join().expect("no panic"));
    let (now, peak) = memory();
    println!(
        "{what}: {took:.1?}; at most: commit {:.1?}, snapshot {:.1?}, get {:.1?}; {now} MB, peak {peak} MB",
        commits?, reads?, gets?
    );
    Ok(result)
}

fn loaded(memory_bytes: usize) -> Result<Grizzly> {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files").keep();
    let url = format!("file://{}", folder.display());
    let db = Grizzly::builder(&url).settings(Settings { memory_bytes, ..Settings::default() }).open()?;
    db.create_table(definition("t", 1), false)?;
    db.create_table(definition("small", 1), false)?;
    db.put("small", rows([(0, 0)]))?;
    beside(&db, "load", || {
        let mut transaction = db.begin()?;
        for first in (0..ROWS).step_by(BATCH) {
            transaction.insert("t", rows((first..ROWS.min(first + BATCH as i64)).map(|id| (id, id * 7 % ROWS))))?;
        }
        transaction.commit()?.into_result()
    })?;
    Ok(db)
}

#[test]
#[ignore = "a measurement"]
fn pauses_beside_a_delete() -> Result<()> {
    let db = loaded(256 << 20)?;
    let all: Vec<_> = versions(&db.snapshot(), "t")?.into_iter().map(|(_, _, row)| row).collect();
    let mut transaction = db.begin()?;
    beside(&db, "delete", || all.chunks(BATCH).try_for_each(|rows| transaction.delete("t", rows).map(drop)))?;
    beside(&db, "its commit", || transaction.commit()?.into_result())?;
    beside(&db, "a flush", || db.flush())
}

#[test]
#[ignore = "a measurement"]
fn pauses_beside_an_update() -> Result<()> {
    let db = loaded(256 << 20)?;
    let all: Vec<_> = versions(&db.snapshot(), "t")?.into_iter().map(|(id, _, row)| (id, row)).collect();
    let mut transaction = db.begin()?;
    beside(&db, "update", || {
        all.chunks(BATCH).try_for_each(|part| {
            let places: Vec<_> = part.iter().map(|(_, row)| *row).collect();
            transaction.update("t", &places, rows(part.iter().map(|(id, _)| (*id, -id)))).map(drop)
        })
    })?;
    beside(&db, "its commit", || transaction.commit()?.into_result())?;
    beside(&db, "a merge", || db.compact("t"))
}

#[test]
#[ignore = "a measurement"]
fn pauses_beside_an_index() -> Result<()> {
    let db = loaded(256 << 20)?;
    beside(&db, "a merge", || db.compact("t"))?;
    for (name, column, unique) in [("groups", "grp", false), ("one", "grp", true), ("names", "name", true)] {
        let index = IndexDefinition { name: name.into(), columns: vec![(column.into(), false)], unique };
        beside(&db, name, || db.create_index("t", index, false))?;
    }
    Ok(())
}
