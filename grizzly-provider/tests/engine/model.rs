//! Random transactions of four sessions against a simple model: a map per snapshot, and first committer wins.

use std::collections::BTreeMap;

use grizzly_provider::{CommitOutcome, Grizzly, Result, Transaction};
use proptest::prelude::*;

use crate::tables::{database, key, pairs, rows};

#[derive(Debug, Clone)]
enum Step {
    Begin,
    Put { id: i64, group: i64 },
    Delete { id: i64 },
    Read,
    Commit,
    Rollback,
    Flush,
    Compact,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        4 => Just(Step::Begin),
        10 => (0..12_i64, 0..1_000_i64).prop_map(|(id, group)| Step::Put { id, group }),
        5 => (0..12_i64).prop_map(|id| Step::Delete { id }),
        4 => Just(Step::Read),
        5 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        1 => Just(Step::Flush),
        1 => Just(Step::Compact),
    ];
    (0..4_usize, step)
}

/// A session as the model sees it.
struct Session {
    transaction: Transaction,
    before: BTreeMap<i64, i64>,
    sees: BTreeMap<i64, i64>,
    wrote: BTreeMap<i64, Option<i64>>,
    began: u64,
}

/// The whole world as the model sees it: rows, and when each key last changed.
#[derive(Default)]
struct World {
    rows: BTreeMap<i64, i64>,
    changed: BTreeMap<i64, u64>,
    clock: u64,
}

fn run(steps: Vec<(usize, Step)>) -> Result<()> {
    let db = database(3)?;
    let mut world = World::default();
    let mut sessions: [Option<Session>; 4] = [const { None }; 4];
    for (number, step) in steps {
        take(&db, &mut world, &mut sessions[number], step)?;
    }
    drop(sessions);
    let stored = pairs(&db.snapshot(), "t", None)?;
    assert_eq!(stored, world.rows.into_iter().collect::<Vec<_>>());
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

fn take(db: &Grizzly, world: &mut World, session: &mut Option<Session>, step: Step) -> Result<()> {
    match (step, session.as_mut()) {
        (Step::Flush, _) => db.flush(),
        (Step::Compact, _) => db.compact("t"),
        (Step::Begin, None) => {
            let transaction = db.begin()?;
            let before = world.rows.clone();
            *session =
                Some(Session { transaction, sees: before.clone(), before, wrote: BTreeMap::new(), began: world.clock });
            Ok(())
        }
        (Step::Put { id, group }, Some(open)) => {
            open.transaction.put("t", rows([(id, group)]))?;
            open.sees.insert(id, group);
            open.wrote.insert(id, Some(group));
            Ok(())
        }
        (Step::Delete { id }, Some(open)) => {
            let found = open.transaction.find("t", &key(id))?;
            assert_eq!(found.is_some(), open.sees.contains_key(&id));
            if let Some((row, _)) = found {
                open.transaction.delete("t", &[row])?;
                open.sees.remove(&id);
                // What was put and deleted again within the transaction leaves no trace.
                match open.before.contains_key(&id) {
                    true => open.wrote.insert(id, None),
                    false => open.wrote.remove(&id),
                };
            }
            Ok(())
        }
        (Step::Read, Some(open)) => {
            let seen = pairs(&open.transaction.snapshot()?, "t", None)?;
            assert_eq!(seen, open.sees.clone().into_iter().collect::<Vec<_>>());
            Ok(())
        }
        (Step::Rollback, Some(_)) => {
            *session = None;
            Ok(())
        }
        (Step::Commit, Some(_)) => session.take().map_or(Ok(()), |open| commit(world, open)),
        _ => Ok(()),
    }
}

fn commit(world: &mut World, open: Session) -> Result<()> {
    // A key that was not there when the transaction began, and is not there now, was nobody's loss in between.
    let concerned = |id: &i64| open.before.contains_key(id) || world.rows.contains_key(id);
    let lost = |id: &i64| world.changed.get(id).is_some_and(|changed| *changed > open.began) && concerned(id);
    let expected = open.wrote.keys().any(lost);
    match open.transaction.commit()? {
        CommitOutcome::Committed { .. } => {
            assert!(!expected, "a lost update: {:?}", open.wrote);
            world.clock += 1;
            for (id, value) in open.wrote {
                let before = world.rows.get(&id).copied();
                match value {
                    Some(value) => world.rows.insert(id, value),
                    None => world.rows.remove(&id),
                };
                if before.is_some() || value.is_some() {
                    world.changed.insert(id, world.clock);
                }
            }
        }
        CommitOutcome::Conflict(conflict) => assert!(expected, "a conflict nobody caused: {conflict:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn four_sessions_agree_with_the_model(steps in prop::collection::vec(step(), 1..120)) {
        run(steps).expect("no step fails");
    }
}
