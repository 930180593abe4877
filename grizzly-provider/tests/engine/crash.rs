//! A crash at every point where the database waits for its storage: what was acknowledged is there, nothing is half
//! there, and every index agrees with the rows.

use std::{collections::BTreeMap, sync::Arc};

use grizzly_provider::{Grizzly, Result, Settings};
use grizzly_wal::{
    Storage,
    storage::faulty::{CrashEffect, FaultPlan, FaultyStorage},
};

use crate::tables::{definition, pairs, rows};

fn settings() -> Settings {
    Settings { background: false, ..Settings::default() }
}

/// What the workload was told is safe, and what it was about to do.
#[derive(Debug, Default, Clone)]
struct Told {
    /// Rows after the last acknowledged commit.
    safe: BTreeMap<i64, i64>,
    /// Rows if the commit under way was kept after all.
    attempted: Option<BTreeMap<i64, i64>>,
    table: bool,
}

/// Commits of two rows each in both shards, with flushes, merges and an index in between.
fn workload(storage: &Arc<dyn Storage>, told: &mut Told) -> Result<()> {
    let db = Grizzly::builder("faulty://").settings(settings()).storage(Arc::clone(storage)).open()?;
    db.create_table(definition("t", 2), true)?;
    told.table = true;
    for round in 0..12_i64 {
        let mut next = told.safe.clone();
        next.insert(round, round);
        next.insert(100 + round / 2, round);
        told.attempted = Some(next.clone());
        db.put("t", rows([(round, round), (100 + round / 2, round)]))?;
        told.safe = next;
        told.attempted = None;
        match round {
            3 | 8 => db.flush()?,
            5 => drop(db.create_index(
                "t",
                grizzly_provider::access::IndexDefinition {
                    name: "by_group".into(),
                    columns: vec![("grp".into(), false)],
                    unique: false,
                },
                true,
            )?),
            9 => db.compact("t")?,
            _ => {}
        }
    }
    db.close()
}

fn check(storage: Arc<dyn Storage>, told: &Told, point: u64) {
    let db = Grizzly::builder("faulty://").settings(settings()).storage(storage).open();
    let db = db.unwrap_or_else(|error| unreachable!("crash at point {point}: the database does not open: {error}"));
    if !told.table {
        return;
    }
    let found: BTreeMap<i64, i64> = pairs(&db.snapshot(), "t", None).expect("it can be read").into_iter().collect();
    let expected = found == told.safe || told.attempted.as_ref() == Some(&found);
    assert!(expected, "crash at point {point}: found {found:?}, told {told:?}");
    let report = db.verify().expect("it can be checked");
    assert!(report.problems.is_empty(), "crash at point {point}: {:?}", report.problems);
    db.put("t", rows([(1_000, 1)])).expect("it goes on");
}

/// Runs the workload with a crash at every sync point until it gets through; returns how many there are.
fn crash_everywhere(effect: CrashEffect) -> u64 {
    let mut point = 0;
    loop {
        let faulty =
            FaultyStorage::new(FaultPlan { crash: Some((point, effect)), seed: 17 + point, ..FaultPlan::default() });
        let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
        let mut told = Told::default();
        let ended = workload(&storage, &mut told);
        check(faulty.crash_image(), &told, point);
        if ended.is_ok() && !faulty.crashed() {
            return point;
        }
        point += 1;
    }
}

#[test]
fn nothing_acknowledged_is_lost_wherever_it_crashes() {
    for effect in [CrashEffect::Lost, CrashEffect::Done, CrashEffect::Prefix, CrashEffect::Torn] {
        let points = crash_everywhere(effect);
        assert!(points > 40, "only {points} points were crossed");
    }
}
