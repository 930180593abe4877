//! What runs in a simulated process: sessions that write, read and define, maintenance, backups.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use grizzly_provider::{
    BackupKind, CommitOutcome, Error, ErrorKind, Grizzly, Result, Storage, Transaction,
    access::{AsOf, IfExists, IndexDefinition},
};
use grizzly_wal::world::{Simulation, now, sleep, spawn};

use super::{
    super::tables::{definition, key, rows},
    ledger::{ACCOUNTS, COUNTERS, DEPOSIT, OWN_KEYS, Shared, UNREADABLE, check_past, consistent, unique},
    told,
};

/// What a process does, besides being killed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// The number of the first session; two processes have none in common.
    pub(super) first: i64,
    /// No other process has the database open, so that what is acknowledged is seen at once.
    pub(super) is_alone: bool,
    pub(super) writers: i64,
    pub(super) transactions: u64,
}

pub(super) fn prepare(db: &Grizzly) -> Result<()> {
    for (name, shards) in [("t", 3), ("accounts", 1), ("marks", 2), ("counters", 1), ("codes", 2)] {
        db.create_table(definition(name, shards), true)?;
    }
    let mut transaction = db.begin()?;
    if transaction.find("accounts", &key(0))?.is_none() {
        transaction.insert("accounts", rows((0..ACCOUNTS).map(|account| (account, DEPOSIT))))?;
        transaction.insert("counters", rows((0..COUNTERS).map(|counter| (counter, 0))))?;
        transaction.commit()?.into_result()?;
    }
    Ok(())
}

/// Runs all sessions to their end.
pub(super) fn run(simulation: &Simulation, db: &Grizzly, ledger: &Shared, load: Load, backups: &Arc<dyn Storage>) {
    let mut threads = Vec::new();
    let mut start = |name: &str, work: Box<dyn FnOnce() + Send>| match spawn(name, work) {
        Ok(thread) => threads.push(thread),
        Err(error) => ledger.lock().problems.push(format!("no thread: {error}")),
    };
    for session in load.first..load.first + load.writers {
        let (simulation, db, ledger) = (simulation.clone(), db.clone(), Arc::clone(ledger));
        start(
            &format!("writer {session}"),
            Box::new(move || write(&simulation, &db, &ledger, session, load.transactions)),
        );
    }
    let (others, db) = ((simulation.clone(), Arc::clone(ledger)), db.clone());
    let (simulation, ledger) = others.clone();
    let reader = db.clone();
    start("reader", Box::new(move || read(&simulation, &reader, &ledger, load)));
    let (simulation, ledger) = others.clone();
    let definer = db.clone();
    start("definer", Box::new(move || define(&simulation, &definer, &ledger, load.transactions / 4)));
    let (simulation, ledger) = others;
    let backups = Arc::clone(backups);
    start("maintainer", Box::new(move || maintain(&simulation, &db, &ledger, &backups, load.transactions / 4)));
    for thread in threads {
        // A panic ends the simulation.
        drop(thread.join());
    }
}

/// Whether there is no point in going on.
fn is_over(ledger: &Shared, error: &Error) -> bool {
    ledger.lock().told(error);
    error.kind() == ErrorKind::Closed
}

fn pause(simulation: &Simulation, longest: u64) {
    sleep(Duration::from_micros(simulation.roll(longest)));
}

pub(super) fn write(simulation: &Simulation, db: &Grizzly, ledger: &Shared, session: i64, transactions: u64) {
    let mut failures = 0;
    for _ in 0..transactions {
        if ledger.lock().is_in_doubt(session) || failures > 20 {
            return;
        }
        let mark = ledger.lock().begin();
        let mut own = ledger.lock().own.get(&session).cloned().unwrap_or_default();
        let made = transact(simulation, db, session, mark, &mut own);
        let is_committing = matches!(made, Ok(Some(_)));
        let outcome = made.and_then(|made| made.map(Transaction::commit).transpose());
        told(simulation, || format!("session {session}: transaction {mark}: {outcome:?}"));
        match outcome {
            Ok(Some(CommitOutcome::Committed { csn })) => ledger.lock().acknowledge(mark, csn, session, own),
            // Another was first, or it was rolled back.
            Ok(Some(CommitOutcome::Conflict(_)) | None) => ledger.lock().refuse(mark),
            Err(error) if is_committing && error.kind() == ErrorKind::OutcomeUnknown => {
                let mut ledger = ledger.lock();
                ledger.told(&error);
                ledger.doubt(mark, session, own);
            }
            Err(error) => {
                ledger.lock().refuse(mark);
                failures += 1;
                if is_over(ledger, &error) {
                    return;
                }
                pause(simulation, 20_000);
            }
        }
        pause(simulation, 3_000);
    }
}

/// A transaction of one session, ready to commit, with the session's rows as they are then; `None` if it was rolled back.
fn transact(
    simulation: &Simulation,
    db: &Grizzly,
    session: i64,
    mark: i64,
    own: &mut BTreeMap<i64, i64>,
) -> Result<Option<Transaction>> {
    let mut transaction = db.begin()?;
    add(&mut transaction, "counters", mark % COUNTERS, 1)?;
    let (from, to) = (simulation.roll(ACCOUNTS as u64) as i64, simulation.roll(ACCOUNTS as u64) as i64);
    if from != to && simulation.roll(2) == 0 {
        add(&mut transaction, "accounts", from, -5)?;
        add(&mut transaction, "accounts", to, 5)?;
    }
    transaction.insert("marks", rows([(mark, session)]))?;
    if simulation.roll(2) == 0 {
        code(simulation, &mut transaction, mark)?;
    }
    for _ in 0..simulation.roll(4) {
        change(simulation, &mut transaction, session, own)?;
    }
    if simulation.roll(5) == 0 {
        let (savepoint, before) = (transaction.savepoint()?, own.clone());
        change(simulation, &mut transaction, session, own)?;
        if simulation.roll(2) == 0 {
            transaction.rollback_to(savepoint)?;
            *own = before;
        }
    }
    if simulation.roll(12) == 0 {
        transaction.rollback();
        return Ok(None);
    }
    pause(simulation, 500);
    Ok(Some(transaction))
}

/// Adds to the value of a row.
fn add(transaction: &mut Transaction, table: &str, id: i64, more: i64) -> Result<()> {
    use arrow::array::AsArray;
    let missing = || Error::new(ErrorKind::NotFound, format!("{table} has no row {id}"));
    let (row, _) = transaction.find(table, &key(id))?.ok_or_else(missing)?;
    let batch = transaction.get(table, &key(id))?.ok_or_else(missing)?;
    let value = batch.column(1).as_primitive::<arrow::datatypes::Int64Type>().value(0);
    transaction.update(table, &[row], rows([(id, value + more)]))?;
    Ok(())
}

/// Adds a code, which now and then another has too, or takes one away.
fn code(simulation: &Simulation, transaction: &mut Transaction, mark: i64) -> Result<()> {
    let some = 1 + simulation.roll(mark as u64) as i64;
    match transaction.find("codes", &key(some))? {
        Some((row, _)) if simulation.roll(3) > 0 => transaction.delete("codes", &[row])?,
        _ => transaction.insert("codes", rows([(mark, simulation.roll(300) as i64)]))?,
    };
    Ok(())
}

/// Changes rows of `t` that only this session changes.
fn change(
    simulation: &Simulation,
    transaction: &mut Transaction,
    session: i64,
    own: &mut BTreeMap<i64, i64>,
) -> Result<()> {
    let some = own.keys().copied().nth(simulation.roll(own.len() as u64) as usize);
    let value = simulation.roll(1000) as i64;
    match (simulation.roll(8), some) {
        (0..=2, Some(id)) => {
            let missing = || Error::new(ErrorKind::Internal, format!("row {id} of t is not found by its key"));
            let (row, _) = transaction.find("t", &key(id))?.ok_or_else(missing)?;
            if simulation.roll(3) > 0 {
                transaction.delete("t", &[row])?;
                own.remove(&id);
            } else {
                transaction.update("t", &[row], rows([(id, value)]))?;
                own.insert(id, value);
            }
        }
        (3, Some(id)) => {
            transaction.put("t", rows([(id, value)]))?;
            own.insert(id, value);
        }
        (4, Some(_)) if own.len() > 40 => {
            // Many at once.
            let most: Vec<i64> = own.keys().copied().filter(|id| id % 3 != 0).collect();
            let mut places = Vec::new();
            for id in &most {
                let missing = || Error::new(ErrorKind::Internal, format!("row {id} of t is not found by its key"));
                places.push(transaction.find("t", &key(*id))?.ok_or_else(missing)?.0);
            }
            transaction.delete("t", &places)?;
            own.retain(|id, _| id % 3 == 0);
        }
        (choice, _) => {
            let count = if choice == 7 { simulation.roll(40) as i64 } else { 1 };
            let first = session * OWN_KEYS + simulation.roll(OWN_KEYS as u64 - 50) as i64;
            let new: Vec<(i64, i64)> =
                (first..=first + count).filter(|id| !own.contains_key(id)).map(|id| (id, value)).collect();
            if !new.is_empty() {
                transaction.insert("t", rows(new.iter().copied()))?;
                own.extend(new);
            }
        }
    }
    Ok(())
}

fn read(simulation: &Simulation, db: &Grizzly, ledger: &Shared, load: Load) {
    // Where somebody always reads, much is kept that is forgotten elsewhere.
    let (rounds, rest) = if simulation.roll(2) == 0 { (load.transactions, 10_000) } else { (4, 200_000) };
    for _ in 0..rounds {
        let before = if load.is_alone { ledger.lock().acknowledged_now() } else { BTreeSet::new() };
        let snapshot = db.snapshot();
        pause(simulation, 1_000);
        let holds = unique(&snapshot).and_then(|()| consistent(&snapshot));
        match holds {
            Ok(marks) => {
                if let Some(mark) = before.iter().find(|mark| !marks.contains(mark)) {
                    let text = format!("transaction {mark} was acknowledged and is not seen at {}", snapshot.csn());
                    ledger.lock().problems.push(text);
                }
            }
            // A read that fails is no wrong read.
            Err(problem) if problem.starts_with(UNREADABLE) => {}
            Err(problem) => ledger.lock().problems.push(problem),
        }
        let past = ledger.lock().some_commit(|end| simulation.roll(end));
        if let Some(csn) = past.filter(|_| simulation.roll(3) == 0) {
            check_past(db, ledger, csn);
        }
        // Whoever follows another's log shows what it has read of it by then.
        if load.is_alone && simulation.roll(3) == 0 {
            repeat(simulation, db, ledger);
        }
        pause(simulation, rest);
    }
}

/// Reads as of a time twice, with time in between.
fn repeat(simulation: &Simulation, db: &Grizzly, ledger: &Shared) {
    let micros = now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
    let look = || db.snapshot_at(AsOf::TimestampMicros(micros)).ok().map(|snapshot| consistent(&snapshot));
    let before = look();
    pause(simulation, 5_000);
    if let (Some(Ok(before)), Some(Ok(after))) = (before, look())
        && before != after
    {
        let differ: Vec<_> = before.symmetric_difference(&after).collect();
        ledger.lock().problems.push(format!("as of {micros} us, read twice, transactions {differ:?} differ"));
    }
}

pub(super) fn define(simulation: &Simulation, db: &Grizzly, ledger: &Shared, times: u64) {
    let index = |name: &str, columns: &[&str], unique| IndexDefinition {
        name: name.into(),
        columns: columns.iter().map(|column| ((*column).to_owned(), false)).collect(),
        unique,
    };
    for _ in 0..times {
        let done = match simulation.roll(10) {
            0 => db.create_index("t", index("by_grp", &["grp"], false), true),
            1 => db.drop_index(Some("t"), "by_grp", true),
            2 => db.create_index("marks", index("both", &["grp", "id"], true), true),
            3 => db.drop_index(Some("marks"), "both", true),
            4 | 5 => db.create_index("codes", index("one", &["grp"], true), true),
            6 => db.drop_index(Some("codes"), "one", true),
            7 | 8 => replace(simulation, db).map(|()| true),
            _ => db.drop_table("extra", true),
        };
        if let Err(error) = done {
            if error.kind() == ErrorKind::UniqueViolation && !error.to_string().contains("'one'") {
                ledger.lock().problems.push(format!("no key comes twice: {error}"));
            }
            if is_over(ledger, &error) {
                return;
            }
        }
        pause(simulation, 30_000);
    }
}

/// Puts another table in the place of one, with other rows.
fn replace(simulation: &Simulation, db: &Grizzly) -> Result<()> {
    let mut transaction = db.begin()?;
    transaction.create_table(definition("extra", 2), IfExists::Replace)?;
    // Now and then so many that they become files at once.
    let count = if simulation.roll(40) == 0 { 70_000 } else { simulation.roll(30) };
    transaction.insert("extra", rows((0..count as i64).map(|id| (id, id))))?;
    transaction.commit()?.into_result().map(drop)
}

pub(super) fn maintain(simulation: &Simulation, db: &Grizzly, ledger: &Shared, backups: &Arc<dyn Storage>, times: u64) {
    for _ in 0..times {
        let done = match simulation.roll(6) {
            // There are new files to merge.
            0 => db.flush().and_then(|()| db.compact("t")),
            1 => db.compact(["t", "marks"][simulation.roll(2) as usize]),
            2 => db.backup_into(backups, BackupKind::Full, &mut |_, _| {}).map(drop),
            3 => db.backup_into(backups, BackupKind::Incremental, &mut |_, _| {}).map(drop),
            _ => db.flush(),
        };
        if done.is_err_and(|error| is_over(ledger, &error)) {
            return;
        }
        pause(simulation, 30_000);
    }
}
