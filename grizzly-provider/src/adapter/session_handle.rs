//! What one session keeps between statements: its database and its open transaction. It lives as a typed
//! extension in `SessionConfig`, so that every scan and every sink of the session finds it in its `TaskContext`.
//!
//! A statement that fails inside an open transaction aborts it, as in PostgreSQL: until `ROLLBACK` or
//! `ROLLBACK TO` an earlier savepoint, every further statement is refused with SQLSTATE 25P02.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::{interrupt, result_cache::SessionResults};
use crate::{Error, ErrorKind, Grizzly, Result, Snapshot, Transaction, access::Csn};

/// The state of one session: at most one open transaction on one database.
pub struct SessionHandle {
    db: Grizzly,
    open: Mutex<Option<OpenTransaction>>,
    /// Nothing may be written any more. Changed while `open` is locked.
    ended: AtomicBool,
    /// Held by whatever changes the transaction, so that a statement is atomic within it.
    writer: Arc<tokio::sync::Mutex<()>>,
    /// The way to kept results. Only a session that keeps plans has one.
    results: Option<SessionResults>,
}

struct OpenTransaction {
    transaction: Transaction,
    /// Named savepoints, oldest first.
    savepoints: Vec<(String, usize)>,
    read_only: bool,
    aborted: bool,
}

impl SessionHandle {
    /// A session without a transaction.
    pub fn new(db: &Grizzly) -> Self {
        let (open, ended) = (Mutex::new(None), AtomicBool::new(false));
        Self { db: db.clone(), open, ended, writer: Arc::default(), results: None }
    }

    /// A session whose results are kept, if the database keeps any.
    pub(super) fn with_results(db: &Grizzly) -> Self {
        Self { results: SessionResults::of(db), ..Self::new(db) }
    }

    pub(super) fn results(&self) -> Option<&SessionResults> {
        self.results.as_ref()
    }

    /// The session's database.
    pub fn db(&self) -> &Grizzly {
        &self.db
    }

    /// What the open transaction sees, its own writes so far included; `None` outside a transaction.
    /// An error of kind `TransactionAborted` if the transaction is aborted.
    pub fn transaction_snapshot(&self) -> Result<Option<Snapshot>> {
        match self.open.lock().as_ref() {
            Some(open) if open.aborted => Err(aborted()),
            open => open.map(|open| open.transaction.snapshot()).transpose(),
        }
    }

    /// Calls `f` with the open transaction; `None` outside a transaction.
    pub fn with_transaction<R>(&self, f: impl FnOnce(&mut Transaction) -> R) -> Option<R> {
        self.open.lock().as_mut().map(|open| f(&mut open.transaction))
    }

    /// The session ends: from now on its writing statements are refused, those too that have been planned already. Once
    /// its transaction is rolled back they would commit by themselves.
    pub fn end(&self) {
        let _open = self.open.lock();
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether `BEGIN` was executed and neither `COMMIT` nor `ROLLBACK` since.
    pub fn in_transaction(&self) -> bool {
        self.open.lock().is_some()
    }

    /// Whether a statement of the open transaction has failed.
    pub fn is_aborted(&self) -> bool {
        self.open.lock().as_ref().is_some_and(|open| open.aborted)
    }

    /// An error of kind `TransactionAborted` if a statement of the open transaction has failed.
    pub fn check_usable(&self) -> Result<()> {
        if self.is_aborted() { Err(aborted()) } else { Ok(()) }
    }

    /// An error of kind `TransactionState` inside a transaction: definitions take effect at once and for everybody,
    /// so `definition` cannot be part of one.
    pub(crate) fn outside_transaction(&self, definition: &str) -> Result<()> {
        if self.in_transaction() {
            return Err(state(format!("{definition} cannot run inside a transaction")));
        }
        Ok(())
    }

    /// Refuses all further statements of the open transaction, if there is one, until it is rolled back.
    pub fn abort(&self) {
        if let Some(open) = self.open.lock().as_mut() {
            open.aborted = true;
        }
    }

    /// Starts a transaction. An error of kind `TransactionState` if there is one already.
    pub async fn begin(&self, read_only: bool) -> Result<()> {
        let _writer = self.lock_writer().await;
        let mut open = self.open.lock();
        if open.is_some() {
            return Err(state("there is already a transaction in progress"));
        }
        let transaction = self.db.begin()?;
        *open = Some(OpenTransaction { transaction, savepoints: Vec::new(), read_only, aborted: false });
        Ok(())
    }

    /// Makes the open transaction read only, or not. Refused once it has written.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let mut open = self.open.lock();
        let open = open.as_mut().ok_or_else(no_transaction)?;
        if !open.transaction.is_empty() {
            return Err(state("the access mode cannot change after the transaction has written"));
        }
        open.read_only = read_only;
        Ok(())
    }

    /// Commits the open transaction, which ends whatever the outcome. An error of kind `Conflict` if another
    /// transaction committed first, `TransactionAborted` if one of its statements had failed.
    pub async fn commit(&self) -> Result<Csn> {
        let _writer = self.lock_writer().await;
        let open = self.open.lock().take().ok_or_else(no_transaction)?;
        if open.aborted {
            open.transaction.rollback();
            let message = "a statement of this transaction had failed: it was rolled back instead of committed";
            return Err(Error::new(ErrorKind::TransactionAborted, message));
        }
        interrupt::commit(open.transaction).await?.into_result()
    }

    /// Forgets the open transaction's writes and ends it.
    pub async fn rollback(&self) -> Result<()> {
        let _writer = self.lock_writer().await;
        let open = self.open.lock().take().ok_or_else(no_transaction)?;
        open.transaction.rollback();
        Ok(())
    }

    /// Names the present state of the open transaction.
    pub async fn savepoint(&self, name: &str) -> Result<()> {
        let _writer = self.lock_writer().await;
        self.change(|open| {
            if open.aborted {
                return Err(aborted());
            }
            let mark = open.transaction.savepoint()?;
            open.savepoints.push((name.to_owned(), mark));
            Ok(())
        })
    }

    /// Forgets a savepoint and all later ones, keeping the writes.
    pub async fn release_savepoint(&self, name: &str) -> Result<()> {
        let _writer = self.lock_writer().await;
        self.change(|open| {
            if open.aborted {
                return Err(aborted());
            }
            let position = open.position(name)?;
            open.transaction.release_savepoint(open.savepoints[position].1)?;
            open.savepoints.truncate(position);
            Ok(())
        })
    }

    /// Undoes everything since a savepoint, which stays; an aborted transaction is usable again.
    pub async fn rollback_to_savepoint(&self, name: &str) -> Result<()> {
        let _writer = self.lock_writer().await;
        self.change(|open| {
            let position = open.position(name)?;
            open.transaction.rollback_to(open.savepoints[position].1)?;
            open.savepoints.truncate(position + 1);
            open.aborted = false;
            Ok(())
        })
    }

    /// Waits until no other statement of this session writes.
    pub(crate) async fn lock_writer(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.writer).lock_owned().await
    }

    /// Begins a writing statement: a mark to undo it with, and what it may read. `None` outside a transaction. An error of
    /// kind `Closed` once the session [ends](Self::end).
    pub(crate) fn begin_statement(&self) -> Result<Option<(usize, Snapshot)>> {
        let mut open = self.open.lock();
        if self.ended.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "the session of this statement has ended"));
        }
        let Some(open) = open.as_mut() else { return Ok(None) };
        if open.aborted {
            return Err(aborted());
        }
        if open.read_only {
            return Err(state("a read-only transaction cannot write"));
        }
        let mark = open.transaction.savepoint()?;
        Ok(Some((mark, open.transaction.snapshot()?)))
    }

    /// Keeps what a writing statement did; its mark is not needed any more.
    pub(crate) fn end_statement(&self, mark: usize) -> Result<()> {
        self.change(|open| open.transaction.release_savepoint(mark))
    }

    /// Undoes a failed statement and aborts the transaction.
    pub(crate) fn fail_statement(&self, mark: usize) {
        if let Some(open) = self.open.lock().as_mut() {
            open.aborted = true;
            let transaction = &mut open.transaction;
            if let Err(error) = transaction.rollback_to(mark).and_then(|()| transaction.release_savepoint(mark)) {
                tracing::error!(%error, "a failed statement could not be undone; its transaction cannot commit");
            }
        }
    }

    fn change<R>(&self, f: impl FnOnce(&mut OpenTransaction) -> Result<R>) -> Result<R> {
        f(self.open.lock().as_mut().ok_or_else(no_transaction)?)
    }
}

impl OpenTransaction {
    /// Where the latest savepoint of that name is.
    fn position(&self, name: &str) -> Result<usize> {
        let found = self.savepoints.iter().rposition(|(savepoint, _)| savepoint == name);
        found.ok_or_else(|| state(format!("savepoint {name} does not exist")))
    }
}

fn aborted() -> Error {
    let message = "the transaction is aborted: statements are refused until ROLLBACK";
    Error::new(ErrorKind::TransactionAborted, message)
}

fn no_transaction() -> Error {
    state("there is no transaction in progress")
}

fn state(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::TransactionState, message)
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.open.lock().is_some();
        f.debug_struct("SessionHandle").field("db", &self.db).field("in_transaction", &open).finish_non_exhaustive()
    }
}
