//! What one session keeps between statements: its database and its open transaction. It lives as a typed
//! extension in `SessionConfig`, so that every scan and every sink of the session finds it in its `TaskContext`.

use std::fmt;

use parking_lot::Mutex;

use crate::{Grizzly, Snapshot, Transaction};

/// The state of one session: at most one open transaction on one database.
pub struct SessionHandle {
    db: Grizzly,
    transaction: Mutex<Option<Transaction>>,
}

impl SessionHandle {
    /// A session without a transaction.
    pub fn new(db: &Grizzly) -> Self {
        Self { db: db.clone(), transaction: Mutex::new(None) }
    }

    /// The session's database.
    pub fn db(&self) -> &Grizzly {
        &self.db
    }

    /// What the open transaction sees, its own writes so far included; `None` outside a transaction.
    pub fn transaction_snapshot(&self) -> Option<Snapshot> {
        self.transaction.lock().as_ref().map(Transaction::snapshot)
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("db", &self.db).finish_non_exhaustive()
    }
}
