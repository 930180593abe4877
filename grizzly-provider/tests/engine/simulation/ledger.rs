//! What must be in the database, from what its sessions were told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use grizzly_provider::{
    Error, Grizzly, Snapshot,
    access::{AsOf, Csn},
};
use parking_lot::Mutex;

use super::{super::tables::pairs, disk::Mount};

/// Rows that many sessions move amounts between; the sum of all stays.
pub(super) const ACCOUNTS: i64 = 12;
pub(super) const DEPOSIT: i64 = 100;
/// Rows that count transactions.
pub(super) const COUNTERS: i64 = 3;
/// Each session has so many keys of table `t` for itself.
pub(super) const OWN_KEYS: i64 = 100_000;

/// How a problem begins that is none where storage fails.
pub(super) const UNREADABLE: &str = "reading";

/// What sessions know. Whatever one of them does not know is found out when the database is next looked at.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The rows of each session in `t`.
    pub(super) own: BTreeMap<i64, BTreeMap<i64, i64>>,
    /// Transactions that were acknowledged, with their commits.
    acknowledged: BTreeMap<i64, Csn>,
    /// Transactions that were found to be there, with commits that nobody was told.
    found: BTreeSet<i64>,
    /// Transactions that were refused.
    refused: BTreeSet<i64>,
    /// Transactions of which neither is known, with the session and its rows if it committed.
    unknown: BTreeMap<i64, (i64, BTreeMap<i64, i64>)>,
    /// The next transaction.
    next: i64,
    /// Commits that are known to have been there when the history began that can be read.
    pub(super) history_from: Csn,
    /// The process that has the database open, if it is alone.
    pub(super) alone: Option<Mount>,
    pub(super) problems: Vec<String>,
}

pub(super) type Shared = Arc<Mutex<Ledger>>;

impl Ledger {
    pub(super) fn begin(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    pub(super) fn acknowledge(&mut self, mark: i64, csn: Csn, session: i64, rows: BTreeMap<i64, i64>) {
        self.acknowledged.insert(mark, csn);
        self.own.insert(session, rows);
    }

    pub(super) fn refuse(&mut self, mark: i64) {
        self.refused.insert(mark);
    }

    pub(super) fn doubt(&mut self, mark: i64, session: i64, rows: BTreeMap<i64, i64>) {
        self.unknown.insert(mark, (session, rows));
    }

    /// Whether the session must not go on before it is known what became of a transaction of its.
    pub(super) fn is_in_doubt(&self, session: i64) -> bool {
        self.unknown.values().any(|(of, _)| *of == session)
    }

    pub(super) fn count(&self) -> usize {
        self.acknowledged.len()
    }

    /// Transactions that whoever takes a snapshot from now on must see.
    pub(super) fn acknowledged_now(&self) -> BTreeSet<i64> {
        self.acknowledged.keys().chain(&self.found).copied().collect()
    }

    /// Takes note of an error that a session was told: of whoever is alone nobody takes over, and it can find out what became
    /// of what it has sent, unless it cannot even ask.
    pub(super) fn told(&mut self, error: &Error) {
        let can_know = |mount: &Mount| !mount.is_dead() && !mount.is_in_doubt();
        let text = error.to_string();
        if text.contains("another writer") && self.alone.as_ref().is_some_and(can_know) {
            self.problem(format!("there is no other writer: {text}"));
        }
    }

    pub(super) fn problem(&mut self, text: String) {
        if self.problems.len() < 20 {
            self.problems.push(text);
        }
    }

    /// An acknowledged commit that was not the last, for a look at the past.
    pub(super) fn some_commit(&self, roll: impl Fn(u64) -> u64) -> Option<Csn> {
        let known: Vec<Csn> = self.acknowledged.values().copied().filter(|csn| *csn >= self.history_from).collect();
        known.get(roll(known.len() as u64) as usize).copied()
    }
}

fn map(snapshot: &Snapshot, table: &str) -> Result<BTreeMap<i64, i64>, String> {
    let rows = pairs(snapshot, table, None).map_err(|error| format!("{UNREADABLE} {table}: {error}"))?;
    let count = rows.len();
    let map: BTreeMap<i64, i64> = rows.into_iter().collect();
    if map.len() == count { Ok(map) } else { Err(format!("{table} has {count} rows with {} keys", map.len())) }
}

/// What holds in every snapshot, of whenever: all of a transaction or nothing of it.
pub(super) fn consistent(snapshot: &Snapshot) -> Result<BTreeSet<i64>, String> {
    let at = snapshot.csn();
    let accounts = map(snapshot, "accounts")?;
    let sum: i64 = accounts.values().sum();
    if accounts.len() as i64 != ACCOUNTS || sum != ACCOUNTS * DEPOSIT {
        return Err(format!("at {at}: {} accounts with {sum}", accounts.len()));
    }
    let marks = map(snapshot, "marks")?;
    let counters = map(snapshot, "counters")?;
    for counter in 0..COUNTERS {
        let counted = counters.get(&counter).copied().unwrap_or(-1);
        let there = marks.keys().filter(|mark| *mark % COUNTERS == counter).count() as i64;
        if counted != there {
            return Err(format!("at {at}: counter {counter} says {counted}, and there are {there} transactions"));
        }
    }
    Ok(marks.into_keys().collect())
}

/// Compares the database, which nobody writes to, with the ledger, and settles what was not known.
pub(super) fn check(db: &Grizzly, ledger: &Shared) {
    let ledger = &mut *ledger.lock();
    let snapshot = db.snapshot();
    if let Err(problem) = unique(&snapshot) {
        ledger.problem(problem);
    }
    match consistent(&snapshot) {
        Err(problem) => ledger.problem(problem),
        Ok(marks) => settle(ledger, &marks, snapshot.csn()),
    }
    match map(&snapshot, "t") {
        Err(problem) => ledger.problem(problem),
        Ok(rows) => {
            let own: BTreeMap<i64, i64> = ledger.own.values().flatten().map(|(key, value)| (*key, *value)).collect();
            if rows != own {
                let missing = own.iter().filter(|(key, value)| rows.get(*key) != Some(value)).take(3);
                let missing: Vec<_> = missing.map(|(key, value)| (*key, *value, rows.get(key).copied())).collect();
                let strange: Vec<_> = rows.iter().filter(|(key, _)| !own.contains_key(*key)).take(3).collect();
                ledger.problem(format!(
                    "t has {} rows, not {}; (key, value, found): {missing:?}; not expected: {strange:?}",
                    rows.len(),
                    own.len()
                ));
            }
        }
    }
    match db.verify() {
        Ok(report) => report.problems.into_iter().for_each(|problem| ledger.problem(format!("verify: {problem}"))),
        Err(error) => ledger.problem(format!("verify failed: {error}")),
    }
}

fn settle(ledger: &mut Ledger, marks: &BTreeSet<i64>, at: Csn) {
    for (mark, csn) in ledger.acknowledged.clone() {
        if !marks.contains(&mark) {
            ledger.problem(format!("transaction {mark} was acknowledged as {csn} and is not there at {at}"));
        }
    }
    for mark in ledger.found.clone() {
        if !marks.contains(&mark) {
            ledger.problem(format!("transaction {mark} was there and is not at {at}"));
        }
    }
    for mark in ledger.refused.clone() {
        if marks.contains(&mark) {
            ledger.problem(format!("transaction {mark} was refused and is there at {at}"));
        }
    }
    for (mark, (session, rows)) in std::mem::take(&mut ledger.unknown) {
        if marks.contains(&mark) {
            ledger.own.insert(session, rows);
            ledger.found.insert(mark);
        } else {
            ledger.refused.insert(mark);
        }
    }
    let known = ledger.acknowledged_now();
    let strange: Vec<i64> = marks.difference(&known).copied().collect();
    if !strange.is_empty() {
        ledger.problem(format!("transactions {strange:?} are there and nobody made them"));
    }
}

/// What holds in a snapshot of the present: no two rows have one key of a unique index. (The past is seen with the indexes of
/// today.)
pub(super) fn unique(snapshot: &Snapshot) -> Result<(), String> {
    let table = snapshot.table("codes").map_err(|error| format!("{UNREADABLE} codes: {error}"))?;
    let codes = map(snapshot, "codes")?;
    let values: BTreeSet<i64> = codes.values().copied().collect();
    if table.index_id("one").is_none() || values.len() == codes.len() {
        return Ok(());
    }
    let (at, count) = (snapshot.csn(), codes.len());
    Err(format!("at {at}: {count} codes under a unique index, and {} different ones", values.len()))
}

/// Compares the past with what is known of it.
pub(super) fn check_past(db: &Grizzly, ledger: &Shared, csn: Csn) {
    // History that is gone, or a database that is.
    let Ok(snapshot) = db.snapshot_at(AsOf::Csn(csn)) else { return };
    check_as_of(&snapshot, ledger, csn, "as of");
}

/// Compares what is said to be the state after a commit with what is known of it.
pub(super) fn check_as_of(snapshot: &Snapshot, ledger: &Shared, csn: Csn, what: &str) {
    // Before the look: what is acknowledged meanwhile may be later or not.
    let known: Vec<(i64, Csn)> = ledger.lock().acknowledged.iter().map(|(mark, csn)| (*mark, *csn)).collect();
    let problem = match consistent(snapshot) {
        // A read that fails is no wrong read.
        Err(problem) if problem.starts_with(UNREADABLE) => return,
        Err(problem) => problem,
        Ok(marks) => {
            let wrong = known.into_iter().find(|(mark, of)| marks.contains(mark) != (*of <= csn));
            let Some((mark, of)) = wrong else { return };
            format!("transaction {mark} of commit {of}, there: {}", marks.contains(&mark))
        }
    };
    ledger.lock().problem(format!("{what} {csn}: {problem}"));
}
