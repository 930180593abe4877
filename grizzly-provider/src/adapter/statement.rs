//! Which snapshot a statement reads. DataFusion executes one statement under one `Arc<TaskContext>`: the first scan
//! that runs under it binds the snapshot, and every other scan and partition of the statement gets the same one.
//! Nothing is bound at planning, so prepared plans and views always read present data.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Weak},
};

use datafusion::execution::TaskContext;
use parking_lot::Mutex;

use super::{
    SessionHandle,
    time_travel::{PointInTime, present},
};
use crate::{Grizzly, Result, Snapshot, access::AsOf};

/// One running statement and what it reads of each database.
struct Statement {
    /// As long as this exists the context's address is not used again, so the address is a safe key.
    context: Weak<TaskContext>,
    /// When it started, in microseconds since 1970, once something has asked.
    now: Option<i64>,
    bound: Vec<Binding>,
}

struct Binding {
    database: usize,
    as_of: Option<AsOf>,
    snapshot: Snapshot,
}

static STATEMENTS: LazyLock<Mutex<HashMap<usize, Statement>>> = LazyLock::new(Mutex::default);

/// Every clone of a database lends the same URL string, so where it lies says which database it is.
fn identity(db: &Grizzly) -> usize {
    db.url().as_ptr() as usize
}

/// Whether both are the same open database.
pub(crate) fn same_database(left: &Grizzly, right: &Grizzly) -> bool {
    identity(left) == identity(right)
}

/// What the statement running under `context` reads of `db`, the same for everything that belongs to the statement:
/// what its session's open transaction sees, else all that was committed when the statement first asked. Call it in
/// `execute`, not while planning.
pub fn statement_snapshot(db: &Grizzly, context: &Arc<TaskContext>) -> Result<Snapshot> {
    bind_snapshot(db, context, None)
}

/// What the statement running under `context` reads of `db`: history if `as_of` is given, else what its session's
/// open transaction sees, else all that was committed when the statement first asked.
pub(crate) fn bind_snapshot(db: &Grizzly, context: &Arc<TaskContext>, as_of: Option<&PointInTime>) -> Result<Snapshot> {
    let as_of = match as_of {
        Some(PointInTime::Fixed(at)) => Some(*at),
        Some(relative) => Some(relative.at(started(db, context))?),
        None => None,
    };
    bind(db, context, as_of, |transaction| match (as_of, transaction) {
        (Some(as_of), _) => db.snapshot_at(as_of),
        (None, Some(snapshot)) => Ok(snapshot),
        (None, None) => Ok(db.snapshot()),
    })
}

/// Makes the statement running under `context` read `snapshot`, which its own autocommit transaction sees, and
/// returns what it really reads: an earlier binding stands.
pub(crate) fn bind_to(db: &Grizzly, context: &Arc<TaskContext>, snapshot: &Snapshot) -> Result<Snapshot> {
    bind(db, context, None, |_| Ok(snapshot.clone()))
}

fn bind(
    db: &Grizzly,
    context: &Arc<TaskContext>,
    as_of: Option<AsOf>,
    read: impl FnOnce(Option<Snapshot>) -> Result<Snapshot>,
) -> Result<Snapshot> {
    let database = identity(db);
    if let Some(bound) = bound(context, database, as_of) {
        return Ok(bound);
    }
    // Read without the lock: the session has a lock of its own. Where two scans come here at once, the first
    // to get the lock again decides for both.
    let snapshot = read(transaction_snapshot(db, context)?)?;
    // The last statement before a rest has nobody behind it that would let go of its snapshot.
    db.now_and_then(release_ended);
    let mut statements = STATEMENTS.lock();
    let ended = take_ended(&mut statements);
    let statement = Statement::entry(&mut statements, context);
    let snapshot = statement.find(database, as_of).unwrap_or_else(|| {
        statement.bound.push(Binding { database, as_of, snapshot: snapshot.clone() });
        snapshot
    });
    // Letting go of a snapshot may free much memory: not under the lock.
    drop(statements);
    drop(ended);
    Ok(snapshot)
}

/// When the statement running under `context` started: one moment for all that it reads.
fn started(db: &Grizzly, context: &Arc<TaskContext>) -> i64 {
    let present = present(db);
    *Statement::entry(&mut STATEMENTS.lock(), context).now.get_or_insert(present)
}

fn bound(context: &Arc<TaskContext>, database: usize, as_of: Option<AsOf>) -> Option<Snapshot> {
    STATEMENTS.lock().get(&(Arc::as_ptr(context) as usize))?.find(database, as_of)
}

impl Statement {
    fn entry<'a>(statements: &'a mut HashMap<usize, Self>, context: &Arc<TaskContext>) -> &'a mut Self {
        let fresh = || Self { context: Arc::downgrade(context), now: None, bound: Vec::new() };
        let statement = statements.entry(Arc::as_ptr(context) as usize).or_insert_with(fresh);
        if statement.context.strong_count() == 0 {
            // One that ended had the same address.
            *statement = fresh();
        }
        statement
    }

    fn find(&self, database: usize, as_of: Option<AsOf>) -> Option<Snapshot> {
        let bound = self.bound.iter().find(|bound| bound.database == database && bound.as_of == as_of)?;
        Some(bound.snapshot.clone())
    }
}

fn transaction_snapshot(db: &Grizzly, context: &TaskContext) -> Result<Option<Snapshot>> {
    let session = context.session_config().get_extension::<SessionHandle>();
    match session.filter(|session| same_database(session.db(), db)) {
        Some(session) => session.transaction_snapshot(),
        None => Ok(None),
    }
}

/// Lets go of the snapshots of statements that have ended. Scans call it as they end.
pub(crate) fn release_ended() {
    let ended = take_ended(&mut STATEMENTS.lock());
    drop(ended);
}

fn take_ended(statements: &mut HashMap<usize, Statement>) -> Vec<Statement> {
    let ended: Vec<usize> =
        statements.iter().filter(|(_, statement)| statement.context.strong_count() == 0).map(|(key, _)| *key).collect();
    ended.into_iter().filter_map(|key| statements.remove(&key)).collect()
}
